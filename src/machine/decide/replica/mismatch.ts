import { Fault } from '../../../kernel/fault.ts';

/** Where the same record led to something else than the log says. */
export interface Mismatch {
  /**
   * `state`: an event led to another state. `keys`: the record led to other idempotency keys. `start`: the record
   * starts from a state that is not there. `failed`: an event could not be applied at all.
   */
  readonly kind: 'state' | 'keys' | 'start' | 'failed';
  /** Number of the event that drifted, or of the last one before. */
  readonly seq: number;
  /** Its type; undefined if it was no event. */
  readonly event: string | undefined;
  /** Hash that the log says, which is what was acknowledged; of the keys if the kind is `keys`. */
  readonly expected: string;
  /** Hash that came out; if the kind is `failed`, what was thrown. */
  readonly actual: string;
}

/** Stands as the cause of the fault with which `Instance.replay` refuses a record. */
export class Mismatched extends Error {
  override readonly name = 'Mismatched';
  readonly mismatch: Mismatch;

  constructor(mismatch: Mismatch, cause: unknown) {
    super(`expected ${mismatch.expected}, got ${mismatch.actual}`, { cause });
    this.mismatch = mismatch;
  }
}

/** What did not match, if that is why a record could not be replayed. */
export function mismatchOf(thrown: unknown): Mismatch | undefined {
  return thrown instanceof Fault && thrown.cause instanceof Mismatched ? thrown.cause.mismatch : undefined;
}
