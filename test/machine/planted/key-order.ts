import { machine, table, Type } from 'cellwright';

const Row = Type.Object({
  id: Type.String(),
  n: Type.Number(),
  text: Type.String(),
  more: Type.Optional(Type.Unknown()),
});

/** Planted: properties in different orders: copied in one order. */
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    put: {
      data: Row,
      evolve: (state, row) => {
        const odd = state.rows.size % 2 === 1;
        state.rows.upsert({ ...row, more: odd ? { a: 1, b: 2 } : { b: 2, a: 1 } });
      },
    },
  },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
  invariants: { notNegative: (state, changed) => changed.every(({ key }) => (state.rows.get(key)?.n ?? 0) >= 0) },
});
