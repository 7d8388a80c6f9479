import { machine, table, Type } from 'cellwright';

const Row = Type.Object({ id: Type.String(), n: Type.Number(), text: Type.String() });
const parts: number[] = [];

/** Planted: a sum of fractions in the order in which they came. */
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    put: {
      data: Row,
      evolve: (state, row) => {
        parts.push(row.n);
        state.rows.upsert({ ...row, n: parts.reduce((sum, n) => sum + n, 0) });
      },
    },
  },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
  invariants: { notNegative: (state, changed) => changed.every(({ key }) => (state.rows.get(key)?.n ?? 0) >= 0) },
});
