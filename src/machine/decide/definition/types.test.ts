import { test } from 'node:test';
import { deepStrictEqual } from 'node:assert/strict';
import { Type } from 'typebox';
import { machine, table } from './machine.ts';
import { openInMemory } from '../instance/memory.ts';

/**
 * What the compiler knows of a machine, shown by what does not compile: each marked line must be an
 * error, or `npm run types` fails. Nothing in this file is cast, and no parameter is annotated.
 */
/** Has its argument checked, and never called. */
const unreached = (use: () => unknown): void => void use;
const strict = { additionalProperties: false };
const Order = Type.Object(
  {
    id: Type.String(),
    item: Type.String(),
    quantity: Type.Integer(),
    paid: Type.Boolean(),
    note: Type.Optional(Type.String()),
  },
  strict,
);
const tags = Type.Object({ id: Type.String(), tags: Type.Array(Type.String()) });

/** Only its types matter: at run time it would be refused. */
const define = () =>
  machine({
    name: 'shop',
    version: 1,
    tables: {
      orders: table(Order, {
        key: 'id',
        indexes: { item: ['item'], open: ['paid', 'quantity'], note: ['note', 'id'] },
      }),
      tags: table(tags, { key: 'id' }),
    },
    events: {
      placed: {
        data: Order,
        evolve: (state, order, effects) => {
          state.orders.insert(order);
          state.orders.update(order.id, { paid: true });
          effects.schedule({ id: order.id, at: 5, command: 'cancel', input: { id: order.id } });
          effects.cancel(order.id);
          const id: string = effects.send({ topic: 'orders', body: { id: order.id } });
          state.tags.upsert({ id, tags: [order.item] });

          // @ts-expect-error -- no such table
          state.order?.insert(order);
          // @ts-expect-error -- a row of another table
          unreached(() => state.tags.insert(order));
          // @ts-expect-error -- a property that is missing
          unreached(() => state.orders.insert({ id: '1', item: 'nut', quantity: 1 }));
          // @ts-expect-error -- a property of another type
          unreached(() => state.orders.update('1', { quantity: 'many' }));
          // @ts-expect-error -- no such command
          unreached(() => effects.schedule({ id: '1', at: 5, command: 'destroy', input: { id: '1' } }));
          // @ts-expect-error -- an input that does not fit its command
          unreached(() => effects.schedule({ id: '1', at: 5, command: 'cancel', input: { name: '1' } }));
          // @ts-expect-error -- a timer without a time
          unreached(() => effects.schedule({ id: '1', command: 'cancel', input: { id: '1' } }));
          // @ts-expect-error -- a property that the data does not have
          unreached(() => order.price);
        },
      },
      cancelled: { data: Type.Object({ id: Type.String() }), evolve: (state, { id }) => state.orders.delete(id) },
    },
    commands: {
      place: {
        input: Order,
        decide: (state, input, ctx) => {
          const drawn: number = ctx.random() + ctx.random.integer(1, 6);
          const id: string = ctx.id();
          if (drawn > 100) return ctx.refuse('no', id, 'id');

          // @ts-expect-error -- a command cannot change a table
          unreached(() => state.orders.insert(input));
          // @ts-expect-error -- a row may be missing
          unreached(() => state.orders.get('1').quantity);
          // @ts-expect-error -- a command has no effects
          unreached(() => ctx.schedule({}));
          return [{ type: 'placed', data: input }];
        },
      },
      cancel: { input: Type.Object({ id: Type.String() }), decide: (_, input) => [{ type: 'cancelled', data: input }] },
      // @ts-expect-error -- no such event
      misspelt: { input: Order, decide: (_, data) => [{ type: 'place', data }] },
      // @ts-expect-error -- the data of another event
      misfit: { input: Order, decide: () => [{ type: 'placed', data: { id: '1' } }] },
      // @ts-expect-error -- a promise
      later: { input: Order, decide: async () => [] },
      // @ts-expect-error -- nothing
      nothing: { input: Order, decide: () => undefined },
    },
    queries: {
      byItem: {
        input: Type.Object({ item: Type.String() }),
        answer: (state, { item }) => [
          ...state.orders.by.item.scan({ equals: [item], after: ['7'], limit: 10, descending: true }),
          ...state.orders.by.item.scan({ from: [item, '7'], to: [item] }),
          ...state.orders.by.open.scan({ equals: [true], from: [5], before: [9, '7'] }),
          ...state.orders.by.open.scan({ equals: [true, 5, '7'] }),
          ...state.orders.by.note.scan({ equals: [undefined], after: undefined }),
          ...state.orders.scan({ after: undefined, before: 'z', descending: true }),
        ],
      },
      wrong: {
        input: Type.Object({}),
        answer: (state) => {
          // @ts-expect-error -- no such index
          unreached(() => state.orders.by.price);
          // @ts-expect-error -- a table without indexes has none
          unreached(() => state.tags.by.item);
          // @ts-expect-error -- a value of another type
          unreached(() => state.orders.by.item.scan({ equals: [5] }));
          // @ts-expect-error -- more values than the index has
          unreached(() => state.orders.by.item.scan({ equals: ['nut', '7', 'x'] }));
          // @ts-expect-error -- a bound follows the values that are equal: here it is the id
          unreached(() => state.orders.by.open.scan({ equals: [true, 5], from: [5] }));
          // @ts-expect-error -- not a tuple
          unreached(() => state.orders.by.item.scan({ equals: 'nut' }));
          for (const order of state.orders.by.item.scan()) {
            const quantity: number = order.quantity;
            // @ts-expect-error -- rows of an index have the type of their table
            unreached(() => [order.price, quantity]);
          }
          return [];
        },
      },
    },
    invariants: {
      plain: (state, changed) => changed.every(({ key }) => (state.orders.get(key)?.quantity ?? 0) >= 0),
      stated: { on: ['orders'], shadow: true, holds: (state) => state.orders.size < 100 },
      // @ts-expect-error -- no such table
      elsewhere: { on: ['order'], holds: () => true },
      // @ts-expect-error -- no truth value
      number: (state) => state.orders.size,
    },
  });

