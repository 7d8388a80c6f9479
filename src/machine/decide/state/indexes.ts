import sortedBtree from 'sorted-btree';
import type { IndexRange, IndexView, Ordinal } from '../definition/define.ts';
import { compareCodeUnits, type PlainObject } from './value.ts';

const Tree = sortedBtree.default;

/** What an index needs to know of its definition. */
export interface IndexShape {
  readonly name: string;
  /** The properties it orders by; the key of the row is among them, so that no two rows are equal. */
  readonly properties: readonly string[];
}

/** An event, an invariant or a query did something that a table does not allow. */
export class TableMisuse extends Error {
  override readonly name = 'TableMisuse';
}

/** A place between rows: before or after all whose first properties have these values. */
class Place {
  readonly values: readonly Ordinal[];
  readonly side: -1 | 1;

  constructor(values: readonly Ordinal[], side: -1 | 1) {
    this.values = values;
    this.side = side;
  }
}

type Range = IndexRange<readonly Ordinal[], readonly Ordinal[]>;

/**
 * The rows of one table in the order of some of their properties. It holds the rows themselves, so that it costs a
 * reference a row and no copy. Derived from the rows: it is no part of a hash. Made when it is first scanned, O(n log n),
 * and kept up to date from then on: a table that nobody scans pays nothing for its order.
 */
export class OrderedIndex {
  readonly #table: string;
  readonly #shape: IndexShape;
  readonly #source: ReadonlyMap<string, PlainObject>;
  #rows: sortedBtree.default<PlainObject | Place, undefined> | undefined;
  /** Grows with each change, so that a scan notices one under it. */
  #version = 0;

  /** `source` are the rows of the table as they are now, always. */
  constructor(table: string, shape: IndexShape, source: ReadonlyMap<string, PlainObject>) {
    this.#table = table;
    this.#shape = shape;
    this.#source = source;
  }

  /** Puts `row` where `previous` was; either may be missing. To repeat it changes nothing. O(log n). */
  put(previous: PlainObject | undefined, row: PlainObject | undefined): void {
    this.#version += 1;
    if (this.#rows === undefined) return;
    if (previous !== undefined && (row === undefined || this.#compareRows(previous, row) !== 0)) {
      this.#rows.delete(previous);
    }
    if (row !== undefined) this.#rows.set(row, undefined);
  }

  /** Forgets the order, because a change of it was interrupted and nobody knows what it is. */
  forget(): void {
    this.#version += 1;
    this.#rows = undefined;
  }

  *scan(range: Range = {}): IterableIterator<PlainObject> {
    const { descending = false, limit = Number.POSITIVE_INFINITY } = range;
    const first = this.#first(range, descending);
    const last = this.#last(range, descending);
    const version = this.#version;
    let visited = 0;
    const rows = (this.#rows ??= this.#ordered());
    const found = descending ? keysOf(rows.entriesReversed(first)) : rows.keys(first);
    for (const row of found) {
      if (visited >= limit || row instanceof Place) return;
      const beyond = this.#compareToPlace(row, last);
      if (descending ? beyond < 0 : beyond > 0) return;
      visited += 1;
      yield row;
      if (this.#version !== version) {
        throw new TableMisuse(`Table ${this.#table} was changed while it was scanned; collect the rows first`);
      }
    }
  }

  #ordered(): sortedBtree.default<PlainObject | Place, undefined> {
    const rows = new Tree<PlainObject | Place, undefined>(undefined, (a, b) => this.#compare(a, b));
    for (const row of [...this.#source.values()].sort((a, b) => this.#compareRows(a, b))) rows.set(row, undefined);
    return rows;
  }

  /** Where a scan begins: of `from` and `after` the one that it meets last. */
  #first({ equals = [], from, after }: Range, descending: boolean): Place {
    const inner = descending ? 1 : -1;
    const start = this.#place([...equals, ...(from ?? [])], inner);
    if (after === undefined) return start;
    const other = this.#place([...equals, ...after], descending ? -1 : 1);
    return comparePlaces(start, other) < 0 === descending ? start : other;
  }

  /** Where a scan ends: of `to` and `before` the one that it meets first. */
  #last({ equals = [], to, before }: Range, descending: boolean): Place {
    const end = this.#place([...equals, ...(to ?? [])], descending ? -1 : 1);
    if (before === undefined) return end;
    const other = this.#place([...equals, ...before], descending ? 1 : -1);
    return comparePlaces(end, other) < 0 === descending ? other : end;
  }

  #place(values: readonly Ordinal[], side: -1 | 1): Place {
    const { name, properties } = this.#shape;
    if (values.length > properties.length) {
      throw new TableMisuse(
        `Index ${name} of table ${this.#table} orders by ${properties.join(', ')}; ${values.length} values are too many`,
      );
    }
    for (const value of values) {
      if (isOrdinal(value)) continue;
      throw new TableMisuse(
        `Index ${name} of table ${this.#table} cannot be scanned for a value of type ${typeof value}`,
      );
    }
    return new Place(values, side);
  }

  #compare(a: PlainObject | Place, b: PlainObject | Place): number {
    if (b instanceof Place) return a instanceof Place ? comparePlaces(a, b) : this.#compareToPlace(a, b);
    return a instanceof Place ? -this.#compareToPlace(b, a) : this.#compareRows(a, b);
  }

  #compareRows(a: PlainObject, b: PlainObject): number {
    for (const property of this.#shape.properties) {
      const order = compareOrdinals(a[property], b[property]);
      if (order !== 0) return order;
    }
    return 0;
  }

