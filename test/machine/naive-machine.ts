import { keysHashOf, stateHashOf } from './naive-hash.ts';
import { forbidden, type Change, type Input, type MachineShape, type Row, type TableShape } from './random-machine.ts';

/**
 * A machine of `random-machine.ts` done naively: rows in lists, a copy of everything before each command, hashes from
 * scratch. What it says is what the runtime has to say.
 */
export type NaiveAnswer =
  | { readonly kind: 'accepted'; readonly seq: number; readonly events: number; readonly stateHash: string }
  | { readonly kind: 'refused'; readonly code: string };

interface NaiveTimer {
  readonly id: string;
  readonly at: number;
  readonly command: 'run';
  readonly input: Input;
  readonly attempt: number;
}
interface State {
  readonly tables: Record<string, Row[]>;
  timers: NaiveTimer[];
  messages: { readonly id: string; readonly topic: string; readonly body: unknown; readonly at: number }[];
  seq: number;
}
interface NaiveKey {
  readonly key: string;
  readonly atMs: number;
  readonly seqBefore: number;
  readonly units: number;
  readonly input: string;
  readonly answer: NaiveAnswer;
}

class DoesNotApply extends Error {}

const byUnits = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export class NaiveMachine {
  readonly #shape: MachineShape;
  readonly #lifeMs: number;
  readonly #countMax: number;
  #state: State = { tables: {}, timers: [], messages: [], seq: 0 };
  #keys: NaiveKey[] = [];

  constructor(shape: MachineShape, { lifeMs, countMax }: { readonly lifeMs: number; readonly countMax: number }) {
    this.#shape = shape;
    this.#lifeMs = lifeMs;
    this.#countMax = countMax;
    for (const { name } of shape.tables) this.#state.tables[name] = [];
  }

  get seq(): number {
    return this.#state.seq;
  }

  get stateHash(): string {
    const { tables, timers, messages } = this.#state;
    return stateHashOf([
      ...this.#shape.tables.map(({ name, key }) => ({ name, key, rows: tables[name] ?? [] })),
      { name: '$timers', key: 'id', rows: timers },
      { name: '$outbox', key: 'id', rows: messages },
    ]);
  }

  get keysHash(): string {
    return keysHashOf(this.#keys);
  }

  get messageIds(): readonly string[] {
    return this.#state.messages.map(({ id }) => id);
  }

  /** All rows of a table, by key. */
  rows({ name, key }: TableShape): readonly Row[] {
    return (this.#state.tables[name] ?? []).toSorted((a, b) => byUnits(String(a[key]), String(b[key])));
  }

  /** The timer that is due first. */
  nextTimer(): NaiveTimer | undefined {
    return this.#state.timers.toSorted((a, b) => a.at - b.at || byUnits(a.id, b.id))[0];
  }

  /** `unitsOf` is asked for the length of the record's payload, if the answer is remembered. */
  run(
    input: Input,
    nowMs: number,
    key: string | undefined,
    unitsOf: () => number,
  ): NaiveAnswer & { repeated: boolean } {
    const given = JSON.stringify(input);
    if (key !== undefined) {
      const known = this.#keys.find((each) => each.key === key && each.atMs + this.#lifeMs > nowMs);
      if (known !== undefined && known.input !== given) {
        return { kind: 'refused', code: 'idempotency-key-reused', repeated: false };
      }
      if (known !== undefined) return { ...known.answer, repeated: true };
    }
    const { seq: seqBefore } = this;
    const answer = this.#attempt(input, nowMs, []);
    const failed = answer.kind === 'refused' && answer.code === 'handler-failed';
    if (key !== undefined && !failed) {
      this.#keys = this.#keys.filter((each) => each.key !== key);
      this.#keys.push({ key, atMs: nowMs, seqBefore, units: unitsOf(), input: given, answer });
    }
    return { ...answer, repeated: false };
  }

  /** Forgets what a record would: of the oldest keys those that ended, and those that are too many. */
  forgetKeys(nowMs: number): void {
    while (
      this.#keys.length > this.#countMax ||
      (this.#keys[0]?.atMs ?? Number.POSITIVE_INFINITY) + this.#lifeMs <= nowMs
    ) {
      this.#keys.shift();
    }
  }

  fire(nowMs: number): NaiveAnswer {
    const timer = this.nextTimer();
    if (timer === undefined) throw new Error('a timer is due');
    const without = (): void => {
      this.#state.timers = this.#state.timers.filter(({ id }) => id !== timer.id);
    };
    const answer = this.#attempt(timer.input, nowMs, [without]);
    if (answer.kind === 'accepted') return answer;
    const event =
      answer.code === 'handler-failed'
        ? (): void => {
            without();
            const attempt = timer.attempt + 1;
            this.#state.timers.push({ ...timer, attempt, at: nowMs + Math.min(3_600_000, 1_000 * 2 ** (attempt - 1)) });
          }
        : without;
    event();
    this.#state.seq += 1;
    return { kind: 'accepted', seq: this.seq, events: 1, stateHash: this.stateHash };
  }

  deliver(id: string): void {
    this.#state.messages = this.#state.messages.filter((message) => message.id !== id);
    this.#state.seq += 1;
  }

  #attempt(input: Input, nowMs: number, first: readonly (() => void)[]): NaiveAnswer {
    const before = structuredClone(this.#state);
    const back = (code: string): NaiveAnswer => {
      this.#state = before;
      return { kind: 'refused', code };
    };
    for (const event of first) {
      event();
      this.#state.seq += 1;
    }
    if (input.end === 'refuse') return back('command-refused');
    if (input.end === 'throw') return back('handler-failed');
    for (const changes of input.events) {
      this.#state.seq += 1;
      let sent = 0;
      try {
        for (const change of changes) sent += this.#apply(change, nowMs, sent);
      } catch (thrown) {
        if (thrown instanceof DoesNotApply) return back('handler-failed');
        throw thrown;
      }
      if (this.#forbiddenRows()) return back('invariant-violated');
    }
    const events = first.length + input.events.length;
    return { kind: 'accepted', seq: this.seq, events, stateHash: this.stateHash };
  }

  #forbiddenRows(): boolean {
    return Object.values(this.#state.tables).some((rows) => rows.some(({ n }) => n === forbidden));
  }

  /** Returns how many messages it sent. */
  #apply(change: Change, nowMs: number, sent: number): 0 | 1 {
    switch (change.do) {
      case 'schedule': {
        const { id, afterMs, input } = change;
        this.#state.timers = this.#state.timers.filter((timer) => timer.id !== id);
        this.#state.timers.push({ id, at: nowMs + afterMs, command: 'run', input, attempt: 0 });
        return 0;
      }
      case 'cancel':
        this.#state.timers = this.#state.timers.filter(({ id }) => id !== change.id);
        return 0;
      case 'send': {
        const id = `${String(this.#state.seq).padStart(16, '0')}-${String(sent).padStart(6, '0')}`;
        this.#state.messages.push({ id, topic: 'news', body: change.body, at: nowMs });
        return 1;
      }
      default:
        this.#change(change);
        return 0;
    }
  }

  #change(change: Extract<Change, { readonly table: number }>): void {
    const shape = this.#shape.tables[change.table % this.#shape.tables.length];
    if (shape === undefined) throw new Error('a machine has a table');
    const { name, key: keyName } = shape;
    const rows = this.#state.tables[name] ?? [];
    const { key } = change;
    const at = rows.findIndex((row) => row[keyName] === key);
    const known = at >= 0;
    if (change.do === 'insert' ? known : change.do !== 'upsert' && !known) throw new DoesNotApply();
    if (change.do === 'delete') {
      rows.splice(at, 1);
      return;
    }
    const given = change.do === 'update' ? { ...rows[at], ...change.fields } : { ...change.fields, [keyName]: key };
    const row = JSON.parse(JSON.stringify(given)) as Row;
    if (typeof row['n'] !== 'number') throw new DoesNotApply();
    if (known) rows[at] = row;
    else rows.push(row);
  }
}
