import { Fault } from '../kernel/fault.ts';
import { limits } from '../protocol/limits.ts';
import type { CommandAnswer, Decision } from '../machine/decide/instance/answers.ts';
import type { RowChange, TableView } from '../machine/decide/definition/define.ts';
import { Instance } from '../machine/decide/instance/instance.ts';
import { isMachine, type Machine } from '../machine/decide/definition/machine.ts';
import { decodeRecord, encodeRecord } from '../machine/decide/log/record.ts';
import { exportState, importState } from '../machine/decide/state/state.ts';
import { canonical, copyPlain, messageOf, type PlainObject } from '../machine/decide/state/value.ts';
import { Heard } from './arbitrary.ts';
import type { Step } from './steps.ts';

/** What a law of one's own may look at, after any step. Nothing of it can be changed. */
export interface Situation {
  /** All rows of a table, in the order of keys. */
  rows(table: string): readonly PlainObject[];
  row(table: string, key: string): PlainObject | undefined;
  /** Answers a query of the machine; throws its fault. */
  query(name: string, input?: unknown): unknown;
  readonly seq: number;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** True if it holds. */
export type Law = (situation: Situation) => boolean;
export type Laws = Readonly<Record<string, Law>>;

/** The laws that hold for any machine, and what each says. */
export const generalLaws = {
  'handlers-do-not-fail':
    'A handler may refuse, but never throws, returns what it must not, or sets timers without end',
  'refusals-change-nothing': 'What is not accepted leaves sequence and state hash as they were',
  'answers-tell-the-state': 'An accepted command answers the sequence and state hash that it led to',
  'keys-answer-once': 'A key that comes again gets the first answer, or is refused with another command or input',
  'replay-repeats': 'Each record, replayed, leads to the same sequence and hashes',
  'export-repeats': 'What is exported and imported again has the same sequence and hashes',
  'invariants-hold-everywhere': 'An invariant holds over all rows, not only over those that the event changed',
} as const;
export type GeneralLaw = keyof typeof generalLaws;

/** Thrown inside a run; `index` is the step at which it was noticed. */
export class Broken extends Error {
  override readonly name = 'Broken';
  readonly law: string;
  readonly index: number;

  constructor(law: string, index: number, message: string) {
    super(message);
    this.law = law;
    this.index = index;
  }
}

/** What a step came to, for people. */
export interface Trace {
  readonly step: string;
  readonly came: string;
}

/** How often each command was accepted, refused (by reason), or given an input that does not fit. */
export type Tally = Map<string, Map<string, number>>;

const startMs = 1_600_000_000_000;
/** Timers that may fire in one wait. */
const firingsMax = 1_000;
const instanceName = 'test';
const lawsQuery = 'cellwrightLaws';

type Views = Readonly<Record<string, TableView<PlainObject>>>;
/** A law of the test, or an invariant, that does not hold as the tables are. */
interface BrokenHere {
  readonly law: string;
  readonly message: string;
}

interface Kept {
  readonly command: string;
  readonly input: unknown;
  readonly key: string;
  readonly atMs: number;
  readonly answer: CommandAnswer;
}

/** The machine with a query more, for the instance that follows by replaying records: laws look at its rows. */
function followerOf(machine: Machine, lawsIn: (views: Views) => void): Machine {
  const laws = { input: {}, parse: () => ({}), answer: lawsIn };
  const follower = {
    ...machine,
    queries: new Map([...machine.queries, [lawsQuery, laws]]),
  };
  if (!isMachine(follower)) throw new TypeError('a machine with one query more is a machine');
  return follower;
}

/** One run: the steps on an empty instance, every law checked after each. Throws Broken at the first that does not hold. */
export class Run {
  readonly trace: Trace[] = [];
  readonly #machine: Machine;
  readonly #laws: Laws;
  readonly #skipped: ReadonlySet<string>;
  readonly #tally: Tally;
  readonly #heard = new Heard();
  readonly #follower: Instance;
  readonly #kept = new Map<string, Kept>();
  #brokenHere: BrokenHere | undefined;
  #instance: Instance;
  #nowMs = startMs;
  #draws = 0;
  #records = 0;
  #index = 0;

