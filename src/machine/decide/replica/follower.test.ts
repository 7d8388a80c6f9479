import { test } from 'node:test';
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import type { DriftEvidence } from './drift.ts';
import type { FeedRecord } from './feed.ts';
import { Follower, type FollowerNews } from './follower.ts';
import { Instance } from '../instance/instance.ts';
import { machine, table, type Machine } from '../definition/machine.ts';
import { encodeRecord } from '../log/record.ts';
import { encodeState } from '../state/state.ts';

const Row = Type.Object({ id: Type.String(), n: Type.Number(), more: Type.Optional(Type.String()) });

/** A machine whose event puts the row that `made` makes of its input: `made` is what a module of its own would hold. */
function machineWith(made: (row: { id: string; n: number }) => { id: string; n: number; more?: string }): Machine {
  return machine({
    name: 'planted',
    version: 1,
    tables: { rows: table(Row, { key: 'id' }) },
    events: {
      put: { data: Row, evolve: (state, row) => state.rows.upsert(made(row)) },
      fail: {
        data: Row,
        evolve: (state, row) => {
          state.rows.upsert(row);
          made(row);
        },
      },
    },
    commands: {
      put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] },
      twice: {
        input: Row,
        decide: (_state, input) => [
          { type: 'put', data: { ...input, id: `${input.id}-1` } },
          { type: 'put', data: input },
        ],
      },
      fail: { input: Row, decide: (_state, input) => [{ type: 'fail', data: input }] },
    },
    invariants: { small: (state, changed) => changed.every(({ key }) => (state.rows.get(key)?.n ?? 0) < 1_000) },
  });
}

/** Serves instances and feeds a follower, each side with a machine from `make`: as two loads of a module. */
class Pair {
  readonly follower: Follower;
  readonly served = new Map<string, Instance>();
  readonly #machine: Machine;
  readonly #last = new Map<string, number>();
  #position = 0;

  constructor(make: () => Machine) {
    this.#machine = make();
    const other = make();
    this.follower = new Follower(() => other);
  }

