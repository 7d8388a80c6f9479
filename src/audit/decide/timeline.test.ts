import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Type } from 'typebox';
import { Instance } from '../../machine/decide/instance/instance.ts';
import { machine, table } from '../../machine/decide/definition/machine.ts';
import { decodeRecord, encodeRecord, type PlacedRecord } from '../../machine/decide/log/record.ts';
import { causesPerRowMax, Timeline, type Moment } from './timeline.ts';

/** Each command writes several rows by several events, one row twice in one event. */
const shelf = machine({
  name: 'shelf',
  version: 1,
  tables: { books: table(Type.Object({ id: Type.String(), read: Type.Integer() }), { key: 'id' }) },
  events: {
    read: {
      data: Type.Object({ id: Type.String() }),
      evolve: (state, { id }) => {
        const read = state.books.get(id)?.read ?? 0;
        state.books.upsert({ id, read: -1 });
        state.books.upsert({ id, read: read + 1 });
      },
    },
    lost: { data: Type.Object({ id: Type.String() }), evolve: (state, { id }) => state.books.delete(id) },
  },
  commands: {
    read: {
      input: Type.Object({ ids: Type.Array(Type.String()) }),
      decide: (_, { ids }) => ids.map((id) => ({ type: 'read', data: { id } }) as const),
    },
    lose: {
      input: Type.Object({ id: Type.String() }),
      decide: (_, { id }) => [{ type: 'lost', data: { id } }],
    },
  },
});

function recorded(commands: readonly (readonly [string, unknown])[]): readonly PlacedRecord[] {
  const instance = new Instance('acme', shelf);
  return commands.map(([command, input], i) => {
    const { record } = instance.execute({ command, input }, 1_000 * (i + 1));
    assert.ok(record !== undefined);
    return decodeRecord(i + 1, encodeRecord(i + 1, i, record));
  });
}

const records = recorded([
  ['read', { ids: ['a', 'b', 'a'] }],
  ['read', { ids: ['b', 'c'] }],
  ['lose', { id: 'a' }],
]);

function looked(to: Moment, from?: Moment): Timeline {
  const timeline = new Timeline(shelf, 'acme', to, from);
  for (const record of records) timeline.take(record);
  return timeline;
}

test('a command of several events has a state after each of them, with its hash', () => {
  const books = (seq: number): unknown => looked({ seq }).state.tables['books'] ?? [];
  assert.deepEqual(books(0), []);
  assert.deepEqual(books(1), [{ id: 'a', read: 1 }]);
  assert.deepEqual(books(2), [
    { id: 'a', read: 1 },
    { id: 'b', read: 1 },
  ]);
  assert.deepEqual(books(3), [
    { id: 'a', read: 2 },
    { id: 'b', read: 1 },
  ]);
  assert.deepEqual(books(6), [
    { id: 'b', read: 2 },
    { id: 'c', read: 1 },
  ]);
  assert.deepEqual(
    [1, 2, 3].map((seq) => looked({ seq }).state.stateHash),
    records[0]?.hashes.slice(1),
  );
});

test('a time means everything up to then', () => {
  assert.equal(looked({ timeMs: 999 }).state.seq, 0);
  assert.equal(looked({ timeMs: 1_000 }).state.seq, 3);
  assert.equal(looked({ timeMs: 2_999 }).state.seq, 5);
  assert.equal(looked({ timeMs: 3_000 }).state.position, 3);
});

test('a difference begins in the middle of a command, and names each cause once', () => {
  const { difference } = looked({ seq: 6 }, { seq: 2 });
  assert.deepEqual(
    difference.rows.map(({ key, kind, causes }) => [key, kind, causes.map(({ seq, event }) => [seq, event])]),
    [
      [
        'a',
        'missing',
        [
          [3, 'read'],
          [6, 'lost'],
        ],
      ],
      ['b', 'changed', [[4, 'read']]],
      ['c', 'extra', [[5, 'read']]],
    ],
  );
  assert.deepEqual([difference.from.seq, difference.to.seq], [2, 6]);
});

test('a moment after the last event is the last state, and a difference to it has no rows', () => {
  assert.deepEqual(looked({ timeMs: 9_000 }, { timeMs: 8_000 }).difference.rows, []);
});

test('of the commands that changed one row the newest are named and all are counted', () => {
  for (const [count, named] of [
    [causesPerRowMax - 1, causesPerRowMax - 1],
    [causesPerRowMax, causesPerRowMax],
    [causesPerRowMax + 1, causesPerRowMax],
  ] as const) {
    const timeline = new Timeline(shelf, 'acme', { seq: count }, { seq: 0 });
    for (const record of recorded(Array.from({ length: count }, () => ['read', { ids: ['a'] }]))) timeline.take(record);
    const [row] = timeline.difference.rows;
    assert.equal(row?.causes.length, named);
    assert.equal(row?.causesTotal, count);
    assert.equal(row?.causes.at(-1)?.seq, count);
  }
});
