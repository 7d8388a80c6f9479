import { test } from 'node:test';
import { deepStrictEqual, notStrictEqual, ok, strictEqual, throws } from 'node:assert/strict';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { orders } from '../../../../examples/orders/machine.ts';
import { limits } from '../../../protocol/limits.ts';
import { Instance, type CommandAnswer } from './instance.ts';
import { isMachine, machine, table } from '../definition/machine.ts';
import { openInMemory } from './memory.ts';
import { decodeRecord, encodeRecord, type LogRecord } from '../log/record.ts';

function codeOf(answer: CommandAnswer): string {
  return answer.kind === 'accepted' ? 'accepted' : answer.fault.code;
}

/** The orders example again, as plainly as possible: what a machine must agree with. */
class Reference {
  readonly orders = new Map<string, { item: string; quantity: number }>();
  readonly stock = new Map<string, number>();

  run({ command, id, item, quantity }: Step): string {
    const level = this.stock.get(item) ?? 0;
    if (command === 'addStock') {
      this.stock.set(item, level + quantity);
      return 'accepted';
    }
    const order = this.orders.get(id);
    if (command === 'cancelOrder') {
      if (order === undefined) return 'command-refused';
      this.orders.delete(id);
      this.stock.set(order.item, (this.stock.get(order.item) ?? 0) + order.quantity);
      return 'accepted';
    }
    if (order !== undefined) return 'command-refused';
    if (level < quantity) return 'invariant-violated';
    this.orders.set(id, { item, quantity });
    this.stock.set(item, level - quantity);
    return 'accepted';
  }
}

interface Step {
  readonly command: 'addStock' | 'placeOrder' | 'cancelOrder';
  readonly id: string;
  readonly item: string;
  readonly quantity: number;
}
const steps = fc.array(
  fc.record<Step>({
    command: fc.constantFrom('addStock', 'placeOrder', 'cancelOrder'),
    id: fc.constantFrom('1', '2', '3', '4', '5'),
    item: fc.constantFrom('nut', 'bolt'),
    quantity: fc.integer({ min: 1, max: 5 }),
  }),
  { maxLength: 40 },
);

function inputOf({ command, id, item, quantity }: Step): unknown {
  if (command === 'cancelOrder') return { id };
  return command === 'addStock' ? { item, quantity } : { id, item, quantity };
}

test('random commands come to what a naive reference says; refusals restore the exact hash; replay agrees', () => {
  fc.assert(
    fc.property(steps, (commands) => {
      const reference = new Reference();
      const instance = openInMemory(orders);
      for (const each of commands) {
        const before = instance.stateHash;
        const answer = instance.execute(each.command, inputOf(each));
        strictEqual(codeOf(answer), reference.run(each));
        if (answer.kind === 'rejected') strictEqual(instance.stateHash, before);
        else strictEqual(instance.stateHash, answer.stateHash);
      }
      const rows = [...reference.orders]
        .map(([id, order]) => ({ id, ...order }))
        .sort((a, b) => (a.id < b.id ? -1 : 1));
      deepStrictEqual(instance.query('orders'), rows);
      const replayed = instance.replayed();
      strictEqual(replayed.stateHash, instance.stateHash);
      strictEqual(replayed.seq, instance.seq);
      deepStrictEqual(replayed.query('orders'), rows);
    }),
    { numRuns: 200 },
  );
});

test('the order in which rows were inserted is not part of the state', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string({ minLength: 1, maxLength: 5 }), { maxLength: 10 }), (items) => {
      const forth = openInMemory(orders);
      const back = openInMemory(orders);
      for (const item of items) forth.execute('addStock', { item, quantity: 1 });
      for (const item of items.toReversed()) back.execute('addStock', { item, quantity: 1 });
      strictEqual(forth.stateHash, back.stateHash);
      deepStrictEqual(forth.query('stock'), back.query('stock'));
    }),
  );
});

