import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { deepStrictEqual, ok, rejects, strictEqual } from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { orders } from '../../../examples/orders/machine.ts';
import { Fault } from '../../kernel/fault.ts';
import type { Machine } from '../decide/definition/machine.ts';
import { openRuntime, type Committed, type Runtime } from './runtime.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-runtime-'));
after(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
function newFolder(): string {
  folders += 1;
  return join(root, `log-${folders}`);
}

interface OpenOptions {
  readonly nowMs?: () => number;
  readonly owner?: string;
  readonly mustExist?: boolean;
  readonly machine?: () => Machine | undefined;
  readonly proveWhole?: boolean;
  readonly onNotice?: (message: string) => void;
}

function open(folder: string, options: OpenOptions = {}): Promise<Runtime> {
  return openRuntime({
    folder,
    owner: options.owner ?? 'test/log',
    mustExist: options.mustExist ?? false,
    proveWhole: options.proveWhole ?? false,
    ...(options.onNotice === undefined ? {} : { onNotice: options.onNotice }),
    machineFor: options.machine ?? ((instance) => (instance === 'stranger' ? undefined : orders)),
    nowMs: options.nowMs ?? (() => 1_000),
    onStopped: (reason) => {
      throw reason;
    },
  });
}

function addStock(runtime: Runtime, instance: string, item: string, idempotencyKey?: string) {
  const input = { item, quantity: 1 };
  return runtime.execute({
    instance,
    command: 'addStock',
    input,
    ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
  });
}

async function statesOf(runtime: Runtime): Promise<readonly string[]> {
  const states = await Promise.all(runtime.instances().map((instance) => runtime.state(instance)));
  return states.map(({ instance, seq, stateHash }) => `${instance} ${seq} ${stateHash}`).toSorted();
}

/** A small log with several batches, closed properly or left as a killed process leaves it. */
async function writeLog(folder: string): Promise<readonly string[]> {
  const runtime = await open(folder);
  for (let i = 0; i < 12; i++) {
    await Promise.all(['acme', 'bolt', 'coop'].map((tenant) => addStock(runtime, tenant, `item-${i % 3}`, `key-${i}`)));
  }
  const states = await statesOf(runtime);
  await runtime.close();
  return states;
}

test('everything that was acknowledged is there after reopening, with the same hashes, keys and history', async () => {
  const folder = newFolder();
  const states = await writeLog(folder);
  const proven = await open(folder, { proveWhole: true });
  strictEqual(proven.recovered.records, 36);
  strictEqual(proven.recovered.events, 36);
  deepStrictEqual(await statesOf(proven), states);
  await proven.close();
  const runtime = await open(folder);
  strictEqual(runtime.recovered.records, 0, 'a clean close leaves nothing to read');
  deepStrictEqual(await statesOf(runtime), states);
  const again = await addStock(runtime, 'acme', 'item-0', 'key-0');
  ok(again.kind === 'accepted' && again.repeated && again.seq === 1);
  const history = await runtime.history('acme', { afterSeq: 5, limit: 3 });
  deepStrictEqual(
    history.map(({ events }) => events.map(({ seq }) => seq)),
    [[6], [7], [8]],
  );
  deepStrictEqual(await runtime.history('acme', { afterSeq: 12, limit: 3 }), []);
  deepStrictEqual(await runtime.history('nobody', { afterSeq: 0, limit: 3 }), []);
  await runtime.close();
});

test('whoever closes while records are on their way, and closes again, waits for both to end', async () => {
  const folder = newFolder();
  const runtime = await open(folder);
  const answered = addStock(runtime, 'acme', 'nut');
  await Promise.all([runtime.close(), runtime.close()]);
  strictEqual((await answered).kind, 'accepted');
});

test('subscribers see each durable record once, in order, before its answer leaves', async () => {
  const runtime = await open(newFolder());
  const seen: Committed[] = [];
  const stop = runtime.subscribe('acme', (record) => seen.push(record));
  for (let i = 0; i < 3; i++) {
    const answer = await addStock(runtime, 'acme', 'nut');
    ok(answer.kind === 'accepted');
    strictEqual(seen.at(-1)?.stateHash, answer.stateHash);
    strictEqual(seen.length, i + 1);
  }
  await addStock(runtime, 'bolt', 'nut');
  stop();
  await addStock(runtime, 'acme', 'nut');
  strictEqual(seen.length, 3);
  await runtime.close();
});

test('refusals are answers, and of unknown instances nothing is recorded', async () => {
  const runtime = await open(newFolder());
  const refused = await runtime.execute({ instance: 'acme', command: 'cancelOrder', input: { id: '1' } });
  ok(refused.kind === 'rejected' && refused.fault.code === 'command-refused' && refused.reason === 'order-unknown');
  const stranger = await addStock(runtime, 'stranger', 'nut');
  ok(stranger.kind === 'rejected' && stranger.fault.code === 'tenant-unknown');
  const query = await runtime.query({ instance: 'acme', query: 'nothing', input: {} });
  ok(query.kind === 'rejected' && query.fault.code === 'query-unknown');
  await rejects(runtime.state('stranger'), { code: 'tenant-unknown' });
  deepStrictEqual(runtime.instances(), ['acme'], 'a refusal is recorded, so that it can be decided again');
  await runtime.close();
});

test('time never goes back within a log, also across a restart', async () => {
  const folder = newFolder();
  let clock = 5_000;
  const first = await open(folder, { nowMs: () => clock });
  await addStock(first, 'acme', 'nut');
  clock = 4_000;
  await addStock(first, 'acme', 'nut');
  await first.close();
  const second = await open(folder, { nowMs: () => 3_000 });
  await addStock(second, 'bolt', 'nut');
  const times = [
    ...(await second.history('acme', { afterSeq: 0, limit: 9 })),
    ...(await second.history('bolt', { afterSeq: 0, limit: 9 })),
  ];
  deepStrictEqual(
    times.map(({ now }) => now),
    [5_000, 5_000, 5_000],
  );
  await second.close();
});

test('above the bound of what may wait, commands are refused before they decide', async () => {
  const runtime = await open(newFolder());
  const answers = await Promise.all(Array.from({ length: 17_000 }, () => addStock(runtime, 'acme', 'nut')));
  const accepted = answers.filter(({ kind }) => kind === 'accepted').length;
  const busy = answers.filter((answer) => answer.kind === 'rejected' && answer.fault.code === 'log-busy').length;
  strictEqual(accepted, 16_384);
  strictEqual(accepted + busy, answers.length);
  strictEqual((await runtime.state('acme')).seq, accepted);
  await runtime.close();
});

test('closing waits for what was decided, and refuses what comes later', async () => {
  const folder = newFolder();
  const runtime = await open(folder);
  const answer = addStock(runtime, 'acme', 'nut');
  const closed = runtime.close();
  const late = await addStock(runtime, 'acme', 'nut');
  ok(late.kind === 'rejected' && late.fault.code === 'draining');
  strictEqual((await answer).kind, 'accepted');
  await closed;
  const reopened = await open(folder);
  strictEqual((await reopened.state('acme')).seq, 1);
  await reopened.close();
});

test('a second runtime on the same log is refused while the first serves', async () => {
  const folder = newFolder();
  const runtime = await open(folder);
  await rejects(open(folder), { code: 'folder-in-use' });
  strictEqual((await addStock(runtime, 'acme', 'nut')).kind, 'accepted');
  await runtime.close();
});

function filesOf(folder: string): Map<string, Buffer> {
  return new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

function restore(folder: string, files: ReadonlyMap<string, Buffer>): void {
  rmSync(folder, { recursive: true, force: true });
  cpFiles(folder, files);
}

function cpFiles(folder: string, files: ReadonlyMap<string, Buffer>): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(folder, name), bytes);
}

