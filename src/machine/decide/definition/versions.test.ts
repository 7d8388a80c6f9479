import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Type } from 'typebox';
import { Fault } from '../../../kernel/fault.ts';
import { Instance } from '../instance/instance.ts';
import { machine, table, type Machine } from './machine.ts';
import { decodeRecord, encodeRecord, type LogRecord } from '../log/record.ts';
import { upcast } from './versions.ts';

const Counter = Type.Object({ id: Type.String(), count: Type.Integer() });

/** Version 1: counts. Its events carry `by`. */
const first = machine({
  name: 'counters',
  version: 1,
  tables: { counters: table(Counter, { key: 'id' }) },
  events: {
    counted: {
      data: Type.Object({ id: Type.String(), by: Type.Integer() }),
      evolve: (state, { id, by }) => state.counters.upsert({ id, count: (state.counters.get(id)?.count ?? 0) + by }),
    },
    cleared: {
      data: Type.Object({ id: Type.String() }),
      evolve: (state, { id }) => state.counters.upsert({ id, count: 0 }),
    },
  },
  commands: {
    count: {
      input: Type.Object({ id: Type.String(), by: Type.Integer() }),
      decide: (_, input, ctx) =>
        input.by === 0 ? ctx.refuse('nothing', 'Count something') : [{ type: 'counted', data: input }],
    },
    clear: {
      input: Type.Object({ id: Type.String() }),
      decide: (_, input) => [{ type: 'cleared', data: input }],
    },
  },
});

const Amount = Type.Object({ id: Type.String(), amount: Type.Integer() });

/** A later version: `by` is called `amount`, and nothing is cleared any more but counted down. */
function later(options: {
  readonly version: number;
  readonly factor?: number;
  readonly changes?: Readonly<Record<number, string>>;
}): Machine {
  const { version, factor = 1, changes = {} } = options;
  return machine({
    name: 'counters',
    version,
    changes,
    tables: { counters: table(Counter, { key: 'id' }) },
    events: {
      counted: {
        data: Amount,
        upcast: {
          1: upcast(Type.Object({ id: Type.String(), by: Type.Integer() }), ({ id, by }) => ({ id, amount: by })),
        },
        evolve: (state, { id, amount }) =>
          state.counters.upsert({ id, count: (state.counters.get(id)?.count ?? 0) + factor * amount }),
      },
      emptied: {
        data: Type.Object({ id: Type.String() }),
        evolve: (state, { id }) => state.counters.upsert({ id, count: 0 }),
      },
    },
    retired: {
      cleared: { lastVersion: 1, into: ({ id }) => [{ type: 'emptied', data: { id: String(id) } }] },
    },
    commands: {
      count: { input: Amount, decide: (_, input) => [{ type: 'counted', data: input }] },
    },
  });
}

/** Runs commands under a machine on top of a history, and gives the whole history through its texts. */
function written(on: Machine, before: readonly LogRecord[], commands: readonly (readonly [string, unknown])[]) {
  const instance = new Instance('acme', on);
  for (const record of before) instance.replay(record);
  const records = [...before];
  if (instance.needsUpgrade) records.push(instance.upgrade(records.length));
  for (const [command, input] of commands) {
    const { record, answer } = instance.execute(
      { command, input, idempotencyKey: `k${records.length}` },
      records.length,
    );
    assert.ok(record !== undefined, JSON.stringify(answer));
    records.push(record);
  }
  return {
    instance,
    records: records.map((record, i): LogRecord => decodeRecord(i + 1, encodeRecord(i + 1, i, record))),
  };
}

function replayed(on: Machine, records: readonly LogRecord[]): Instance {
  const instance = new Instance('acme', on);
  for (const record of records) instance.replay(record);
  return instance;
}

function refusedAs(code: string, text: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof Fault && error.code === code && text.test(error.message);
}

const old = written(
  first,
  [],
  [
    ['count', { id: 'a', by: 3 }],
    ['count', { id: 'b', by: 0 }],
    ['clear', { id: 'a' }],
    ['count', { id: 'a', by: 4 }],
  ],
);

