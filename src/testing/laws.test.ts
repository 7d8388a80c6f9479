import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { orders } from '../../examples/orders/machine.ts';
import { machine, table, type Machine } from '../machine/decide/definition/machine.ts';
import { assertLaws, LawBroken, type LawOptions, type Situation } from './index.ts';

const Item = Type.Object({ id: Type.String({ minLength: 1 }), count: Type.Integer({ minimum: 0, maximum: 100 }) });
const ById = Type.Object({ id: Type.String({ minLength: 1 }) });

/** Runs on a fixed seed, so that a test which notices a defect always notices it. */
function brokenBy(subject: Machine, options: LawOptions = {}): LawBroken {
  try {
    assertLaws(subject, { seed: 1, runs: 300, ...options });
  } catch (thrown) {
    if (thrown instanceof LawBroken) return thrown;
    throw thrown;
  }
  assert.fail('every law held');
}

/** Items that are put and dropped; each test plants its defect in one of the handlers. */
function items(
  planted: {
    readonly put?: (known: boolean, count: number) => void;
    readonly dropped?: () => number;
    readonly holds?: (count: number) => boolean;
  } = {},
): Machine {
  return machine({
    name: 'items',
    version: 1,
    tables: { items: table(Item, { key: 'id' }) },
    events: {
      put: { data: Item, evolve: (state, item) => state.items.upsert(item) },
      dropped: {
        data: ById,
        evolve: (state, { id }) => {
          const left = planted.dropped?.() ?? 0;
          if (left === 0) state.items.delete(id);
          else state.items.update(id, { count: left });
        },
      },
    },
    commands: {
      put: {
        input: Item,
        decide: (state, input) => {
          planted.put?.(state.items.has(input.id), input.count);
          return [{ type: 'put', data: input }];
        },
      },
      drop: {
        input: ById,
        decide: (state, input, ctx) =>
          state.items.has(input.id) ? [{ type: 'dropped', data: input }] : ctx.refuse('item-unknown', 'No such item'),
      },
    },
    invariants: {
      counted: (state, changed) =>
        changed.every(({ key }) => planted.holds?.(state.items.get(key)?.count ?? 0) ?? true),
    },
    queries: { count: { input: ById, answer: (state, { id }) => state.items.get(id)?.count } },
  });
}

test('a machine that keeps the laws passes, and what was tried is told', () => {
  const { runs, came } = assertLaws(orders, { seed: 1 });
  assert.equal(runs, 100);
  for (const name of ['placeOrder', 'cancelOrder', 'addStock', 'orders', 'stock']) {
    assert.ok((came[name]?.['accepted'] ?? 0) > 0, `${name} was never accepted`);
  }
  assert.ok((came['placeOrder']?.['stockNeverNegative'] ?? 0) > 0, 'the invariant never refused');
});

test('a handler that throws in one state only is found, with the two commands that lead there', () => {
  const subject = items({
    put: (known, count) => {
      if (known && count > 3) throw new RangeError('too many of one kind');
    },
  });
  const { law, message, seed, path } = brokenBy(subject);
  assert.equal(law, 'handlers-do-not-fail');
  assert.match(
    message,
    /items breaks the law handlers-do-not-fail .*\n {2}Command put failed .*too many of one kind\n/,
  );
  assert.match(
    message,
    /after 2 steps \(made shorter \d+ times\):\n {3}1\. put .*\n.*accepted at event 1: put .*\n {3}2\. put /,
  );
  assert.ok(message.includes(`To run it again: assertLaws(machine, { seed: ${seed}, path: '${path}', … })`), message);
  assert.equal(message.includes('"count":4'), true, 'the smallest count that fails was not found');
});

test('a counterexample runs again from its seed and path', () => {
  const subject = items({
    put: (known) => {
      if (known) throw new RangeError('known');
    },
  });
  const first = brokenBy(subject);
  const again = brokenBy(subject, { seed: first.seed, path: first.path });
  assert.deepEqual(again.message.split('\n').slice(3, -1), first.message.split('\n').slice(3, -1));
});

test('an event that depends on what came before it in the process breaks replay', () => {
  let calls = 0;
  const { law } = brokenBy(items({ dropped: () => ++calls % 2 }));
  assert.equal(law, 'replay-repeats');
});

test('a query that throws is found', () => {
  const nothing = (): never => {
    throw new Error('there is nothing');
  };
  const subject = machine({
    name: 'queried',
    version: 1,
    tables: { items: table(Item, { key: 'id' }) },
    events: { put: { data: Item, evolve: (state, item) => state.items.upsert(item) } },
    commands: { put: { input: Item, decide: (_state, input) => [{ type: 'put', data: input }] } },
    queries: {
      all: { input: Type.Object({}), answer: (state) => state.items.get('none')?.id.toUpperCase() ?? nothing() },
    },
  });
  const { law, message } = brokenBy(subject);
  assert.equal(law, 'handlers-do-not-fail');
  assert.match(message, /1\. query all \{\}\n.*there is nothing/);
});

