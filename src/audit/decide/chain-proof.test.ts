import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { erasureRecord } from '../../machine/decide/log/erasure.ts';
import { encodePayload, encodeRecord, type LogRecord } from '../../machine/decide/log/record.ts';
import { ChainProof, type MarkedEnd, type StoredRow } from './chain-proof.ts';
import { Findings, type Finding } from './finding.ts';

const hashes = {
  digestOf: (payload: string): string => hash('sha256', payload, 'base64'),
  chainOf: (previous: string, head: string, digest: string): string =>
    hash('sha256', `${previous}\n${digest}\n${head}`),
};
const start: MarkedEnd = { position: 0, chain: 'the beginning' };

/** One record to be: whose, how many events, whether a batch ends with it. */
interface Plan {
  readonly instance: string;
  readonly events: number;
  readonly batchEnds: boolean;
}

/** What may be told wrongly of one record, by somebody who writes chain and digest anew. */
interface Lie {
  readonly at: number;
  readonly previous?: number;
  readonly seqBefore?: number;
  readonly hashBefore?: string;
  readonly now?: number;
}

function written(plans: readonly Plan[], lie?: Lie): { rows: StoredRow[]; mark: MarkedEnd } {
  const last = new Map<string, { position: number; seq: number; hash: string }>();
  let { chain } = start;
  const rows = plans.map(({ instance, events, batchEnds }, i): StoredRow => {
    const position = i + 1;
    const before = last.get(instance) ?? { position: 0, seq: 0, hash: 'c2:0' };
    const told = lie?.at === position ? lie : undefined;
    const record = recordOf(instance, told?.seqBefore ?? before.seq, [
      told?.hashBefore ?? before.hash,
      ...Array.from({ length: events }, (_, n) => `c2:${instance}${before.seq + n + 1}`),
    ]);
    const now = told?.now ?? position;
    const { head, payload } = encodeRecord(position, told?.previous ?? before.position, { ...record, now });
    const digest = hashes.digestOf(payload);
    chain = hashes.chainOf(chain, head, digest);
    last.set(instance, { position, seq: before.seq + events, hash: record.hashes.at(-1) ?? '' });
    return { position, head, payload, digest, chain: batchEnds || position === plans.length ? chain : null };
  });
  return { rows, mark: { position: plans.length, chain } };
}

function recordOf(instance: string, seqBefore: number, states: readonly string[]): LogRecord {
  const events = states.slice(1).map((_, n) => ({ type: 'happened', data: { n } }));
  const parts = {
    command: 'do',
    input: {},
    key: undefined,
    outcome: { kind: 'accepted', events },
    context: {},
  } as const;
  return {
    instance,
    machine: 'm',
    machineVersion: 1,
    now: 0,
    seqBefore,
    hashes: states,
    keysForgotten: 0,
    keysHash: 'c2:0',
    ...parts,
    payload: encodePayload(parts),
  };
}

function proven(rows: readonly StoredRow[], mark: MarkedEnd | undefined, from = start): readonly Finding[] {
  const findings = new Findings();
  const proof = new ChainProof(from, hashes, mark, findings);
  for (const row of rows) proof.take('log.db', row);
  proof.end('log.db', 'log.mark');
  return findings.listed;
}

const planned = fc.array(
  fc.record({
    instance: fc.constantFrom('a', 'b', 'c'),
    events: fc.integer({ min: 0, max: 3 }),
    batchEnds: fc.boolean(),
  }),
  { minLength: 1, maxLength: 30 },
);

test('a log that was written as logs are is proven', () => {
  fc.assert(
    fc.property(planned, (plans) => {
      const { rows, mark } = written(plans);
      assert.deepEqual(proven(rows, mark), []);
      assert.deepEqual(proven(rows, undefined), []);
    }),
  );
});