test('what older versions recorded is brought to the present form, renamed and removed events too, and leads to the same state', () => {
  const now = replayed(later({ version: 3 }), old.records);
  assert.equal(now.stateHash, old.instance.stateHash);
  assert.equal(now.keysHash, old.instance.keysHash);
  assert.equal(now.seq, old.instance.seq);
  assert.equal(now.needsUpgrade, false);
});

test('a changed evolve that is not declared is drift; a declared one is recorded with both hashes, and replay crosses it', () => {
  const silent = later({ version: 2, factor: 10 });
  assert.throws(() => replayed(silent, old.records), refusedAs('log-damaged', /leads to state/));

  const declared = later({ version: 2, factor: 10, changes: { 2: 'amounts are tenths' } });
  const upgraded = written(declared, old.records, [['count', { id: 'c', amount: 1 }]]);
  const record = upgraded.records[old.records.length];
  assert.deepEqual(record?.outcome, { kind: 'upgraded', fromVersion: 1 });
  assert.equal(record?.hashes[0], old.instance.stateHash);
  assert.notEqual(record?.hashes[1], old.instance.stateHash);
  assert.equal(upgraded.instance.seq, old.instance.seq + 2, 'a sequence has one state hash, so an upgrade takes one');

  const again = replayed(declared, upgraded.records);
  assert.equal(again.stateHash, upgraded.instance.stateHash);
  assert.equal(again.keysHash, upgraded.instance.keysHash);
  assert.equal(again.needsUpgrade, false);

  // The present version must lead to the state that was recorded at the upgrade.
  const elsewhere = later({ version: 2, factor: 11, changes: { 2: 'amounts are tenths' } });
  assert.throws(() => replayed(elsewhere, upgraded.records), refusedAs('log-damaged', /the upgrade leads to state/));
  // A later version that says nothing of its own must agree with it as well.
  assert.equal(
    replayed(later({ version: 3, factor: 10, changes: { 2: 'x' } }), upgraded.records).stateHash,
    again.stateHash,
  );
});

test('a second change is recorded on top of the first, and replay crosses both', () => {
  const second = later({ version: 2, factor: 10, changes: { 2: 'tenths' } });
  const two = written(second, old.records, [['count', { id: 'c', amount: 1 }]]);
  const third = later({ version: 4, factor: 100, changes: { 2: 'tenths', 4: 'hundredths' } });
  const three = written(third, two.records, [['count', { id: 'c', amount: 1 }]]);
  assert.deepEqual(
    three.records.flatMap(({ outcome }) => (outcome.kind === 'upgraded' ? [outcome.fromVersion] : [])),
    [1, 2],
  );
  assert.equal(replayed(third, three.records).stateHash, three.instance.stateHash);
});

test('a declared change that makes no difference to an instance needs no record', () => {
  const same = written(later({ version: 2, changes: { 2: 'only other counters' } }), old.records, []);
  assert.equal(same.records.length, old.records.length);
});

test('nothing runs on a state whose upgrade was not recorded', () => {
  const declared = later({ version: 2, factor: 10, changes: { 2: 'tenths' } });
  const instance = replayed(declared, old.records);
  assert.equal(instance.needsUpgrade, true);
  assert.throws(
    () => instance.execute({ command: 'count', input: { id: 'a', amount: 1 } }, 9),
    /is recorded before anybody/,
  );
});

test('an older version refuses what a newer one wrote, and says which one to run', () => {
  const two = written(later({ version: 2 }), old.records, [['count', { id: 'c', amount: 1 }]]);
  assert.throws(
    () => replayed(first, two.records),
    refusedAs(
      'machine-unloadable',
      /written by version 2 of counters, and this is version 1; run version 2 or a newer/,
    ),
  );
});

test('data that its upcaster does not expect is drift, and names the record', () => {
  const broken = machine({
    name: 'counters',
    version: 2,
    tables: { counters: table(Counter, { key: 'id' }) },
    events: {
      counted: {
        data: Amount,
        upcast: {
          1: upcast(Type.Object({ quantity: Type.Integer() }), ({ quantity }) => ({ id: 'a', amount: quantity })),
        },
        evolve: () => {},
      },
    },
    commands: {},
  });
  assert.throws(
    () => replayed(broken, old.records),
    refusedAs('log-damaged', /does not fit the schema of its upcaster/),
  );
});