test('input is copied, checked and filled in before a command sees it; what does not fit names its field', () => {
  const instance = openInMemory(orders);
  const answer = instance.execute('addStock', { item: 'nut', quantity: -1 });
  strictEqual(codeOf(answer), 'input-invalid');
  ok(answer.kind === 'rejected' && answer.fault.field === 'quantity');
  for (const quantity of [Number.NaN, 1.5, '3', undefined, Number.POSITIVE_INFINITY]) {
    strictEqual(codeOf(instance.execute('addStock', { item: 'nut', quantity })), 'input-invalid');
  }
  strictEqual(codeOf(instance.execute('addStock', { item: 'nut', quantity: 1, more: 1 })), 'input-invalid');
  strictEqual(
    codeOf(instance.execute('addStock', JSON.parse('{"item":"nut","quantity":1,"__proto__":{}}'))),
    'input-invalid',
  );
  strictEqual(codeOf(instance.execute('nothing', {})), 'command-unknown');
  strictEqual(instance.seq, 0);
});

test('a key repeats the first answer, whether it was accepted or refused, also after replay', () => {
  const instance = openInMemory(orders);
  instance.execute('addStock', { item: 'nut', quantity: 5 });
  const input = { id: '1', item: 'nut', quantity: 4 };
  const first = instance.execute('placeOrder', input, { idempotencyKey: 'a' });
  const refused = instance.execute('placeOrder', input, { idempotencyKey: 'b' });
  const broken = instance.execute('placeOrder', { ...input, id: '2' }, { idempotencyKey: 'c' });
  deepStrictEqual(
    [codeOf(first), codeOf(refused), codeOf(broken)],
    ['accepted', 'command-refused', 'invariant-violated'],
  );
  instance.execute('cancelOrder', { id: '1' });
  const hash = instance.stateHash;
  for (const each of [instance, instance.replayed()]) {
    deepStrictEqual(each.execute('placeOrder', input, { idempotencyKey: 'a' }), { ...first, repeated: true });
    strictEqual(codeOf(each.execute('placeOrder', input, { idempotencyKey: 'b' })), 'command-refused');
    strictEqual(
      codeOf(each.execute('placeOrder', { ...input, id: '2' }, { idempotencyKey: 'c' })),
      'invariant-violated',
    );
    strictEqual(each.stateHash, hash);
  }
});

test('a key with another command or input is refused, and one with malformed input is not remembered', () => {
  const instance = openInMemory(orders);
  strictEqual(
    codeOf(instance.execute('addStock', { item: 'nut', quantity: 0 }, { idempotencyKey: 'a' })),
    'input-invalid',
  );
  strictEqual(codeOf(instance.execute('addStock', { item: 'nut', quantity: 1 }, { idempotencyKey: 'a' })), 'accepted');
  strictEqual(codeOf(instance.execute('addStock', { quantity: 1, item: 'nut' }, { idempotencyKey: 'a' })), 'accepted');
  strictEqual(
    codeOf(instance.execute('addStock', { item: 'nut', quantity: 2 }, { idempotencyKey: 'a' })),
    'idempotency-key-reused',
  );
  strictEqual(codeOf(instance.execute('cancelOrder', { id: '1' }, { idempotencyKey: 'a' })), 'idempotency-key-reused');
  strictEqual(instance.seq, 1);
});

test('keys have 1 to 255 characters', () => {
  const instance = openInMemory(orders);
  const run = (idempotencyKey: string): string =>
    codeOf(instance.execute('addStock', { item: 'nut', quantity: 1 }, { idempotencyKey }));
  strictEqual(run(''), 'input-invalid');
  strictEqual(run('k'.repeat(limits.idempotencyKeyLengthMax)), 'accepted');
  strictEqual(run('k'.repeat(limits.idempotencyKeyLengthMax + 1)), 'input-invalid');
});

test('keys are forgotten when their life ends and, the oldest first, above their number; replay forgets the same', () => {
  const bounds = { lifeMs: 100, countMax: 2, unitsMax: 1_000_000 };
  const instance = new Instance('t', orders, bounds);
  const records: LogRecord[] = [];
  const run = (key: string, nowMs: number): boolean => {
    const { answer, record } = instance.execute(
      { command: 'addStock', input: { item: 'nut', quantity: 1 }, idempotencyKey: key },
      nowMs,
    );
    if (record !== undefined) records.push(record);
    return answer.repeated;
  };
  run('a', 0);
  strictEqual(run('a', 99), true);
  strictEqual(run('a', 100), false);
  run('b', 101);
  strictEqual(run('a', 102), true);
  run('c', 103);
  strictEqual(run('b', 104), true);
  strictEqual(run('a', 104), false);
  const replayed = new Instance('t', orders);
  records.forEach((record, i) => replayed.replay(decodeRecord(i + 1, encodeRecord(i + 1, i, record))));
  strictEqual(replayed.keysHash, instance.keysHash);
  strictEqual(replayed.stateHash, instance.stateHash);
});

