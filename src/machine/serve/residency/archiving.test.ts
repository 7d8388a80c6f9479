import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deepStrictEqual, ok, rejects, strictEqual } from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { orders } from '../../../../examples/orders/machine.ts';
import { Fault } from '../../../kernel/fault.ts';
import { removable } from '../../decide/residency/archiving.ts';
import { openRuntime, type Committed, type Runtime, type RuntimeOptions } from '../runtime.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-archiving-'));
after(() => rmSync(root, { recursive: true, force: true }));

const tenants = ['acme', 'bolt'];
const afterRecords = 64;

interface Opened {
  readonly runtime: Runtime;
  readonly notices: readonly string[];
}

async function open(folder: string, more: Partial<RuntimeOptions> = {}): Promise<Opened> {
  const notices: string[] = [];
  const runtime = await openRuntime({
    folder,
    owner: 'test/log',
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => 1_000,
    onStopped: (reason) => {
      throw reason;
    },
    onNotice: (message) => notices.push(message),
    bounds: { snapshotRecordsMin: 20, checkpointRecords: 50 },
    archive: { afterRecords, retention: {} },
    ...more,
  });
  return { runtime, notices };
}

async function write(runtime: Runtime, instances: readonly string[], commands: number): Promise<void> {
  for (let i = 0; i < commands; i++) {
    for (const instance of instances) {
      const answer = await runtime.execute({
        instance,
        command: 'addStock',
        input: { item: `item-${i % 5}`, quantity: 1 },
      });
      strictEqual(answer.kind, 'accepted');
    }
  }
}

function statesOf(runtime: Runtime): Promise<readonly unknown[]> {
  return Promise.all(tenants.map((tenant) => runtime.state(tenant)));
}

function historiesOf(runtime: Runtime): Promise<readonly (readonly Committed[])[]> {
  return Promise.all(tenants.map((tenant) => runtime.history(tenant, { afterSeq: 0, limit: 10_000 })));
}

function firstInLog(folder: string): number {
  const database = new DatabaseSync(join(folder, 'log.db'), { readOnly: true });
  const first = Number(database.prepare('SELECT min(position) AS first FROM record').get()?.['first']);
  database.close();
  return first;
}

test('old records leave the log by themselves, and states and history over them are as before', async () => {
  const folder = join(root, 'moved');
  const { runtime, notices } = await open(folder);
  await write(runtime, tenants, 200);
  const states = await statesOf(runtime);
  const histories = await historiesOf(runtime);
  deepStrictEqual(
    histories.map((history) => history.length),
    [200, 200],
  );
  const { archivedUpTo } = runtime.residency;
  await runtime.close();
  ok(archivedUpTo >= afterRecords, `${archivedUpTo} records are in the archive`);
  deepStrictEqual(notices, []);
  ok(firstInLog(folder) > afterRecords);

  const state = new DatabaseSync(join(folder, 'state.db'));
  state.exec(`UPDATE part SET text = 'damaged' WHERE position = (SELECT max(position) FROM snapshot s
    WHERE s.instance = part.instance)`);
  state.close();
  const damaged = await open(folder);
  deepStrictEqual(await statesOf(damaged.runtime), states);
  strictEqual(damaged.notices.length, tenants.length, damaged.notices.join('\n'));
  deepStrictEqual(await historiesOf(damaged.runtime), histories);
  await damaged.runtime.close();

  rmSync(join(folder, 'state.db'));
  const whole = await open(folder);
  strictEqual(whole.runtime.recovered.records, 400, 'a start without state.db reads archive and log');
  deepStrictEqual(await statesOf(whole.runtime), states);
  deepStrictEqual(await historiesOf(whole.runtime), histories);
  await whole.runtime.close();
});

test('without state.db, a log that retention took records from is refused, and nothing is changed', async () => {
  const folder = join(root, 'removed');
  const archive = { afterRecords, retention: { bytesMax: 0 } };
  const { runtime } = await open(folder, { archive });
  await write(runtime, tenants, 200);
  const states = await statesOf(runtime);
  ok(runtime.residency.archivedUpTo >= afterRecords);
  await rejects(historiesOf(runtime), (thrown) => thrown instanceof Fault && thrown.code === 'history-erased');
  await runtime.close();
  ok(readdirSync(join(folder, 'archive')).every((name) => !name.startsWith('000000000001-')));

  const again = await open(folder, { archive });
  deepStrictEqual(await statesOf(again.runtime), states);
  await again.runtime.close();

  rmSync(join(folder, 'state.db'));
  await rejects(open(folder, { archive }), (thrown) => {
    ok(thrown instanceof Fault && thrown.code === 'log-damaged');
    ok(/removed from the archive.*state\.db.*is missing or damaged/.test(thrown.message), thrown.message);
    return true;
  });
  ok(!existsSync(join(folder, 'state.db')));
});

test('an instance with few records holds back retention and not the archive, and is made from what the archive holds', async () => {
  const folder = join(root, 'quiet');
  const archive = { afterRecords, retention: { bytesMax: 0 } };
  const { runtime } = await open(folder, { archive });
  await write(runtime, ['quiet'], 1);
  await write(runtime, tenants, 200);
  const quiet = await runtime.state('quiet');
  const states = await statesOf(runtime);
  ok(runtime.residency.archivedUpTo >= afterRecords);
  await runtime.close();
  ok(firstInLog(folder) > afterRecords);
  ok(readdirSync(join(folder, 'archive')).length > 0, 'the only record of an instance is never removed');

  const again = await open(folder, { archive });
  deepStrictEqual(await again.runtime.state('quiet'), quiet);
  deepStrictEqual(await statesOf(again.runtime), states);
  strictEqual((await again.runtime.history('quiet', { afterSeq: 0, limit: 10 })).length, 1);
  await again.runtime.close();
});

test('retention keeps what an instance without a second snapshot is made from, but not for an erased one', () => {
  const entries = [
    { instance: 'acme', snapshotBefore: 300 },
    { instance: 'bolt', snapshotBefore: 0 },
  ];
  strictEqual(
    removable(entries, 500, () => false),
    0,
  );
  strictEqual(
    removable(entries, 500, (instance) => instance === 'bolt'),
    300,
  );
  strictEqual(
    removable(entries, 200, (instance) => instance === 'bolt'),
    200,
  );
});
