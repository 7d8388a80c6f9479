import { test } from 'node:test';
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { fault } from '../../../protocol/errors.ts';
import { Instance, type CommandAnswer } from './instance.ts';
import { machine, table, type Machine } from '../definition/machine.ts';
import { decodeRecord, encodeRecord } from '../log/record.ts';
import { eventsPerCommandMax, refusalBounds } from './returned.ts';
import { recordUnitsMax } from './sealed.ts';

/** Handlers as a module without types may have them: the first one returns, or throws, whatever `behave` does. */
let behave: () => unknown = () => [];

const Row = Type.Object({ id: Type.String(), n: Type.Number(), more: Type.Optional(Type.Unknown()) });
const Change = Type.Object({ how: Type.String(), id: Type.String(), n: Type.Number() });
const typed = machine({
  name: 'hostile',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }), bag: table(Row, { key: 'id' }) },
  events: {
    put: { data: Row, evolve: (state, row) => state.rows.upsert(row) },
    change: {
      data: Change,
      evolve: ({ rows, bag }, { how, id, n }) => {
        const grow = (i: number): void => {
          rows.upsert({ id, n: i });
          grow(i + 1);
        };
        const flip = (i: number): void => {
          if (rows.has(id)) rows.delete(id);
          else rows.insert({ id, n: i });
          flip(i + 1);
        };
        const spread = (i: number): void => {
          rows.insert({ id: `${id} ${i}`, n: i });
          bag.upsert({ id, n: i });
          spread(i + 1);
        };
        switch (how) {
          case 'upsert':
            rows.upsert({ id, n });
            bag.upsert({ id, n });
            return;
          case 'insert':
            rows.insert({ id, n });
            return;
          case 'delete':
            rows.delete(id);
            return;
          case 'grow':
            grow(0);
            return;
          case 'flip':
            flip(0);
            return;
          case 'spread':
            spread(0);
            return;
          default:
            rows.upsert({ id, n });
            throw new Error('after a change');
        }
      },
    },
  },
  commands: { act: { input: Type.Unknown(), decide: () => [] } },
  queries: { all: { input: Type.Object({}), answer: (state) => [...state.rows.scan()] } },
  invariants: { small: (state) => state.rows.size < 6 },
});
const hostile: Machine = {
  ...typed,
  commands: new Map([['act', { input: Type.Unknown(), parse: (input: unknown) => input, decide: () => behave() }]]),
};

function codeOf(answer: CommandAnswer): string {
  return answer.kind === 'accepted' ? 'accepted' : answer.fault.code;
}

/** Runs `act` with this behaviour, and replays what it recorded in a second instance: both must stay equal. */
class Pair {
  readonly instance = new Instance('t', hostile);
  readonly replica = new Instance('t', hostile);
  #position = 0;
  #keys = 0;

