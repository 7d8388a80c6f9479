import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deepStrictEqual, ok, strictEqual, throws } from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { orders } from '../../../../examples/orders/machine.ts';
import { Directory } from '../../decide/residency/directory.ts';
import type { EntryText } from '../../decide/residency/guard.ts';
import { Instance } from '../../decide/instance/instance.ts';
import { encodeState, StateMismatch, StateReader } from '../../decide/state/state.ts';
import { openRuntime, type Runtime, type RuntimeOptions } from '../runtime.ts';
import { StateFile, StateLoad } from './file.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-state-'));
after(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
function newFolder(): string {
  folders += 1;
  const folder = join(root, `state-${folders}`);
  cpSync(mkdtempSync(join(root, 'empty-')), folder, { recursive: true });
  return folder;
}

const owner = 'test/log';
const chain = 'a'.repeat(64);

/** The state of an instance after so many events. */
function texts(name: string, events: number): readonly string[] {
  const instance = new Instance(name, orders);
  for (let i = 0; i < events; i++) {
    const input = { item: `item-${i % 7}`, quantity: 1 };
    instance.execute({ command: 'addStock', input, idempotencyKey: `key-${i}` }, 1_000);
  }
  return [...encodeState(instance.capture())];
}

const followed = { machine: 'orders', machineVersion: 1, keysHash: 'c2:1', hashes: ['c2:2'] };

/** A file with three instances, of which one has two snapshots. Returns what it must give back. */
function written(folder: string): {
  readonly entries: readonly EntryText[];
  readonly states: ReadonlyMap<number, string>;
} {
  const file = new StateFile({ folder, owner }, false);
  const directory = new Directory();
  ['acme', 'bolt', 'coop'].forEach((instance, i) => {
    directory.follow({ ...followed, instance, seqBefore: i }, i + 1, 'none');
  });
  const states = new Map<number, string>();
  for (const position of [10, 20]) {
    const parts = texts('acme', position);
    parts.forEach((text, number) => file.putPart('acme', position, number, text));
    file.snapshot('acme', position, parts.length);
    states.set(position, parts.join('\n'));
  }
  const entries = directory.checkpoint().take(10);
  file.put(entries);
  file.checkpoint({ position: 20, chain }, 1_000);
  file.close();
  return { entries, states };
}

function readBack(folder: string, of = owner): Directory | undefined {
  const load = new StateLoad({ folder, owner: of });
  try {
    return load.checkpoint === undefined ? undefined : Directory.read(load.entries(100), load.checkpoint);
  } finally {
    load.close();
  }
}

test('a directory and snapshots come back as they were written, and reading them changes no file', () => {
  const folder = newFolder();
  const { entries, states } = written(folder);
  const before = readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]);
  const directory = readBack(folder);
  deepStrictEqual(
    readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]),
    before,
  );
  deepStrictEqual([...(directory?.entries() ?? [])].map(({ instance }) => instance).toSorted(), [
    'acme',
    'bolt',
    'coop',
  ]);
  strictEqual(entries.length, 3);
  const file = new StateFile({ folder, owner }, true);
  deepStrictEqual(
    file.snapshots('acme').map(({ position }) => position),
    [20, 10],
  );
  for (const { position, parts } of file.snapshots('acme')) {
    const read = Array.from({ length: parts }, (_, number) => file.part('acme', position, number));
    strictEqual(read.join('\n'), states.get(position));
  }
  file.close();
});

test('a file of which no checkpoint was taken yet is of no use, and nothing is wrong with it', () => {
  const folder = newFolder();
  written(folder);
  const database = new DatabaseSync(join(folder, 'state.db'));
  database.exec("DELETE FROM meta WHERE name = 'checkpoint'");
  const before = new StateLoad({ folder, owner: 'test/log' });
  deepStrictEqual([before.checkpoint, before.why], [undefined, 'it holds no checkpoint']);
  before.close();
  database.exec('DELETE FROM directory');
  database.close();
  const load = new StateLoad({ folder, owner: 'test/log' });
  deepStrictEqual([load.checkpoint, load.why], [undefined, undefined]);
  load.close();
});