test('any row that is dropped, exchanged or changed is found', () => {
  fc.assert(
    fc.property(
      planned,
      fc.nat(),
      fc.nat(),
      fc.constantFrom('drop', 'exchange', 'payload', 'head'),
      (plans, one, two, how) => {
        const { rows, mark } = written(plans);
        const i = one % rows.length;
        const j = two % rows.length;
        const row = rows[i];
        const other = rows[j];
        assert.ok(row !== undefined && other !== undefined);
        if (how === 'drop') rows.splice(i, 1);
        else if (how === 'payload') rows[i] = { ...row, payload: `${String(row.payload)} ` };
        else if (how === 'head') rows[i] = { ...row, head: String(row.head).replace('"m"', '"n"') };
        else {
          if (i === j) return;
          rows[i] = { ...other, position: row.position };
          rows[j] = { ...row, position: other.position };
        }
        assert.ok(proven(rows, mark).length > 0);
      },
    ),
  );
});

const plans: readonly Plan[] = ['a', 'b', 'a', 'a', 'b'].map((instance) => ({ instance, events: 1, batchEnds: true }));

test('a record that does not begin where the one before ended is named, also when chain and digest were written anew', () => {
  const found = (lie: Lie): unknown => {
    const { rows, mark } = written(plans, lie);
    return proven(rows, mark).map(({ kind, position, instance, expected }) => [kind, position, instance, expected]);
  };
  assert.deepEqual(found({ at: 4, previous: 1 }), [['link-broken', 4, 'a', '3']]);
  assert.deepEqual(found({ at: 3, hashBefore: 'c2:other' }), [['link-broken', 3, 'a', 'c2:a1']]);
  assert.deepEqual(found({ at: 4, now: 2 }), [['time-reversed', 4, 'a', '≥ 3']]);
  // What follows builds on the sequence that was told, so it is named there and where the truth goes on.
  assert.deepEqual(found({ at: 3, seqBefore: 7 }), [
    ['link-broken', 3, 'a', '1'],
    ['link-broken', 4, 'a', '8'],
  ]);
});

test('records up to what was removed are not missed, and every record after them is', () => {
  const { rows, mark } = written(plans);
  const from = { position: 2, chain: String(rows[1]?.chain) };
  assert.deepEqual(proven(rows.slice(2), mark, from), []);
  assert.deepEqual(
    proven(rows.slice(3), mark, from).map(({ kind }) => kind),
    ['record-missing', 'link-broken'],
  );
});

test('a log must reach its mark and may reach further; a mark of another record is found', () => {
  const { rows, mark } = written(plans);
  const at = (position: number): MarkedEnd => ({ position, chain: String(rows[position - 1]?.chain) });
  assert.deepEqual(proven(rows, at(4)), []);
  assert.deepEqual(proven(rows.slice(0, 4), at(4)), []);
  assert.deepEqual(
    proven(rows.slice(0, 4), mark).map(({ kind, file }) => [kind, file]),
    [['log-cut', 'log.mark']],
  );
  assert.deepEqual(
    proven(rows, { position: 4, chain: 'another' }).map(({ kind, position }) => [kind, position]),
    [['mark-differs', 4]],
  );
  const open = rows.map((row, i) => (i === 4 ? { ...row, chain: null } : row));
  assert.deepEqual(
    proven(open, at(4)).map(({ kind, message }) => [kind, message]),
    [['log-cut', 'The log ends inside a batch: records 5 to 5 have no chain']],
  );
});

test('what is missing is explained by an erasure of the same instance, and by no other', () => {
  const erasing = (instance: string): readonly Finding[] => {
    const { rows } = written(plans);
    const [last] = rows.slice(-1);
    const seq = instance === 'a' ? 3 : 2;
    const record = erasureRecord({
      ...recordOf(instance, seq, []),
      now: 9,
      seq,
      stateHash: `c2:${instance}${seq}`,
    });
    const { head, payload } = encodeRecord(6, instance === 'a' ? 4 : 5, record);
    const digest = hashes.digestOf(payload);
    const chain = hashes.chainOf(String(last?.chain), head, digest);
    const gone = rows.map((row, i) => (i === 0 || i === 2 ? { ...row, payload: null } : row));
    return proven([...gone, { position: 6, head, payload, digest, chain }], undefined);
  };
  assert.deepEqual(erasing('a'), []);
  assert.deepEqual(
    erasing('b').map(({ kind, position, instance }) => [kind, position, instance]),
    [['payload-missing', 1, 'a']],
  );
});
