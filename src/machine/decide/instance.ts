import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { assert } from '../../kernel/assert.ts';
import { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import type { StateRows } from './compare.ts';
import type { CommandContext, Refusal } from './define.ts';
import { Mismatched, type Mismatch } from './mismatch.ts';
import { IdempotencyKeys, type KeyLimits, type RememberedAnswer } from './keys.ts';
import type { CompiledCommand, Machine } from './machine.ts';
import { decodePayload, encodePayload, type EventEntry, type LogRecord, type Outcome } from './record.ts';
import { TableSet, type RowEffect } from './tables.ts';
import { canonical, isPlainObject, isThenable, messageOf } from './value.ts';

/** How many events one command may return. */
export const eventsPerCommandMax = 10_000;

/** How long the record of one command may be (input and events), in UTF-16 code units: a string can hold it, and SQLite. */
export const recordUnitsMax = 64 * 1024 * 1024;

/** How long the texts of a refusal may be, in UTF-16 code units. */
export const refusalBounds = { codeLengthMax: 128, messageLengthMax: 65_536, fieldLengthMax: 1_024 } as const;

const noContext = Object.freeze({});

/** What the record of an upgrade names as its command. */
const upgradeCommand = '$upgrade';

const RefusedSchema = Type.Object({ code: Type.String(), message: Type.String(), field: Type.Optional(Type.String()) });
const refusedShape = Compile(RefusedSchema);

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
}

/**
 * One instance of a machine: the state of one tenant. Synchronous and without clock or disk; whoever
 * holds it writes the records that `execute` returns, and replays them with `replay`.
 */
export class Instance {
  readonly name: string;
  readonly machine: Machine;
  readonly #tables: TableSet;
  readonly #keys: IdempotencyKeys;
  #seq = 0;
  #stateHash: string;
  /** The state hash that the last record left, where it is not this state's: its version evolved differently. */
  #recorded: { readonly hash: string; readonly version: number } | undefined;
  /** Set while a command runs. It stays set if one ended in a way that leaves the state unknown. */
  #running = false;

  constructor(name: string, machine: Machine, keyBounds?: KeyLimits) {
    this.name = name;
    this.machine = machine;
    this.#tables = new TableSet(machine.tables);
    this.#keys = new IdempotencyKeys(keyBounds);
    this.#stateHash = this.#tables.hash;
  }

  /** Events so far. */
  get seq(): number {
    return this.#seq;
  }

  /** Hash over all rows of all tables. A refusal never changes it. */
  get stateHash(): string {
    return this.#stateHash;
  }

  /** Hash over the remembered idempotency keys and their answers. */
  get keysHash(): string {
    return this.#keys.hash;
  }

  /**
   * Validates, decides, evolves and checks the invariants. On any refusal, violation or throw the state
   * is exactly what it was. `nowMs` must not be less than in any record before.
   *
   * Throws only for defects, after which the state is not known and the instance refuses everything:
   * whoever holds it must replay its records into a new one.
   */
  execute(request: CommandRequest, nowMs: number): Decision {
    assert(Number.isSafeInteger(nowMs) && nowMs >= 0, 'a log holds times in whole milliseconds since 1970');
    this.#assertSettled();
    this.#running = true;
    const decision = this.#execute(request, nowMs);
    // Not in a `finally`: after a throw nobody knows what the state is.
    this.#running = false;
    return decision;
  }

