import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { fault } from '../../protocol/errors.ts';

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
    };

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
  /** Length of its payload, in UTF-16 code units: what it costs to keep. */
  readonly units: number;
}

/** A record as it is written: `head` proves it, `payload` says what it was and is covered by its own digest. */
export interface RecordText {
  readonly head: string;
  readonly payload: string;
}

const headTag = 'h1 ';
const payloadTag = 'p1 ';

const Count = Type.Integer({ minimum: 0 });
const HeadSchema = Type.Tuple([
  Count, // position
  Type.String(), // instance
  Type.String(), // machine
  Type.Integer({ minimum: 1 }), // machine version
  Count, // now
  Count, // seq before
  Type.Array(Type.String(), { minItems: 1 }), // hashes
  Count, // keys forgotten
  Type.String(), // keys hash
]);
const PayloadSchema = Type.Tuple([
  Type.String(), // command
  Type.Unknown(), // input
  Type.Union([Type.String(), Type.Null()]), // idempotency key
  Type.Union([
    Type.Array(Type.Tuple([Type.String(), Type.Unknown()])),
    Type.Object({
      code: Type.Union([Type.Literal('command-refused'), Type.Literal('invariant-violated')]),
      message: Type.String(),
      reason: Type.Optional(Type.String()),
      field: Type.Optional(Type.String()),
    }),
  ]),
]);
const head = Compile(HeadSchema);
const payload = Compile(PayloadSchema);

type PayloadParts = Pick<LogRecord, 'command' | 'input' | 'key' | 'outcome'>;

/** Writes the part of a record that says what it was. */
export function encodePayload({ command, input, key, outcome }: PayloadParts): string {
  const what =
    outcome.kind === 'accepted'
      ? outcome.events.map(({ type, data }) => [type, data])
      : { code: outcome.code, message: outcome.message, reason: outcome.reason, field: outcome.field };
  return payloadTag + JSON.stringify([command, input, key ?? null, what]);
}

/** The texts of a record. `payload` is what `encodePayload` made of it, if that was needed before. */
export function encodeRecord(position: number, record: LogRecord, payload: string = encodePayload(record)): RecordText {
  let hashes = '';
  for (const hash of record.hashes) hashes += hashes === '' ? `"${hash}"` : `,"${hash}"`;
  return {
    head:
      `${headTag}[${position},${JSON.stringify(record.instance)},"${record.machine}",${record.machineVersion},` +
      `${record.now},${record.seqBefore},[${hashes}],${record.keysForgotten},"${record.keysHash}"]`,
    payload,
  };
}

/** Reads a record back. Fault `log-damaged` if a text is not one that `encodeRecord` writes. */
export function decodeRecord(position: number, text: RecordText): LogRecord {
  const h = parse(position, 'head', headTag, text.head, (value): value is Static<typeof HeadSchema> =>
    head.Check(value),
  );
  const p = parse(position, 'payload', payloadTag, text.payload, (value): value is Static<typeof PayloadSchema> =>
    payload.Check(value),
  );
  const [at, instance, machine, machineVersion, now, seqBefore, hashes, keysForgotten, keysHash] = h;
  if (at !== position) throw damaged(position, `its head says that it is record ${at}`);
  const [command, input, key, what] = p;
  return {
    instance,
    machine,
    machineVersion,
    now,
    seqBefore,
    hashes,
    keysForgotten,
    keysHash,
    command,
    input,
    key: key ?? undefined,
    outcome: Array.isArray(what)
      ? { kind: 'accepted', events: what.map(([type, data]) => ({ type, data })) }
      : { kind: 'refused', code: what.code, message: what.message, reason: what.reason, field: what.field },
    units: text.payload.length,
  };
}

function parse<T>(position: number, part: string, tag: string, text: string, fits: (value: unknown) => value is T): T {
  if (!text.startsWith(tag)) throw damaged(position, `its ${part} does not start with "${tag.trim()}"`);
  let value: unknown;
  try {
    value = JSON.parse(text.slice(tag.length));
  } catch (error) {
    throw damaged(position, `its ${part} is not JSON`, error);
  }
  if (!fits(value)) throw damaged(position, `its ${part} does not have the shape of a record`);
  return value;
}

function damaged(position: number, what: string, cause?: unknown): Error {
  return fault('log-damaged', `Record ${position} of the log cannot be proven: ${what}`, {
    field: `record ${position}`,
    cause,
  });
}
