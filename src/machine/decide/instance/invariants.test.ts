import { test } from 'node:test';
import { deepStrictEqual, ok, strictEqual, throws } from 'node:assert/strict';
import { Type } from 'typebox';
import { Instance } from './instance.ts';
import { countedInvariantsMax, InvariantCounts } from './invariants.ts';
import { machine, table } from '../definition/machine.ts';
import { openInMemory } from './memory.ts';
import type { LogRecord } from '../log/record.ts';
import { refusalsPerSecondMax } from './refusals.ts';

const Level = Type.Object({ id: Type.String(), n: Type.Integer() });
const calls: string[] = [];
let shadowHolds: () => unknown = () => true;

const levels = machine({
  name: 'levels',
  version: 1,
  tables: { levels: table(Level, { key: 'id' }), notes: table(Level, { key: 'id' }) },
  events: {
    set: { data: Level, evolve: (state, level) => state.levels.upsert(level) },
    noted: {
      data: Level,
      evolve: (state, note, effects) => {
        state.notes.upsert(note);
        effects.send({ topic: 'noted', body: note });
      },
    },
    planned: {
      data: Type.Array(Level),
      evolve: (_, input, effects) => effects.schedule({ id: 'later', at: 5, command: 'setAll', input }),
    },
    nothing: { data: Type.Object({}), evolve: () => undefined },
  },
  commands: {
    set: { input: Level, decide: (_, data) => [{ type: 'set', data }] },
    setTwice: {
      input: Level,
      decide: (_, data) => [
        { type: 'set', data },
        { type: 'set', data },
      ],
    },
    setAll: { input: Type.Array(Level), decide: (_, all) => all.map((data) => ({ type: 'set' as const, data })) },
    plan: { input: Type.Array(Level), decide: (_, all) => [{ type: 'planned', data: all }] },
    note: { input: Level, decide: (_, data) => [{ type: 'noted', data }] },
    nothing: { input: Type.Object({}), decide: () => [{ type: 'nothing', data: {} }] },
    refuse: { input: Type.Object({}), decide: (_, __, ctx) => ctx.refuse('no', 'on purpose') },
  },
  invariants: {
    every: (_, changed) => {
      calls.push(`every ${changed.map(({ table: name, key }) => `${name}/${key}`).join()}`);
      return true;
    },
    notNegative: {
      on: ['levels'],
      holds: (state, changed) => {
        calls.push(`notNegative ${changed.map(({ key }) => key).join()}`);
        return changed.every(({ key }) => (state.levels.get(key)?.n ?? 0) >= 0);
      },
    },
    small: { shadow: true, holds: (state) => state.levels.size < 2 && shadowHolds() === true },
  },
});

test('an invariant is called after events that changed its tables, and told of these changes alone', () => {
  calls.length = 0;
  const instance = openInMemory(levels);
  instance.execute('set', { id: 'a', n: 1 });
  deepStrictEqual(calls.splice(0), ['every levels/a', 'notNegative a']);
  instance.execute('note', { id: 'b', n: -1 });
  deepStrictEqual(calls.splice(0), ['every notes/b'], 'the outbox is nobody’s table');
  instance.execute('nothing', {});
  deepStrictEqual(calls.splice(0), ['every ']);
  const refused = instance.execute('set', { id: 'a', n: -1 });
  ok(refused.kind === 'rejected' && refused.fault.code === 'invariant-violated' && refused.reason === 'notNegative');
});

