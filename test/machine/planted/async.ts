import { machine, table, Type } from 'cellwright';

const Row = Type.Object({ id: Type.String(), n: Type.Number(), text: Type.String() });

/** Planted: a handler that is asynchronous. */
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    put: {
      data: Row,
      evolve: async (state, row) => {
        await null;
        state.rows.upsert(row);
      },
    },
  },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
  invariants: { notNegative: (state, changed) => changed.every(({ key }) => (state.rows.get(key)?.n ?? 0) >= 0) },
});
