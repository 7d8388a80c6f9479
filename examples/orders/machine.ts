import { machine, table, Type } from 'cellwright';

const Id = Type.String({ minLength: 1, maxLength: 100 });
const Item = Type.String({ minLength: 1, maxLength: 100 });
const Quantity = Type.Integer({ minimum: 1, maximum: 1_000_000 });
const strict = { additionalProperties: false };

const Order = Type.Object({ id: Id, item: Item, quantity: Quantity }, strict);
/** The quantity may be any whole number here: that it is never negative is the invariant's word. */
const StockLevel = Type.Object({ item: Item, quantity: Type.Integer() }, strict);

const stockMax = 1_000_000_000;

/** Orders and the stock that they are served from. */
export const orders = machine({
  name: 'orders',
  version: 1,
  tables: {
    orders: table(Order, { key: 'id', indexes: { item: ['item'] } }),
    stock: table(StockLevel, { key: 'item' }),
  },
  events: {
    orderPlaced: {
      data: Order,
      evolve: (state, order) => {
        const level = state.stock.get(order.item)?.quantity ?? 0;
        state.orders.insert(order);
        state.stock.upsert({ item: order.item, quantity: level - order.quantity });
      },
    },
    orderCancelled: {
      data: Order,
      evolve: (state, order) => {
        const level = state.stock.get(order.item)?.quantity ?? 0;
        state.orders.delete(order.id);
        state.stock.upsert({ item: order.item, quantity: level + order.quantity });
      },
    },
    stockAdded: {
      data: Type.Object({ item: Item, quantity: Quantity }, strict),
      evolve: (state, added) => {
        const level = state.stock.get(added.item)?.quantity ?? 0;
        state.stock.upsert({ item: added.item, quantity: level + added.quantity });
      },
    },
  },
  commands: {
    placeOrder: {
      input: Order,
      decide: (state, input, ctx) =>
        state.orders.has(input.id)
          ? ctx.refuse('order-exists', `Order ${input.id} exists; choose another id`, 'id')
          : [{ type: 'orderPlaced', data: input }],
    },
    cancelOrder: {
      input: Type.Object({ id: Id }, strict),
      decide: (state, input, ctx) => {
        const order = state.orders.get(input.id);
        if (order === undefined) return ctx.refuse('order-unknown', `There is no order ${input.id}`, 'id');
        return [{ type: 'orderCancelled', data: order }];
      },
    },
    addStock: {
      input: Type.Object({ item: Item, quantity: Quantity }, strict),
      decide: (state, input, ctx) => {
        const level = state.stock.get(input.item)?.quantity ?? 0;
        return level + input.quantity > stockMax
          ? ctx.refuse('stock-full', `Stock of ${input.item} may not exceed ${stockMax}`, 'quantity')
          : [{ type: 'stockAdded', data: input }];
      },
    },
  },
  invariants: {
    stockNeverNegative: {
      on: ['stock'],
      holds: (state, changed) => changed.every(({ key }) => (state.stock.get(key)?.quantity ?? 0) >= 0),
    },
  },
  queries: {
    orders: {
      input: Type.Object(
        {
          item: Type.Optional(Item),
          after: Type.Optional(Id),
          limit: Type.Integer({ minimum: 1, maximum: 100_000, default: 100_000 }),
        },
        strict,
      ),
      answer: (state, { item, after, limit }) =>
        item === undefined
          ? [...state.orders.scan({ after, limit })]
          : [...state.orders.by.item.scan({ equals: [item], after: after === undefined ? undefined : [after], limit })],
    },
    stock: {
      input: Type.Object({ item: Type.Optional(Item) }, strict),
      answer: (state, { item }) => {
        if (item === undefined) return [...state.stock.scan()];
        const level = state.stock.get(item);
        return level === undefined ? [] : [level];
      },
    },
  },
});

export default orders;
