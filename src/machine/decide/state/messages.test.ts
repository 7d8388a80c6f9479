import { test } from 'node:test';
import { deepStrictEqual } from 'node:assert/strict';
import { Type } from 'typebox';
import { machine, table } from '../definition/machine.ts';
import { openInMemory } from '../instance/memory.ts';

/**
 * What an author reads who did what handlers cannot do. Handlers here break the rules as code without types may: each says
 * which one it is, and each message what to do instead.
 */
const Row = Type.Object({ id: Type.String(), list: Type.Array(Type.Integer()) });
type Writers = { readonly rows: Record<'insert' | 'update' | 'upsert' | 'delete', (...given: unknown[]) => void> };
let captured: Writers | undefined;
const row = { id: 'a', list: [1] };

const wrong = machine({
  name: 'wrong',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    added: {
      data: Row,
      evolve: (state, data) => {
        captured = state as unknown as Writers;
        state.rows.upsert(data);
      },
    },
    thrown: {
      data: Row,
      evolve: (_, data) => {
        throw new Error(`row ${data.id} is not wanted`);
      },
    },
    doubled: { data: Row, evolve: (state, data) => state.rows.insert(data) },
    missed: { data: Row, evolve: (state) => state.rows.update('z', { list: [] }) },
    changedData: { data: Row, evolve: (_, data) => void (data.id = 'b') },
    later: { data: Row, evolve: () => Promise.resolve() as unknown as void },
  },
  commands: {
    add: { input: Row, decide: (_, data) => [{ type: 'added', data }] },
    insertInDecide: {
      input: Row,
      decide: (state, input) => {
        (state as unknown as Writers).rows.insert(input);
        return [];
      },
    },
    capturedWriter: {
      input: Row,
      decide: (_, input) => {
        captured?.rows.upsert(input);
        return [];
      },
    },
    changeInput: {
      input: Row,
      decide: (_, input) => {
        input.id = 'b';
        return [];
      },
    },
    pushToRow: {
      input: Row,
      decide: (state) => {
        state.rows.get('a')?.list.push(2);
        return [];
      },
    },
    later: { input: Row, decide: (async () => []) as unknown as () => [] },
    nothing: { input: Row, decide: (() => undefined) as unknown as () => [] },
    text: { input: Row, decide: (() => 'added') as unknown as () => [] },
    noType: { input: Row, decide: () => [{ data: {} }] as unknown as [] },
    eventLater: { input: Row, decide: () => [Promise.resolve()] as unknown as [] },
    misspelt: { input: Row, decide: (_, data) => [{ type: 'aded', data }] as unknown as [] },
    unknown: { input: Row, decide: (_, data) => [{ type: 'somethingElse', data }] as unknown as [] },
    misfit: { input: Row, decide: () => [{ type: 'added', data: { id: 7, list: [] } }] as unknown as [] },
    thrown: { input: Row, decide: (_, data) => [{ type: 'thrown', data }] },
    doubled: { input: Row, decide: (_, data) => [{ type: 'doubled', data }] },
    missed: { input: Row, decide: (_, data) => [{ type: 'missed', data }] },
    changeData: { input: Row, decide: (_, data) => [{ type: 'changedData', data }] },
    evolveLater: { input: Row, decide: (_, data) => [{ type: 'later', data }] },
  },
  queries: {
    later: { input: Type.Object({}), answer: async () => [] },
    change: { input: Type.Object({}), answer: (state) => (state as unknown as Writers).rows.delete('a') },
  },
});

const broken = machine({
  name: 'broken',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: { added: { data: Row, evolve: (state, data) => state.rows.upsert(data) } },
  commands: { add: { input: Row, decide: (_, data) => [{ type: 'added', data }] } },
  invariants: { later: (async () => true) as unknown as () => boolean },
});
const thrown = machine({
  name: 'thrown',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: { added: { data: Row, evolve: (state, data) => state.rows.upsert(data) } },
  commands: { add: { input: Row, decide: (_, data) => [{ type: 'added', data }] } },
  invariants: {
    fails: (state) => {
      (state as unknown as Writers).rows.delete('a');
      return true;
    },
  },
});

