import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Type } from 'typebox';
import { Instance } from '../../machine/decide/instance/instance.ts';
import { machine, table, type Machine } from '../../machine/decide/definition/machine.ts';
import { decodeRecord, encodeRecord, type LogRecord, type PlacedRecord } from '../../machine/decide/log/record.ts';
import { InstanceReplay, shownUnitsMax, type ReplayMode } from './against.ts';

/** Tickets with random numbers, ids and timers; `sides` is what a version may change. */
function raffle(version: number, sides = 6): Machine {
  return machine({
    name: 'raffle',
    version,
    tables: { tickets: table(Type.Object({ id: Type.String(), number: Type.Integer() }), { key: 'id' }) },
    events: {
      drawn: {
        data: Type.Object({ id: Type.String(), number: Type.Integer(), again: Type.Integer() }),
        evolve: (state, { id, number, again }, effects) => {
          state.tickets.insert({ id, number });
          if (again > 0)
            effects.schedule({ id: `after-${id}`, at: 5_000, command: 'draw', input: { again: again - 1 } });
        },
      },
    },
    commands: {
      draw: {
        input: Type.Object({ again: Type.Integer() }),
        decide: (_, { again }, ctx) => [
          { type: 'drawn', data: { id: ctx.id(), number: ctx.random.integer(1, sides), again } },
        ],
      },
    },
  });
}

function recorded(): readonly PlacedRecord[] {
  const instance = new Instance('acme', raffle(1));
  const records: LogRecord[] = [];
  const keep = (record: LogRecord | undefined): void => {
    assert.ok(record !== undefined);
    records.push(record);
  };
  for (let i = 0; i < 5; i++) {
    keep(instance.execute({ command: 'draw', input: { again: 2 } }, 1_000 + i, () => `seed ${i}`).record);
  }
  while (instance.nextTimerMs !== undefined) keep(instance.fireTimer(9_000, () => `timer ${records.length}`).record);
  return records.map((record, i) => decodeRecord(i + 1, encodeRecord(i + 1, i, record)));
}

function compared(records: readonly PlacedRecord[], on: Machine, mode: ReplayMode) {
  const replay = new InstanceReplay('acme', on, mode, 100);
  for (const record of records) replay.take(record);
  return replay.comparison;
}

test('commands that draw random numbers, make ids and are fired by timers come out alike when they are decided again', () => {
  const records = recorded();
  assert.equal(records.length, 15);
  for (const mode of ['isolated', 'cumulative'] as const) {
    const { differences, records: count } = compared(records, raffle(2), mode);
    assert.deepEqual(differences, []);
    assert.equal(count, 15);
  }
});

test('a version that draws otherwise differs at every draw', () => {
  const { totals, differences } = compared(recorded(), raffle(2, 6_000_000), 'isolated');
  assert.equal(totals.events, 15);
  assert.equal(totals.states, 0, 'the recorded history leads to the recorded states');
  assert.equal(differences[0]?.recorded.kind, 'accepted');
});

test('a field that was renamed alone is no difference: what was recorded is compared in its present form', () => {
  const renamed = (version: number, name: 'by' | 'amount', more: object = {}): Machine =>
    machine({
      name: 'counter',
      version,
      tables: { counts: table(Type.Object({ id: Type.String(), count: Type.Integer() }), { key: 'id' }) },
      events: {
        counted: {
          data: Type.Record(Type.String(), Type.Integer()),
          evolve: (state, data) => state.counts.upsert({ id: 'all', count: data[name] ?? 0 }),
          ...more,
        },
      },
      commands: {
        count: {
          input: Type.Object({ by: Type.Integer() }),
          decide: (_, { by }) => [{ type: 'counted', data: { [name]: by } }],
        },
      },
    });
  const instance = new Instance('acme', renamed(1, 'by'));
  const { record } = instance.execute({ command: 'count', input: { by: 3 } }, 1_000);
  assert.ok(record !== undefined);
  const history = [decodeRecord(1, encodeRecord(1, 0, record))];
  const upcast = { upcast: { 1: ({ by }: Readonly<Record<string, unknown>>) => ({ amount: by }) } };
  for (const mode of ['isolated', 'cumulative'] as const) {
    assert.deepEqual(compared(history, renamed(2, 'amount', upcast), mode).differences, []);
    assert.equal(compared(history, renamed(2, 'amount'), mode).totals.events, 1);
  }
});

test('values that are listed are cut where they would be too long', () => {
  const long = machine({
    name: 'long',
    version: 1,
    tables: {},
    events: {},
    commands: { say: { input: Type.Object({ text: Type.String() }), decide: (_, __, ctx) => ctx.refuse('no', 'No') } },
  });
  const instance = new Instance('acme', long);
  const other = machine({
    name: 'long',
    version: 2,
    tables: {},
    events: {},
    commands: { say: { input: Type.Object({ text: Type.String() }), decide: () => [] } },
  });
  const inputOf = (length: number): unknown => {
    const { record } = instance.execute({ command: 'say', input: { text: 'x'.repeat(length) } }, 1_000);
    assert.ok(record !== undefined);
    return compared([decodeRecord(1, encodeRecord(1, 0, record))], other, 'isolated').differences[0]?.input;
  };
  const around = '{"text":""}'.length;
  assert.deepEqual(inputOf(shownUnitsMax - around), { text: 'x'.repeat(shownUnitsMax - around) });
  assert.deepEqual(Object.keys(Object(inputOf(shownUnitsMax - around + 1))), ['cut', 'units']);
});

test('nothing is compared after an erased payload', () => {
  const replay = new InstanceReplay('acme', raffle(2, 9), 'isolated', 10);
  const [first, second] = recorded();
  assert.ok(first !== undefined && second !== undefined);
  replay.take(first);
  replay.endErased();
  replay.take(second);
  assert.equal(replay.comparison.records, 1);
  assert.equal(replay.comparison.ended, 'erased');
});
