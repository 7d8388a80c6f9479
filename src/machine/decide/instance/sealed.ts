import type { BrokenInvariant } from './answers.ts';
import { noneBroken } from './answers.ts';
import type { CommandRun } from './random.ts';
import { encodePayload, type Outcome, type PayloadParts, type RecordContext } from '../log/record.ts';
import type { RefusalRate } from './refusals.ts';

/** How long the record of one command may be (input and events), in UTF-16 code units: a string can hold it, and SQLite. */
export const recordUnitsMax = 64 * 1024 * 1024;

const noContext: RecordContext = Object.freeze({});

/** What was decided, and how it will be recorded: an empty payload if it will not. */
export interface Sealed {
  readonly parts: Omit<PayloadParts, 'context'>;
  readonly context: RecordContext;
  readonly payload: string;
}

/**
 * Writes down what was decided, if it is to be recorded, and ends the run. Throws if that is too long, before anything is
 * kept. `timer` is the timer that ran the command.
 */
export function seal(
  parts: Omit<PayloadParts, 'context'>,
  refusals: RefusalRate,
  run?: CommandRun,
  timer?: string,
): Sealed {
  run?.end();
  const { command, input, key, outcome } = parts;
  const accepted = outcome.kind === 'accepted';
  const isRecorded = key !== undefined || (accepted ? outcome.events.length > 0 : refusals.mayRecord(run?.now ?? 0));
  if (!isRecorded) return { parts, context: noContext, payload: '' };
  const context = contextOf(run, timer, accepted, refusals.skipped);
  const payload = encodePayload({ command, input, key, outcome, context });
  if (payload.length > recordUnitsMax) {
    throw new RangeError(`input and events come to ${payload.length} characters, more than ${recordUnitsMax}`);
  }
  return { parts, context, payload };
}

/** What else the record must say; the one empty context if it is nothing, as for most. */
function contextOf(
  run: CommandRun | undefined,
  timer: string | undefined,
  accepted: boolean,
  skipped: number,
): RecordContext {
  const seed = run?.seed;
  const shadow = accepted ? run?.shadow : undefined;
  if (seed === undefined && timer === undefined && shadow === undefined && skipped === 0) return noContext;
  return {
    ...(seed === undefined ? {} : { seed }),
    ...(timer === undefined ? {} : { timer }),
    ...(shadow === undefined ? {} : { shadow }),
    ...(skipped === 0 ? {} : { skipped }),
  };
}

/** Invariants that a command broke, as its record says it. */
export function brokenOf(outcome: Outcome, { shadow }: RecordContext): readonly BrokenInvariant[] {
  if (outcome.kind === 'refused' && outcome.code === 'invariant-violated' && outcome.reason !== undefined) {
    return [{ name: outcome.reason, shadow: false }];
  }
  return shadow === undefined ? noneBroken : shadow.map((name) => ({ name, shadow: true }));
}
