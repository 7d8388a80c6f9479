import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { unreachable } from '../../../kernel/assert.ts';
import { decodeHead, headTag, misshapen, parseTagged, type RecordHead } from './head.ts';

/**
 * One record of a log, and its texts. `docs/log-format.md` specifies them; a change here is a new
 * version tag, never a new meaning of an old one.
 */

export interface EventEntry {
  readonly type: string;
  readonly data: unknown;
}

/** What a command came to, as far as it is remembered. */
export type Outcome =
  | { readonly kind: 'accepted'; readonly events: readonly EventEntry[] }
  | {
      readonly kind: 'refused';
      readonly code: 'command-refused' | 'invariant-violated';
      readonly message: string;
      readonly reason: string | undefined;
      readonly field: string | undefined;
    }
  /** Not a command: the machine evolves differently from this version on. Its two hashes are the state's under both. */
  | { readonly kind: 'upgraded'; readonly fromVersion: number };

/** What else must be known to decide a command again. Empty for most. */
export interface RecordContext {
  /** Where `ctx.random` and `ctx.id` began, if the command used them. */
  readonly seed?: string;
  /** The timer that fired, if no client sent the command. */
  readonly timer?: string;
  /** Invariants in shadow mode that this command broke. */
  readonly shadow?: readonly string[];
  /** Refusals of the instance since its record before that were not recorded, because they came too fast. */
  readonly skipped?: number;
}

export interface LogRecord {
  readonly instance: string;
  readonly machine: string;
  readonly machineVersion: number;
  /** Milliseconds since 1970; never less than in the record before, in the whole log. */
  readonly now: number;
  /** Events of the instance before this record. */
  readonly seqBefore: number;
  /** State hash before the first event, then after each event. */
  readonly hashes: readonly string[];
  /** How many of the oldest idempotency keys are forgotten, after `key` (if any) is remembered. */
  readonly keysForgotten: number;
  /** Hash over the remembered keys after this record. */
  readonly keysHash: string;
  readonly command: string;
  readonly input: unknown;
  readonly key: string | undefined;
  readonly outcome: Outcome;
  readonly context: RecordContext;
  /** Command, input, key, outcome and context as they are written: `encodePayload` of them. */
  readonly payload: string;
}

/** A record where it stands in a log. */
export interface PlacedRecord extends LogRecord {
  readonly position: number;
  /** Position of the record of the same instance before it; 0 for its first. */
  readonly previous: number;
}

/** A record as it is written: `head` proves it, `payload` says what it was and is covered by its own digest. */
export interface RecordText {
  readonly head: string;
  readonly payload: string;
}

export { decodeHead, type RecordHead };

const payloadTag = 'p2 ';

const Count = Type.Integer({ minimum: 0 });
const OutcomeSchema = Type.Union([
  Type.Array(Type.Tuple([Type.String(), Type.Unknown()])),
  Type.Object({
    code: Type.Union([Type.Literal('command-refused'), Type.Literal('invariant-violated')]),
    message: Type.String(),
    reason: Type.Optional(Type.String()),
    field: Type.Optional(Type.String()),
  }),
  Type.Object({ upgradedFrom: Type.Integer({ minimum: 1 }) }),
]);
const ContextSchema = Type.Object(
  {
    seed: Type.Optional(Type.String()),
    timer: Type.Optional(Type.String()),
    shadow: Type.Optional(Type.Array(Type.String())),
    skipped: Type.Optional(Count),
  },
  { additionalProperties: false },
);
const KeySchema = Type.Union([Type.String(), Type.Null()]);
const PayloadSchema = Type.Union([
  Type.Tuple([Type.String(), Type.Unknown(), KeySchema, OutcomeSchema]),
  Type.Tuple([Type.String(), Type.Unknown(), KeySchema, OutcomeSchema, ContextSchema]),
]);
const payload = Compile(PayloadSchema);

/** What a payload says. */
export type PayloadParts = Pick<LogRecord, 'command' | 'input' | 'key' | 'outcome' | 'context'>;

const noContext: RecordContext = Object.freeze({});

/** Writes the part of a record that says what it was. */
export function encodePayload({ command, input, key, outcome, context }: PayloadParts): string {
  const what = outcomeText(outcome);
  const said = context === noContext || Object.keys(context).length === 0;
  return (
    payloadTag +
    JSON.stringify(said ? [command, input, key ?? null, what] : [command, input, key ?? null, what, context])
  );
}

function outcomeText(outcome: Outcome): unknown {
  switch (outcome.kind) {
    case 'accepted':
      return outcome.events.map(({ type, data }) => [type, data]);
    case 'refused':
      return { code: outcome.code, message: outcome.message, reason: outcome.reason, field: outcome.field };
    case 'upgraded':
      return { upgradedFrom: outcome.fromVersion };
    default:
      return unreachable(outcome, 'an outcome is of one of three kinds');
  }
}

/** Reads a payload back. Fault `log-damaged` if it is not one that `encodePayload` writes. */
export function decodePayload(position: number, text: string): PayloadParts {
  const parts = parseTagged(position, 'payload', payloadTag, text);
  if (!payload.Check(parts)) throw misshapen(position, 'payload');
  const [command, input, key, what, context] = parts;
  return { command, input, key: key ?? undefined, outcome: outcomeOf(what), context: context ?? noContext };
}

function outcomeOf(what: Static<typeof OutcomeSchema>): Outcome {
  if (Array.isArray(what)) return { kind: 'accepted', events: what.map(([type, data]) => ({ type, data })) };
  if ('upgradedFrom' in what) return { kind: 'upgraded', fromVersion: what.upgradedFrom };
  return { kind: 'refused', code: what.code, message: what.message, reason: what.reason, field: what.field };
}

/** The texts of a record at a position. `previous` is the position of the instance's record before, 0 if none. */
export function encodeRecord(position: number, previous: number, record: LogRecord): RecordText {
  let hashes = '';
  for (const hash of record.hashes) hashes += hashes === '' ? `"${hash}"` : `,"${hash}"`;
  return {
    head:
      `${headTag}[${position},${previous},${JSON.stringify(record.instance)},"${record.machine}",` +
      `${record.machineVersion},${record.now},${record.seqBefore},[${hashes}],${record.keysForgotten},"${record.keysHash}"]`,
    payload: record.payload,
  };
}

/** Reads a record back. Fault `log-damaged` if a text is not one that `encodeRecord` writes. */
export function decodeRecord(position: number, text: RecordText): PlacedRecord {
  const record = decodeHead(position, text.head);
  const { command, input, key, outcome, context } = decodePayload(position, text.payload);
  const { payload: written } = text;
  return { ...record, command, input, key, outcome, context, payload: written };
}