async function expectDamage(folder: string, code: string, options: OpenOptions = {}): Promise<Fault> {
  const before = filesOf(folder);
  let refused: unknown;
  try {
    const runtime = await open(folder, options);
    await runtime.close();
  } catch (thrown) {
    refused = thrown;
  }
  ok(refused instanceof Fault && refused.code === code, `expected ${code}, got ${String(refused)}`);
  deepStrictEqual(filesOf(folder), before, 'evidence was changed');
  return refused;
}

test('a missing file, a cut log, a foreign mark and a newer format are refused, and nothing is changed', async () => {
  const folder = newFolder();
  await writeLog(folder);
  const whole = filesOf(folder);

  rmSync(join(folder, 'log.db'));
  await expectDamage(folder, 'log-damaged');
  restore(folder, whole);
  rmSync(join(folder, 'log.mark'));
  await expectDamage(folder, 'log-damaged');

  const edits: readonly (readonly [string, string])[] = [
    ['DELETE FROM record WHERE position = 36', 'log-damaged'],
    ['DELETE FROM record WHERE position = 20', 'log-damaged'],
    ["UPDATE record SET payload = replace(payload, 'item-1', 'item-2') WHERE position = 5", 'log-damaged'],
    ['UPDATE record SET chain = NULL WHERE position = 36', 'log-damaged'],
    ["UPDATE meta SET value = '3' WHERE name = 'format'", 'folder-newer'],
    ["DELETE FROM meta WHERE name = 'owner'", 'log-damaged'],
    ['DROP TABLE meta', 'log-damaged'],
  ];
  for (const [sql, code] of edits) {
    restore(folder, whole);
    const database = new DatabaseSync(join(folder, 'log.db'));
    database.exec(sql);
    database.close();
    const { message } = await expectDamage(folder, code, { proveWhole: true });
    ok(message.includes('log.db'), message);
  }
  const other = newFolder();
  const runtime = await open(other);
  await addStock(runtime, 'acme', 'nut');
  await runtime.close();
  restore(folder, whole);
  writeFileSync(join(folder, 'log.mark'), readFileSync(join(other, 'log.mark')));
  await expectDamage(folder, 'log-damaged');
});