test('an invariant that is not asked where it breaks is found by looking at all rows', () => {
  // An order needs its customer, and that is checked where orders change; but customers leave as well.
  const Customer = Type.Object({ id: Type.String({ minLength: 1 }) });
  const Order = Type.Object({ id: Type.String({ minLength: 1 }), customer: Type.String({ minLength: 1 }) });
  const subject = machine({
    name: 'careless',
    version: 1,
    tables: { customers: table(Customer, { key: 'id' }), orders: table(Order, { key: 'id' }) },
    events: {
      came: { data: Customer, evolve: (state, customer) => state.customers.upsert(customer) },
      left: { data: Customer, evolve: (state, { id }) => state.customers.delete(id) },
      ordered: { data: Order, evolve: (state, order) => state.orders.upsert(order) },
    },
    commands: {
      come: { input: Customer, decide: (_state, input) => [{ type: 'came', data: input }] },
      leave: {
        input: Customer,
        decide: (state, input, ctx) =>
          state.customers.has(input.id) ? [{ type: 'left', data: input }] : ctx.refuse('unknown', 'No such customer'),
      },
      order: { input: Order, decide: (_state, input) => [{ type: 'ordered', data: input }] },
    },
    invariants: {
      ofCustomers: {
        on: ['orders'],
        holds: (state, changed) =>
          changed.every(({ key }) => state.customers.has(state.orders.get(key)?.customer ?? '')),
      },
    },
  });
  const { law, message } = brokenBy(subject);
  assert.equal(law, 'invariants-hold-everywhere');
  assert.match(
    message,
    /Over all rows, the invariant ofCustomers does not hold\nafter 3 steps .*\n.*come .*\n.*\n.*order .*\n.*\n.*leave /,
  );
  assert.equal(assertLaws(subject, { seed: 1, skip: ['invariants-hold-everywhere'] }).runs, 100);
});

test('a law of one’s own sees tables and queries, and one that throws does not hold', () => {
  const laws = {
    neverThree: ({ rows, row, query, seq, now }: Situation) =>
      now > 0 && seq >= rows('items').length && row('items', 'b')?.['count'] !== 7 && query('count', { id: 'a' }) !== 3,
  };
  const { law, message } = brokenBy(items(), { laws });
  assert.equal(law, 'neverThree');
  assert.match(message, /after one step .*\n {3}1\. put \{"count":3,"id":"a"\}/);
  const throws = brokenBy(items(), {
    laws: {
      fails: () => {
        throw new Error('of the law itself');
      },
    },
  });
  assert.equal(throws.law, 'fails');
  assert.match(throws.message, /This law of the test throws: of the law itself/);
});

test('timers fire as time passes, and one whose command fails, or that never ends, is found', () => {
  const timed = (delayMs: number, fail: boolean): Machine =>
    machine({
      name: 'timed',
      version: 1,
      tables: { items: table(Item, { key: 'id' }) },
      events: {
        set: {
          data: Type.Object({ id: Type.String(), at: Type.Integer() }),
          evolve: (state, { id, at }, effects) => {
            state.items.upsert({ id, count: 1 });
            effects.schedule({ id: 'again', at: at + delayMs, command: 'set', input: { id } });
            effects.send({ topic: 'set', body: { id } });
          },
        },
      },
      commands: {
        set: {
          input: Type.Object({ id: Type.String() }),
          decide: (state, { id }, ctx) => {
            if (fail && state.items.has(id)) throw new Error('twice');
            return [{ type: 'set', data: { id, at: ctx.now } }];
          },
        },
      },
    });
  const inputs = { set: fc.constantFrom({ id: 'a' }, { id: 'b' }) };
  assert.equal(assertLaws(timed(86_400_000 * 31, false), { seed: 1, inputs }).runs, 100);
  assert.match(
    brokenBy(timed(86_400_000, true), { inputs }).message,
    /timer again fires: set \{"id":"a"\}\n.*\$timerFailed|twice/,
  );
  const endless = brokenBy(timed(0, false), { inputs });
  assert.equal(endless.law, 'handlers-do-not-fail');
  assert.match(endless.message, /1000 timers fired/);
});

test('commands find ids that the machine made', () => {
  const subject = machine({
    name: 'made',
    version: 1,
    tables: { items: table(Item, { key: 'id' }) },
    events: {
      made: { data: ById, evolve: (state, { id }) => state.items.insert({ id, count: 0 }) },
      dropped: { data: ById, evolve: (state, { id }) => state.items.delete(id) },
    },
    commands: {
      make: { input: Type.Object({}), decide: (_state, _input, ctx) => [{ type: 'made', data: { id: ctx.id() } }] },
      drop: {
        input: ById,
        decide: (state, { id }, ctx) =>
          state.items.has(id) ? [{ type: 'dropped', data: { id } }] : ctx.refuse('unknown', 'No such item'),
      },
    },
  });
  assert.ok((assertLaws(subject, { seed: 1 }).came['drop']?.['accepted'] ?? 0) > 20);
});

test('a command that is never accepted fails the test, unless it may', () => {
  const subject = machine({
    name: 'closed',
    version: 1,
    tables: {},
    events: { opened: { data: Type.Object({}), evolve: () => {} } },
    commands: {
      open: { input: Type.Object({}), decide: () => [{ type: 'opened', data: {} }] },
      enter: { input: ById, decide: (_state, _input, ctx) => ctx.refuse('closed', 'Closed') },
    },
  });
  assert.throws(
    () => assertLaws(subject, { seed: 1 }),
    /In 100 runs enter was never accepted \(.*closed \d+ times.*\)/,
  );
  assert.equal(assertLaws(subject, { seed: 1, mayNeverSucceed: ['enter'] }).runs, 100);
  assert.equal(assertLaws(subject, { seed: 1, skip: ['enter'] }).came['enter'], undefined);
});

test('options that name nothing are refused', () => {
  assert.throws(() => assertLaws(orders, { inputs: { buy: fc.constant({}) } }), /orders has no command or query buy/);
  assert.throws(() => assertLaws(orders, { skip: ['speed'] }), /speed is neither a command or query of orders nor/);
  assert.throws(() => assertLaws(orders, { laws: { 'replay-repeats': () => true } }), /the name of a general law/);
});
