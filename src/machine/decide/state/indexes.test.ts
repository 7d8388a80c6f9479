import { test } from 'node:test';
import { deepStrictEqual, strictEqual, throws } from 'node:assert/strict';
import * as fc from 'fast-check';
import sortedBtree from 'sorted-btree';
import { Type } from 'typebox';
import { Instance } from '../instance/instance.ts';
import { machine, table } from '../definition/machine.ts';
import { openInMemory } from '../instance/memory.ts';

const Ordinal = Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]);
const Row = Type.Object({ id: Type.String(), a: Type.Optional(Ordinal), b: Type.Optional(Ordinal) });
const Bound = Type.Optional(Type.Array(Type.Unknown()));
const Range = Type.Object({
  equals: Bound,
  from: Bound,
  after: Bound,
  to: Bound,
  before: Bound,
  descending: Type.Optional(Type.Boolean()),
  limit: Type.Optional(Type.Integer()),
});
/** Bounds of any shape: the types of an index allow only its own. */
type Loose = { scan(range: object): IterableIterator<{ readonly id: string }> };

const rows = machine({
  name: 'rows',
  version: 1,
  tables: { rows: table(Row, { key: 'id', indexes: { pair: ['a', 'b'], a: ['a'], key: ['id'] } }) },
  events: {
    put: { data: Row, evolve: (state, row) => state.rows.upsert(row) },
    gone: { data: Row, evolve: (state, { id }) => state.rows.delete(id) },
    turned: {
      data: Row,
      evolve: (state, { id, a }) => {
        for (const row of state.rows.by.a.scan()) if (row.id === id) state.rows.update(id, { a: a ?? null });
      },
    },
    failed: {
      data: Row,
      evolve: (state, row) => {
        state.rows.upsert(row);
        throw new Error('after a change');
      },
    },
  },
  commands: {
    put: { input: Row, decide: (_, data) => [{ type: 'put', data }] },
    gone: { input: Row, decide: (state, data) => (state.rows.has(data.id) ? [{ type: 'gone', data }] : []) },
    turn: { input: Row, decide: (_, data) => [{ type: 'turned', data }] },
    fail: { input: Row, decide: (_, data) => [{ type: 'failed', data }] },
  },
  queries: {
    pair: { input: Range, answer: (state, range) => [...(state.rows.by.pair as unknown as Loose).scan(range)] },
    a: { input: Range, answer: (state, range) => [...(state.rows.by.a as unknown as Loose).scan(range)] },
    key: { input: Range, answer: (state, range) => [...(state.rows.by.key as unknown as Loose).scan(range)] },
    scan: {
      input: Type.Object({
        from: Type.Optional(Type.String()),
        after: Type.Optional(Type.String()),
        to: Type.Optional(Type.String()),
        before: Type.Optional(Type.String()),
        descending: Type.Optional(Type.Boolean()),
        limit: Type.Optional(Type.Integer()),
      }),
      answer: (state, range) => [...state.rows.scan(range)],
    },
  },
});

type RowValue = string | number | boolean | null | undefined;
interface Plain {
  readonly id: string;
  readonly a?: RowValue;
  readonly b?: RowValue;
}

const order = ['undefined', 'null', 'boolean', 'number', 'string'];
const kindOf = (value: RowValue): number => order.indexOf(value === null ? 'null' : typeof value);
function compare(a: RowValue, b: RowValue): number {
  if (kindOf(a) !== kindOf(b)) return kindOf(a) - kindOf(b);
  if (a === b || a === undefined || a === null || b === undefined || b === null) return 0;
  return a < b ? -1 : 1;
}
/** Compares the first values of a row with a bound, as far as the bound goes. */
function against(values: readonly RowValue[], bound: readonly RowValue[]): number {
  for (const [i, value] of bound.entries()) {
    const found = compare(values[i], value);
    if (found !== 0) return found;
  }
  return 0;
}

interface RangeValue {
  readonly equals?: readonly RowValue[] | undefined;
  readonly from?: readonly RowValue[] | undefined;
  readonly after?: readonly RowValue[] | undefined;
  readonly to?: readonly RowValue[] | undefined;
  readonly before?: readonly RowValue[] | undefined;
  readonly descending?: boolean | undefined;
  readonly limit?: number | undefined;
}

