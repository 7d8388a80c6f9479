import { machine, table, Type } from 'cellwright';

const Row = Type.Object({ id: Type.String(), n: Type.Number(), text: Type.String() });

/** Planted: an order that depends on the locale. */
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    put: {
      data: Row,
      evolve: (state, row) => {
        const ids = [...state.rows.scan()].map(({ id }) => id).sort((a, b) => a.localeCompare(b));
        state.rows.upsert({ ...row, text: ids.join() });
      },
    },
  },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
  invariants: { notNegative: (state, changed) => changed.every(({ key }) => (state.rows.get(key)?.n ?? 0) >= 0) },
});