const expected: Readonly<Record<string, string>> = {
  insertInDecide:
    'Command insertInDecide failed and changed nothing: state.rows.insert was called where state can only be read; return an event, and change the table in its evolve',
  capturedWriter:
    'Command capturedWriter failed and changed nothing: Table rows was changed outside an event; return an event and change it there',
  changeInput:
    "Command changeInput failed and changed nothing: Cannot assign to read only property 'id' of object '#<Object>'; what handlers are given is frozen: copy it first, as in { ...value, changed: true }",
  pushToRow:
    'Command pushToRow failed and changed nothing: Cannot add property 1, object is not extensible; what handlers are given is frozen: copy it first, as in { ...value, changed: true }',
  later:
    'Command later failed and changed nothing: Command later returned a promise; handlers are synchronous, because replay could not wait for the same: wait before the command, and give it as input what came of that',
  nothing:
    'Command nothing failed and changed nothing: Command nothing returned nothing; return an array of events, [] for none, or ctx.refuse(…)',
  text: 'Command text failed and changed nothing: Command text returned a value of type string; return an array of events, [] for none, or ctx.refuse(…)',
  noType:
    'Command noType failed and changed nothing: Command noType returned something that is no event; an event is { type, data }',
  eventLater:
    'Command eventLater failed and changed nothing: Command eventLater returned an event that is or holds a promise; handlers are synchronous, because replay could not wait for the same: wait before the command, and give it as input what came of that',
  misspelt: 'Command misspelt failed and changed nothing: wrong has no event aded; did you mean added?',
  unknown:
    'Command unknown failed and changed nothing: wrong has no event somethingElse; it has added, thrown, doubled, missed, changedData, later',
  misfit: 'Command misfit failed and changed nothing: the data of event added does not fit: id must be string',
  thrown: 'Command thrown failed and changed nothing: event thrown: row a is not wanted',
  doubled: 'Command doubled failed and changed nothing: event doubled: Table rows already has a row a',
  missed: 'Command missed failed and changed nothing: event missed: Table rows has no row z to update',
  changeData:
    "Command changeData failed and changed nothing: event changedData: Cannot assign to read only property 'id' of object '#<Object>'; what handlers are given is frozen: copy it first, as in { ...value, changed: true }",
  evolveLater:
    'Command evolveLater failed and changed nothing: event later: it returned a promise; handlers are synchronous, because replay could not wait for the same: wait before the command, and give it as input what came of that',
};

test('a handler that does what it may not is told which one it is and what to do instead', () => {
  const instance = openInMemory(wrong);
  instance.execute('add', row);
  const before = instance.stateHash;
  const said: Record<string, string> = {};
  for (const command of Object.keys(expected)) {
    const answer = instance.execute(command, row);
    said[command] = answer.kind === 'rejected' ? answer.fault.message : 'accepted';
    if (answer.kind === 'rejected') deepStrictEqual(answer.fault.code, 'handler-failed');
  }
  deepStrictEqual(said, expected);
  deepStrictEqual(instance.stateHash, before);
});

test('so are queries and invariants', () => {
  const instance = openInMemory(wrong);
  const said = (act: () => unknown): string => {
    try {
      act();
      return 'answered';
    } catch (error) {
      return error instanceof Error ? error.message : '';
    }
  };
  const promise =
    'returned a promise; handlers are synchronous, because replay could not wait for the same: wait before the command, and give it as input what came of that';
  deepStrictEqual(
    [said(() => instance.query('later')), said(() => instance.query('change'))],
    [
      `Query later failed: Query later ${promise}`,
      'Query change failed: state.rows.delete was called where state can only be read; return an event, and change the table in its evolve',
    ],
  );
  for (const [each, message] of [
    [broken, `Command add failed and changed nothing: invariant later: it ${promise}`],
    [
      thrown,
      'Command add failed and changed nothing: invariant fails: state.rows.delete was called where state can only be read; return an event, and change the table in its evolve',
    ],
  ] as const) {
    const answer = openInMemory(each).execute('add', row);
    deepStrictEqual(answer.kind === 'rejected' ? answer.fault.message : 'accepted', message);
  }
});
