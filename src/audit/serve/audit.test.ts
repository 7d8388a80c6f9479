import assert from 'node:assert/strict';
import { copyFileSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { Type } from 'typebox';
import { Fault } from '../../kernel/fault.ts';
import { machine, table, type Machine } from '../../machine/decide/definition/machine.ts';
import { openRuntime, type Runtime, type RuntimeOptions } from '../../machine/serve/runtime.ts';
import { erasureRecord } from '../../machine/decide/log/erasure.ts';
import { decodeHead, encodeRecord } from '../../machine/decide/log/record.ts';
import { archiveSegment, retain } from '../../machine/serve/log/archive.ts';
import { chainOf, digestOf, logFiles } from '../../machine/serve/log/files.ts';
import { createMark } from '../../machine/serve/log/mark.ts';
import type { Finding } from '../decide/finding.ts';
import { compareVersions } from './compare-versions.ts';
import { listInstances, listRecords, differenceBetween, stateAt } from './travel.ts';
import { verifyLog } from './verify-log.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-audit-'));
after(() => rmSync(root, { recursive: true, force: true }));
/** Copies are made here, where no other test makes any. */
process.env['TMPDIR'] = root;
let folders = 0;
function newFolder(): string {
  folders += 1;
  return join(root, `log-${folders}`);
}

const Stock = Type.Object({ item: Type.String(), quantity: Type.Integer(), note: Type.Optional(Type.String()) });
const Change = Type.Object({ item: Type.String(), by: Type.Integer() });

interface Planted {
  readonly version?: number;
  readonly factor?: number;
  readonly note?: string;
  readonly message?: string;
  readonly max?: number;
  readonly extraEvent?: boolean;
  readonly changes?: Readonly<Record<number, string>>;
  readonly strict?: boolean;
}

/** Stock that is added and taken; each option plants one change. */
function shop(planted: Planted = {}): Machine {
  const { version = 1, factor = 1, note, message = 'There is not enough', max = 1_000, extraEvent = false } = planted;
  return machine({
    name: 'shop',
    version,
    changes: planted.changes ?? {},
    tables: { stock: table(Stock, { key: 'item' }) },
    events: {
      changed: {
        data: Change,
        evolve: (state, { item, by }) => {
          if (planted.strict === true && by < 0) throw new Error('nothing can be taken any more');
          const quantity = (state.stock.get(item)?.quantity ?? 0) + factor * by;
          state.stock.upsert(note === undefined ? { item, quantity } : { item, quantity, note });
        },
      },
      cleared: { data: Type.Object({ item: Type.String() }), evolve: (state, { item }) => state.stock.delete(item) },
    },
    commands: {
      change: {
        input: Change,
        decide: (state, input, ctx) => {
          const left = (state.stock.get(input.item)?.quantity ?? 0) + input.by;
          if (left < 0) return ctx.refuse('too-few', `${message} of ${input.item}`, 'by');
          const changed = { type: 'changed', data: input } as const;
          return extraEvent ? [changed, { type: 'changed', data: { ...input, by: 0 } }] : [changed];
        },
      },
      clear: {
        input: Type.Object({ item: Type.String() }),
        decide: (_, input) => [{ type: 'cleared', data: input }],
      },
    },
    invariants: {
      notTooMuch: (state, changed) => changed.every(({ key }) => (state.stock.get(key)?.quantity ?? 0) <= max),
    },
  });
}

let clockMs = 1_000_000;
function open(folder: string, on: Machine = shop(), bounds: RuntimeOptions['bounds'] = {}): Promise<Runtime> {
  return openRuntime({
    bounds,
    folder,
    owner: 'fleet/shop-1',
    mustExist: false,
    machineFor: () => on,
    nowMs: () => (clockMs += 1_000),
    onStopped: (reason) => {
      throw reason;
    },
  });
}

