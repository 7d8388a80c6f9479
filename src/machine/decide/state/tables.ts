import sortedBtree from 'sorted-btree';
import { SetHash } from '../../../kernel/hash.ts';
import type { StateRows } from './compare.ts';
import type { IndexView, RowChange, ScanRange, TableView, TableWriter } from '../definition/define.ts';
import { IndexReader, isOrdinal, OrderedIndex, TableMisuse, type IndexShape } from './indexes.ts';
import { compareCodeUnits, copyPlain, isPlainObject, type PlainObject } from './value.ts';
import { hashValueInto, valueHashTag } from './value-hash.ts';

const OrderedKeys = sortedBtree.default;

/** What a table needs to know of its definition, compiled once per machine. */
export interface TableShape {
  readonly name: string;
  readonly key: string;
  readonly indexes: readonly IndexShape[];
  readonly fits: (row: unknown) => boolean;
  /** Says what does not fit, for the message. */
  readonly misfit: (row: unknown) => string;
}

type IndexViews = Readonly<Record<string, IndexView<PlainObject>>>;
/** A table as the runtime itself writes it. */
export type IndexedWriter = TableWriter<PlainObject, IndexViews>;

/** How long a row's key may be, in UTF-16 code units. */
export const rowKeyLengthMax = 1024;

/** What one write did to a row; undefined where there was none, or is none any more. */
export interface RowEffect extends RowChange {
  readonly previous: PlainObject | undefined;
  readonly row: PlainObject | undefined;
}

/** A change and how far it came: a stack that overflows may end it anywhere. */
interface Change extends RowEffect {
  readonly store: TableStore;
  hashed: boolean;
  done: boolean;
}

/**
 * All tables of one instance: rows, the order of keys, indexes, the hash over all rows, and a journal that
 * takes back what was done since it was last cleared. Each change costs O(row), and O(log n) more for each order (of
 * keys, of an index) that was ever scanned; reading the hash costs O(1).
 */
export class TableSet {
  readonly views: Readonly<Record<string, TableView<PlainObject>>>;
  readonly writers: Readonly<Record<string, TableWriter<PlainObject>>>;
  /** The rows of every table as they are: live maps. */
  readonly rows: StateRows;
  readonly #stores = new Map<string, TableStore>();
  readonly #rows = new Map<string, TableStore['rows']>();
  readonly #hash = new SetHash(valueHashTag);
  readonly #removed = new Int32Array(4);
  readonly #added = new Int32Array(4);
  #journal: Change[] = [];
  #evolving = false;

  constructor(shapes: readonly TableShape[]) {
    const views: Record<string, TableView<PlainObject>> = {};
    const writers: Record<string, TableWriter<PlainObject>> = {};
    for (const shape of shapes) {
      const store = this.#add(shape);
      views[shape.name] = new View(store);
      writers[shape.name] = new Writer(store);
    }
    this.views = Object.freeze(views);
    this.writers = Object.freeze(writers);
    this.rows = this.#rows;
  }

