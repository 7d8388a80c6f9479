import { compareStates, type Shown } from '../state/compare.ts';
import type { DriftEvidence, DriftRecord, DriftStates, Standing } from './drift.ts';
import { isErasure } from '../log/erasure.ts';
import type { FeedRecord } from './feed.ts';
import { Instance } from '../instance/instance.ts';
import type { Machine } from '../definition/machine.ts';
import { mismatchOf, type Mismatch } from './mismatch.ts';
import { decodeRecord, type PlacedRecord } from '../log/record.ts';
import { encodeState, StateReader } from '../state/state.ts';
import { canonical, messageOf } from '../state/value.ts';

/**
 * What a verifying replica does with what it is fed: replays each record in instances of its own and compares every
 * hash with the recorded one. Handlers that keep something outside their tables would often make the same mistake
 * twice in step; so instances of one batch take turns in another order than in the log, and some records are
 * rehearsed (applied and taken back) before they are applied.
 */

/** How much of an input or an event evidence shows, in UTF-16 code units of its JSON. */
export const shownUnitsMax = 64 * 1024;

/**
 * Records of one batch up to which all are rehearsed: the replica keeps up easily. Of larger batches one of so many is,
 * and the first of each instance that it takes up.
 */
const thoroughRecordsMax = 64;
const rehearsedOneOf = 4;

/** What the follower has to say of an instance. */
export type FollowerNews =
  | { readonly type: 'astray'; readonly instance: string }
  | { readonly type: 'drift'; readonly instance: string; readonly evidence: DriftEvidence };

interface Held {
  readonly instance: Instance;
  /** Its last record here. */
  position: number;
  /** Set once it drifted. `goesOn`: later events can still be applied. */
  drift: { readonly seq: number; goesOn: boolean } | undefined;
  fresh: boolean;
}

export class Follower {
  readonly #machineFor: (instance: string) => Machine | undefined;
  readonly #held = new Map<string, Held>();
  #reading: { readonly instance: string; readonly reader: StateReader; problem: string | undefined } | undefined;
  #verified = 0;
  #thorough = true;

  constructor(machineFor: (instance: string) => Machine | undefined) {
    this.#machineFor = machineFor;
  }

  /** Records that were replayed and agreed since the last call. */
  takeVerified(): number {
    const verified = this.#verified;
    this.#verified = 0;
    return verified;
  }

  /** Applies records in the order of each instance, and says what was found. */
  apply(records: readonly FeedRecord[]): readonly FollowerNews[] {
    const byInstance = new Map<string, FeedRecord[]>();
    for (const record of records) {
      const list = byInstance.get(record.instance);
      if (list === undefined) byInstance.set(record.instance, [record]);
      else list.push(record);
    }
    this.#thorough = records.length <= thoroughRecordsMax;
    const news: FollowerNews[] = [];
    for (const [instance, own] of [...byInstance].reverse()) {
      for (const record of own) {
        const found = this.#applyOne(instance, record);
        if (found !== undefined) news.push(found);
      }
    }
    return news;
  }

  forget(instance: string): void {
    this.#held.delete(instance);
  }

  /** Takes the next text of a captured state. */
  read(instance: string, text: string): void {
    const machine = this.#machineFor(instance);
    if (machine === undefined) return;
    if (this.#reading?.instance !== instance) {
      this.#reading = { instance, reader: new StateReader(instance, machine), problem: undefined };
    }
    try {
      if (this.#reading.problem === undefined) this.#reading.reader.take(text);
    } catch (thrown) {
      this.#reading.problem = messageOf(thrown);
    }
  }

  /** Begins with the state that was read: it must have the hashes that the serving side kept for it. */
  start(instance: string, position: number): FollowerNews | undefined {
    const reading = this.#takeReading(instance);
    if (reading === undefined) return { type: 'astray', instance };
    try {
      if (reading.problem !== undefined) throw new TypeError(reading.problem);
      const made = reading.reader.finish();
      this.#held.set(instance, { instance: made, position, drift: undefined, fresh: true });
      return undefined;
    } catch (thrown) {
      const { head, read } = reading.reader;
      if (head === undefined) return { type: 'astray', instance };
      const { seq, stateHash, keysHash } = head;
      const held = { instance: read, position, drift: { seq, goesOn: false }, fresh: false };
      this.#held.set(instance, held);
      const sameRows = read.stateHash === stateHash;
      const mismatch: Mismatch = sameRows
        ? { kind: 'keys', seq, event: undefined, expected: keysHash, actual: read.keysHash }
        : { kind: 'start', seq, event: undefined, expected: stateHash, actual: read.stateHash };
      const recorded = { seq, stateHash, keysHash };
      const reason = `the rows that are served after event ${seq} do not have the hash that was kept for them: ${messageOf(thrown)}`;
      const found = standingOf(read);
      return {
        type: 'drift',
        instance,
        evidence: { foundBy: 'replica', position, recorded, found, reason, mismatch },
      };
    }
  }

  /** Compares what was read with what it has of a drifted instance, which it then forgets. */
  compare(instance: string): DriftStates | undefined {
    const reading = this.#takeReading(instance);
    const held = this.#held.get(instance);
    this.#held.delete(instance);
    const head = reading?.reader.head;
    if (held === undefined || reading === undefined || head === undefined) return undefined;
    const served = readAnyway(reading.reader);
    const mine = held.instance;
    return {
      served: { seq: head.seq, kept: head.stateHash, recomputed: served.stateHash },
      replica: { seq: mine.seq, kept: mine.stateHash, recomputed: recomputedHash(mine) },
      atDrift: held.drift?.seq === head.seq && head.seq === mine.seq,
      difference: compareStates(served.rows, mine.rows),
    };
  }

  #takeReading(instance: string) {
    const reading = this.#reading;
    this.#reading = undefined;
    return reading?.instance === instance ? reading : undefined;
  }

