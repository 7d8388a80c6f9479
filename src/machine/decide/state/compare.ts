import { canonical, compareCodeUnits, isPlainObject, type PlainObject } from './value.ts';

/** Rows of one table by their keys. */
export type Rows = ReadonlyMap<string, PlainObject>;

/** Rows of a whole state: table by name. A table that is absent is one without rows. */
export type StateRows = ReadonlyMap<string, Rows>;

/** A value as a difference shows it: whole, or the first units of its JSON and how long that is, or absent. */
export type Shown =
  | { readonly value: unknown }
  | { readonly cut: string; readonly units: number }
  | { readonly absent: true };

/** One part of a row that differs. `path` is a JSON pointer (RFC 6901) into the row. */
export interface FieldDifference {
  readonly path: string;
  readonly from: Shown;
  readonly to: Shown;
}

/** One row that differs: `missing` stands in the first state only, `extra` in the second only. */
export type RowDifference = { readonly table: string; readonly key: string } & (
  | { readonly kind: 'missing'; readonly from: Shown }
  | { readonly kind: 'extra'; readonly to: Shown }
  | { readonly kind: 'changed'; readonly fields: readonly FieldDifference[] }
);

/** How many rows differ, and in which way. */
export interface DifferenceCounts {
  readonly missing: number;
  readonly extra: number;
  readonly changed: number;
}

export interface StateDifference {
  /** Of all tables; exact also where `rows` is cut. */
  readonly total: DifferenceCounts;
  /** The same by table, of those that differ; sorted by name. */
  readonly tables: readonly ({ readonly table: string } & DifferenceCounts)[];
  /** By table, then by key in the order of UTF-16 code units. */
  readonly rows: readonly RowDifference[];
  /** Whether `rows` says everything: every row that differs, and no value cut. */
  readonly complete: boolean;
}

export interface CompareBounds {
  /** Rows that are listed. */
  readonly rowsMax: number;
  /** Keys, paths and values of all listed rows together, in UTF-16 code units of their JSON. */
  readonly unitsMax: number;
  /** One shown value; a longer one is cut here. */
  readonly valueUnitsMax: number;
  /** Parts that are listed of one row; of a row with more the whole is shown as one. */
  readonly fieldsMax: number;
}

export const compareBounds: CompareBounds = {
  rowsMax: 200,
  unitsMax: 256 * 1024,
  valueUnitsMax: 4_096,
  fieldsMax: 64,
};

/**
 * What must be done to the first state to make the second, in an order that depends on the states alone.
 * Changes neither. O(rows of both), and O(d log d) in the rows that differ; memory is bounded by the keys
 * that differ and `bounds`.
 */
export function compareStates(from: StateRows, to: StateRows, bounds: CompareBounds = compareBounds): StateDifference {
  const total = { missing: 0, extra: 0, changed: 0 };
  const tables: ({ readonly table: string } & DifferenceCounts)[] = [];
  const list = new BoundedList(bounds);
  const names = [...new Set([...from.keys(), ...to.keys()])].sort(compareCodeUnits);
  for (const table of names) {
    const before = from.get(table) ?? noRows;
    const after = to.get(table) ?? noRows;
    const counts = { missing: 0, extra: 0, changed: 0 };
    for (const { key, kind } of differingKeys(before, after)) {
      counts[kind] += 1;
      total[kind] += 1;
      list.add(table, key, before.get(key), after.get(key));
    }
    if (counts.missing + counts.extra + counts.changed > 0) tables.push({ table, ...counts });
  }
  return { total, tables, rows: list.rows, complete: list.complete };
}

const noRows: Rows = new Map();

interface DifferingKey {
  readonly key: string;
  readonly kind: keyof DifferenceCounts;
}

function differingKeys(before: Rows, after: Rows): readonly DifferingKey[] {
  const keys: DifferingKey[] = [];
  for (const [key, row] of before) {
    const other = after.get(key);
    if (other === undefined) keys.push({ key, kind: 'missing' });
    else if (!isSame(row, other)) keys.push({ key, kind: 'changed' });
  }
  for (const key of after.keys()) if (!before.has(key)) keys.push({ key, kind: 'extra' });
  return keys.sort((a, b) => compareCodeUnits(a.key, b.key));
}

/** Equal values of `copyPlain` have equal JSON. Rows that two states share are the same object. */
function isSame(a: unknown, b: unknown): boolean {
  return a === b || (typeof a === 'object' && canonical(a) === canonical(b));
}

class BoundedList {
  readonly rows: RowDifference[] = [];
  complete = true;
  readonly #bounds: CompareBounds;
  #units = 0;

  constructor(bounds: CompareBounds) {
    this.#bounds = bounds;
  }

  add(table: string, key: string, from: PlainObject | undefined, to: PlainObject | undefined): void {
    if (this.rows.length >= this.#bounds.rowsMax || this.#units >= this.#bounds.unitsMax) {
      this.complete = false;
      return;
    }
    this.#units += table.length + key.length;
    const at = { table, key };
    if (to === undefined) this.rows.push({ ...at, kind: 'missing', from: this.#show(from) });
    else if (from === undefined) this.rows.push({ ...at, kind: 'extra', to: this.#show(to) });
    else this.rows.push({ ...at, kind: 'changed', fields: this.#fields(from, to) });
  }

  #fields(from: PlainObject, to: PlainObject): readonly FieldDifference[] {
    const parts: Part[] = [];
    const { fieldsMax } = this.#bounds;
    const listed = collect(from, to, '', parts, fieldsMax) ? parts : [{ path: '', from, to }];
    return listed.map(({ path, from: before, to: after }) => {
      this.#units += path.length;
      return { path, from: this.#show(before), to: this.#show(after) };
    });
  }

  #show(value: unknown): Shown {
    if (value === undefined) return { absent: true };
    const text = canonical(value);
    const left = Math.max(0, Math.min(this.#bounds.valueUnitsMax, this.#bounds.unitsMax - this.#units));
    if (text.length <= left) {
      this.#units += text.length;
      return { value };
    }
    this.complete = false;
    this.#units += left;
    return { cut: text.slice(0, left), units: text.length };
  }
}

interface Part {
  readonly path: string;
  readonly from: unknown;
  readonly to: unknown;
}

/** Collects the smallest parts that differ; false if there are more than `max`. Lists of other lengths differ as a whole. */
function collect(from: unknown, to: unknown, path: string, into: Part[], max: number): boolean {
  if (isPlainObject(from) && isPlainObject(to)) {
    const names = [...new Set([...Object.keys(from), ...Object.keys(to)])].sort(compareCodeUnits);
    return names.every((name) => collect(own(from, name), own(to, name), `${path}/${escape(name)}`, into, max));
  }
  if (Array.isArray(from) && Array.isArray(to) && from.length === to.length) {
    return from.every((item: unknown, i) => collect(item, to[i], `${path}/${i}`, into, max));
  }
  if (isSame(from, to)) return true;
  if (into.length >= max) return false;
  into.push({ path, from, to });
  return true;
}

function own(value: PlainObject, name: string): unknown {
  return Object.hasOwn(value, name) ? value[name] : undefined;
}

function escape(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1');
}