/** A log of two tenants with acceptances, refusals, broken invariants, keys, and random numbers. */
async function writeLog(folder: string): Promise<void> {
  const runtime = await open(folder);
  const run = (instance: string, command: string, input: unknown, idempotencyKey?: string) =>
    runtime.execute({ instance, command, input, ...(idempotencyKey === undefined ? {} : { idempotencyKey }) });
  for (let i = 0; i < 6; i++) {
    await run('acme', 'change', { item: 'nut', by: 10 + i }, `nut-${i}`);
    await run('zeta', 'change', { item: 'nut', by: 5 });
    await run('acme', 'change', { item: `bolt-${i}`, by: i });
  }
  await run('acme', 'change', { item: 'nut', by: -1_000 }, 'far-too-many');
  await run('acme', 'change', { item: 'nut', by: 2_000 }, 'too-much');
  await run('acme', 'change', { item: 'nut', by: -20 }, 'some');
  await run('acme', 'clear', { item: 'bolt-3' });
  await runtime.close();
}

const written = newFolder();
await writeLog(written);

function copied(): string {
  const folder = newFolder();
  cpSync(written, folder, { recursive: true });
  return folder;
}

function verify(folder: string, on: Machine = shop()) {
  return verifyLog({ folder, owner: 'fleet/shop-1', machineNamed: (name) => (name === on.name ? on : undefined) });
}

function edited(sql: string, ...values: (string | number)[]): string {
  const folder = copied();
  const database = new DatabaseSync(join(folder, 'log.db'));
  database.prepare(sql).run(...values);
  database.close();
  return folder;
}

/** The log after an instance was erased: what its records said is gone, and its last record says so. */
function erased(instance: string): string {
  const folder = copied();
  const database = new DatabaseSync(join(folder, 'log.db'));
  const rows = database.prepare('SELECT position, head, chain FROM record ORDER BY position').all();
  const heads = rows.map(({ position, head }) => decodeHead(Number(position), String(head)));
  const last = heads.filter((head) => head.instance === instance).at(-1);
  assert.ok(last !== undefined);
  const seq = last.seqBefore + last.hashes.length - 1;
  const record = erasureRecord({ ...last, now: heads.at(-1)?.now ?? 0, seq, stateHash: last.hashes.at(-1) ?? '' });
  const position = rows.length + 1;
  const { head, payload } = encodeRecord(position, last.position, record);
  const digest = digestOf(payload);
  const chain = chainOf(String(rows.at(-1)?.['chain']), head, digest);
  database.prepare('UPDATE record SET payload = NULL WHERE instr(head, ?) > 0').run(`"${instance}"`);
  database.prepare('INSERT INTO record VALUES (?, ?, ?, ?, ?)').run(position, head, payload, digest, chain);
  database.close();
  rmSync(join(folder, 'log.mark'));
  createMark(join(folder, 'log.mark'), { position, chain });
  return folder;
}

/** The log after its first records went to the archive, in segments that end at these positions. */
function archived(...ends: readonly number[]): string {
  const folder = copied();
  const files = logFiles(folder);
  const database = new DatabaseSync(files.database);
  for (const end of ends) archiveSegment(files, database, 'fleet/shop-1', end);
  database.close();
  return folder;
}

function kinds(findings: readonly Finding[]): readonly string[] {
  return findings.map(({ kind }) => kind);
}

test('a log is proven, with the machine also every state, and its folder is left as it is', () => {
  const before = readdirSync(written).map((name) => [name, readFileSync(join(written, name)).toString('base64')]);
  const report = verify(written);
  assert.deepEqual(report.findings, []);
  assert.equal(report.proven, true);
  assert.equal(report.records, 22);
  assert.equal(report.first, 1);
  assert.equal(report.last, 22);
  assert.equal(report.acknowledged, 22);
  assert.equal(report.instances, 2);
  assert.deepEqual(report.replayed, { instances: 2, records: 22 });
  const after2 = readdirSync(written).map((name) => [name, readFileSync(join(written, name)).toString('base64')]);
  assert.deepEqual(after2, before);

  const chainOnly = verifyLog({ folder: written, machineNamed: () => undefined });
  assert.equal(chainOnly.proven, true);
  assert.deepEqual(chainOnly.notReplayed.machines, ['shop']);
});

