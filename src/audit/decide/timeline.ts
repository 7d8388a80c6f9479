import { assert } from '../../kernel/assert.ts';
import { compareStates, type RowDifference, type StateDifference } from '../../machine/decide/state/compare.ts';
import { Instance } from '../../machine/decide/instance/instance.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import type { PlacedRecord } from '../../machine/decide/log/record.ts';
import type { RowEffect } from '../../machine/decide/state/tables.ts';
import { compareCodeUnits, type PlainObject } from '../../machine/decide/state/value.ts';

/** A point in the history of an instance: after so many events, or after everything up to a time. */
export type Moment = { readonly seq: number } | { readonly timeMs: number };

/** Commands that are named for one row; the newest are kept. */
export const causesPerRowMax = 10;

/** The command and the event that changed a row. */
export interface Cause {
  readonly position: number;
  readonly seq: number;
  /** Milliseconds since 1970. */
  readonly now: number;
  readonly command: string;
  readonly input: unknown;
  readonly key?: string;
  readonly event: string;
}

/** Where an instance stood. `position` and `now` are of the last record with events up to there; 0 before the first. */
export interface Standing {
  readonly seq: number;
  readonly position: number;
  readonly now: number;
  readonly stateHash: string;
}

/** A state as it was: the rows of every table that has any, in the order of their keys. */
export interface StateThen extends Standing {
  readonly tables: Readonly<Record<string, readonly PlainObject[]>>;
}

/** A row that differs, and the commands that changed it on the way, the oldest first. */
export type CausedDifference = RowDifference & { readonly causes: readonly Cause[]; readonly causesTotal: number };

export interface StatesDiffer extends Omit<StateDifference, 'rows'> {
  readonly from: Standing;
  readonly to: Standing;
  readonly rows: readonly CausedDifference[];
}

type Rows = Map<string, Map<string, PlainObject>>;

/**
 * One instance as it was at one or two moments, by replaying its records with every hash checked. Memory: rows of the
 * state, and of what changed between the moments. O(1) a change.
 */
export class Timeline {
  readonly #instance: Instance;
  readonly #from: Moment | undefined;
  readonly #to: Moment;
  readonly #rows: Rows = new Map();
  readonly #causes = new Map<string, { readonly newest: Cause[]; total: number }>();
  #standing: Standing;
  #before: { readonly rows: Rows; readonly standing: Standing } | undefined;
  #events = 0;

  /** `from` is wanted only for a difference; it must not be after `to`. */
  constructor(machine: Machine, instance: string, to: Moment, from?: Moment) {
    this.#instance = new Instance(instance, machine);
    this.#to = to;
    this.#from = from;
    this.#standing = { seq: 0, position: 0, now: 0, stateHash: this.#instance.stateHash };
  }

  /** Events that were taken, whether before the moment or after it. */
  get events(): number {
    return this.#events;
  }

  /** Takes the next record of the instance. Faults as `Instance.replay`. */
  take(record: PlacedRecord): void {
    this.#instance.replay(record, (seq, effects) => this.#event(record, seq, effects));
    this.#events = this.#instance.seq;
  }

  /** The state at the moment. O(n log n) in its rows. */
  get state(): StateThen {
    const tables = [...this.#rows]
      .filter(([, rows]) => rows.size > 0)
      .sort(([a], [b]) => compareCodeUnits(a, b))
      .map(([name, rows]): [string, readonly PlainObject[]] => [
        name,
        [...rows].sort(([a], [b]) => compareCodeUnits(a, b)).map(([, row]) => row),
      ]);
    return { ...this.#standing, tables: Object.fromEntries(tables) };
  }

  /** What differs between the two moments. */
  get difference(): StatesDiffer {
    assert(this.#from !== undefined, 'a difference has two ends');
    const before = this.#before ?? { rows: this.#rows, standing: this.#standing };
    const difference = compareStates(before.rows, this.#rows);
    const rows = difference.rows.map((row) => {
      const causes = this.#causes.get(nameOf(row.table, row.key));
      return { ...row, causes: causes?.newest ?? [], causesTotal: causes?.total ?? 0 };
    });
    return { ...difference, rows, from: before.standing, to: this.#standing };
  }

  #event(record: PlacedRecord, seq: number, effects: readonly RowEffect[]): void {
    if (!reaches(this.#to, seq, record.now)) return;
    if (this.#from !== undefined && this.#before === undefined && !reaches(this.#from, seq, record.now)) {
      const rows: Rows = new Map([...this.#rows].map(([name, each]) => [name, new Map(each)]));
      this.#before = { rows, standing: this.#standing };
    }
    const { position, now } = record;
    this.#standing = { seq, position, now, stateHash: this.#instance.stateHash };
    for (const { table, key, row } of effects) {
      const rows = this.#rows.get(table) ?? new Map<string, PlainObject>();
      this.#rows.set(table, rows);
      if (row === undefined) rows.delete(key);
      else rows.set(key, row);
      if (this.#before !== undefined) this.#blame(table, key, record, seq);
    }
  }

  #blame(table: string, key: string, record: PlacedRecord, seq: number): void {
    const { position, now, command, input, key: idempotencyKey, outcome, seqBefore } = record;
    const event = outcome.kind === 'accepted' ? (outcome.events[seq - seqBefore - 1]?.type ?? '') : '';
    const cause = { position, seq, now, command, input, event };
    const name = nameOf(table, key);
    const known = this.#causes.get(name) ?? { newest: [], total: 0 };
    this.#causes.set(name, known);
    // An event may write one row several times.
    if (known.newest.at(-1)?.seq === seq) return;
    known.newest.push(idempotencyKey === undefined ? cause : { ...cause, key: idempotencyKey });
    if (known.newest.length > causesPerRowMax) known.newest.shift();
    known.total += 1;
  }
}

function reaches(moment: Moment, seq: number, now: number): boolean {
  return 'seq' in moment ? seq <= moment.seq : now <= moment.timeMs;
}

function nameOf(table: string, key: string): string {
  return `${table}\n${key}`;
}