test('the file of another owner, of another format or without a checkpoint is of no use', () => {
  const folder = newFolder();
  written(folder);
  strictEqual(readBack(folder, 'test/other'), undefined);
  const load = new StateLoad({ folder, owner: 'test/other' });
  ok(load.why?.includes('belongs to test/log'));
  load.close();
  for (const sql of [
    "UPDATE meta SET value = '2' WHERE name = 'format'",
    "DELETE FROM meta WHERE name = 'checkpoint'",
    "UPDATE meta SET value = replace(value, '\"position\":20', '\"position\":10') WHERE name = 'checkpoint'",
    "DELETE FROM directory WHERE instance = 'bolt'",
    "UPDATE directory SET entry = replace(entry, 'c2:2', 'c2:3') WHERE instance = 'bolt'",
    "UPDATE directory SET instance = 'bold' WHERE instance = 'bolt'",
    'DROP TABLE directory',
  ]) {
    const copy = newFolder();
    cpSync(folder, copy, { recursive: true });
    const database = new DatabaseSync(join(copy, 'state.db'));
    database.exec(sql);
    database.close();
    let read: Directory | undefined;
    try {
      read = readBack(copy);
    } catch {
      read = undefined;
    }
    strictEqual(read, undefined, sql);
  }
});

test('at most two snapshots of an instance are kept, and parts without their last are forgotten at the next opening', () => {
  const folder = newFolder();
  written(folder);
  const file = new StateFile({ folder, owner }, true);
  file.putPart('acme', 30, 0, 'whole');
  file.snapshot('acme', 30, 1);
  deepStrictEqual(
    file.snapshots('acme').map(({ position }) => position),
    [30, 20],
  );
  strictEqual(file.part('acme', 10, 0), undefined);
  // The process dies before the second part.
  file.putPart('acme', 40, 0, 'cut off');
  file.close();
  const again = new StateFile({ folder, owner }, true);
  deepStrictEqual(
    again.snapshots('acme').map(({ position }) => position),
    [30, 20],
  );
  strictEqual(again.part('acme', 40, 0), undefined);
  again.close();
});

test('entries that no checkpoint followed are not there after a crash', () => {
  const folder = newFolder();
  written(folder);
  const file = new StateFile({ folder, owner }, true);
  file.put([['dyna', 'anything']]);
  throws(() => file.close(), /checkpoint ends before/);
  const copy = newFolder();
  cpSync(folder, copy, { recursive: true });
  strictEqual(readBack(copy)?.size, 3);
});