test('a log is proven while it is served and written, and nobody is held up', async () => {
  const folder = newFolder();
  const runtime = await open(folder);
  let acknowledged = 0;
  const pending: Promise<unknown>[] = [];
  for (let i = 0; i < 50; i++) {
    for (let j = 0; j < 20; j++) {
      pending.push(
        runtime
          .execute({ instance: `t-${j}`, command: 'change', input: { item: `i-${i}`, by: 1 } })
          .then((answer) => (acknowledged += answer.kind === 'accepted' ? 1 : 0)),
      );
    }
    if (i % 10 !== 0) continue;
    await Promise.race(pending);
    const seen = acknowledged;
    const report = verify(folder);
    assert.deepEqual(report.findings, []);
    assert.ok(report.records >= seen, 'what was acknowledged before the copy stands in it');
  }
  await Promise.all(pending);
  assert.equal(acknowledged, 1_000);
  assert.equal(verify(folder).records, 1_000);
  await runtime.close();
});

test('every kind of damage is named with its file, its record and its instance', () => {
  const changed = verify(
    edited('UPDATE record SET payload = replace(payload, \'"by":12\', \'"by":99\') WHERE position = 7'),
  );
  assert.equal(changed.proven, false);
  assert.deepEqual(kinds(changed.findings), ['payload-changed']);
  assert.equal(changed.findings[0]?.position, 7);
  assert.equal(changed.findings[0]?.instance, 'acme');
  assert.match(changed.findings[0]?.file ?? '', /log-\d+\/log\.db$/);
  assert.ok(changed.findings[0]?.expected !== changed.findings[0]?.found);

  const head = verify(edited('UPDATE record SET head = replace(head, \'"zeta"\', \'"beta"\') WHERE position = 5'));
  assert.ok(kinds(head.findings).includes('chain-broken'));
  assert.equal(head.findings[0]?.position, 5);
  assert.ok(head.findings.some(({ kind, instance }) => kind === 'link-broken' && instance === 'beta'));

  const dropped = verify(edited('DELETE FROM record WHERE position = 9'));
  assert.equal(dropped.findings[0]?.kind, 'record-missing');
  assert.match(dropped.findings[0]?.message ?? '', /Record 9 is missing/);
  assert.ok(dropped.findings.some(({ kind, instance }) => kind === 'link-broken' && instance === 'acme'));

  const cut = verify(edited('DELETE FROM record WHERE position > 20'));
  assert.deepEqual(kinds(cut.findings), ['log-cut']);
  assert.match(cut.findings[0]?.message ?? '', /ends at record 20, but records up to 22 were acknowledged/);
  assert.match(cut.findings[0]?.file ?? '', /log\.mark$/);

  const torn = verify(edited("UPDATE record SET head = 'h2 [7' WHERE position = 7"));
  assert.ok(kinds(torn.findings).includes('record-unreadable'));

  const unmarked = copied();
  rmSync(join(unmarked, 'log.mark'));
  assert.deepEqual(kinds(verify(unmarked).findings), ['mark-missing']);

  const otherMark = copied();
  writeFileSync(join(otherMark, 'log.mark'), 'nothing that was ever written');
  assert.deepEqual(kinds(verify(otherMark).findings), ['mark-unreadable']);

  const page = copied();
  const bytes = readFileSync(join(page, 'log.db'));
  bytes.fill(0x5a, 16_384 * 2 + 8, 16_384 * 2 + 4_096);
  writeFileSync(join(page, 'log.db'), bytes);
  const damagedPage = verify(page);
  assert.equal(damagedPage.proven, false);
  assert.ok(kinds(damagedPage.findings).includes('page-damaged'));
});

test('two records that were exchanged, or rewritten with digests that fit, break the chain', () => {
  const folder = copied();
  const database = new DatabaseSync(join(folder, 'log.db'));
  database.exec(`UPDATE record SET position = 1000 WHERE position = 2;
    UPDATE record SET position = 2 WHERE position = 3; UPDATE record SET position = 3 WHERE position = 1000;`);
  database.close();
  assert.ok(kinds(verify(folder).findings).includes('chain-broken'));
});

test('a machine that evolves differently is found at the first record that it changes, once for each instance', () => {
  const report = verify(written, shop({ factor: 2 }));
  assert.deepEqual(kinds(report.findings), ['state-differs', 'state-differs']);
  assert.deepEqual(
    report.findings.map(({ instance, position }) => [instance, position]),
    [
      ['acme', 1],
      ['zeta', 2],
    ],
  );
});