  instance(name: string): Instance {
    let instance = this.served.get(name);
    if (instance === undefined) this.served.set(name, (instance = new Instance(name, this.#machine)));
    return instance;
  }

  execute(name: string, command: string, n: number, id = 'a'): FeedRecord | undefined {
    const idempotencyKey = `key-${this.#position}`;
    const { record } = this.instance(name).execute({ command, input: { id, n }, idempotencyKey }, 1);
    if (record === undefined) return undefined;
    this.#position += 1;
    const previous = this.#last.get(name) ?? 0;
    this.#last.set(name, this.#position);
    const { head, payload } = encodeRecord(this.#position, previous, record);
    return { instance: name, position: this.#position, previous, head, payload };
  }

  run(name: string, command: string, n: number, id?: string): readonly FollowerNews[] {
    const record = this.execute(name, command, n, id);
    return record === undefined ? [] : this.follower.apply([record]);
  }

  capture(name: string): void {
    for (const text of encodeState(this.instance(name).capture())) this.follower.read(name, text);
  }
}

function evidenceOf(news: readonly FollowerNews[]): DriftEvidence | undefined {
  const [first, ...more] = news;
  deepStrictEqual(more, []);
  ok(first?.type !== 'astray');
  return first?.evidence;
}

const honest = (): Machine => machineWith((row) => row);

test('an honest machine never drifts, whatever is done to it and in which batches', () => {
  const step = fc.record({
    who: fc.constantFrom('t1', 't2', 't3'),
    command: fc.constantFrom('put', 'twice'),
    n: fc.nat(1_200),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 10 }), (steps, batch) => {
      const pair = new Pair(honest);
      const records = steps.flatMap(({ who, command, n }) => pair.execute(who, command, n) ?? []);
      for (let i = 0; i < records.length; i += batch) {
        deepStrictEqual(pair.follower.apply(records.slice(i, i + batch)), []);
      }
      strictEqual(pair.follower.takeVerified(), records.length);
    }),
  );
});

test('planted drift is found, whatever keeps it', () => {
  const planted: Readonly<Record<string, () => Machine>> = {
    'a counter in a closure': () => {
      let count = 0;
      return machineWith((row) => ({ ...row, n: (count += 1) }));
    },
    'the order of a Map that every instance shares': () => {
      const seen = new Map<string, number>();
      return machineWith((row) => {
        if (!seen.has(row.id)) seen.set(row.id, seen.size);
        return { ...row, n: seen.get(row.id) ?? 0 };
      });
    },
    'a cache that remembers what was refused': () => {
      let most = 0;
      return machineWith((row) => ({ ...row, more: String((most = Math.max(most, row.n))) }));
    },
    'randomness captured early': () => {
      const { random } = Math;
      return machineWith((row) => ({ ...row, n: random() }));
    },
    'a name that each load of the module makes': () => {
      const own = String(Math.random());
      return machineWith((row) => ({ ...row, more: own }));
    },
  };
  for (const [what, make] of Object.entries(planted)) {
    const pair = new Pair(make);
    const records = [];
    for (let i = 0; i < 20; i++) {
      for (const who of ['t1', 't2', 't3']) {
        // Some are refused by the invariant, after the event was tried.
        records.push(pair.execute(who, 'put', i % 4 === 0 ? 5_000 + i : i, `${who}-${i}`));
      }
    }
    const news = pair.follower.apply(records.flatMap((record) => record ?? []));
    ok(news.length > 0, what);
    for (const each of news) strictEqual(each.type, 'drift');
  }
});

test('the evidence names record, event, hashes and both states', () => {
  let wrong = false;
  const make = (): Machine => {
    const mine = wrong;
    wrong = true;
    return machineWith((row) => (mine && row.n === 7 ? { ...row, n: 8 } : row));
  };
  const pair = new Pair(make);
  deepStrictEqual(pair.run('t1', 'put', 1, 'before'), []);
  const evidence = evidenceOf(pair.run('t1', 'twice', 7));
  ok(evidence !== undefined);
  const { mismatch, record, recorded, position, foundBy } = evidence;
  deepStrictEqual([foundBy, position], ['replica', 2]);
  ok(mismatch?.kind === 'state');
  deepStrictEqual([mismatch.seq, mismatch.event], [2, 'put']);
  ok(mismatch.expected !== mismatch.actual);
  deepStrictEqual(record?.event, { type: 'put', data: { value: { id: 'a-1', n: 7 } } });
  deepStrictEqual([record.command, record.input, record.seqBefore], ['twice', { value: { id: 'a', n: 7 } }, 1]);
  strictEqual(recorded.stateHash, pair.instance('t1').stateHash);
  match(evidence.reason, /event 2 \(put\) leads to state c2:.*the log says c2:/);
  pair.capture('t1');
  const states = pair.follower.compare('t1');
  ok(states !== undefined);
  deepStrictEqual(states.difference.total, { missing: 0, extra: 0, changed: 2 });
  deepStrictEqual(states.difference.rows[0], {
    table: 'rows',
    key: 'a',
    kind: 'changed',
    fields: [{ path: '/n', from: { value: 7 }, to: { value: 8 } }],
  });
  deepStrictEqual([states.served.seq, states.replica.seq, states.atDrift], [3, 3, false]);
  strictEqual(states.served.kept, states.served.recomputed);
  strictEqual(states.replica.kept, states.replica.recomputed);
});

test('after drift it goes on to where the serving side is, and says so', () => {
  let copy = 0;
  const make = (): Machine => {
    copy += 1;
    const mine = copy;
    return machineWith((row) => (row.n === 7 ? { ...row, n: 7 + mine / 10 } : row));
  };
  const pair = new Pair(make);
  const evidence = evidenceOf(pair.run('t1', 'put', 7));
  strictEqual(evidence?.mismatch?.seq, 1);
  deepStrictEqual(pair.run('t1', 'put', 1, 'later'), []);
  deepStrictEqual(pair.run('t2', 'put', 1), []);
  pair.capture('t1');
  const states = pair.follower.compare('t1');
  deepStrictEqual([states?.served.seq, states?.replica.seq, states?.atDrift], [2, 2, false]);
  strictEqual(states?.difference.total.changed, 1);
});

test('an event that only one side can apply is drift, and its state stays where it was before', () => {
  let copy = 0;
  const make = (): Machine => {
    copy += 1;
    const fails = copy === 2;
    return machineWith((row) => {
      if (fails && row.n === 7) throw new Error('only here');
      return row;
    });
  };
  const pair = new Pair(make);
  pair.run('t1', 'put', 1);
  const evidence = evidenceOf(pair.run('t1', 'fail', 7, 'b'));
  ok(evidence?.mismatch?.kind === 'failed');
  match(evidence.reason, /cannot be applied: .*only here/);
});

test('it takes up an instance in the middle, from a captured state', () => {
  const pair = new Pair(honest);
  for (let i = 0; i < 5; i++) pair.execute('t1', 'put', i, `row-${i}`);
  pair.capture('t1');
  strictEqual(pair.follower.start('t1', 5), undefined);
  deepStrictEqual(pair.run('t1', 'put', 9), []);
  strictEqual(pair.follower.takeVerified(), 1);
});

test('a captured state whose rows are not what its hash says is drift of the serving side', () => {
  const pair = new Pair(honest);
  pair.execute('t1', 'put', 5);
  const texts = [...encodeState(pair.instance('t1').capture())].map((text) => text.replace('"n":5', '"n":6'));
  for (const text of texts) pair.follower.read('t1', text);
  const news = pair.follower.start('t1', 1);
  ok(news?.type === 'drift');
  strictEqual(news.evidence.mismatch?.kind, 'start');
  match(news.evidence.reason, /do not have the hash that was kept/);
});

test('a gap in what it is given is no drift: it asks to be given the state again', () => {
  const pair = new Pair(honest);
  pair.run('t1', 'put', 1);
  pair.execute('t1', 'put', 2);
  deepStrictEqual(pair.run('t1', 'put', 3), [{ type: 'astray', instance: 't1' }]);
  deepStrictEqual(pair.run('t2', 'put', 3), []);
});

test('a mistake that both sides would make in step is found, because the replica rehearses', () => {
  const counting = (): Machine => {
    let count = 0;
    return machineWith((row) => ({ ...row, n: (count += 1) }));
  };
  const pair = new Pair(counting);
  strictEqual(evidenceOf(pair.run('t1', 'put', 1))?.mismatch?.seq, 1);
});

test('and one that depends on whose turn it is, because instances take turns in another order', () => {
  const first = (): Machine => {
    let name: string | undefined;
    return machineWith((row) => ({ ...row, more: (name ??= row.id) }));
  };
  const pair = new Pair(first);
  const records = ['t1', 't2'].flatMap((who) => pair.execute(who, 'put', 1, who) ?? []);
  strictEqual(pair.follower.apply(records).length, 2);
});
