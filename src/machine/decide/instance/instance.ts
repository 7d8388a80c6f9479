import { assert, unreachable } from '../../../kernel/assert.ts';
import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import { answerOf, noneBroken, rejected, type CommandAnswer, type CommandRequest, type Decision } from './answers.ts';
import type { StateRows } from '../state/compare.ts';
import { Decider } from './decider.ts';
import type { Message, Timer } from '../state/effects.ts';
import { Evolution } from './evolution.ts';
import { Mismatched, type Mismatch } from '../replica/mismatch.ts';
import { IdempotencyKeys, type KeyLimits, type RememberedAnswer } from './keys.ts';
import type { Machine } from '../definition/machine.ts';
import { CommandRun } from './random.ts';
import { decodePayload, encodePayload, type LogRecord, type Outcome } from '../log/record.ts';
import { RefusalRate } from './refusals.ts';
import { brokenOf, seal, type Sealed } from './sealed.ts';
import { asHandlerFault, handlerFault, settled } from './returned.ts';
import type { CapturedState, StatePart } from '../state/state.ts';
import type { RowEffect, TableSet } from '../state/tables.ts';
import { canonical, isPlainObject, messageOf } from '../state/value.ts';

export type { CommandAnswer, CommandRequest, Decision, RecordedEvent } from './answers.ts';

/** What the record of a delivery names as its command. */
const deliverCommand = '$deliver';

/** What the record of an upgrade names as its command. */
const upgradeCommand = '$upgrade';

/**
 * One instance of a machine: the state of one tenant. Synchronous and without clock or disk; whoever
 * holds it writes the records that `execute` returns, and replays them with `replay`.
 */
export class Instance {
  readonly name: string;
  readonly machine: Machine;
  readonly #evolution: Evolution;
  readonly #tables: TableSet;
  readonly #decider: Decider;
  readonly #keys: IdempotencyKeys;
  #seq = 0;
  #stateHash: string;
  /** The state hash that the last record left, where it is not this state's: its version evolved differently. */
  #recorded: { readonly hash: string; readonly version: number } | undefined;
  readonly #refusals = new RefusalRate();
  /** Set while a command runs. It stays set if one ended in a way that leaves the state unknown. */
  #running = false;