/** What a scan comes to, by sorting everything and looking at each row. */
function naive(all: readonly Plain[], properties: readonly (keyof Plain)[], range: RangeValue): readonly string[] {
  const { equals = [], from, after, to, before, descending = false, limit = Infinity } = range;
  const sign = descending ? -1 : 1;
  const valuesOf = (row: Plain): readonly RowValue[] => properties.map((property) => row[property]);
  return all
    .toSorted((a, b) => sign * against(valuesOf(a), valuesOf(b)))
    .filter((row) => {
      const values = valuesOf(row);
      const rest = values.slice(equals.length);
      return (
        against(values, equals) === 0 &&
        (from === undefined || sign * against(rest, from) >= 0) &&
        (after === undefined || sign * against(rest, after) > 0) &&
        (to === undefined || sign * against(rest, to) <= 0) &&
        (before === undefined || sign * against(rest, before) < 0)
      );
    })
    .slice(0, limit)
    .map(({ id }) => id);
}

const value = fc.oneof(
  fc.constantFrom<RowValue>('', 'a', 'B', 'é', '10', 0, 1, -1.5, 10, true, false, null),
  fc.string({ maxLength: 2 }),
  fc.integer({ min: -3, max: 3 }),
);
const id = fc.constantFrom('a', 'b', 'c', 'd', 'Z', '10', '9', 'é', '');
const row = fc.record({ id, a: value, b: value }, { requiredKeys: ['id'] });
const step = fc.tuple(fc.constantFrom('put', 'put', 'put', 'gone', 'fail', 'turn'), row);
const bound = (max: number) => fc.option(fc.array(value, { maxLength: max }), { nil: undefined });
const flags = {
  descending: fc.option(fc.boolean(), { nil: undefined }),
  limit: fc.option(fc.integer({ min: 0, max: 5 }), { nil: undefined }),
};
const range = fc.array(value, { maxLength: 2 }).chain((equals) =>
  fc.record({
    equals: fc.constant(equals.length === 0 ? undefined : equals),
    from: bound(3 - equals.length),
    after: bound(3 - equals.length),
    to: bound(3 - equals.length),
    before: bound(3 - equals.length),
    ...flags,
  }),
);
const key = fc.option(id, { nil: undefined });
const keyRange = fc.record({ from: key, after: key, to: key, before: key, ...flags });
const list = (key: string | undefined): readonly string[] | undefined => (key === undefined ? undefined : [key]);

const idsOf = (found: unknown): unknown =>
  Array.isArray(found) ? found.map((each: { readonly id: string }) => each.id) : found;

test('scans of indexes and of keys visit what sorting all rows gives, also after changes that were taken back and replay', () => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 30 }),
      fc.array(range, { maxLength: 6 }),
      fc.array(keyRange, { maxLength: 6 }),
      (steps, ranges, keyRanges) => {
        const instance = openInMemory(rows);
        const all = new Map<string, Plain>();
        for (const [how, each] of steps) {
          const accepted = instance.execute(how, each).kind === 'accepted';
          if (!accepted) continue;
          if (how === 'put') all.set(each.id, each);
          if (how === 'gone') all.delete(each.id);
          const before = all.get(each.id);
          if (how === 'turn' && before !== undefined) all.set(each.id, { ...before, a: each.a ?? null });
        }
        const present = [...all.values()];
        for (const one of [instance, instance.replayed()]) {
          for (const each of ranges) {
            deepStrictEqual(idsOf(one.query('pair', each)), naive(present, ['a', 'b', 'id'], each));
            const short = { ...each, equals: each.equals?.slice(0, 1) };
            const fits = [short.from, short.after, short.to, short.before].every(
              (part) => (part?.length ?? 0) + (short.equals?.length ?? 0) <= 2,
            );
            if (fits) deepStrictEqual(idsOf(one.query('a', short)), naive(present, ['a', 'id'], short));
          }
          for (const { from, after, to, before, ...rest } of keyRanges) {
            const expected = naive(present, ['id'], {
              from: list(from),
              after: list(after),
              to: list(to),
              before: list(before),
              ...rest,
            });
            deepStrictEqual(idsOf(one.query('scan', { from, after, to, before, ...rest })), expected);
          }
        }
      },
    ),
    { numRuns: 300 },
  );
});

const BTree = sortedBtree.default;

