import * as fc from 'fast-check';
import { Type } from 'typebox';
import { machine, table, type Machine } from '../../src/machine/decide/definition/machine.ts';
import type { TableWriter } from '../../src/machine/decide/definition/define.ts';

/**
 * Machines out of a small grammar. Each has one to three tables with a key, a number `n`, perhaps more properties and
 * indexes; one event, which is a list of changes to rows, timers and messages; one command, which returns the events
 * that its input lists, refuses or throws; and one invariant, which no row with the number 13 keeps.
 */
export type Row = Readonly<Record<string, unknown>>;
export interface TableShape {
  readonly name: string;
  readonly key: 'id' | 'key';
  readonly indexes: Readonly<Record<string, readonly ('n' | 's' | 'b')[]>>;
}
export interface MachineShape {
  readonly tables: readonly TableShape[];
}
export type Change =
  | { readonly do: 'insert' | 'upsert' | 'update'; readonly table: number; readonly key: string; readonly fields: Row }
  | { readonly do: 'delete'; readonly table: number; readonly key: string }
  | { readonly do: 'schedule'; readonly id: string; readonly afterMs: number; readonly input: Input }
  | { readonly do: 'cancel'; readonly id: string }
  | { readonly do: 'send'; readonly body: unknown };
export interface Input {
  readonly events: readonly (readonly Change[])[];
  readonly end: 'return' | 'refuse' | 'throw';
}

export const forbidden = 13;

/** Keys whose order tells code units from locales, and which a naive table would mix up. */
const rowKeys = ['', '10', '9', 'a', 'B', 'a\u0308', '\ud83d\ude00', '\uffff', 'constructor'];
const rowKey = fc.constantFrom(...rowKeys);
const number = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -3, max: 14 }) },
  { weight: 1, arbitrary: fc.constantFrom(-0, 0.1, 1e21, 5e-324, Number.MAX_VALUE, Number.MAX_SAFE_INTEGER) },
);
const text = fc.oneof(
  fc.constantFrom('', 'x', 'y'),
  fc.string({ unit: 'binary', maxLength: 6 }),
  fc.constant('\ud800'),
);
/** Free values, with names whose order is not the order in which they are written. */
const free = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }).filter((value) => !JSON.stringify(value).includes('__proto__')),
  fc.constantFrom({ b: 1, a: { 10: true, 9: null, z: [] } }, [[], {}, ''], 'long'.repeat(50)),
);
const fields = fc.record(
  { n: number, s: text, b: fc.boolean(), x: free },
  { requiredKeys: ['n'], noNullPrototype: true },
) as fc.Arbitrary<Row>;
/** Now and then what no table accepts. */
const someFields = fc.oneof(
  { weight: 19, arbitrary: fields },
  { weight: 1, arbitrary: fc.constant<Row>({ n: 'thirteen' }) },
);
const place = { table: fc.nat(2), key: rowKey };
/** Mostly what applies: of the others one is enough to fail a whole command. */
const rowChange: fc.Arbitrary<Change> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('upsert' as const), ...place, fields: someFields }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('insert' as const, 'update' as const), ...place, fields: someFields }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete' as const), ...place }) },
);

function input(change: fc.Arbitrary<Change>): fc.Arbitrary<Input> {
  return fc.record({
    events: fc.array(fc.array(change, { minLength: 1, maxLength: 4 }), { maxLength: 3 }),
    end: fc.oneof(
      { weight: 8, arbitrary: fc.constant('return' as const) },
      { weight: 1, arbitrary: fc.constant('refuse' as const) },
      { weight: 1, arbitrary: fc.constant('throw' as const) },
    ),
  });
}

const timerId = fc.constantFrom('t', 'T', 'ü');
const effect: fc.Arbitrary<Change> = fc.oneof(
  fc.record({
    do: fc.constant('schedule' as const),
    id: timerId,
    afterMs: fc.constantFrom(0, 1, 1_000, 60_000),
    input: input(rowChange),
  }),
  fc.record({ do: fc.constant('cancel' as const), id: timerId }),
  fc.record({ do: fc.constant('send' as const), body: free }),
);