  #assertSettled(): void {
    assert(!this.#running, 'a handler cannot use its own instance, nor anybody one whose last command was interrupted');
    assert(this.#recorded === undefined, 'a changed evolve is recorded before anybody sees the state that it leads to');
  }

  #execute(request: CommandRequest, nowMs: number): Decision {
    const { command: name, idempotencyKey: key } = request;
    const command = this.machine.commands.get(name);
    if (command === undefined) {
      return rejected(fault('command-unknown', `${this.machine.name} has no command ${name}`, { field: name }));
    }
    let input: unknown;
    try {
      input = command.parse(request.input);
    } catch (thrown) {
      return rejected(asHandlerFault(thrown, `The input of ${name} could not be checked`));
    }
    if (key !== undefined) {
      const earlier = this.#answerEarlier(key, name, input, nowMs);
      if (earlier !== undefined) return { answer: earlier, record: undefined };
    }
    const seqBefore = this.#seq;
    const hashes = [this.#stateHash];
    let outcome: Outcome;
    let payload = '';
    try {
      outcome = this.#decide(name, command, input, nowMs, hashes);
      if (key !== undefined || (outcome.kind === 'accepted' && outcome.events.length > 0)) {
        payload = encodePayload({ command: name, input, key, outcome, context: noContext });
        if (payload.length > recordUnitsMax) {
          throw new RangeError(`input and events come to ${payload.length} characters, more than ${recordUnitsMax}`);
        }
      }
    } catch (thrown) {
      this.#undo();
      return rejected(handlerFault(thrown, `Command ${name} failed and changed nothing`));
    }
    if (outcome.kind === 'accepted') {
      this.#tables.keep();
      this.#seq += outcome.events.length;
      this.#stateHash = hashes[hashes.length - 1] ?? this.#stateHash;
    } else {
      this.#undo();
      hashes.length = 1;
    }
    const { stateHash } = this;
    const answer = answerOf(outcome, seqBefore, stateHash, false);
    if (payload === '') return { answer, record: undefined };

    if (key !== undefined) this.#keys.remember(key, { atMs: nowMs, seqBefore, stateHash, payload });
    const keysForgotten = this.#keys.expire(nowMs);
    return {
      answer,
      record: {
        instance: this.name,
        machine: this.machine.name,
        machineVersion: this.machine.version,
        now: nowMs,
        seqBefore,
        hashes,
        keysForgotten,
        keysHash: this.#keys.hash,
        command: name,
        input,
        key,
        outcome,
        context: noContext,
        payload,
      },
    };
  }

  #undo(): void {
    this.#tables.undo();
    assert(this.#tables.hash === this.#stateHash, 'a command that changes nothing leaves the hash exactly as it was');
  }

  /** Answers a query from the state as it is now. Throws a fault; never changes anything. */
  query(name: string, input: unknown): unknown {
    const query = this.machine.queries.get(name);
    if (query === undefined) throw fault('query-unknown', `${this.machine.name} has no query ${name}`, { field: name });
    this.#assertSettled();
    let parsed: unknown;
    try {
      parsed = query.parse(input);
    } catch (thrown) {
      throw asHandlerFault(thrown, `The input of ${name} could not be checked`);
    }
    try {
      return settled(query.answer(this.#tables.views, parsed), `Query ${name}`);
    } catch (thrown) {
      throw handlerFault(thrown, `Query ${name} failed`);
    }
  }

  /**
   * Brings the state forward by one record without deciding again, and checks every hash on the way, unless the record
   * is of a version that evolved differently, as the machine declares. `effects` is told what each
   * event did to which rows.
   * Fault `log-damaged`: the record does not follow from this state, or the machine evolves differently now.
   * Fault `machine-unloadable`: it is of another machine, or of a newer version.
   */
  replay(record: LogRecord, effects?: (seq: number, done: readonly RowEffect[]) => void): void {
    const what = `A record of instance ${this.name} (${record.command}, after event ${record.seqBefore})`;
    if (record.machine !== this.machine.name) {
      throw fault('machine-unloadable', `${what} was written by machine ${record.machine}, not ${this.machine.name}`);
    }
    const { versions, version } = this.machine;
    if (record.machineVersion > version) {
      const newer = `${what} was written by version ${record.machineVersion} of ${record.machine}, and this is version ${version}`;
      throw fault('machine-unloadable', `${newer}; run version ${record.machineVersion} or a newer one`);
    }
    if (record.seqBefore !== this.#seq) throw this.#drift(`${what} does not follow event ${this.#seq}`);
    const { outcome, hashes } = record;
    const events = outcome.kind === 'accepted' ? outcome.events : [];
    const isUpgrade = outcome.kind === 'upgraded';
    if (hashes.length !== events.length + (isUpgrade ? 2 : 1)) {
      throw this.#drift(`${what} has ${hashes.length} state hashes for ${events.length} events`);
    }
    const compared = versions.agreesWith(record.machineVersion);
    const before = compared && !isUpgrade ? this.#stateHash : (this.#recorded?.hash ?? this.#stateHash);
    if (hashes[0] !== before) {
      const drift = {
        kind: 'start',
        seq: this.#seq,
        event: undefined,
        expected: hashes[0] ?? '',
        actual: before,
      } as const;
      throw this.#drift(`${what} starts from state ${hashes[0]}, not ${before}`, undefined, drift);
    }
    const after = hashes[hashes.length - 1] ?? before;
    try {
      events.forEach((event, i) => {
        const changesBefore = effects === undefined ? 0 : this.#tables.changes.length;
        const hash = this.#evolveRecorded(record.machineVersion, event);
        if (compared && hash !== hashes[i + 1]) {
          const drift = { kind: 'state', seq: this.#seq + 1, event: event.type, actual: hash } as const;
          throw this.#drift(`${what}: event ${event.type} leads to state ${hash}, not ${hashes[i + 1]}`, undefined, {
            ...drift,
            expected: hashes[i + 1] ?? '',
          });
        }
        this.#seq += 1;
        this.#stateHash = hash;
        effects?.(this.#seq, this.#tables.changes.slice(changesBefore));
      });
      if (isUpgrade) {
        if (compared && after !== this.#stateHash) {
          throw this.#drift(`${what}: the upgrade leads to state ${this.#stateHash}, not ${after}`);
        }
        this.#seq += 1;
      }
    } catch (thrown) {
      throw thrown instanceof Fault && thrown.code === 'log-damaged'
        ? thrown
        : this.#drift(`${what} cannot be applied: ${messageOf(thrown)}`, thrown, {
            kind: 'failed',
            seq: this.#seq + 1,
            event: events[this.#seq - record.seqBefore]?.type,
            expected: hashes[this.#seq - record.seqBefore + 1] ?? '',
            actual: messageOf(thrown),
          });
    }
    this.#tables.keep();
    this.#recorded = after === this.#stateHash ? undefined : { hash: after, version: record.machineVersion };
    if (record.key !== undefined) {
      this.#keys.remember(record.key, {
        atMs: record.now,
        seqBefore: record.seqBefore,
        stateHash: after,
        payload: record.payload,
      });
    }
    this.#keys.forget(record.keysForgotten);
    if (this.#keys.hash !== record.keysHash) {
      const drift = {
        kind: 'keys',
        seq: this.#seq,
        event: undefined,
        expected: record.keysHash,
        actual: this.#keys.hash,
      } as const;
      throw this.#drift(`${what} leads to other idempotency keys`, undefined, drift);
    }
  }

  /** Whether records of older versions lead to another state than they did then: `upgrade` comes before anything else. */
  get needsUpgrade(): boolean {
    return this.#recorded !== undefined;
  }

  /**
   * The record that says that from here on the state is what the present version makes of the history: it takes a
   * sequence of its own, because one sequence has one state hash. `nowMs` as for `execute`.
   */
  upgrade(nowMs: number): LogRecord {
    const recorded = this.#recorded;
    assert(recorded !== undefined, 'only a state that differs from what its last record says is upgraded');
    const parts = {
      command: upgradeCommand,
      input: {},
      key: undefined,
      outcome: { kind: 'upgraded', fromVersion: recorded.version },
      context: noContext,
    } as const;
    const seqBefore = this.#seq;
    this.#recorded = undefined;
    this.#seq += 1;
    return {
      instance: this.name,
      machine: this.machine.name,
      machineVersion: this.machine.version,
      now: nowMs,
      seqBefore,
      hashes: [recorded.hash, this.#stateHash],
      keysForgotten: this.#keys.expire(nowMs),
      keysHash: this.#keys.hash,
      ...parts,
      payload: encodePayload(parts),
    };
  }

  /**
   * Applies the events of a record and takes them back: the state is as before, and what handlers keep anywhere else
   * is not. A replica does it now and then, because its handlers would otherwise repeat the same mistake in step.
   */
  rehearse(record: LogRecord): void {
    this.#assertSettled();
    const { outcome, machineVersion } = record;
    try {
      if (outcome.kind === 'accepted') for (const event of outcome.events) this.#evolveRecorded(machineVersion, event);
    } catch {
      // `replay` meets it again and says what it is.
    }
    this.#undo();
  }

  /**
   * Goes on after `replay` refused `record` at its event `from`, and with the records after it: applies events and
   * compares nothing, only to show where they lead. Throws what the events throw.
   */
  goOn(record: LogRecord, from: number): void {
    const events = record.outcome.kind === 'accepted' ? record.outcome.events : [];
    for (const event of events.slice(from)) this.#evolveRecorded(record.machineVersion, event);
    this.#tables.keep();
    this.#seq = record.seqBefore + record.hashes.length - 1;
    this.#stateHash = this.#tables.hash;
  }

  /** The rows of every table as they are: live maps, so whoever keeps them copies them. */
  get rows(): StateRows {
    return this.#tables.rows;
  }

  /** Every remembered idempotency key with its answer, the oldest first. */
  keyEntries(): IterableIterator<[string, RememberedAnswer]> {
    return this.#keys.entries();
  }

  #answerEarlier(key: string, command: string, input: unknown, nowMs: number): CommandAnswer | undefined {
    if (key.length === 0 || key.length > limits.idempotencyKeyLengthMax) {
      const message = `An idempotency key has 1 to ${limits.idempotencyKeyLengthMax} characters, not ${key.length}`;
      return {
        kind: 'rejected',
        fault: fault('input-invalid', message, { field: 'Idempotency-Key' }),
        repeated: false,
      };
    }
    const earlier = this.#keys.find(key, nowMs);
    if (earlier === undefined) return undefined;
    const first = decodePayload(0, earlier.payload);
    if (first.command === command && canonical([first.input]) === canonical([input])) {
      return answerOf(first.outcome, earlier.seqBefore, earlier.stateHash, true);
    }
    const message = 'This idempotency key was used with another command or input; choose a new key';
    const reused = fault('idempotency-key-reused', message, { field: 'Idempotency-Key' });
    return { kind: 'rejected', fault: reused, repeated: false };
  }

  #decide(name: string, command: CompiledCommand, input: unknown, nowMs: number, hashes: string[]): Outcome {
    const ctx: CommandContext = { now: nowMs, instance: this.name, refuse };
    const decided = settled(command.decide(this.#tables.views, input, ctx), `Command ${name}`);
    if (isPlainObject(decided) && 'refused' in decided) {
      const { code, message, field } = refusedOf(decided['refused']);
      return { kind: 'refused', code: 'command-refused', message, reason: code, field };
    }
    const returned = eventsOf(decided);
    const events: EventEntry[] = [];
    for (const { type, data: given } of returned) {
      const data = this.#parseEvent(type, given);
      const changesBefore = this.#tables.changes.length;
      hashes.push(this.#evolveParsed(type, data));
      const broken = this.#brokenInvariant(changesBefore);
      if (broken !== undefined) {
        const message = `Event ${type} of ${name} would break the invariant ${broken}; nothing was changed`;
        return { kind: 'refused', code: 'invariant-violated', message, reason: broken, field: undefined };
      }
      events.push({ type, data });
    }
    return { kind: 'accepted', events };
  }

  #evolve(type: string, data: unknown): string {
    return this.#evolveParsed(type, this.#parseEvent(type, data));
  }

  /** Applies an event that `version` recorded, and returns the state hash after it. */
  #evolveRecorded(version: number, event: EventEntry): string {
    const { versions } = this.machine;
    if (version === this.machine.version || !versions.upcasts) return this.#evolve(event.type, event.data);
    for (const { type, data } of versions.present(version, event)) this.#evolve(type, data);
    return this.#tables.hash;
  }

  #parseEvent(type: string, data: unknown): unknown {
    const event = this.machine.events.get(type);
    if (event === undefined) throw new TypeError(`${this.machine.name} has no event ${type}`);
    try {
      return event.parse(data);
    } catch (thrown) {
      throw new TypeError(`the data of event ${type} does not fit: ${messageOf(thrown)}`, { cause: thrown });
    }
  }

  /** Applies one event and returns the state hash after it. */
  #evolveParsed(type: string, data: unknown): string {
    const event = this.machine.events.get(type);
    if (event === undefined) throw new TypeError(`${this.machine.name} has no event ${type}`);
    settled(
      this.#tables.evolve(() => event.evolve(this.#tables.writers, data)),
      `Event ${type}`,
    );
    return this.#tables.hash;
  }