test('of an erased instance no byte is left in the file or beside it', () => {
  const folder = newFolder();
  written(folder);
  const file = new StateFile({ folder, owner }, true);
  const contains = (text: string): boolean =>
    readdirSync(folder).some((name) => readFileSync(join(folder, name)).includes(text));
  ok(contains('item-5'));
  // One that was being written when it was erased: no snapshot says of its parts that they are there.
  file.putPart('acme', 30, 0, 'half a snapshot');
  file.erase('acme');
  strictEqual(contains('item-5'), false);
  strictEqual(contains('half a snapshot'), false);
  strictEqual(file.snapshots('acme').length, 0);
  file.close();
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

test('a flipped bit anywhere in the file never changes an entry or a state, and never hides one without a word', (t) => {
  const folder = newFolder();
  const { states } = written(folder);
  const path = join(folder, 'state.db');
  const whole = readFileSync(path);
  const expected = [...(readBack(folder)?.entries() ?? [])];
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  const flips = Number(process.env['FLIPS'] ?? (process.env['CELLWRIGHT_SOAK'] === '1' ? 15_000 : 600));
  t.diagnostic(`SEED=${seed} FLIPS=${flips} of ${whole.length} bytes`);
  const random = randomFrom(seed);
  const used = [...whole.keys()].filter((at) => whole[at] !== 0);
  let detected = 0;
  let harmless = 0;
  for (let i = 0; i < flips; i++) {
    const at = i % 4 === 0 ? random(whole.length) : (used[random(used.length)] ?? 0);
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
    writeFileSync(path, bytes);
    const what = `SEED=${seed}: byte ${at}`;
    let directory: Directory | undefined;
    try {
      directory = readBack(folder);
    } catch {
      directory = undefined;
    }
    if (directory === undefined) {
      detected += 1;
      continue;
    }
    deepStrictEqual([...directory.entries()], expected, what);
    detected += checkSnapshots(folder, states, what);
    harmless += 1;
  }
  writeFileSync(path, whole);
  t.diagnostic(`${detected} detected, ${harmless} left the directory whole`);
  ok(detected > 0 && harmless > 0);
});

/** What a snapshot gives back is what was written, or the reader refuses it. Returns how many were refused. */
function checkSnapshots(folder: string, states: ReadonlyMap<number, string>, what: string): number {
  let file: StateFile;
  try {
    file = new StateFile({ folder, owner }, true);
  } catch {
    return 1;
  }
  let refused = 0;
  try {
    for (const { position, parts } of file.snapshots('acme')) {
      const reader = new StateReader('acme', orders);
      const read = Array.from({ length: parts }, (_, number) => file.part('acme', position, number));
      try {
        for (const text of read) {
          if (text === undefined) throw new StateMismatch('a part is missing');
          reader.take(text);
        }
        strictEqual(reader.finish().seq, position, what);
        strictEqual(read.join('\n'), states.get(position), what);
      } catch (thrown) {
        if (!(thrown instanceof StateMismatch)) throw thrown;
        refused += 1;
      }
    }
  } catch (thrown) {
    // SQLite found a damaged page.
    ok(thrown instanceof Error && 'errcode' in thrown, `${what}: ${String(thrown)}`);
    refused += 1;
  }
  try {
    file.close();
  } catch {
    refused += 1;
  }
  return refused;
}

interface Opened {
  readonly runtime: Runtime;
  readonly notices: readonly string[];
}

async function open(folder: string, more: Partial<RuntimeOptions> = {}): Promise<Opened> {
  const notices: string[] = [];
  const runtime = await openRuntime({
    folder,
    owner,
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => 1_000,
    onStopped: (reason) => {
      throw reason;
    },
    onNotice: (message) => notices.push(message),
    bounds: { snapshotRecordsMin: 20, checkpointRecords: 50 },
    ...more,
  });
  return { runtime, notices };
}

test('with the file missing, damaged, of another owner or newer than the log, the log alone is believed and a new file made', async () => {
  const folder = newFolder();
  const { runtime } = await open(folder);
  for (let i = 0; i < 200; i++) {
    const tenant = i % 2 === 0 ? 'acme' : 'bolt';
    await runtime.execute({ instance: tenant, command: 'addStock', input: { item: `item-${i % 5}`, quantity: 1 } });
  }
  const states = [await runtime.state('acme'), await runtime.state('bolt')];
  await runtime.close();
  const path = join(folder, 'state.db');
  const good = readFileSync(path);
  const load = new StateLoad({ folder, owner });
  strictEqual(load.checkpoint?.mark.position, 200);
  load.close();
  const ways: readonly (readonly [() => void, RegExp | undefined])[] = [
    [() => rmSync(path), undefined],
    [() => writeFileSync(path, 'no database at all'), /is ignored/],
    [() => writeFileSync(path, good.subarray(0, good.length / 2)), /./],
    [() => otherOwner(path), /belongs to test\/other/],
    [() => newer(folder), /of another log/],
  ];
  for (const [damage, says] of ways) {
    rmSync(`${path}-wal`, { force: true });
    writeFileSync(path, good);
    damage();
    const again = await open(folder);
    strictEqual(again.runtime.recovered.records, 200);
    if (says === undefined) deepStrictEqual(again.notices, []);
    else
      ok(
        again.notices.some((notice) => says.test(notice)),
        `${again.notices.join('\n')} should say ${says.source}`,
      );
    deepStrictEqual([await again.runtime.state('acme'), await again.runtime.state('bolt')], states);
    await again.runtime.close();
    ok(existsSync(path));
    const after = await open(folder);
    strictEqual(after.runtime.recovered.records, 0, 'the new file spares the next start');
    deepStrictEqual([await after.runtime.state('acme'), await after.runtime.state('bolt')], states);
    await after.runtime.close();
  }
});

function otherOwner(path: string): void {
  const database = new DatabaseSync(path);
  database.exec("UPDATE meta SET value = 'test/other' WHERE name = 'owner'");
  database.close();
}

function newer(folder: string): void {
  const file = new StateFile({ folder, owner }, true);
  file.put([]);
  file.checkpoint({ position: 300, chain }, 1_000);
  file.close();
}

test('an erased instance is refused for ever, also after a restart with and without the file', async () => {
  const folder = newFolder();
  const { runtime } = await open(folder);
  for (let i = 0; i < 60; i++) {
    await runtime.execute({ instance: 'acme', command: 'addStock', input: { item: `secret-${i}`, quantity: 1 } });
  }
  await runtime.execute({ instance: 'bolt', command: 'addStock', input: { item: 'nut', quantity: 1 } });
  await runtime.erase('acme');
  const refusal = async (of: Runtime): Promise<unknown> =>
    of.state('acme').then(
      () => 'served',
      (reason: unknown) => (reason instanceof Error && 'code' in reason ? reason.code : reason),
    );
  strictEqual(await refusal(runtime), 'history-erased');
  await runtime.close();
  for (const prepare of [() => {}, () => rmSync(join(folder, 'state.db'))]) {
    prepare();
    const again = await open(folder);
    strictEqual(await refusal(again.runtime), 'history-erased');
    strictEqual((await again.runtime.state('bolt')).seq, 1);
    deepStrictEqual(again.notices, []);
    await again.runtime.close();
  }
});

test('whoever waits behind an erasure is told of it, and nobody else notices', async () => {
  const folder = newFolder();
  const first = await open(folder);
  await first.runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'secret', quantity: 1 } });
  await first.runtime.close();
  const { runtime } = await open(folder);
  const erased = runtime.erase('acme');
  const command = runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'late', quantity: 1 } });
  const read = runtime.query({ instance: 'acme', query: 'stock', input: {} });
  const answers = await Promise.all([command, read]);
  deepStrictEqual(
    answers.map((answer) => (answer.kind === 'rejected' ? answer.fault.code : answer.kind)),
    ['history-erased', 'history-erased'],
  );
  await erased;
  await runtime.execute({ instance: 'bolt', command: 'addStock', input: { item: 'nut', quantity: 1 } });
  strictEqual((await runtime.state('bolt')).seq, 1);
  await runtime.close();
});

test('an erased instance has no timer any more, however the directory came to be', async () => {
  const folder = newFolder();
  const timerOf = (): unknown => {
    const database = new DatabaseSync(join(folder, 'state.db'), { readOnly: true });
    const row = database.prepare("SELECT entry FROM directory WHERE instance = 'acme'").get();
    database.close();
    const parts: unknown = JSON.parse(String(row?.['entry']));
    return Array.isArray(parts) ? parts[7] : undefined;
  };
  const { runtime } = await open(folder);
  await runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'secret', quantity: 1 } });
  await runtime.erase('acme');
  await runtime.close();
  strictEqual(timerOf(), 'none');
  rmSync(join(folder, 'state.db'));
  const again = await open(folder);
  await again.runtime.close();
  strictEqual(timerOf(), 'none');
});
