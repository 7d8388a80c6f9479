import { test } from 'node:test';
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import * as fc from 'fast-check';
import { compareBounds, compareStates, type Shown, type StateDifference, type StateRows } from './compare.ts';
import { canonical, copyPlain, isPlainObject, type PlainObject } from './value.ts';

type PlainTables = Record<string, Record<string, unknown>>;

function stateOf(tables: PlainTables): StateRows {
  return new Map(
    Object.entries(tables).map(([table, rows]) => [
      table,
      new Map(Object.entries(rows).map(([key, row]) => [key, rowOf(row)])),
    ]),
  );
}

function rowOf(value: unknown): PlainObject {
  const row = copyPlain(value, true);
  ok(isPlainObject(row));
  return row;
}

/** The state as sorted text, tables without rows left out: equal if and only if the rows are. */
function textOf(state: StateRows): string {
  const tables = [...state].filter(([, rows]) => rows.size > 0).sort(([a], [b]) => (a < b ? -1 : 1));
  return canonical(tables.map(([table, rows]) => [table, [...rows].sort(([a], [b]) => (a < b ? -1 : 1))]));
}

function valueOf(shown: Shown): unknown {
  ok('value' in shown || 'absent' in shown, 'a complete difference cuts nothing');
  return 'value' in shown ? shown.value : undefined;
}

/** The second state made from the first and the difference alone. */
function apply(difference: StateDifference, from: StateRows): StateRows {
  const state = new Map([...from].map(([table, rows]) => [table, new Map(rows)]));
  for (const row of difference.rows) {
    const rows = state.get(row.table) ?? new Map<string, PlainObject>();
    state.set(row.table, rows);
    if (row.kind === 'missing') rows.delete(row.key);
    else if (row.kind === 'extra') rows.set(row.key, rowOf(valueOf(row.to)));
    else {
      let value: unknown = structuredClone(rows.get(row.key));
      for (const { path, to } of row.fields) value = put(value, path.split('/').slice(1), valueOf(to));
      rows.set(row.key, rowOf(value));
    }
  }
  return state;
}

function put(value: unknown, path: readonly string[], to: unknown): unknown {
  const [step, ...rest] = path;
  if (step === undefined) return to;
  if (Array.isArray(value)) return value.map((item: unknown, i) => (String(i) === step ? put(item, rest, to) : item));
  ok(isPlainObject(value));
  const name = step.replaceAll('~1', '/').replaceAll('~0', '~');
  const { [name]: before, ...others } = value;
  const after = put(before, rest, to);
  return after === undefined ? others : { ...others, [name]: after };
}

const name = fc.constantFrom('a', 'b', 'c~/d', '', 'ä', '1', 'toString');
const scalar = fc.oneof(fc.constantFrom(0, 1, -1.5, 1e300, '', 'x', 'a longer text', true, false, null), fc.string());
const nested = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    scalar,
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(name, tie('value'), { maxKeys: 3 }),
  ),
})).value;
const row = fc.dictionary(name, nested, { maxKeys: 4 });
const state = fc.dictionary(name, fc.dictionary(name, row, { maxKeys: 5 }), { maxKeys: 3 });
const unbounded = { ...compareBounds, unitsMax: 1e9, valueUnitsMax: 1e9 };

test('the difference of two states, applied to the first, makes the second', () => {
  fc.assert(
    fc.property(state, state, (a, b) => {
      const [from, to] = [stateOf(a), stateOf(b)];
      const difference = compareStates(from, to, unbounded);
      ok(difference.complete);
      strictEqual(textOf(apply(difference, from)), textOf(to));
    }),
    { numRuns: 500 },
  );
});

test('states differ in something exactly if their rows do', () => {
  fc.assert(
    fc.property(state, state, (a, b) => {
      const [from, to] = [stateOf(a), stateOf(b)];
      const { total, rows, tables } = compareStates(from, to, unbounded);
      const count = total.missing + total.extra + total.changed;
      strictEqual(count === 0, textOf(from) === textOf(to));
      strictEqual(rows.length, count);
      strictEqual(
        tables.reduce((sum, { missing, extra, changed }) => sum + missing + extra + changed, 0),
        count,
      );
      const none = { missing: 0, extra: 0, changed: 0 };
      deepStrictEqual(compareStates(to, stateOf(b), unbounded).total, none);
    }),
  );
});