test('a change that was interrupted leaves order and indexes as they were, whatever it did to them before', () => {
  const methods = ['set', 'delete'] as const;
  for (const method of methods) {
    for (const position of [1, 2, 3, 4]) {
      const instance = openInMemory(rows);
      for (const each of ['b', 'a', 'd', 'c']) instance.execute('put', { id: each, a: `${each}1` });
      // Orders are made by the first scan.
      for (const query of ['scan', 'key', 'a', 'pair']) instance.query(query);
      const hash = instance.stateHash;
      const whole: Pick<typeof BTree.prototype, 'set' | 'delete'> = {
        set: BTree.prototype.set,
        delete: BTree.prototype.delete,
      };
      let calls = 0;
      // As a stack that overflows in the middle of it: some of the tree is gone, and no one says which.
      BTree.prototype[method] = function interrupted(this: InstanceType<typeof BTree>) {
        calls += 1;
        if (calls !== position) return Reflect.apply(whole[method], this, arguments) as boolean;
        this.clear();
        throw new RangeError('Maximum call stack size exceeded');
      };
      const command = method === 'set' ? 'put' : 'gone';
      const { kind } = instance.execute(command, { id: method === 'set' ? 'aa' : 'a', a: 'x' });
      BTree.prototype[method] = whole[method] as never;
      strictEqual(kind, 'rejected', `${method} ${position}`);
      strictEqual(instance.stateHash, hash);
      for (const query of ['scan', 'key', 'a', 'pair']) {
        deepStrictEqual(idsOf(instance.query(query)), ['a', 'b', 'c', 'd'], `${query} after ${method} ${position}`);
      }
      strictEqual(instance.execute('gone', { id: 'a' }).kind, 'accepted');
      deepStrictEqual(idsOf(instance.query('pair')), ['b', 'c', 'd']);
    }
  }
});

test('an index says nothing about the state: with it and without it the hash is the same', () => {
  const plain = machine({
    name: 'rows',
    version: 1,
    tables: { rows: table(Row, { key: 'id' }) },
    events: { put: { data: Row, evolve: (state, each) => state.rows.upsert(each) } },
    commands: { put: { input: Row, decide: (_, data) => [{ type: 'put', data }] } },
  });
  const [one, other] = [openInMemory(rows), openInMemory(plain)];
  for (const each of [one, other]) {
    each.execute('put', { id: 'a', a: 1 });
    each.execute('put', { id: 'b' });
    each.execute('put', { id: 'a', a: 2 });
  }
  strictEqual(one.stateHash, other.stateHash);
});

test('a table that changes while its index is scanned, and a row that cannot be ordered, fail their event', () => {
  const odd = machine({
    name: 'odd',
    version: 1,
    tables: {
      rows: table(Type.Object({ id: Type.String(), a: Type.Unknown() }), { key: 'id', indexes: { a: ['id'] } }),
    },
    events: {
      put: {
        data: Type.Object({ id: Type.String(), a: Type.Unknown() }),
        evolve: (state, each) => state.rows.upsert(each),
      },
      grown: {
        data: Type.Object({}),
        evolve: (state) => {
          for (const each of state.rows.by.a.scan()) state.rows.upsert({ ...each, a: 1 });
        },
      },
    },
    commands: {
      put: {
        input: Type.Object({ id: Type.String(), a: Type.Unknown() }),
        decide: (_, data) => [{ type: 'put', data }],
      },
      grow: { input: Type.Object({}), decide: () => [{ type: 'grown', data: {} }] },
    },
  });
  const instance = new Instance('t', odd);
  instance.execute({ command: 'put', input: { id: 'a', a: 1 } }, 0);
  const grown = instance.execute({ command: 'grow', input: {} }, 0).answer;
  strictEqual(
    grown.kind === 'rejected' && grown.fault.message,
    'Command grow failed and changed nothing: event grown: Table rows was changed while it was scanned; collect the rows first',
  );
  const pairs = openInMemory(rows);
  pairs.execute('put', { id: 'a' });
  throws(() => pairs.query('a', { equals: [{}] }), { code: 'handler-failed', message: /a value of type object/ });
  throws(() => pairs.query('a', { from: [1, 'a', 2] }), { message: /orders by a, id; 3 values are too many/ });
});

test('an index over what is not there, or over nothing, is refused with its name', () => {
  const define = (indexes: object) => () =>
    machine({
      name: 'm',
      version: 1,
      tables: { rows: table(Row, { key: 'id', indexes: indexes as { a: ['a'] } }) },
      events: {},
      commands: {},
    });
  throws(define({ a: ['x'] }), {
    code: 'machine-unloadable',
    field: 'tables.rows.indexes.a',
    message: /no property x/,
  });
  throws(define({ a: [] }), { code: 'machine-unloadable', message: /names no property/ });
  throws(define({ 'a b': ['a'] }), { code: 'machine-unloadable', message: /cannot be a name/ });
  define({ a: ['a', 'b'] })();
});