  /** One more table, empty, that is neither among the views nor among the writers: for the runtime's own rows. */
  addTable(shape: TableShape): IndexedWriter {
    return new Writer(this.#add(shape));
  }

  #add(shape: TableShape): TableStore {
    const store = new TableStore(shape, (key, row) => this.#write(store, key, row));
    this.#stores.set(shape.name, store);
    this.#rows.set(shape.name, store.rows);
    return store;
  }

  /** Puts a row back as it was, frozen. Only its key is checked, and nothing can be taken back. */
  load(table: string, row: PlainObject): void {
    const store = this.#stores.get(table);
    const key = store === undefined ? undefined : row[store.shape.key];
    if (store === undefined || typeof key !== 'string' || store.rows.has(key)) {
      throw new TableMisuse(`Table ${table} has no place for a row that was kept`);
    }
    this.#rehash(store, undefined, row);
    store.put(key, undefined, row);
  }

  /** Hash over every row of every table: equal if and only if (but for chance) the rows are equal. */
  get hash(): string {
    return this.#hash.text;
  }

  /** Runs what may change rows; anywhere else a writer throws. */
  evolve(change: () => unknown): unknown {
    this.#evolving = true;
    try {
      const returned = change();
      this.#assertWhole();
      return returned;
    } finally {
      this.#evolving = false;
    }
  }

  /** Changes since the journal was last cleared, the oldest first. */
  get changes(): readonly RowEffect[] {
    return this.#journal;
  }

  /** Makes everything since the last call permanent. */
  keep(): void {
    if (this.#journal.length > 0) this.#journal = [];
  }

  /** Takes back everything since the last `keep`: rows, order and hash are exactly as they were. */
  undo(): void {
    for (let i = this.#journal.length - 1; i >= 0; i--) {
      const change = this.#journal[i];
      if (change === undefined) continue;
      const { store, key, row, previous, hashed, done } = change;
      if (hashed) this.#rehash(store, row, previous);
      if (done) store.put(key, row, previous);
      else store.restore(key, previous);
    }
    this.#journal = [];
  }

  #write(store: TableStore, key: string, row: PlainObject | undefined): void {
    if (!this.#evolving) {
      throw new TableMisuse(
        `Table ${store.shape.name} was changed outside an event; return an event and change it there`,
      );
    }
    this.#assertWhole();
    const previous = store.rows.get(key);
    if (previous !== undefined) store.hashInto(previous, this.#removed);
    if (row !== undefined) store.hashInto(row, this.#added);
    const change: Change = { store, table: store.shape.name, key, previous, row, hashed: false, done: false };
    // Into the journal before anything changes, so that whatever happens from here on can be taken back.
    this.#journal.push(change);
    this.#hash.replaceLanes(
      previous === undefined ? undefined : this.#removed,
      row === undefined ? undefined : this.#added,
    );
    change.hashed = true;
    store.put(key, previous, row);
    change.done = true;
  }

  #rehash(store: TableStore, removed: PlainObject | undefined, added: PlainObject | undefined): void {
    if (removed !== undefined) store.hashInto(removed, this.#removed);
    if (added !== undefined) store.hashInto(added, this.#added);
    this.#hash.replaceLanes(
      removed === undefined ? undefined : this.#removed,
      added === undefined ? undefined : this.#added,
    );
  }

  /** A handler may catch the overflow that interrupted a change; the event must fail all the same. */
  #assertWhole(): void {
    if (this.#journal.at(-1)?.done === false) throw new TableMisuse('A change of a table was interrupted');
  }
}

class TableStore {
  readonly shape: TableShape;
  readonly rows = new Map<string, PlainObject>();
  /** Made when somebody first scans. */
  #order: sortedBtree.default<string, undefined> | undefined;
  readonly indexes: readonly OrderedIndex[];
  readonly write: (key: string, row: PlainObject | undefined) => void;
  /** Table and name of the key in front of each row's text: equal rows of two tables must not cancel out. */
  readonly #prefix: string;
  /** Grows with each insert or delete, so that a scan notices that its table changed under it. */
  version = 0;

  constructor(shape: TableShape, write: (key: string, row: PlainObject | undefined) => void) {
    this.shape = shape;
    this.write = write;
    this.#prefix = `${shape.name.length}:${shape.name}${shape.key.length}:${shape.key}`;
    this.indexes =
      shape.indexes.length === 0
        ? noIndexes
        : shape.indexes.map((index) => new OrderedIndex(shape.name, index, this.rows));
  }

  /** What a row counts for in the hash of the state. */
  hashInto(row: PlainObject, lanes: Int32Array): void {
    hashValueInto(this.#prefix, row, lanes);
  }

  /** The keys in their order. O(n log n) the first time, O(1) from then on. */
  get order(): sortedBtree.default<string, undefined> {
    if (this.#order !== undefined) return this.#order;
    const order = new OrderedKeys<string, undefined>(undefined, compareCodeUnits);
    for (const key of [...this.rows.keys()].sort(compareCodeUnits)) order.set(key, undefined);
    return (this.#order = order);
  }

  /**
   * Takes back a change that was interrupted: nobody knows in which state it left the order of keys and the indexes, so
   * they are not asked to change but forgotten, to be made anew.
   */
  restore(key: string, previous: PlainObject | undefined): void {
    if (previous === undefined) this.rows.delete(key);
    else this.rows.set(key, previous);
    this.version += 1;
    for (const index of this.indexes) index.forget();
    this.#order = undefined;
  }

  /** Puts `row` where `previous` was; either may be missing. To repeat it changes nothing. */
  put(key: string, previous: PlainObject | undefined, row: PlainObject | undefined): void {
    if (row === undefined) {
      this.rows.delete(key);
      this.#order?.delete(key);
      this.version += 1;
    } else {
      this.rows.set(key, row);
      if (previous === undefined) {
        this.#order?.set(key, undefined);
        this.version += 1;
      }
    }
    for (let i = 0; i < this.indexes.length; i++) this.indexes[i]?.put(previous, row);
  }
}

const noIndexes: readonly OrderedIndex[] = Object.freeze([]);
const noViews: IndexViews = Object.freeze({});

class View implements TableView<PlainObject, IndexViews> {
  protected readonly store: TableStore;
  #by: IndexViews | undefined;

  constructor(store: TableStore) {
    this.store = store;
  }

  get by(): IndexViews {
    const { indexes, shape } = this.store;
    if (indexes.length === 0) return noViews;
    return (this.#by ??= Object.freeze(
      Object.fromEntries(indexes.map((index, i) => [shape.indexes[i]?.name ?? '', new IndexReader(index)])),
    ));
  }

  get size(): number {
    return this.store.rows.size;
  }

  get(key: string): PlainObject | undefined {
    return this.store.rows.get(key);
  }

  has(key: string): boolean {
    return this.store.rows.has(key);
  }

  *scan(range: ScanRange = {}): IterableIterator<PlainObject> {
    const { rows, shape } = this.store;
    const { from, after, descending = false, limit = Number.POSITIVE_INFINITY } = range;
    const nearer = from !== undefined && after !== undefined && from < after === descending;
    const first = after === undefined || nearer ? from : after;
    const version = this.store.version;
    let visited = 0;
    const { order } = this.store;
    for (const key of descending ? keysDown(order, first) : order.keys(first)) {
      if (visited >= limit || isBeyond(key, range)) return;
      if (key === after) continue;
      const row = rows.get(key);
      if (row === undefined) continue;
      visited += 1;
      yield row;
      if (this.store.version !== version) {
        throw new TableMisuse(`Table ${shape.name} was changed while it was scanned; collect the keys first`);
      }
    }
  }

  insert(_row: PlainObject): void {
    throw this.#readOnly('insert');
  }

  update(_key: string, _change: PlainObject): void {
    throw this.#readOnly('update');
  }

  upsert(_row: PlainObject): void {
    throw this.#readOnly('upsert');
  }

  delete(_key: string): void {
    throw this.#readOnly('delete');
  }

  #readOnly(method: string): TableMisuse {
    return new TableMisuse(
      `state.${this.store.shape.name}.${method} was called where state can only be read; return an event, and change the table in its evolve`,
    );
  }
}

/** Keys from `first` down to the least; from the greatest if there is none. */
function* keysDown(keys: sortedBtree.default<string, undefined>, first: string | undefined): IterableIterator<string> {
  for (const [key] of keys.entriesReversed(first)) yield key;
}

/** Whether a scan has passed its end. */
function isBeyond(key: string, { to, before, descending = false }: ScanRange): boolean {
  if (to !== undefined && (descending ? key < to : key > to)) return true;
  return before !== undefined && (descending ? key <= before : key >= before);
}

class Writer extends View implements IndexedWriter {
  override insert(row: PlainObject): void {
    const { key, plain } = this.#accept(row);
    if (this.has(key)) throw new TableMisuse(`Table ${this.store.shape.name} already has a row ${key}`);
    this.store.write(key, plain);
  }

  override update(key: string, change: PlainObject): void {
    const row = this.get(key);
    if (row === undefined) throw new TableMisuse(`Table ${this.store.shape.name} has no row ${key} to update`);
    const { key: changed, plain } = this.#accept({ ...row, ...change });
    if (changed !== key) throw new TableMisuse(`Row ${key} of table ${this.store.shape.name} cannot change its key`);
    this.store.write(key, plain);
  }

  override upsert(row: PlainObject): void {
    const { key, plain } = this.#accept(row);
    this.store.write(key, plain);
  }

  override delete(key: string): void {
    if (!this.has(key)) throw new TableMisuse(`Table ${this.store.shape.name} has no row ${key} to delete`);
    this.store.write(key, undefined);
  }

  #accept(row: PlainObject): { readonly key: string; readonly plain: PlainObject } {
    const { shape } = this.store;
    const plain = copyPlain(row, true);
    if (!isPlainObject(plain) || !shape.fits(plain)) {
      throw new TableMisuse(`A row of table ${shape.name} does not fit its schema: ${shape.misfit(plain)}`);
    }
    const key = plain[shape.key];
    if (typeof key !== 'string') throw new TableMisuse(`The key ${shape.key} of table ${shape.name} must be a string`);
    if (key.length > rowKeyLengthMax) {
      throw new TableMisuse(`A key of table ${shape.name} is longer than ${rowKeyLengthMax}`);
    }
    for (const { name, properties } of shape.indexes) {
      const wrong = properties.find((property) => !isOrdinal(plain[property]));
      if (wrong === undefined) continue;
      throw new TableMisuse(
        `Index ${name} of table ${shape.name} orders by ${wrong}, which must be a text, a number, a boolean, null or missing`,
      );
    }
    return { key, plain };
  }
}
