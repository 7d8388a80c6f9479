import { machine, table, Type } from 'cellwright';

const Measure = Type.Object({ id: Type.String(), value: Type.Number(), note: Type.String() });

/** A machine that keeps what engines and locales could tell apart: fractions, texts of many scripts, orders, ids. */
export const measures = machine({
  name: 'measures',
  version: 1,
  tables: {
    measures: table(Measure, { key: 'id' }),
    totals: table(Type.Object({ id: Type.String(), sum: Type.Number(), list: Type.String() }), { key: 'id' }),
  },
  events: {
    measured: {
      data: Measure,
      evolve: (state, measure) => {
        state.measures.upsert({ ...measure, note: measure.note.toUpperCase() });
        const all = [...state.measures.scan()];
        const sum = all.reduce((total, { value }) => total + value / 3, 0);
        const notes = all.map(({ note }) => note).sort();
        state.totals.upsert({ id: 'all', sum: Math.sqrt(Math.abs(sum)), list: notes.join() });
      },
    },
  },
  commands: {
    measure: {
      input: Type.Object({ value: Type.Number(), note: Type.String() }),
      decide: (_state, { value, note }, ctx) => [
        { type: 'measured', data: { id: `${note}/${ctx.id()}`, value: value * ctx.random() + ctx.now, note } },
      ],
    },
  },
});
