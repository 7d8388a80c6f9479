import { assert } from '../../../kernel/assert.ts';
import type { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import type { LogRecord, Outcome } from '../log/record.ts';

export interface RecordedEvent {
  readonly seq: number;
  readonly type: string;
  readonly data: unknown;
}

/** What a command came to. */
export type CommandAnswer =
  | {
      readonly kind: 'accepted';
      readonly seq: number;
      readonly events: readonly RecordedEvent[];
      /** State hash after the last of the events. */
      readonly stateHash: string;
      /** Whether this is the first answer again, because the idempotency key was seen before. */
      readonly repeated: boolean;
    }
  /**
   * Anything else, as a row of the error table: command-refused (409), invariant-violated and idempotency-key-reused
   * (422), input-invalid (400), … `reason` is the application's own code of a refusal.
   */
  | { readonly kind: 'rejected'; readonly fault: Fault; readonly reason?: string; readonly repeated: boolean };

export interface CommandRequest {
  readonly command: string;
  readonly input: unknown;
  readonly idempotencyKey?: string;
}

/** An answer, and what must be durable before it is true for ever; no record if nothing is to be kept. */
export interface Decision {
  readonly answer: CommandAnswer;
  readonly record: LogRecord | undefined;
  /** The invariant that refused the command, or those in shadow mode that would have. Empty for a repeated answer. */
  readonly broken: readonly BrokenInvariant[];
}

export interface BrokenInvariant {
  readonly name: string;
  readonly shadow: boolean;
}

export const noneBroken: readonly BrokenInvariant[] = Object.freeze([]);

export function answerOf(outcome: Outcome, seqBefore: number, stateHash: string, repeated: boolean): CommandAnswer {
  if (outcome.kind === 'refused') {
    const { code, message, reason, field } = outcome;
    return {
      kind: 'rejected',
      fault: fault(code, message, { field }),
      ...(reason === undefined ? {} : { reason }),
      repeated,
    };
  }
  assert(outcome.kind === 'accepted', 'an upgrade answers no command');
  const events = outcome.events.map(({ type, data }, i) => ({ seq: seqBefore + i + 1, type, data }));
  return { kind: 'accepted', seq: seqBefore + events.length, events, stateHash, repeated };
}

export function rejected(error: Fault): Decision {
  return { answer: { kind: 'rejected', fault: error, repeated: false }, record: undefined, broken: noneBroken };
}