  act(behaviour: () => unknown, keyed = true): CommandAnswer {
    behave = behaviour;
    this.#keys += 1;
    const key = keyed ? { idempotencyKey: `key-${this.#keys}` } : {};
    const { answer, record } = this.instance.execute({ command: 'act', input: {}, ...key }, this.#keys);
    if (record !== undefined) {
      this.#position += 1;
      const text = encodeRecord(this.#position, this.#position - 1, record);
      this.replica.replay(decodeRecord(this.#position, text));
    }
    strictEqual(this.replica.stateHash, this.instance.stateHash);
    strictEqual(this.replica.keysHash, this.instance.keysHash);
    strictEqual(this.replica.seq, this.instance.seq);
    deepStrictEqual(this.replica.query('all', {}), this.instance.query('all', {}));
    return answer;
  }

  change(how: string, id = 'a', n = 1): CommandAnswer {
    return this.act(() => [{ type: 'change', data: { how, id, n } }]);
  }
}

const anything = fc.anything({
  withBigInt: true,
  withBoxedValues: true,
  withDate: true,
  withMap: true,
  withNullPrototype: true,
  withObjectString: true,
  withSparseArray: true,
});
const text = fc.oneof(fc.string({ unit: 'binary' }), anything);
const refusal = fc.record(
  { code: text, message: text, field: fc.option(text, { nil: undefined }) },
  { requiredKeys: [] },
);
const id = fc.oneof(fc.constantFrom('a', 'b', '__proto__', ''), fc.string({ unit: 'binary', maxLength: 3 }));
const event = fc.oneof(
  fc.record({
    type: fc.constant('change'),
    data: fc.record({ how: fc.constantFrom('upsert', 'insert', 'delete', 'throw'), id, n: fc.double() }),
  }),
  fc.record({ type: fc.constant('put'), data: fc.record({ id, n: fc.double(), more: anything }) }),
  fc.record({ type: text, data: anything }),
);
const returned = fc.oneof(
  fc.array(event, { maxLength: 4 }),
  fc.record({ refused: fc.oneof(refusal, anything) }),
  anything,
);
const behaviours = fc.oneof(
  { weight: 300, arbitrary: returned.map((value) => () => value) },
  {
    weight: 30,
    arbitrary: anything.map((value) => () => {
      throw value;
    }),
  },
  {
    // Rarely, because a stack takes long to overflow.
    weight: 1,
    arbitrary: fc
      .constantFrom('grow', 'flip', 'spread')
      .map((how) => () => [{ type: 'change', data: { how, id: 'a', n: 0 } }]),
  },
);

test('whatever handlers return or throw, each record is decoded and leads a second instance to the same hashes', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(behaviours, fc.boolean()), { maxLength: 8 }), (acts) => {
      const pair = new Pair();
      for (const [behaviour, keyed] of acts) {
        const before = pair.instance.stateHash;
        const answer = pair.act(behaviour, keyed);
        ok(['accepted', 'command-refused', 'invariant-violated', 'handler-failed'].includes(codeOf(answer)));
        if (answer.kind === 'rejected') strictEqual(pair.instance.stateHash, before);
      }
    }),
    { numRuns: 200 },
  );
});

test('a refusal that is not made of texts fails the command, and its key is not used up', () => {
  const pair = new Pair();
  const wrong: readonly unknown[] = [
    { message: 'no code' },
    { code: 'no-message' },
    { code: 7, message: 'x' },
    { code: 'c', message: null },
    { code: 'c', message: 'm', field: null },
    { code: 'c', message: 'm', field: {} },
    'text',
    null,
  ];
  for (const refused of wrong) strictEqual(codeOf(pair.act(() => ({ refused }))), 'handler-failed');
  strictEqual(pair.instance.keysHash, new Instance('t', hostile).keysHash);
  strictEqual(codeOf(pair.act(() => ({ refused: { code: 'c', message: 'm', field: undefined } }))), 'command-refused');
});

test('the texts of a refusal are bounded', () => {
  const pair = new Pair();
  const { codeLengthMax, messageLengthMax, fieldLengthMax } = refusalBounds;
  const refused = (code: number, message: number, field: number): string =>
    codeOf(
      pair.act(() => ({
        refused: { code: 'c'.repeat(code), message: 'm'.repeat(message), field: 'f'.repeat(field) },
      })),
    );
  strictEqual(refused(codeLengthMax, messageLengthMax, fieldLengthMax), 'command-refused');
  strictEqual(refused(codeLengthMax + 1, 1, 1), 'handler-failed');
  strictEqual(refused(1, messageLengthMax + 1, 1), 'handler-failed');
  strictEqual(refused(1, 1, fieldLengthMax + 1), 'handler-failed');
});

test('a command returns events up to the bound', () => {
  const pair = new Pair();
  const put = { type: 'put', data: { id: 'a', n: 1 } };
  const count = (length: number): string => codeOf(pair.act(() => Array.from({ length }, () => put)));
  strictEqual(count(eventsPerCommandMax + 1), 'handler-failed');
  strictEqual(count(eventsPerCommandMax), 'accepted');
});