test('the log of another owner is refused before anything else, naming both, and nothing is changed', async () => {
  const folder = newFolder();
  await writeLog(folder);
  const { message, field } = await expectDamage(folder, 'folder-foreign', { owner: 'test/other' });
  ok(message.includes('belongs to test/log') && message.includes('test/other was started'), message);
  strictEqual(field, join(folder, 'log.db'));
  writeFileSync(join(folder, 'log.mark'), 'no mark at all');
  await expectDamage(folder, 'folder-foreign', { owner: 'test/other' });
});

test('the chain starts from the owner: a log that was renamed inside proves nothing', async () => {
  const folder = newFolder();
  await writeLog(folder);
  const database = new DatabaseSync(join(folder, 'log.db'));
  database.exec("UPDATE meta SET value = 'test/other' WHERE name = 'owner'");
  database.close();
  await expectDamage(folder, 'log-damaged', { owner: 'test/other' });
});

test('a log that must be there and is not is damage, and none is made in its place', async () => {
  const folder = newFolder();
  await rejects(open(folder, { mustExist: true }), { code: 'log-damaged', message: /is gone/ });
  strictEqual(existsSync(folder), false);
  await writeLog(folder);
  const whole = filesOf(folder);
  rmSync(join(folder, 'log.db'));
  rmSync(join(folder, 'log.mark'));
  await expectDamage(folder, 'log-damaged', { mustExist: true });
  restore(folder, whole);
  const runtime = await open(folder, { mustExist: true });
  await runtime.close();
});

test('an empty log without its mark is new, unless there must have been one', async () => {
  const folder = newFolder();
  const first = await open(folder);
  await first.close();
  rmSync(join(folder, 'log.mark'));
  await expectDamage(folder, 'log-damaged', { mustExist: true });
  const again = await open(folder);
  await again.close();
});

test('a replay that refuses a record leaves every file as it was', async () => {
  const folder = newFolder();
  await writeLog(folder);
  const before = filesOf(folder);
  const other = { ...orders, name: 'other' };
  for (const machine of [undefined, other]) {
    await rejects(open(folder, { machine: () => machine }), { code: 'machine-unloadable' });
    deepStrictEqual(filesOf(folder), before);
  }
});

/** Pseudo-random numbers (mulberry32), so that a run can be repeated from its seed. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const soak = process.env['CELLWRIGHT_SOAK'] === '1';

test('a flipped byte anywhere in the files of a killed process is detected or harmless', async (t) => {
  const folder = newFolder();
  const states = await killedLog(folder);
  const whole = filesOf(folder);
  ok(whole.has('log.db-wal'), 'a killed process leaves its write-ahead log');
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`SEED=${seed}`);
  const random = randomFrom(seed);
  const flips = Number(process.env['FLIPS'] ?? (soak ? 450 : 18));
  let detected = 0;
  let harmless = 0;
  for (let i = 0; i < flips; i++) {
    const names = ['log.db', 'log.db-wal', 'log.mark'];
    const name = names[i % names.length] ?? '';
    const bytes = Buffer.from(whole.get(name) ?? Buffer.alloc(0));
    // Every third flip hits the head of the file, where each byte means something.
    const at = random(i % 9 < 3 ? Math.min(bytes.length, 128) : bytes.length);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
    restore(folder, new Map([...whole, [name, bytes]]));
    const before = filesOf(folder);
    try {
      const runtime = await open(folder);
      deepStrictEqual(await statesOf(runtime), states, `SEED=${seed}: byte ${at} of ${name}`);
      await runtime.close();
      harmless += 1;
    } catch (thrown) {
      if (!(thrown instanceof Fault)) throw thrown;
      ok(
        ['log-damaged', 'folder-newer', 'folder-older'].includes(thrown.code),
        `${thrown.code}: byte ${at} of ${name}, SEED=${seed}`,
      );
      deepStrictEqual(filesOf(folder), before, `SEED=${seed}: evidence was changed, byte ${at} of ${name}`);
      detected += 1;
    }
  }
  t.diagnostic(`${detected} detected, ${harmless} harmless`);
  ok(detected > 0);
});

const child = join(import.meta.dirname, '../../../test/machine', 'kill-child.ts');
const nodeOptions = ['--disable-warning=ExperimentalWarning', '--conditions=cellwright-source'];

/** Writes a small log in a process that is then killed, so that the write-ahead log stays. */
async function killedLog(folder: string): Promise<readonly string[]> {
  const acknowledged = await runChild(folder, 0, 40);
  ok(acknowledged.length >= 40);
  // Reopened and closed on a copy: the states to compare with.
  const copy = newFolder();
  cpFiles(copy, filesOf(folder));
  const runtime = await open(copy);
  const states = await statesOf(runtime);
  await runtime.close();
  return states;
}