  constructor(machine: Machine, laws: Laws, skipped: ReadonlySet<string>, tally: Tally) {
    this.#machine = machine;
    this.#laws = laws;
    this.#skipped = skipped;
    this.#tally = tally;
    this.#instance = new Instance(instanceName, machine);
    this.#follower = new Instance(
      instanceName,
      followerOf(machine, (views) => {
        this.#brokenHere = this.#brokenIn(views);
      }),
    );
  }

  perform(steps: readonly Step[]): void {
    for (const [index, step] of steps.entries()) {
      this.#index = index;
      try {
        this.#perform(step);
        this.#checkSituation();
      } catch (thrown) {
        if (thrown instanceof Broken) throw thrown;
        // Of the runtime itself: it throws for defects only.
        this.#break('handlers-do-not-fail', messageOf(thrown));
      }
    }
  }

  #perform(step: Step): void {
    switch (step.do) {
      case 'command':
        this.#command(step.command, this.#heard.settle(step.input), step.key);
        return;
      case 'repeat': {
        const kept = [...this.#kept.values()];
        const again = kept[kept.length - 1 - (step.nth % Math.max(1, kept.length))];
        if (again !== undefined) this.#command(again.command, again.input, again.key);
        return;
      }
      case 'query':
        this.#query(step.query, this.#heard.settle(step.input));
        return;
      case 'wait':
        this.#wait(step.ms);
        return;
      case 'deliver':
        this.#deliver();
        return;
      default:
        this.#reload();
    }
  }