  constructor(name: string, machine: Machine, keyBounds?: KeyLimits) {
    this.name = name;
    this.machine = machine;
    this.#evolution = new Evolution(machine);
    this.#tables = this.#evolution.tables;
    this.#decider = new Decider(machine, this.#evolution);
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
   * `entropy` is asked for a seed, any text that nobody can guess twice, when the command first draws a random number or an
   * id; it is recorded.
   *
   * Throws only for defects, after which the state is not known and the instance refuses everything:
   * whoever holds it must replay its records into a new one.
   */
  execute(request: CommandRequest, nowMs: number, entropy: () => string = noEntropy): Decision {
    this.#begin(nowMs);
    const decision = this.#execute(request, nowMs, entropy);
    // Not in a `finally`: after a throw nobody knows what the state is.
    this.#running = false;
    return decision;
  }

  /**
   * Runs the command of the timer that is due first, as `execute` does; accepts without events if none is due. The events
   * begin with `$timerFired`, which says why if the command was refused. If it failed, the only event is `$timerFailed`,
   * and the timer comes again, later each time.
   */
  fireTimer(nowMs: number, entropy: () => string = noEntropy): Decision {
    const timer = this.#evolution.system.nextTimer;
    if (timer === undefined || timer.at > nowMs) return this.#nothing();
    return this.#fire(timer, nowMs, entropy);
  }

  /** Takes a message out of the outbox; accepts without an event if it is not there, because it was taken out before. */
  messageDelivered(id: string, nowMs: number): Decision {
    if (!this.#evolution.system.hasMessage(id)) return this.#nothing();
    this.#begin(nowMs);
    const hashes = [this.#stateHash];
    const events = [this.#decider.apply('$messageDelivered', { id }, nowMs, this.#seq, hashes)];
    const outcome = { kind: 'accepted', events } as const;
    const sealed = seal({ command: deliverCommand, input: { id }, key: undefined, outcome }, this.#refusals);
    const decision = this.#conclude(sealed, nowMs, hashes);
    this.#running = false;
    return decision;
  }

  /**
   * Runs what a record holds once more, with its time and its random numbers, on the state as it is here, and keeps what
   * comes of it. For whoever compares versions: no log may hold what came of it.
   */
  executeAgain(record: LogRecord): CommandAnswer {
    const { command, input, key, now } = record;
    const entropy = seedOf(record);
    const timer = this.#timerOf(record);
    if (timer !== undefined) return this.#fire(timer, now, entropy).answer;
    if (command === deliverCommand && isPlainObject(input))
      return this.messageDelivered(String(input['id']), now).answer;
    return this.execute({ command, input, ...(key === undefined ? {} : { idempotencyKey: key }) }, now, entropy).answer;
  }

  /** What `executeAgain` would answer to a record with a key that is new; the state stays as it is. */
  decideAgain(record: LogRecord): CommandAnswer {
    this.#begin(record.now);
    const hashes = [this.#stateHash];
    const run = new CommandRun(this.name, record.now, seedOf(record));
    let answer: CommandAnswer;
    try {
      const outcome = this.#outcomeAgain(record, run, hashes);
      answer = answerOf(outcome, this.#seq, hashes[hashes.length - 1] ?? this.#stateHash, false);
    } catch (thrown) {
      const { full } = this.#evolution.system;
      const error = full ?? asHandlerFault(thrown, `Command ${record.command} failed and changed nothing`);
      ({ answer } = rejected(error));
    }
    run.end();
    this.#undo();
    this.#running = false;
    return answer;
  }

  #outcomeAgain(record: LogRecord, run: CommandRun, hashes: string[]): Outcome {
    const { command: name, input, now } = record;
    const timer = this.#timerOf(record);
    if (timer !== undefined) return this.#decider.fire(timer, run, this.#seq, hashes).outcome;
    if (name === deliverCommand) {
      return { kind: 'accepted', events: [this.#decider.apply('$messageDelivered', input, now, this.#seq, hashes)] };
    }
    const command = this.machine.commands.get(name);
    if (command === undefined) {
      throw fault('command-unknown', `${this.machine.name} has no command ${name}`, { field: name });
    }
    return this.#decider.run(name, command, command.parse(input), run, this.#seq, hashes);
  }

  /** The timer whose firing a record holds. If this state has none, the record is run as if a client had sent it. */
  #timerOf({ context: { timer } }: LogRecord): Timer | undefined {
    return timer === undefined ? undefined : this.#evolution.system.timer(timer);
  }

  /** When the next timer is due, in milliseconds since 1970; undefined if there is none. O(log n). */
  get nextTimerMs(): number | undefined {
    return this.#evolution.system.nextTimerMs;
  }

  /** Timers in the order in which they are due. */
  timers(): IterableIterator<Timer> {
    return this.#evolution.system.timers();
  }

  /** Messages that were not delivered yet, in the order of sending, which is the order of their ids. */
  messages(
    range: { readonly after?: string | undefined; readonly limit?: number | undefined } = {},
  ): IterableIterator<Message> {
    return this.#evolution.system.messages(range);
  }

  #begin(nowMs: number): void {
    assert(Number.isSafeInteger(nowMs) && nowMs >= 0, 'a log holds times in whole milliseconds since 1970');
    this.#assertSettled();
    this.#running = true;
  }

  #assertSettled(): void {
    assert(!this.#running, 'a handler cannot use its own instance, nor anybody one whose last command was interrupted');
    assert(this.#recorded === undefined, 'a changed evolve is recorded before anybody sees the state that it leads to');
  }

  #execute(request: CommandRequest, nowMs: number, entropy: () => string): Decision {
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
      if (earlier !== undefined) return { answer: earlier, record: undefined, broken: noneBroken };
    }
    const hashes = [this.#stateHash];
    const run = new CommandRun(this.name, nowMs, entropy);
    let sealed: Sealed;
    try {
      const outcome = this.#decider.run(name, command, input, run, this.#seq, hashes);
      sealed = seal({ command: name, input, key, outcome }, this.#refusals, run);
    } catch (thrown) {
      run.end();
      this.#undo();
      const { full } = this.#evolution.system;
      return rejected(full ?? handlerFault(thrown, `Command ${name} failed and changed nothing`));
    }
    return this.#conclude(sealed, nowMs, hashes);
  }

  #fire(timer: Timer, nowMs: number, entropy: () => string): Decision {
    this.#begin(nowMs);
    const hashes = [this.#stateHash];
    const run = new CommandRun(this.name, nowMs, entropy);
    const { outcome, broken } = this.#decider.fire(timer, run, this.#seq, hashes);
    const sealed = seal(
      { command: timer.command, input: timer.input, key: undefined, outcome },
      this.#refusals,
      run,
      timer.id,
    );
    const decision = this.#conclude(sealed, nowMs, hashes);
    this.#running = false;
    return broken.length === 0 ? decision : { ...decision, broken };
  }

  /** Keeps what was decided, or takes back what a refused command did. */
  #conclude({ parts, context, payload }: Sealed, nowMs: number, hashes: string[]): Decision {
    const { command, input, key, outcome } = parts;
    const seqBefore = this.#seq;
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
    const broken = brokenOf(outcome, context);
    if (payload === '') {
      if (outcome.kind === 'refused') this.#refusals.skipped += 1;
      return { answer, record: undefined, broken };
    }
    this.#refusals.skipped = 0;
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
        command,
        input,
        key,
        outcome,
        context,
        payload,
      },
      broken,
    };
  }

  #nothing(): Decision {
    this.#assertSettled();
    return {
      answer: answerOf({ kind: 'accepted', events: [] }, this.#seq, this.#stateHash, false),
      record: undefined,
      broken: noneBroken,
    };
  }

  #undo(): void {
    this.#evolution.undo(this.#stateHash);
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
        const hash = this.#evolution.recorded(record, event, this.#seq + 1);
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
      context: {},
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
    const { outcome, seqBefore } = record;
    try {
      if (outcome.kind === 'accepted') {
        outcome.events.forEach((event, i) => this.#evolution.recorded(record, event, seqBefore + i + 1));
      }
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
    events.slice(from).forEach((event, i) => this.#evolution.recorded(record, event, record.seqBefore + from + i + 1));
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

  /** How many idempotency keys are remembered, and how long their answers are together, in UTF-16 code units. */
  get keysSize(): { readonly count: number; readonly units: number } {
    return { count: this.#keys.size, units: this.#keys.units };
  }

  /** The whole state as it is now, for `encodeState`. Rows are shared, not copied: O(rows) pointers. */
  capture(): CapturedState {
    this.#assertSettled();
    assert(this.#recorded === undefined, 'a state that waits for its upgrade is no state that the log knows');
    return {
      instance: this.name,
      machine: this.machine.name,
      machineVersion: this.machine.version,
      seq: this.#seq,
      stateHash: this.#stateHash,
      keysHash: this.keysHash,
      tables: [...this.#tables.rows].map(([table, rows]) => [table, [...rows.values()]] as const),
      keys: [...this.#keys.entries()],
    };
  }

  /** Takes a part of a state that `capture` gave; the instance is used only after the last, `seq`. For `StateReader`. */
  restore(part: StatePart): void {
    assert(this.#seq === 0, 'only an instance that nothing happened to is made from a state');
    switch (part.kind) {
      case 'rows':
        for (const row of part.rows) this.#evolution.load(part.table, row);
        return;
      case 'keys':
        for (const [key, answer] of part.keys) this.#keys.remember(key, answer);
        return;
      case 'seq':
        this.#seq = part.seq;
        this.#stateHash = this.#tables.hash;
        return;
      default:
        unreachable(part, 'a state has parts of three kinds');
    }
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
    if (first.command === command && this.#isSameInput(command, first.input, input)) {
      return answerOf(first.outcome, earlier.seqBefore, earlier.stateHash, true);
    }
    const message = 'This idempotency key was used with another command or input; choose a new key';
    const reused = fault('idempotency-key-reused', message, { field: 'Idempotency-Key' });
    return { kind: 'rejected', fault: reused, repeated: false };
  }

  /** An older version may have recorded the same input without what a newer schema fills in. */
  #isSameInput(command: string, recorded: unknown, input: unknown): boolean {
    const text = canonical([input]);
    if (canonical([recorded]) === text) return true;
    try {
      return canonical([this.machine.commands.get(command)?.parse(recorded)]) === text;
    } catch {
      return false;
    }
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

function noEntropy(): string {
  throw new TypeError('whoever runs this command gave no entropy, so it can draw no random number and no id');
}

/** Where the random numbers of a record began; if it used none, a beginning that is the same each time. */
function seedOf({ context, instance, seqBefore, now }: LogRecord): () => string {
  return () => context.seed ?? `${instance} ${seqBefore} ${now}`;
}