/** Inputs of the one command, `run`. Plain JSON, as they would arrive. */
export const inputs: fc.Arbitrary<Input> = input(
  fc.oneof({ weight: 4, arbitrary: rowChange }, { weight: 1, arbitrary: effect }),
).map((made) => JSON.parse(JSON.stringify(made)) as Input);

const tableShape = fc.record({
  key: fc.constantFrom('id' as const, 'key' as const),
  indexes: fc.subarray(['byN', 'bySn', 'byB'] as const),
});
const orders = { byN: ['n'], bySn: ['s', 'n'], byB: ['b'] } as const;

export const shapes: fc.Arbitrary<MachineShape> = fc.array(tableShape, { minLength: 1, maxLength: 3 }).map((made) => ({
  tables: made.map(({ key, indexes }, i) => ({
    name: `table${i}`,
    key,
    indexes: Object.fromEntries(indexes.map((name) => [name, orders[name]])),
  })),
}));

const Anything = Type.Object({ changes: Type.Array(Type.Unknown()) });

/** The rows of a table or of one of its indexes, as its views give them. */
const Scan = Type.Object({ table: Type.String(), index: Type.Optional(Type.String()) });

export function machineOf({ tables }: MachineShape): Machine {
  const Fields = { n: Type.Number(), s: Type.Optional(Type.String()), b: Type.Optional(Type.Boolean()) };
  const rowSchema = (key: string) => Type.Object({ [key]: Type.String(), ...Fields, x: Type.Optional(Type.Unknown()) });
  return machine({
    name: 'random',
    version: 1,
    tables: Object.fromEntries(
      tables.map(({ name, key, indexes }) => [
        name,
        table(rowSchema(key), { key: key as never, indexes: indexes as never }),
      ]),
    ),
    events: {
      changed: {
        data: Anything,
        evolve: (state, { changes }, effects) => {
          for (const change of changes as readonly Change[]) {
            switch (change.do) {
              case 'schedule': {
                const { id, afterMs: at, input: given } = change;
                effects.schedule({ id, at, command: 'run', input: { ...given, events: [...given.events] } });
                break;
              }
              case 'cancel':
                effects.cancel(change.id);
                break;
              case 'send':
                effects.send({ topic: 'news', body: change.body });
                break;
              default:
                changeRow(tables, state, change);
            }
          }
        },
      },
    },
    commands: {
      run: {
        input: Type.Object({ events: Type.Array(Type.Unknown()), end: Type.String() }),
        decide: (_state, { events, end }, ctx) => {
          if (end === 'refuse') return ctx.refuse('no', 'It refuses');
          if (end === 'throw') throw new Error('It throws');
          // Events have no clock, so they are told when their timers are due.
          const timed = (change: Change): Change =>
            change.do === 'schedule' ? { ...change, afterMs: ctx.now + change.afterMs } : change;
          return (events as Input['events']).map((changes) => ({
            type: 'changed' as const,
            data: { changes: changes.map((each): unknown => timed(each)) },
          }));
        },
      },
    },
    invariants: {
      none13: (state, changed) => changed.every(({ table: name, key }) => state[name]?.get(key)?.['n'] !== forbidden),
    },
    queries: {
      rows: {
        input: Scan,
        answer: (state, { table: name, index }) => {
          const view = state[name] as unknown as TableWriter<Row, Record<string, { scan(): Iterable<Row> }>>;
          return [...(index === undefined ? view.scan() : (view.by[index]?.scan() ?? []))];
        },
      },
    },
  });
}

function changeRow(
  shapesOfTables: readonly TableShape[],
  state: Readonly<Record<string, TableWriter<Row>>>,
  change: Extract<Change, { readonly table: number }>,
): void {
  const shape = shapesOfTables[change.table % shapesOfTables.length];
  const rows = state[shape?.name ?? ''];
  if (shape === undefined || rows === undefined) throw new Error('a machine has a table');
  if (change.do === 'delete') rows.delete(change.key);
  else if (change.do === 'update') rows.update(change.key, change.fields);
  else rows[change.do]({ ...change.fields, [shape.key]: change.key });
}