test('a command whose record would be longer than the bound fails', () => {
  const pair = new Pair();
  const put = (length: number) => () => [{ type: 'put', data: { id: 'a', n: 1, more: 'x'.repeat(length) } }];
  strictEqual(codeOf(pair.act(put(recordUnitsMax))), 'handler-failed');
  strictEqual(codeOf(pair.act(put(1_000_000))), 'accepted');
});

test('what answers differently when it is read again is recorded as it was read first', () => {
  const pair = new Pair();
  const turning = (first: unknown, then: unknown): object => {
    let reads = 0;
    return {
      id: 'a',
      get n() {
        reads += 1;
        return reads === 1 ? first : then;
      },
    };
  };
  strictEqual(codeOf(pair.act(() => [{ type: 'put', data: turning(1, Number.NaN) }])), 'accepted');
  strictEqual(codeOf(pair.act(() => [{ type: 'put', data: { id: 'a', n: 1, [Symbol('s')]: 1 } }])), 'accepted');
});

test('what a handler throws is told in bounded words, whatever it is', () => {
  const pair = new Pair();
  const thrower = (value: unknown) => () => {
    throw value;
  };
  const unsayable: unknown = Object.create(null);
  const ours = fault('log-damaged', 'only the runtime may say this');
  for (const value of [unsayable, Symbol('s'), undefined, { toString: thrower('again') }, ours]) {
    strictEqual(codeOf(pair.act(thrower(value))), 'handler-failed');
  }
  const long = pair.act(thrower(new Error('x'.repeat(1_000_000))));
  ok(long.kind === 'rejected' && long.fault.message.length < 5_000);
});

test('a handler that rejects fails its command and not the process', async () => {
  const unheard: unknown[] = [];
  const hear = (reason: unknown): void => void unheard.push(reason);
  process.on('unhandledRejection', hear);
  try {
    const pair = new Pair();
    const boom = async (): Promise<never> => {
      throw new Error('boom');
    };
    const promised: readonly (() => unknown)[] = [
      boom,
      () => [boom(), boom()],
      () => [{ type: 'put', data: boom() }, { type: 'nothing' }, boom()],
      // oxlint-disable-next-line unicorn/no-thenable -- that is what is refused
      () => ({ then: (_: unknown, reject: (reason: Error) => void) => reject(new Error('boom')) }),
    ];
    for (const each of promised) {
      const answer = pair.act(each);
      ok(answer.kind === 'rejected' && answer.fault.code === 'handler-failed');
      match(answer.fault.message, /promise/);
    }
    // Rejections are told once the microtasks are done.
    await new Promise((resolve) => setImmediate(resolve));
    deepStrictEqual(unheard, []);
  } finally {
    process.off('unhandledRejection', hear);
  }
});

test('a stack that overflows while rows change leaves rows, order and hash exactly as they were', () => {
  for (const how of ['grow', 'flip', 'spread']) {
    const pair = new Pair();
    for (const each of ['a', 'c', 'b']) pair.change('upsert', each);
    for (let i = 0; i < 6; i++) {
      const before = pair.instance.stateHash;
      strictEqual(codeOf(pair.change(how)), 'handler-failed');
      strictEqual(pair.instance.stateHash, before);
    }
    strictEqual(codeOf(pair.change('insert', 'aa')), 'accepted');
    strictEqual(codeOf(pair.change('delete', 'a')), 'accepted');
    deepStrictEqual(pair.instance.query('all', {}), [
      { id: 'aa', n: 1 },
      { id: 'b', n: 1 },
      { id: 'c', n: 1 },
    ]);
  }
});

test('a handler cannot use its own instance while it runs', () => {
  const pair = new Pair();
  const within = pair.act(() => {
    pair.instance.execute({ command: 'act', input: {} }, 9);
  });
  strictEqual(codeOf(within), 'handler-failed');
  strictEqual(codeOf(pair.act(() => pair.instance.query('all', {}))), 'handler-failed');
  strictEqual(codeOf(pair.change('upsert')), 'accepted');
});