test('an erased instance leaves the chain proven; what is missing without an erasure is damage', () => {
  const lost = verify(edited('UPDATE record SET payload = NULL WHERE position = 4'));
  assert.deepEqual(kinds(lost.findings), ['payload-missing']);
  assert.deepEqual([lost.findings[0]?.position, lost.findings[0]?.instance], [4, 'acme']);

  const report = verify(erased('acme'));
  assert.deepEqual(report.findings, []);
  assert.equal(report.erased, 16);
  assert.equal(report.records, 23);
  assert.deepEqual(report.replayed, { instances: 1, records: 6 });
  assert.deepEqual(report.notReplayed, { erased: 1, damaged: 0, machines: [] });
});

test('the log of another owner, a folder without one, and another format are refused', () => {
  const refused = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;
  assert.throws(
    () => verifyLog({ folder: written, owner: 'fleet/other', machineNamed: () => undefined }),
    refused('folder-foreign'),
  );
  assert.throws(() => verify(join(root, 'nowhere')), refused('file-unreadable'));
  assert.throws(() => verify(edited("UPDATE meta SET value = '3' WHERE name = 'format'")), refused('folder-newer'));
  assert.throws(() => verify(edited("UPDATE meta SET value = '1' WHERE name = 'format'")), refused('folder-older'));
  const left = readdirSync(root).filter((name) => name.startsWith('cellwright-log-'));
  assert.deepEqual(left, [], 'no copy is left behind');
});

test('the archive is proven with the log, segment by segment, and replayed from its first record', () => {
  const folder = archived(7, 12);
  const report = verify(folder);
  assert.deepEqual(report.findings, []);
  assert.equal(report.segments, 2);
  assert.deepEqual(report.replayed, { instances: 2, records: 22 });
  assert.deepEqual(stateAt({ folder, machine: shop(), instance: 'acme', at: { seq: 3 } }).result.seq, 3);
  assert.deepEqual(compareVersions({ folder, machine: shop(), mode: 'isolated' }).records, 22);

  const [first = '', second = ''] = readdirSync(join(folder, 'archive')).toSorted();
  const missing = archived(7, 12);
  rmSync(join(missing, 'archive', second));
  const gap = verify(missing);
  assert.deepEqual(
    [gap.findings[0]?.kind, gap.findings[0]?.message],
    ['record-missing', 'Records 8 to 12 are missing'],
  );

  const changed = archived(7, 12);
  const segment = join(changed, 'archive', first);
  const database = new DatabaseSync(segment);
  database.exec('UPDATE record SET payload = replace(payload, \'"by":11\', \'"by":12\')');
  database.close();
  const found = verify(changed);
  assert.deepEqual(kinds(found.findings), ['payload-changed']);
  assert.equal(found.findings[0]?.file, segment);
});

test('what retention removed from the archive is told, and instances that began there are not replayed', () => {
  const folder = archived(7, 12);
  const database = new DatabaseSync(join(folder, 'log.db'));
  const keptBytes = statSync(join(folder, 'archive', '000000000008-000000000012.db')).size;
  retain(logFiles(folder), database, 'fleet/shop-1', { bytesMax: keptBytes });
  database.close();
  const report = verify(folder);
  assert.deepEqual(report.findings, []);
  assert.deepEqual([report.first, report.removed, report.segments], [8, 7, 1]);
  assert.deepEqual(report.notReplayed.erased, 2);
  assert.throws(
    () => stateAt({ folder, machine: shop(), instance: 'acme', at: { seq: 8 } }),
    (error) => error instanceof Fault && error.code === 'history-erased',
  );
  assert.equal(compareVersions({ folder, machine: shop(), mode: 'isolated' }).erased, 2);
});