test('an invariant in shadow mode reports, once a command, and the command succeeds; so it does when it fails itself', () => {
  const instance = new Instance('t', levels);
  const replica = new Instance('t', levels);
  const run = (command: string, input: unknown) => {
    const decision = instance.execute({ command, input }, 0);
    if (decision.record !== undefined) replica.replay(decision.record);
    strictEqual(replica.stateHash, instance.stateHash);
    return { context: decision.record?.context, broken: decision.broken, kind: decision.answer.kind };
  };
  deepStrictEqual(run('set', { id: 'a', n: 1 }), { context: {}, broken: [], kind: 'accepted' });
  const reported = { context: { shadow: ['small'] }, broken: [{ name: 'small', shadow: true }], kind: 'accepted' };
  deepStrictEqual(run('setTwice', { id: 'b', n: 1 }), reported);
  // What is refused did nothing, so nothing is to be reported of it.
  const refused = [
    { id: 'c', n: 1 },
    { id: 'b', n: -1 },
  ];
  const broken = [{ name: 'notNegative', shadow: false }];
  deepStrictEqual(run('setAll', refused), { context: {}, broken, kind: 'rejected' });
  run('plan', refused);
  const fired = instance.fireTimer(5);
  deepStrictEqual([fired.record?.context, fired.broken], [{ timer: 'later' }, broken]);
  if (fired.record !== undefined) replica.replay(fired.record);
  run('plan', refused.slice(0, 1));
  const shadowed = instance.fireTimer(6);
  deepStrictEqual(
    [shadowed.record?.context, shadowed.broken],
    [{ timer: 'later', shadow: ['small'] }, [{ name: 'small', shadow: true }]],
  );
  if (shadowed.record !== undefined) replica.replay(shadowed.record);
  deepStrictEqual([replica.stateHash, replica.seq], [instance.stateHash, instance.seq]);

  const other = openInMemory(levels);
  for (const holds of [
    () => false,
    () => {
      throw new Error('a defect of the new invariant');
    },
    () => Promise.resolve(true),
  ]) {
    shadowHolds = holds;
    strictEqual(other.execute('set', { id: 'a', n: 1 }).kind, 'accepted');
  }
  shadowHolds = () => true;
  deepStrictEqual(other.reported, ['small', 'small', 'small']);
  deepStrictEqual(other.replayed().reported, other.reported);
});

test('an invariant about a table that is not there is refused with its name', () => {
  throws(
    () =>
      machine({
        name: 'm',
        version: 1,
        tables: {},
        events: {},
        commands: {},
        invariants: { one: { on: ['x' as never], holds: () => true } },
      }),
    { code: 'machine-unloadable', field: 'invariants.one.on' },
  );
});

test('broken invariants are counted by name up to a bound, and together above it', () => {
  const counts = new InvariantCounts();
  for (let i = 0; i <= countedInvariantsMax; i++) counts.add([{ name: `i${i}`, shadow: false }]);
  counts.add([
    { name: 'i0', shadow: true },
    { name: 'one more', shadow: true },
  ]);
  const entries = new Map(counts.entries());
  strictEqual(entries.size, countedInvariantsMax + 1);
  deepStrictEqual(entries.get('i0'), { violations: 1, reports: 1 });
  deepStrictEqual(entries.get('$others'), { violations: 1, reports: 1 });
  strictEqual(entries.has('one more'), false);
});

test('refusals without a key are recorded up to the bound of a second; the next record says how many were skipped', () => {
  const instance = new Instance('t', levels);
  const records: LogRecord[] = [];
  const run = (command: string, input: unknown, nowMs: number, idempotencyKey?: string): boolean => {
    const request = { command, input, ...(idempotencyKey === undefined ? {} : { idempotencyKey }) };
    const { record } = instance.execute(request, nowMs);
    if (record !== undefined) records.push(record);
    return record !== undefined;
  };
  for (let i = 0; i < refusalsPerSecondMax; i++) strictEqual(run('refuse', {}, 1_000 + i), true);
  strictEqual(run('set', { id: 'a', n: -1 }, 1_999), false, 'broken invariants count as well');
  strictEqual(run('refuse', {}, 1_999), false);
  strictEqual(run('refuse', {}, 1_999, 'key'), true, 'a key is always remembered');
  deepStrictEqual(records.at(-1)?.context, { skipped: 2 });
  strictEqual(run('refuse', {}, 2_000), true);
  deepStrictEqual(records.at(-1)?.context, {});
  strictEqual(run('refuse', 7, 3_000), false, 'input that does not fit is no refusal');
  strictEqual(instance.seq, 0);

  const replica = new Instance('t', levels);
  for (const record of records) replica.replay(record);
  deepStrictEqual([replica.stateHash, replica.keysHash, replica.seq], [instance.stateHash, instance.keysHash, 0]);
  const [first] = records;
  ok(first !== undefined);
  const again = replica.decideAgain(first);
  ok(again.kind === 'rejected' && again.reason === 'no');
});