  #command(name: string, given: unknown, key: string | undefined): void {
    const command = this.#machine.commands.get(name);
    const keyText = key === undefined ? '' : `  with key ${key}`;
    this.#say(`${name} ${textOf(given)}${keyText}`);
    let input: unknown;
    try {
      input = command?.parse(given);
    } catch (thrown) {
      this.#count(name, 'input-invalid');
      this.#came(`does not fit the schema: ${messageOf(thrown)}`);
      return;
    }
    const first = key === undefined ? undefined : this.#answerOf(key);
    const request = { command: name, input: given, ...(key === undefined ? {} : { idempotencyKey: key }) };
    const answer = this.#settle(() => this.#instance.execute(request, this.#nowMs, this.#entropy));
    this.#count(name, answer.kind === 'accepted' ? 'accepted' : (answer.reason ?? answer.fault.code));
    if (first !== undefined) this.#checkRepeated(first, name, input, answer);
    else if (key !== undefined && isRemembered(answer)) {
      // The same key in a new life is the newest one.
      this.#kept.delete(key);
      this.#kept.set(key, { command: name, input, key, atMs: this.#nowMs, answer });
    }
  }

  /** What the key was answered first, unless its life has ended. */
  #answerOf(key: string): Kept | undefined {
    const kept = this.#kept.get(key);
    return kept !== undefined && kept.atMs + limits.idempotencyKeyLifeMs > this.#nowMs ? kept : undefined;
  }

  #checkRepeated(first: Kept, name: string, input: unknown, answer: CommandAnswer): void {
    const same = first.command === name && canonical([first.input]) === canonical([input]);
    if (!same) {
      if (answer.kind === 'rejected' && answer.fault.code === 'idempotency-key-reused') return;
      this.#break(
        'keys-answer-once',
        `key ${first.key} was used with ${first.command} before, and now ${saidOf(answer)}`,
      );
    }
    if (answer.repeated && saidOf(answer) === saidOf(first.answer)) return;
    this.#break('keys-answer-once', `key ${first.key} was ${saidOf(first.answer)} first, and now ${saidOf(answer)}`);
  }

  #query(name: string, input: unknown): void {
    this.#say(`query ${name} ${textOf(input)}`);
    const { seq, stateHash } = this.#instance;
    try {
      this.#instance.query(name, input);
      this.#count(name, 'accepted');
      this.#came('answered');
    } catch (thrown) {
      const code = thrown instanceof Fault ? thrown.code : 'internal';
      this.#count(name, code);
      this.#came(messageOf(thrown));
      if (code !== 'input-invalid') this.#break('handlers-do-not-fail', messageOf(thrown));
    }
    if (seq !== this.#instance.seq || stateHash !== this.#instance.stateHash) {
      this.#break('refusals-change-nothing', `query ${name} changed the state`);
    }
  }

  #wait(ms: number): void {
    const untilMs = this.#nowMs + ms;
    this.#say(`wait ${ms} ms`);
    this.#came('');
    for (let fired = 0; ; fired++) {
      const [timer] = this.#instance.timers();
      if (timer === undefined || timer.at > untilMs) break;
      this.#nowMs = Math.max(this.#nowMs, timer.at);
      this.#say(`  timer ${timer.id} fires: ${timer.command} ${textOf(timer.input)}`);
      if (fired === firingsMax)
        this.#break('handlers-do-not-fail', `${firingsMax} timers fired, and ${timer.id} is due`);
      const answer = this.#settle(() => this.#instance.fireTimer(this.#nowMs, this.#entropy));
      const failed = answer.kind === 'accepted' ? answer.events.find(({ type }) => type === '$timerFailed') : undefined;
      if (failed !== undefined) this.#break('handlers-do-not-fail', `timer ${timer.id} failed: ${textOf(failed.data)}`);
      this.#count(timer.command, 'accepted');
      this.#checkSituation();
    }
    this.#nowMs = untilMs;
  }

  #deliver(): void {
    const [message] = this.#instance.messages({ limit: 1 });
    if (message === undefined) return;
    this.#say(`message to ${message.topic} is delivered`);
    this.#settle(() => this.#instance.messageDelivered(message.id, this.#nowMs));
  }

  #reload(): void {
    this.#say('the instance is exported and imported');
    this.#came('');
    const { seq, stateHash, keysHash } = this.#instance;
    try {
      this.#instance = importState(instanceName, this.#machine, exportState(this.#instance));
    } catch (thrown) {
      this.#break('export-repeats', messageOf(thrown));
    }
    const again = this.#instance;
    if (again.seq === seq && again.stateHash === stateHash && again.keysHash === keysHash) return;
    this.#break('export-repeats', `${stateHash} at event ${seq} came back as ${again.stateHash} at event ${again.seq}`);
  }

  /** Runs one decision and checks what holds for any. */
  #settle(decide: () => Decision): CommandAnswer {
    const { seq, stateHash } = this.#instance;
    const { answer, record } = decide();
    this.#came(saidOf(answer));
    const { seq: seqAfter, stateHash: hashAfter } = this.#instance;
    if (answer.kind === 'accepted') {
      if (!answer.repeated && (answer.seq !== seqAfter || answer.stateHash !== hashAfter)) {
        const told = `told ${answer.stateHash} at event ${answer.seq}, and is ${hashAfter} at event ${seqAfter}`;
        this.#break('answers-tell-the-state', told);
      }
      for (const { data } of answer.events) this.#heard.listen(data);
    }
    if ((answer.kind === 'rejected' || answer.repeated) && (seq !== seqAfter || stateHash !== hashAfter)) {
      this.#break('refusals-change-nothing', `${stateHash} at event ${seq} became ${hashAfter} at event ${seqAfter}`);
    }
    if (answer.kind === 'rejected' && answer.fault.code === 'handler-failed') {
      this.#break('handlers-do-not-fail', answer.fault.message);
    }
    if (record !== undefined) {
      this.#records += 1;
      const text = encodeRecord(this.#records, this.#records - 1, record);
      this.#replay(() => this.#follower.replay(decodeRecord(this.#records, text)));
    }
    return answer;
  }

  #replay(replay: () => void): void {
    try {
      replay();
    } catch (thrown) {
      this.#break('replay-repeats', messageOf(thrown));
    }
    const { seq, stateHash, keysHash } = this.#instance;
    const { seq: seqThere, stateHash: hashThere, keysHash: keysThere } = this.#follower;
    if (seq === seqThere && stateHash === hashThere && keysHash === keysThere) return;
    this.#break('replay-repeats', `${stateHash} at event ${seq} was replayed to ${hashThere} at event ${seqThere}`);
  }

  /** The laws that look at rows: they run as a query of the follower. */
  #checkSituation(): void {
    this.#follower.query(lawsQuery, {});
    if (this.#brokenHere !== undefined) this.#break(this.#brokenHere.law, this.#brokenHere.message);
  }

  #brokenIn(views: Views): BrokenHere | undefined {
    const viewOf = (table: string): TableView<PlainObject> => {
      const view = views[table];
      if (view === undefined) throw new TypeError(`${this.#machine.name} has no table ${table}`);
      return view;
    };
    const situation: Situation = {
      rows: (table) => [...viewOf(table).scan()],
      row: (table, key) => viewOf(table).get(key),
      query: (name, input = {}) => this.#instance.query(name, input),
      seq: this.#instance.seq,
      now: this.#nowMs,
    };
    for (const [law, holds] of Object.entries(this.#laws)) {
      const message = whyNot(() => holds(situation));
      if (message !== undefined) return { law, message: `This law of the test ${message}` };
    }
    if (this.#skipped.has('invariants-hold-everywhere')) return undefined;
    const rows: RowChange[] = this.#machine.tables.flatMap(({ name, key }) =>
      situation.rows(name).map((row) => ({ table: name, key: String(row[key]) })),
    );
    for (const { name, shadow, on, holds } of this.#machine.invariants) {
      const changed = on === undefined ? rows : rows.filter(({ table }) => on.has(table));
      const message = shadow ? undefined : whyNot(() => holds(views, changed));
      if (message !== undefined) {
        return { law: 'invariants-hold-everywhere', message: `Over all rows, the invariant ${name} ${message}` };
      }
    }
    return undefined;
  }

  readonly #entropy = (): string => {
    this.#draws += 1;
    return `test ${this.#draws}`;
  };

  #say(step: string): void {
    this.trace.push({ step, came: '' });
  }

  #came(came: string): void {
    const last = this.trace.pop();
    if (last !== undefined) this.trace.push({ ...last, came });
  }

  #count(name: string, what: string): void {
    const counts = this.#tally.get(name) ?? new Map<string, number>();
    this.#tally.set(name, counts);
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }

  /** Throws Broken, unless the law is skipped. */
  #break(law: string, message: string): void {
    if (!this.#skipped.has(law)) throw new Broken(law, this.#index, message);
  }
}

/** Why a law is not kept, or undefined if it is. */
function whyNot(law: () => unknown): string | undefined {
  try {
    return law() === true ? undefined : 'does not hold';
  } catch (thrown) {
    return `throws: ${messageOf(thrown)}`;
  }
}

/** Failed handlers and unfit inputs are not remembered. */
function isRemembered(answer: CommandAnswer): boolean {
  if (answer.kind === 'accepted') return true;
  return answer.fault.code === 'command-refused' || answer.fault.code === 'invariant-violated';
}

/** The answer without what tells a repetition. */
function saidOf(answer: CommandAnswer): string {
  if (answer.kind === 'rejected') return `${answer.reason ?? answer.fault.code}: ${answer.fault.message}`;
  const events = answer.events.map(({ type, data }) => `${type} ${textOf(data)}`).join(', ');
  return `accepted at event ${answer.seq}: ${events === '' ? 'no event' : events}`;
}

/** A value for people. */
export function textOf(value: unknown): string {
  try {
    return canonical(copyPlain(value, false));
  } catch {
    return String(value);
  }
}