test('what state.db holds is compared with the log; what is wrong there is told and is no damage', async () => {
  const folder = newFolder();
  const runtime = await open(folder, shop(), { snapshotRecordsMin: 4, checkpointRecords: 8 });
  for (let i = 0; i < 40; i++) {
    await runtime.execute({ instance: 'acme', command: 'change', input: { item: `i-${i % 3}`, by: 1 } });
  }
  await runtime.close();
  const whole = verify(folder);
  assert.deepEqual(whole.cache.problems, []);
  assert.equal(whole.cache.checkpoint, 40);
  assert.ok(whole.cache.snapshots >= 1);
  assert.equal(whole.cache.proven, whole.cache.snapshots);

  const database = new DatabaseSync(join(folder, 'state.db'));
  database.exec("UPDATE part SET text = replace(text, 'i-1', 'i-7')");
  database.close();
  const changed = verify(folder);
  assert.equal(changed.proven, true);
  assert.equal(changed.cache.proven, 0);
  assert.equal(changed.cache.problemsTotal, whole.cache.snapshots);
  assert.match(changed.cache.problems[0] ?? '', /The snapshot of acme at record \d+ cannot be read/);

  const other = newFolder();
  const others = await open(other, shop(), { snapshotRecordsMin: 4, checkpointRecords: 8 });
  for (let i = 0; i < 40; i++) {
    await others.execute({ instance: 'acme', command: 'change', input: { item: `i-${i % 3}`, by: 2 } });
  }
  await others.close();
  copyFileSync(join(other, 'state.db'), join(folder, 'state.db'));
  const swapped = verify(folder);
  assert.equal(swapped.proven, true);
  assert.equal(swapped.cache.proven, 0);
  assert.equal(swapped.cache.problemsTotal, swapped.cache.snapshots + 1);
  assert.match(swapped.cache.problems[0] ?? '', /is state c2:[0-9a-f]+, and the record says c2:/);
  assert.match(swapped.cache.problems.at(-1) ?? '', /The directory says otherwise of acme than record 40/);

  writeFileSync(join(folder, 'state.db'), 'nothing that SQLite ever wrote');
  const unreadable = verify(folder);
  assert.equal(unreadable.proven, true);
  assert.match(unreadable.cache.problems[0] ?? '', /state\.db/);
});

test('findings are counted beyond those that are listed', () => {
  const folder = copied();
  const database = new DatabaseSync(join(folder, 'log.db'));
  for (let position = 23; position < 200; position++)
    database.prepare("INSERT INTO record VALUES (?, 'no head', 'no payload', 'no digest', NULL)").run(position);
  database.close();
  const report = verify(folder);
  assert.equal(report.findings.length, 100);
  assert.ok(report.findingsTotal > 300);
});

test('the state at every sequence is what a naive fold of the events gives', () => {
  const { result } = listRecords({ folder: written, instance: 'acme', limit: 1_000 });
  const fold = new Map<string, number>();
  const naive: Record<string, number>[] = [{}];
  for (const { said } of result.records) {
    if (said?.outcome.kind !== 'accepted') continue;
    const { item, by } = said.input as { item: string; by?: number };
    if (by === undefined) fold.delete(item);
    else fold.set(item, (fold.get(item) ?? 0) + by);
    naive.push(Object.fromEntries(fold));
  }
  naive.forEach((expected, seq) => {
    const state = stateAt({ folder: written, machine: shop(), instance: 'acme', at: { seq } }).result;
    assert.equal(state.seq, seq);
    const rows = (state.tables['stock'] ?? []).map((row): [string, unknown] => [String(row['item']), row['quantity']]);
    assert.deepEqual(Object.fromEntries(rows), expected, `after event ${seq}`);
    assert.deepEqual(
      rows.map(([item]) => item),
      rows.map(([item]) => item).toSorted(),
    );
    if (seq > 0) {
      assert.deepEqual(
        stateAt({ folder: written, machine: shop(), instance: 'acme', at: { timeMs: state.now } }).result,
        state,
      );
    }
  });
  assert.throws(
    () => stateAt({ folder: written, machine: shop(), instance: 'acme', at: { seq: naive.length } }),
    /acme has 14 events, so there is no event 15; write a number of 0 to 14/,
  );
  assert.throws(
    () => stateAt({ folder: written, machine: shop(), instance: 'nobody', at: { seq: 0 } }),
    /no record of nobody/,
  );
});