  #brokenInvariant(changesBefore: number): string | undefined {
    if (this.machine.invariants.length === 0) return undefined;
    const changed = this.#tables.changes.slice(changesBefore).map(({ table, key }) => ({ table, key }));
    for (const { name, holds } of this.machine.invariants) {
      if (settled(holds(this.#tables.views, changed), `Invariant ${name}`) !== true) return name;
    }
    return undefined;
  }

  #drift(what: string, cause?: unknown, mismatch?: Mismatch): Fault {
    return fault(
      'log-damaged',
      `${what}. Either the log was changed, or the machine evolves differently from the version that wrote it; ` +
        'restore the log from a backup, or run the version that wrote it',
      { field: this.name, cause: mismatch === undefined ? cause : new Mismatched(mismatch, cause) },
    );
  }
}

function refuse(code: string, message: string, field?: string): Refusal {
  return { refused: field === undefined ? { code, message } : { code, message, field } };
}

/** A refusal as it can be recorded. Each part is read once: a getter may answer differently the second time. */
function refusedOf(value: unknown): Static<typeof RefusedSchema> {
  const { code, message, field } = isPlainObject(value) ? value : {};
  const refused: unknown = field === undefined ? { code, message } : { code, message, field };
  if (!refusedShape.Check(refused)) {
    throw new TypeError('a refusal has a code and a message, and may have a field; each is a string');
  }
  const { codeLengthMax, messageLengthMax, fieldLengthMax } = refusalBounds;
  if (
    refused.code.length > codeLengthMax ||
    refused.message.length > messageLengthMax ||
    (refused.field ?? '').length > fieldLengthMax
  ) {
    throw new RangeError(
      `the code of a refusal has at most ${codeLengthMax} characters, its message ${messageLengthMax}, its field ${fieldLengthMax}`,
    );
  }
  return refused;
}

/** What a command returned, if it is a list of events; their data is not checked yet. */
function eventsOf(decided: unknown): readonly EventEntry[] {
  if (!Array.isArray(decided)) throw new TypeError('a command returns an array of events or ctx.refuse(…)');
  const { length } = decided;
  if (length > eventsPerCommandMax) {
    throw new RangeError(`a command may return ${eventsPerCommandMax} events, not ${length}`);
  }
  const events: EventEntry[] = [];
  let promised = false;
  for (let i = 0; i < length; i++) {
    const event: unknown = decided[i];
    const { type, data } = isPlainObject(event) ? event : {};
    if (hearsPromise(event) || hearsPromise(data)) promised = true;
    // To the end, even if one is wrong: each promise must be heeded, or its rejection would end the process.
    events.push({ type: typeof type === 'string' ? type : '', data });
  }
  if (promised) throw new TypeError('an event is or holds a promise; handlers are synchronous');
  if (events.some(({ type }) => type === '')) throw new TypeError('an event is { type, data }');
  return events;
}

function settled(value: unknown, who: string): unknown {
  if (!hearsPromise(value)) return value;
  throw new TypeError(`${who} returned a promise; handlers are synchronous, so that replay can repeat them`);
}

/** Whether it is a promise. Then its rejection is heard, so that the command fails and not the process. */
function hearsPromise(value: unknown): boolean {
  if (!isThenable(value)) return false;
  const ignored = (): void => {};
  value.then(ignored, ignored);
  return true;
}

function answerOf(outcome: Outcome, seqBefore: number, stateHash: string, repeated: boolean): CommandAnswer {
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

function rejected(error: Fault): Decision {
  return { answer: { kind: 'rejected', fault: error, repeated: false }, record: undefined };
}

/** For what our own checks throw: their faults say already what is wrong. */
function asHandlerFault(thrown: unknown, what: string): Fault {
  return thrown instanceof Fault ? thrown : handlerFault(thrown, what);
}

/** For what a handler throws, a fault of ours included: only the runtime speaks with the runtime's codes. */
function handlerFault(thrown: unknown, what: string): Fault {
  return fault('handler-failed', `${what}: ${messageOf(thrown)}`, { cause: thrown });
}