test('a table takes the properties of its rows as key and indexes, and only those that can be ordered', () => {
  // @ts-expect-error -- no such property
  unreached(() => table(Order, { key: 'name' }));
  // @ts-expect-error -- no such property
  unreached(() => table(Order, { key: 'id', indexes: { price: ['price'] } }));
  // @ts-expect-error -- a list cannot be ordered by
  unreached(() => table(tags, { key: 'id', indexes: { tags: ['tags'] } }));
  unreached(define);
  const { indexes } = machine({
    name: 'm',
    version: 1,
    tables: {
      orders: table(Order, {
        key: 'id',
        indexes: { item: ['item'], open: ['paid', 'quantity'], note: ['note', 'id'] },
      }),
    },
    events: {},
    commands: {},
  }).tables[0] ?? { indexes: [] };
  deepStrictEqual(indexes, [
    { name: 'item', properties: ['item', 'id'] },
    { name: 'open', properties: ['paid', 'quantity', 'id'] },
    { name: 'note', properties: ['note', 'id'] },
  ]);
});

test('a machine may name its commands before its events', () => {
  const turned = machine({
    name: 'turned',
    version: 1,
    queries: { size: { input: Type.Object({}), answer: (state) => state.tags.size } },
    commands: {
      add: { input: tags, decide: (state, data) => (state.tags.has(data.id) ? [] : [{ type: 'added', data }]) },
    },
    events: {
      added: {
        data: tags,
        evolve: (state, data, effects) => {
          state.tags.insert(data);
          effects.schedule({ id: data.id, at: 0, command: 'add', input: { id: `${data.id}.`, tags: [] } });
          // @ts-expect-error -- no such command
          unreached(() => effects.schedule({ id: data.id, at: 0, command: 'remove', input: data }));
        },
      },
    },
    tables: { tags: table(tags, { key: 'id' }) },
  });
  const instance = openInMemory(turned);
  instance.execute('add', { id: 'a', tags: [] });
  deepStrictEqual(instance.query('size'), 1);
});