test('remembered answers are bounded in size too: the oldest go first, the newest stays, and replay agrees', () => {
  const records: LogRecord[] = [];
  const run = (instance: Instance, key: string, item: string): boolean => {
    const { answer, record } = instance.execute(
      { command: 'addStock', input: { item, quantity: 1 }, idempotencyKey: key },
      records.length,
    );
    if (record !== undefined) records.push(record);
    return answer.repeated;
  };
  run(new Instance('t', orders), 'a', 'nut');
  const unitsMax = 2 * (records.pop()?.payload.length ?? 0);
  const instance = new Instance('t', orders, { lifeMs: 1_000, countMax: 100, unitsMax });
  const replayed = new Instance('t', orders, { lifeMs: 1_000, countMax: 100, unitsMax });
  for (const key of ['a', 'b']) run(instance, key, 'nut');
  deepStrictEqual([run(instance, 'a', 'nut'), run(instance, 'b', 'nut')], [true, true]);
  run(instance, 'c', 'nut');
  strictEqual(run(instance, 'b', 'nut'), true);
  strictEqual(run(instance, 'a', 'nut'), false);
  strictEqual(run(instance, 'b', 'nut'), false);
  records.forEach((record, i) => replayed.replay(decodeRecord(i + 1, encodeRecord(i + 1, i, record))));
  strictEqual(replayed.keysHash, instance.keysHash);
  const { length } = records;
  for (const each of [instance, replayed]) {
    records.length = length;
    run(each, 'e', 'nut');
  }
  strictEqual(replayed.keysHash, instance.keysHash, 'the bound counts the same after replay');

  const tiny = new Instance('t', orders, { lifeMs: 1_000, countMax: 100, unitsMax: 1 });
  strictEqual(run(tiny, 'a', 'nut'), false);
  strictEqual(run(tiny, 'a', 'nut'), true, 'an answer that is too large alone is remembered until the next one');
});

test('replay refuses a record that does not follow, or that leads elsewhere', () => {
  const instance = new Instance('t', orders);
  const { record } = instance.execute({ command: 'addStock', input: { item: 'nut', quantity: 1 } }, 7);
  ok(record !== undefined && record.outcome.kind === 'accepted');
  const wrong: LogRecord[] = [
    { ...record, seqBefore: 1 },
    { ...record, hashes: [instance.stateHash, instance.stateHash] },
    { ...record, hashes: [record.hashes[0] ?? '', record.hashes[0] ?? ''] },
    { ...record, keysHash: instance.stateHash },
    { ...record, outcome: { kind: 'accepted', events: [{ type: 'stockAdded', data: { item: 'nut', quantity: 2 } }] } },
    { ...record, outcome: { kind: 'accepted', events: [{ type: 'unheardOf', data: {} }] } },
  ];
  for (const each of wrong) throws(() => new Instance('t', orders).replay(each), { code: 'log-damaged' });
  throws(() => new Instance('t', orders).replay({ ...record, machine: 'other' }), { code: 'machine-unloadable' });
});