test('a difference names each row that changed and the commands that changed it', () => {
  const look = { folder: written, machine: shop(), instance: 'acme' };
  const { from, to, rows, total } = differenceBetween({ ...look, from: { seq: 8 }, to: { seq: 14 } }).result;
  assert.equal(from.seq, 8);
  assert.equal(to.seq, 14);
  assert.deepEqual(total, { missing: 1, extra: 2, changed: 1 });
  const nut = rows.find(({ key }) => key === 'nut');
  assert.deepEqual(nut?.kind === 'changed' ? nut.fields : undefined, [
    { path: '/quantity', from: { value: 46 }, to: { value: 55 } },
  ]);
  assert.deepEqual(
    nut?.causes.map(({ command, key, seq, event }) => [command, key, seq, event]),
    [
      ['change', 'nut-4', 9, 'changed'],
      ['change', 'nut-5', 11, 'changed'],
      ['change', 'some', 13, 'changed'],
    ],
  );
  const bolt = rows.find(({ key }) => key === 'bolt-3');
  assert.equal(bolt?.kind, 'missing');
  assert.deepEqual(
    bolt?.causes.map(({ command, input }) => [command, input]),
    [['clear', { item: 'bolt-3' }]],
  );
  assert.equal(differenceBetween({ ...look, from: { seq: 14 }, to: { seq: 14 } }).result.rows.length, 0);
});

test('instances and records are listed, the newest ones when there are many', () => {
  const { result } = listInstances({ folder: written });
  assert.deepEqual(
    result.map(({ instance, seq, records }) => [instance, seq, records]),
    [
      ['acme', 14, 16],
      ['zeta', 6, 6],
    ],
  );
  const listed = listRecords({ folder: written, instance: 'acme', limit: 4 }).result;
  assert.equal(listed.total, 16);
  assert.deepEqual(
    listed.records.map(({ said }) => said?.outcome.kind),
    ['refused', 'refused', 'accepted', 'accepted'],
  );
});

test('damage before what is looked at refuses it, damage behind it is told', () => {
  const folder = edited('UPDATE record SET payload = replace(payload, \'"by":12\', \'"by":99\') WHERE position = 7');
  const look = { folder, machine: shop(), instance: 'acme' };
  assert.throws(() => stateAt({ ...look, at: { seq: 5 } }), /The payload of record 7 was changed/);
  const early = stateAt({ ...look, at: { seq: 4 } });
  assert.equal(early.result.seq, 4);
  assert.deepEqual(kinds(early.warnings), ['payload-changed']);
  // What is wrong with another tenant's record may be wrong with the log as a whole.
  const chained = edited('UPDATE record SET head = replace(head, \'"zeta"\', \'"beta"\') WHERE position = 5');
  assert.throws(
    () => stateAt({ folder: chained, machine: shop(), instance: 'acme', at: { seq: 5 } }),
    (error) => error instanceof Fault && error.code === 'log-damaged' && /The chain breaks/.test(error.message),
  );
  assert.equal(stateAt({ folder: chained, machine: shop(), instance: 'acme', at: { seq: 2 } }).result.seq, 2);
  assert.throws(
    () => stateAt({ folder: erased('acme'), machine: shop(), instance: 'acme', at: { seq: 5 } }),
    (error) => error instanceof Fault && error.code === 'history-erased' && /record 1 of acme/.test(error.message),
  );
});

function against(on: Machine, mode: 'isolated' | 'cumulative' = 'isolated') {
  return compareVersions({ folder: written, machine: on, mode });
}

const none = {
  refusedNow: 0,
  acceptedNow: 0,
  refusedOtherwise: 0,
  events: 0,
  states: 0,
  statesDeclared: 0,
  history: 0,
};

test('the same version makes no difference, in both modes, with refusals and keys', () => {
  for (const mode of ['isolated', 'cumulative'] as const) {
    for (const version of [1, 2]) {
      const comparison = against(shop({ version }), mode);
      assert.deepEqual(comparison.totals, none);
      assert.deepEqual(comparison.list, []);
      assert.deepEqual([comparison.instances, comparison.records, comparison.refusals], [2, 22, 2]);
      assert.equal(comparison.undeclared, 0);
    }
  }
});