test('a retired event may become several, or none', () => {
  const split = machine({
    name: 'counters',
    version: 2,
    tables: { counters: table(Counter, { key: 'id' }) },
    events: {
      counted: { data: Type.Object({ id: Type.String(), by: Type.Integer() }), evolve: () => {} },
      put: { data: Counter, evolve: (state, row) => state.counters.upsert(row) },
    },
    commands: {},
    retired: {
      cleared: { lastVersion: 1, into: () => [] },
    },
    changes: { 2: 'counts are not kept' },
  });
  const instance = replayed(split, old.records);
  assert.equal(instance.needsUpgrade, true);
  assert.equal(instance.seq, old.instance.seq);
});

test('a definition that speaks of versions that cannot be is refused, and the field is named', () => {
  const define =
    (more: object): (() => Machine) =>
    () =>
      machine({ name: 'm', version: 3, tables: {}, events: {}, commands: {}, ...more });
  const event = { data: Amount, evolve: () => {} };
  const refused = (more: object, field: RegExp): void =>
    assert.throws(define(more), refusedAs('machine-unloadable', field));
  refused({ changes: { 1: 'x' } }, /changes names version 1/);
  refused({ changes: { 4: 'x' } }, /changes names version 4/);
  refused({ changes: { 2: ' ' } }, /changes\.2 gives no reason/);
  refused({ events: { e: { ...event, upcast: { 0: () => ({}) } } } }, /events\.e\.upcast has a step from version 0/);
  refused({ events: { e: { ...event, upcast: { 3: () => ({}) } } } }, /step from version 3; write one of 1 to 2/);
  refused({ retired: { gone: { lastVersion: 3, into: () => [] } } }, /retired\.gone\.lastVersion is 3/);
  define({ changes: { 2: 'x', 3: 'y' }, retired: { gone: { lastVersion: 2, into: () => [] } } })();
});

test('an event goes through the steps of every version between, in order', () => {
  const steps = machine({
    name: 'm',
    version: 4,
    tables: {},
    events: {
      e: {
        data: Type.Object({ path: Type.Array(Type.Integer()) }),
        evolve: () => {},
        upcast: {
          3: upcast(Type.Object({ path: Type.Array(Type.Integer()) }), ({ path }) => ({ path: [...path, 3] })),
          1: () => ({ path: [1] }),
        },
      },
    },
    commands: {},
  });
  const through = (version: number, data: unknown): unknown =>
    steps.versions.present(version, { type: 'e', data })[0]?.data;
  assert.deepEqual(through(1, {}), { path: [1, 3] });
  assert.deepEqual(through(2, { path: [0] }), { path: [0, 3] });
  assert.deepEqual(through(3, { path: [0] }), { path: [0, 3] });
  assert.deepEqual(through(4, { path: [0] }), { path: [0] });
  assert.throws(() => through(1, 'text'), /is not an object/);
});

test('a command is repeated with its key over an upgrade whose schema fills something in', () => {
  const newer = machine({
    name: 'counters',
    version: 2,
    tables: { counters: table(Counter, { key: 'id' }) },
    events: {
      counted: {
        data: Type.Object({ id: Type.String(), by: Type.Integer() }),
        evolve: (state, { id, by }) => state.counters.upsert({ id, count: (state.counters.get(id)?.count ?? 0) + by }),
      },
      cleared: {
        data: Type.Object({ id: Type.String() }),
        evolve: (state, { id }) => state.counters.upsert({ id, count: 0 }),
      },
    },
    commands: {
      count: {
        input: Type.Object({
          id: Type.String(),
          by: Type.Integer(),
          unit: Type.String({ default: 'piece' }),
        }),
        decide: () => [],
      },
    },
  });
  const instance = replayed(newer, old.records);
  const repeat = (input: unknown) => instance.execute({ command: 'count', input, idempotencyKey: 'k0' }, 9).answer;
  const first = repeat({ id: 'a', by: 3 });
  assert.equal(first.kind === 'accepted' && first.repeated, true);
  const other = repeat({ id: 'a', by: 3, unit: 'dozen' });
  assert.equal(other.kind === 'rejected' ? other.fault.code : '', 'idempotency-key-reused');
});
