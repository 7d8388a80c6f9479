import { machine, table, Type } from 'cellwright';

const Row = Type.Object({ id: Type.String(), n: Type.Number(), text: Type.String() });
const seen = new Map<string, number>();

/** Planted: a cache of the module, in the order of insertion. */
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    put: {
      data: Row,
      evolve: (state, row) => {
        seen.set(row.id, row.n);
        state.rows.upsert({ ...row, text: [...seen.keys()].join() });
      },
    },
  },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
  invariants: { notNegative: (state, changed) => changed.every(({ key }) => (state.rows.get(key)?.n ?? 0) >= 0) },
});