test('other words of a refusal are a difference of that refusal alone', () => {
  const { totals, list, differing } = against(shop({ version: 2, message: 'Too few' }));
  assert.deepEqual(totals, { ...none, refusedOtherwise: 1 });
  assert.equal(differing, 1);
  const [difference] = list[0]?.differences ?? [];
  assert.equal(difference?.command, 'change');
  assert.equal(difference?.key, 'far-too-many');
  assert.deepEqual(difference?.recorded, {
    kind: 'refused',
    code: 'command-refused',
    message: 'There is not enough of nut',
    reason: 'too-few',
    field: 'by',
  });
  assert.equal(difference?.present.kind === 'refused' ? difference.present.message : '', 'Too few of nut');
});

test('other events are a difference of each command that makes them, and the history goes on as recorded', () => {
  const { totals } = against(shop({ version: 2, extraEvent: true }));
  // Every accepted `change`, and no `clear`.
  assert.deepEqual(totals, { ...none, events: 19 });
});

test('a tighter invariant refuses what was accepted, a wider one accepts what was refused', () => {
  const tight = against(shop({ version: 2, max: 50 }));
  assert.deepEqual(tight.totals, { ...none, refusedNow: 3 });
  const wide = against(shop({ version: 2, max: 10_000 }));
  assert.deepEqual(wide.totals, { ...none, acceptedNow: 1 });
});

test('a changed evolve is found where states first part, declared or not', () => {
  const silent = against(shop({ version: 2, note: 'new' }));
  assert.deepEqual(silent.totals, { ...none, states: 2 });
  assert.equal(silent.undeclared, 2);
  assert.deepEqual(
    silent.list.map(({ instance, differences }) => [instance, differences[0]?.position, differences[0]?.kind]),
    [
      ['acme', 1, 'state'],
      ['zeta', 2, 'state'],
    ],
  );
  const declared = against(shop({ version: 2, note: 'new', changes: { 2: 'rows have a note' } }));
  assert.deepEqual(declared.totals, { ...none, statesDeclared: 2 });
  assert.equal(declared.undeclared, 0);
  assert.equal(declared.differing, 2);
});

test('isolated names a difference once; cumulative shows what it leads to', () => {
  const tighter = shop({ version: 2, max: 50 });
  // Two bring more than 50; the recorded history still has more than 50 when `some` takes 20 of 75.
  assert.equal(against(tighter).totals.refusedNow, 3);
  // The version itself never had more than 50, so it has nothing against taking 20 of 46.
  const run = against(tighter, 'cumulative');
  assert.equal(run.totals.refusedNow, 2);
  assert.equal(run.mode, 'cumulative');

  const twice = shop({ version: 2, extraEvent: true });
  assert.equal(against(twice).totals.events, 19);
});

test('recorded events that cannot be evolved any more end the comparison of their instance', () => {
  const { totals, list } = against(shop({ version: 2, strict: true }));
  assert.equal(totals.history, 1);
  assert.equal(list[0]?.ended, 'history');
  assert.match(
    list[0]?.differences.at(-1)?.present.kind === 'refused' ? JSON.stringify(list[0]?.differences.at(-1)?.present) : '',
    /nothing can be taken/,
  );
});

test('what is listed is bounded, and everything is counted', () => {
  const few = compareVersions({
    folder: written,
    machine: shop({ version: 2, extraEvent: true }),
    mode: 'isolated',
    differencesMax: 3,
    instancesMax: 1,
  });
  assert.equal(few.list.length, 1);
  assert.equal(few.list[0]?.differences.length, 3);
  assert.equal(few.totals.events, 19);
  assert.equal(few.differing, 2);
});

test('an older version, another machine and a damaged log prove nothing and are refused', () => {
  const folder = newFolder();
  assert.throws(
    () => against(machine({ name: 'other', version: 1, tables: {}, events: {}, commands: {} })),
    /No record is of machine other; the log holds records of shop/,
  );
  const damaged = edited('DELETE FROM record WHERE position = 9');
  assert.throws(() => compareVersions({ folder: damaged, machine: shop(), mode: 'isolated' }), /Record 9 is missing/);
  copyFileSync(join(written, 'log.mark'), join(root, 'unused.mark'));
  assert.throws(() => compareVersions({ folder, machine: shop(), mode: 'isolated' }), /There is no log/);
});