  #compareToPlace(row: PlainObject, { values, side }: Place): number {
    const { properties } = this.#shape;
    for (let i = 0; i < values.length; i++) {
      const order = compareOrdinals(row[properties[i] ?? ''], values[i]);
      if (order !== 0) return order;
    }
    return -side;
  }
}

function* keysOf<Key>(entries: Iterable<[Key, unknown]>): IterableIterator<Key> {
  for (const [key] of entries) yield key;
}

/** An index as handlers see it: nothing but `scan`. */
export class IndexReader implements IndexView<PlainObject> {
  readonly #index: OrderedIndex;

  constructor(index: OrderedIndex) {
    this.#index = index;
  }

  scan(range?: Range): IterableIterator<PlainObject> {
    return this.#index.scan(range);
  }
}

/** Whether rows can be ordered by a value. */
export function isOrdinal(value: unknown): value is Ordinal {
  switch (typeof value) {
    case 'string':
    case 'boolean':
    case 'undefined':
      return true;
    case 'number':
      return !Number.isNaN(value);
    default:
      return value === null;
  }
}

/** A total order over all ordinals, without regard to locale: missing, null, false, true, numbers, texts. */
function compareOrdinals(a: unknown, b: unknown): number {
  if (typeof a === 'string' && typeof b === 'string') return compareCodeUnits(a, b);
  if (typeof a === 'number' && typeof b === 'number') return a < b ? -1 : a > b ? 1 : 0;
  return rankOf(a) - rankOf(b);
}

function rankOf(value: unknown): number {
  switch (typeof value) {
    case 'undefined':
      return 0;
    case 'boolean':
      return value ? 3 : 2;
    case 'number':
      return 4;
    case 'string':
      return 5;
    default:
      return 1;
  }
}

function comparePlaces(a: Place, b: Place): number {
  const common = Math.min(a.values.length, b.values.length);
  for (let i = 0; i < common; i++) {
    const order = compareOrdinals(a.values[i], b.values[i]);
    if (order !== 0) return order;
  }
  // The shorter one stands before or after everything with its values, the longer one among them.
  if (a.values.length < b.values.length) return a.side;
  if (b.values.length < a.values.length) return -b.side;
  return a.side - b.side;
}