test('the difference does not depend on the order in which rows were put', () => {
  fc.assert(
    fc.property(state, state, (a, b) => {
      const reversed = new Map([...stateOf(b)].reverse().map(([table, rows]) => [table, new Map([...rows].reverse())]));
      deepStrictEqual(compareStates(stateOf(a), reversed), compareStates(stateOf(a), stateOf(b)));
    }),
  );
});

test('a changed row names only what changed in it', () => {
  const from = stateOf({ orders: { 7: { id: '7', lines: [{ item: 'nut', quantity: 1 }], note: 'x' } } });
  const to = stateOf({ orders: { 7: { id: '7', lines: [{ item: 'nut', quantity: 2 }], paid: true } } });
  deepStrictEqual(compareStates(from, to), {
    total: { missing: 0, extra: 0, changed: 1 },
    tables: [{ table: 'orders', missing: 0, extra: 0, changed: 1 }],
    rows: [
      {
        table: 'orders',
        key: '7',
        kind: 'changed',
        fields: [
          { path: '/lines/0/quantity', from: { value: 1 }, to: { value: 2 } },
          { path: '/note', from: { value: 'x' }, to: { absent: true } },
          { path: '/paid', from: { absent: true }, to: { value: true } },
        ],
      },
    ],
    complete: true,
  });
});

function rowsNamed(count: number, value: unknown = 1): PlainTables {
  return { t: Object.fromEntries(Array.from({ length: count }, (_, i) => [`key-${i}`, { value }])) };
}

test('rows beyond the bound are counted and not listed', () => {
  for (const extra of [-1, 0, 1]) {
    const count = compareBounds.rowsMax + extra;
    const { total, rows, complete } = compareStates(new Map(), stateOf(rowsNamed(count)));
    strictEqual(total.extra, count);
    strictEqual(rows.length, Math.min(count, compareBounds.rowsMax));
    strictEqual(complete, extra <= 0);
  }
});

test('a value beyond its bound is cut, and says how long it is', () => {
  for (const extra of [-1, 0, 1]) {
    const units = compareBounds.valueUnitsMax + extra;
    const to = stateOf({ t: { k: { text: 'x'.repeat(units - 2) } } });
    const { rows, complete } = compareStates(stateOf({ t: { k: { text: '' } } }), to);
    strictEqual(complete, extra <= 0);
    const [changed] = rows;
    ok(changed?.kind === 'changed');
    const shown = changed.fields[0]?.to;
    ok(shown !== undefined);
    if (extra <= 0) ok('value' in shown);
    else {
      ok('cut' in shown);
      strictEqual(shown.units, units);
      strictEqual(shown.cut.length, compareBounds.valueUnitsMax);
    }
  }
});

test('all listed rows together stay within their bound', () => {
  const wide = 'x'.repeat(compareBounds.valueUnitsMax - 100);
  const { rows, total, complete } = compareStates(new Map(), stateOf(rowsNamed(150, wide)));
  strictEqual(total.extra, 150);
  strictEqual(complete, false);
  ok(rows.length < 150);
  ok(JSON.stringify(rows).length < compareBounds.unitsMax + 100 * rows.length);
});

test('a row that differs in more parts than the bound is shown as one', () => {
  for (const extra of [-1, 0, 1]) {
    const count = compareBounds.fieldsMax + extra;
    const wide = (value: number) =>
      stateOf({ t: { k: Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, value])) } });
    const [changed] = compareStates(wide(0), wide(1)).rows;
    ok(changed?.kind === 'changed');
    strictEqual(changed.fields.length, extra <= 0 ? count : 1);
    if (extra > 0) strictEqual(changed.fields[0]?.path, '');
  }
});
