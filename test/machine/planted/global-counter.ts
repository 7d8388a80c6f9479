import { machine, table, Type } from 'cellwright';

const Row = Type.Object({ id: Type.String(), n: Type.Number(), text: Type.String() });
let count = 0;

/** Planted: a counter of the module. */
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    put: {
      data: Row,
      evolve: (state, row) => {
        count += 1;
        state.rows.upsert({ ...row, n: count });
      },
    },
  },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
  invariants: { notNegative: (state, changed) => changed.every(({ key }) => (state.rows.get(key)?.n ?? 0) >= 0) },
});
