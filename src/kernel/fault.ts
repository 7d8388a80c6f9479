/**
 * How whoever receives a fault should react.
 *
 * - `fix-input`: repeating it unchanged cannot succeed; the message names what to change.
 * - `retry`: nothing happened; repeat it after a pause.
 * - `repeat-with-key`: it may or may not have happened; repeat it with the same Idempotency-Key.
 * - `operator`: a person has to look at the evidence; nothing was overwritten.
 * - `defect`: a mistake in a program, ours or the application's; report it.
 */
export type Reaction = 'fix-input' | 'retry' | 'repeat-with-key' | 'operator' | 'defect';

/** One row of an error table: what a code always means, wherever it appears. */
export interface FaultKind {
  readonly status: number;
  readonly reaction: Reaction;
  readonly title: string;
}

export interface FaultOptions {
  /** The input field, file or option that is at fault, as the user wrote it. */
  readonly field?: string | undefined;
  /** When a repeat makes sense, in milliseconds from now. */
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/**
 * An error that its receiver can act on: a stable code, a message that says what to do, and a
 * reaction. Rows of codes live in one table (protocol/errors.ts); make faults with its `fault`.
 */
export class Fault extends Error {
  override readonly name = 'Fault';
  readonly code: string;
  readonly kind: FaultKind;
  readonly field: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: string, kind: FaultKind, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.kind = kind;
    this.field = options.field;
    this.retryAfterMs = options.retryAfterMs;
  }
}