/** Runs the child from key `first`, kills it after `killAfter` acknowledgements, and returns all acknowledged keys. */
function runChild(folder: string, first: number, killAfter: number): Promise<readonly number[]> {
  return new Promise((resolve, reject) => {
    const worker = spawn(process.execPath, [...nodeOptions, child, folder, String(first)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const acknowledged: number[] = [];
    createInterface({ input: worker.stdout }).on('line', (line) => {
      acknowledged.push(Number(line));
      if (acknowledged.length === killAfter) worker.kill('SIGKILL');
    });
    worker.on('error', reject);
    worker.on('close', (_code, signal) => {
      if (signal === 'SIGKILL') resolve(acknowledged);
      else reject(new Error(`the child ended by itself after ${acknowledged.length} answers`));
    });
  });
}

test('killed at random instants, nothing acknowledged is lost and nothing is applied twice', async (t) => {
  const folder = newFolder();
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`SEED=${seed}`);
  const random = randomFrom(seed);
  const acknowledged = new Set<number>();
  for (let kill = 0; kill < (soak ? 60 : 3); kill++) {
    // Starts again at the first key that was not acknowledged, so keys of unknown outcome are repeated.
    let first = 0;
    while (acknowledged.has(first)) first += 1;
    for (const key of await runChild(folder, first, 1 + random(400))) acknowledged.add(key);
  }
  const runtime = await open(folder);
  const { seq } = await runtime.state('acme');
  const history = await runtime.history('acme', { afterSeq: 0, limit: 1_000_000 });
  const ids = history.map(({ input }) => JSON.stringify(input));
  strictEqual(new Set(ids).size, ids.length, `SEED=${seed}: a command was applied twice`);
  strictEqual(ids.length, seq);
  const applied = new Set(ids);
  for (const key of acknowledged) {
    ok(applied.has(JSON.stringify({ item: `item-${key}`, quantity: 1 })), `SEED=${seed}: key ${key} was lost`);
  }
  t.diagnostic(`${acknowledged.size} acknowledged, ${seq} applied`);
  await runtime.close();
});

test('after a failed write nothing is acknowledged, onStopped is called once, and a restart finds what was', async () => {
  const folder = newFolder();
  // No file may grow beyond a limit: the write fails as on a disk that refuses it.
  const script = `ulimit -f 2000; exec "$0" "$@"`;
  const program = join(import.meta.dirname, '../../../test/machine', 'full-disk-child.ts');
  const worker = spawn('sh', ['-c', script, process.execPath, ...nodeOptions, program, folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  createInterface({ input: worker.stdout }).on('line', (line) => lines.push(line));
  await new Promise((resolve) => worker.on('close', resolve));
  const report: unknown = JSON.parse(lines.at(-1) ?? 'null');
  ok(typeof report === 'object' && report !== null && 'accepted' in report && 'codes' in report && 'stops' in report);
  deepStrictEqual(report.stops, ['log-stopped']);
  deepStrictEqual(report.codes, ['log-stopped', 'outcome-unknown']);
  const runtime = await open(join(folder, 'log'));
  let applied = 0;
  for (const instance of runtime.instances()) applied += (await runtime.state(instance)).seq;
  await runtime.close();
  ok(Number(report.accepted) > 0 && applied >= Number(report.accepted));
  ok(existsSync(join(folder, 'log', 'log.evidence', 'log.db')), 'it serves from a new file');
});