  #applyOne(name: string, { position, previous, head, payload }: FeedRecord): FollowerNews | undefined {
    const held = this.#held.get(name) ?? this.#begin(name, previous);
    if (held === undefined || held.position !== previous) {
      this.#held.delete(name);
      return { type: 'astray', instance: name };
    }
    if (isErasure(payload)) {
      this.#held.delete(name);
      return undefined;
    }
    const record = decodeRecord(position, { head, payload });
    held.position = position;
    if (held.drift !== undefined) {
      goOn(held, held.drift, record, 0);
      return undefined;
    }
    try {
      const rehearsed = this.#thorough || held.fresh || isRehearsed(position);
      if (rehearsed && !held.instance.needsUpgrade) held.instance.rehearse(record);
      held.fresh = false;
      held.instance.replay(record);
      this.#verified += 1;
      return undefined;
    } catch (thrown) {
      return this.#found(name, held, record, thrown);
    }
  }

  #begin(name: string, previous: number): Held | undefined {
    const machine = previous === 0 ? this.#machineFor(name) : undefined;
    if (machine === undefined) return undefined;
    const held: Held = { instance: new Instance(name, machine), position: 0, drift: undefined, fresh: true };
    this.#held.set(name, held);
    return held;
  }

  #found(name: string, held: Held, record: PlacedRecord, thrown: unknown): FollowerNews {
    const mismatch = mismatchOf(thrown);
    const seq = mismatch?.seq ?? record.seqBefore;
    const goesOn = mismatch?.kind === 'state' || mismatch?.kind === 'keys' || mismatch?.kind === 'start';
    const drift = { seq, goesOn };
    const found = standingOf(held.instance);
    held.drift = drift;
    if (mismatch?.kind === 'state') goOn(held, drift, record, seq - record.seqBefore);
    if (mismatch?.kind === 'start') goOn(held, drift, record, 0);
    const recorded: Standing = {
      seq: record.seqBefore + record.hashes.length - 1,
      stateHash: record.hashes.at(-1) ?? '',
      keysHash: record.keysHash,
    };
    return {
      type: 'drift',
      instance: name,
      evidence: {
        foundBy: 'replica',
        position: record.position,
        recorded,
        found,
        reason: reasonOf(mismatch, messageOf(thrown)),
        record: shownRecord(record, seq),
        ...(mismatch === undefined ? {} : { mismatch }),
      },
    };
  }
}

/** Events after drift show only where it leads; one that cannot be applied ends that. */
function goOn(held: Held, drift: { goesOn: boolean }, record: PlacedRecord, from: number): void {
  if (!drift.goesOn) return;
  try {
    held.instance.goOn(record, from);
  } catch {
    drift.goesOn = false;
  }
}

function isRehearsed(position: number): boolean {
  return (Math.imul(position, 0x9e37_79b1) >>> 16) % rehearsedOneOf === 0;
}

/** The hash of the rows as they are, made anew. O(rows). */
function recomputedHash(instance: Instance): string {
  const reader = new StateReader(instance.name, instance.machine);
  for (const text of encodeState(instance.capture())) reader.take(text);
  return readAnyway(reader).stateHash;
}

/** What was read, also if its hashes are not what it says. */
function readAnyway(reader: StateReader): Instance {
  try {
    return reader.finish();
  } catch {
    return reader.read;
  }
}

function standingOf({ seq, stateHash, keysHash }: Instance): Standing {
  return { seq, stateHash, keysHash };
}

/** What did not match, in a sentence that can follow a colon. */
function reasonOf(mismatch: Mismatch | undefined, message: string): string {
  if (mismatch === undefined) return message;
  const { kind, seq, event, expected, actual } = mismatch;
  switch (kind) {
    case 'state':
      return `event ${seq} (${event}) leads to state ${actual}, and the log says ${expected}`;
    case 'keys':
      return `after event ${seq} the idempotency keys are ${actual}, and the log says ${expected}`;
    case 'start':
      return `the state after event ${seq} is ${actual}, and the log says ${expected}`;
    case 'failed':
      return `event ${seq} (${event}) cannot be applied: ${actual}`;
  }
}

function shownRecord(record: PlacedRecord, seq: number): DriftRecord {
  const { position, seqBefore, machine, machineVersion, now, command, input, outcome } = record;
  const event = outcome.kind === 'accepted' ? outcome.events[seq - seqBefore - 1] : undefined;
  return {
    position,
    seqBefore,
    machine,
    machineVersion,
    now,
    command,
    input: show(input),
    event: event === undefined ? undefined : { type: event.type, data: show(event.data) },
  };
}

function show(value: unknown): Shown {
  const text = canonical(value);
  return text.length <= shownUnitsMax ? { value } : { cut: text.slice(0, shownUnitsMax), units: text.length };
}