const Note = Type.Object({ id: Type.String(), text: Type.Optional(Type.String()) });
const notes = machine({
  name: 'notes',
  version: 1,
  tables: { notes: table(Note, { key: 'id' }), bag: table(Note, { key: 'id' }) },
  events: {
    added: { data: Note, evolve: (state, note) => state.notes.insert(note) },
    bagged: { data: Note, evolve: (state, note) => state.bag.upsert(note) },
    renamed: { data: Note, evolve: (state, note) => state.notes.update(note.id, { id: `${note.id}x` }) },
    // A handler that breaks the rules: it returns a promise.
    late: { data: Note, evolve: () => Promise.resolve() as unknown as void },
  },
  commands: {
    add: { input: Type.Array(Note), decide: (_, all) => all.map((data) => ({ type: 'added' as const, data })) },
    bag: { input: Note, decide: (_, data) => [{ type: 'bagged', data }] },
    rename: { input: Note, decide: (_, data) => [{ type: 'renamed', data }] },
    late: { input: Note, decide: (_, data) => [{ type: 'late', data }] },
    none: { input: Type.Object({}), decide: () => [] },
    fail: {
      input: Type.Object({}),
      decide: () => {
        throw new Error('on purpose');
      },
    },
    now: {
      input: Type.Object({}),
      decide: (_, __, ctx) => [{ type: 'added', data: { id: `${ctx.instance} ${ctx.now}` } }],
    },
  },
  queries: {
    all: {
      input: Type.Object({ limit: Type.Optional(Type.Integer()), after: Type.Optional(Type.String()) }),
      answer: (state, range) => [...state.notes.scan(range)].map(({ id }) => id),
    },
    bag: { input: Type.Object({}), answer: (state) => [...state.bag.scan()] },
  },
});

test('several events of one command happen together or not at all', () => {
  const instance = openInMemory(notes);
  instance.execute('add', [{ id: 'a' }]);
  const before = instance.stateHash;
  strictEqual(codeOf(instance.execute('add', [{ id: 'b' }, { id: 'c' }, { id: 'a' }])), 'handler-failed');
  strictEqual(instance.stateHash, before);
  deepStrictEqual(instance.query('all'), ['a']);
  strictEqual(codeOf(instance.execute('add', [{ id: 'b' }, { id: 'c' }])), 'accepted');
  strictEqual(instance.seq, 3);
  strictEqual(instance.replayed().stateHash, instance.stateHash);
});

test('a handler that throws, returns a promise or changes a key fails and changes nothing', () => {
  const instance = openInMemory(notes);
  instance.execute('add', [{ id: 'a' }]);
  const before = instance.stateHash;
  for (const command of ['fail', 'late', 'rename']) {
    strictEqual(codeOf(instance.execute(command, { id: 'a' })), 'handler-failed');
    strictEqual(instance.stateHash, before);
  }
});

test('a command without events is accepted and leaves the state alone', () => {
  const instance = openInMemory(notes);
  const before = instance.stateHash;
  strictEqual(codeOf(instance.execute('none', {})), 'accepted');
  strictEqual(instance.stateHash, before);
  strictEqual(instance.seq, 0);
});

test('equal rows of different tables have different hashes', () => {
  const one = openInMemory(notes);
  const other = openInMemory(notes);
  one.execute('add', [{ id: 'a' }]);
  other.execute('bag', { id: 'a' });
  notStrictEqual(one.stateHash, other.stateHash);
});

test('a scan visits keys in the order of code units, after a key and up to a limit', () => {
  const instance = openInMemory(notes);
  instance.execute(
    'add',
    ['b', 'Z', 'é', 'a', '10', '9'].map((id) => ({ id })),
  );
  deepStrictEqual(instance.query('all'), ['10', '9', 'Z', 'a', 'b', 'é']);
  deepStrictEqual(instance.query('all', { after: '9', limit: 2 }), ['Z', 'a']);
  deepStrictEqual(instance.query('all', { after: 'aa', limit: '1' }), ['b']);
  deepStrictEqual(instance.query('all', { limit: 0 }), []);
});

test('a command sees the time and the instance that were given to it', () => {
  const instance = openInMemory(notes, { instance: 'acme', nowMs: 42 });
  instance.execute('now', {});
  deepStrictEqual(instance.query('all'), ['acme 42']);
});

test('a machine is recognised, and a definition with wrong names is refused', () => {
  strictEqual(isMachine(orders), true);
  strictEqual(isMachine({ ...orders, name: 1 }), true);
  for (const other of [undefined, null, {}, 'orders']) strictEqual(isMachine(other), false);
  const nothing = { tables: {}, events: {}, commands: {} };
  throws(() => machine({ name: 'a b', version: 1, ...nothing }), { code: 'machine-unloadable', field: 'name' });
  throws(() => machine({ name: 'a', version: 0, ...nothing }), { code: 'machine-unloadable', field: 'version' });
});
