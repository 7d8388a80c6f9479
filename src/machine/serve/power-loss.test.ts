import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import { recordAt } from '../../../test/machine/records.ts';
import { SimulatedDisk, type Chance } from '../../../test/machine/simulated-disk.ts';
import { playTrace, runTraced, straceMissing } from '../../../test/machine/traced.ts';
import { isErasure } from '../decide/log/erasure.ts';
import { createIfMissing, logFiles } from './log/files.ts';
import { LogProof } from './log/proof.ts';
import { recover } from './log/recovery.ts';
import { LogWriter } from './log/writer.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-power-'));
after(() => rmSync(root, { recursive: true, force: true }));
const child = join(import.meta.dirname, '../../../test/machine/disk-child.ts');
const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--conditions=cellwright-source'];
const soak = process.env['CELLWRIGHT_SOAK'] === '1';
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

/** Pseudo-random numbers between 0 and 1 (mulberry32). */
function randomFrom(from: number): Chance {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Before a sync half of the unsynced is there, or little, or much; after one, nothing else: that covers all between. */
function chancesOf(what: string, random: Chance): readonly Chance[] {
  const some = [random, () => random() * (0.5 + random() * 0.5), () => 0.4 + random() * 0.6];
  if (soak) return [() => 0, () => 1, ...some, ...some];
  return what.startsWith('before') ? some.slice(0, 1) : [() => 0];
}

/** Opens what a power loss left, as a process does, and returns the position of its last record. */
function opened(folder: string, mustExist: boolean): number {
  const identity = { owner: 'test/log', mustExist };
  const files = logFiles(folder);
  recover(files, identity);
  createIfMissing(files, identity);
  const proof = new LogProof(files, identity);
  for (let page = proof.read(1_000); page.length > 0; page = proof.read(1_000)) {
    for (const record of page) {
      if (!isErasure(record.payload))
        deepStrictEqual(record, { position: record.position, ...recordAt(record.position) });
    }
  }
  const end = proof.end();
  const { position } = end.last;
  proof.close();
  const writer = new LogWriter(files, end, identity.owner);
  const { head, payload } = recordAt(position + 1);
  strictEqual(writer.append([head], [payload])?.position, position + 1);
  writer.close();
  return position;
}

/** Every image that a power loss at any sync of these runs may leave is opened: how many, and at which kinds of sync. */
async function checkImages(
  folder: string,
  runs: readonly (readonly string[])[],
): Promise<{
  readonly images: number;
  readonly kinds: ReadonlyMap<string, number>;
  readonly acknowledged: number;
  readonly stopped: boolean;
}> {
  mkdirSync(folder, { recursive: true });
  const disk = new SimulatedDisk(folder);
  const random = randomFrom(seed);
  const kinds = new Map<string, number>();
  let acknowledged = 0;
  let everOpened = false;
  let images = 0;
  let stopped = false;
  const check = (what: string): void => {
    kinds.set(what, (kinds.get(what) ?? 0) + 1);
    for (const chance of chancesOf(what, random)) {
      const image = join(root, 'image');
      rmSync(image, { recursive: true, force: true });
      disk.image(image, chance);
      images += 1;
      let found: number;
      try {
        found = opened(join(image, 'log'), everOpened);
      } catch (thrown) {
        throw new Error(`SEED=${seed}: image ${images}, ${what}, ${acknowledged} acknowledged`, { cause: thrown });
      }
      ok(found >= acknowledged, `SEED=${seed}: ${what}: ${found} of ${acknowledged} acknowledged records are there`);
    }
  };
  for (const [batches = '', ...inject] of runs) {
    const trace = join(root, 'trace');
    const code = await runTraced([...node, child, join(folder, 'log'), batches], trace, inject);
    stopped ||= code !== 0;
    await playTrace(trace, disk, {
      atSync: check,
      output: (text) => {
        const [what, position] = text.split(/\s/);
        if (what === 'open') everOpened = true;
        if (what === 'ack') acknowledged = Number(position);
      },
    });
  }
  // In the end the processes' own view of the files.
  strictEqual(opened(join(folder, 'log'), true) >= acknowledged, true);
  return { images, kinds, acknowledged, stopped };
}

test(
  'after a power loss at any sync, whatever of the unsynced is there, everything acknowledged is',
  { skip: straceMissing },
  async (t) => {
    t.diagnostic(`SEED=${seed}`);
    const { images, kinds, acknowledged } = await checkImages(join(root, 'plain'), [['20'], ['5']]);
    t.diagnostic(`${images} images, ${acknowledged} acknowledged, at ${[...kinds.keys()].join(', ')}`);
    for (const what of ['sync of log.db-wal', 'sync of log.db', 'write of log.mark', 'sync of a folder']) {
      ok(
        [...kinds.keys()].some((kind) => kind.endsWith(what)),
        `no power loss was tried at a ${what}`,
      );
    }
  },
);

test(
  'after a failed sync the log goes on in a new file, and a power loss then takes nothing acknowledged either',
  { skip: straceMissing },
  async (t) => {
    t.diagnostic(`SEED=${seed}`);
    let all = 0;
    const failed = new Set<string>();
    const random = randomFrom(seed);
    const failures = soak ? 40 : 2;
    for (let i = 0; i < failures; i++) {
      // Somewhere in the run: syncs of the write-ahead log, of the database at a checkpoint, writes of the mark.
      const inject = [
        `fsync:error=EIO:when=${16 + Math.floor(random() * (soak ? 60 : 14))}`,
        `pwrite64:error=EIO:when=${60 + Math.floor(random() * (soak ? 300 : 30))}`,
      ];
      const folder = join(root, `failed-${i}`);
      const runs = [['15', inject[i % 2] ?? ''], ['4'], ['1']];
      const { images, kinds, stopped } = await checkImages(folder, runs);
      all += images;
      for (const kind of kinds.keys()) if (kind.includes('failed')) failed.add(kind);
      if (!stopped) continue;
      ok(existsSync(join(folder, 'log/log.evidence/log.db')), 'what the failure left is kept');
      ok(!existsSync(join(folder, 'log/log.failed')) && readFileSync(join(folder, 'log/log.db')).length > 0);
    }
    ok(failed.size > 0);
    t.diagnostic(`${failures} failures (${[...failed].join(', ')}), ${all} images`);
  },
);
