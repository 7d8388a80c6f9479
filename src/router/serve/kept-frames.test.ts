import assert from 'node:assert/strict';
import fsPromises, { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { Value } from 'typebox/value';
import type { Fault } from '../../kernel/fault.ts';
import { FleetIdSchema, TenantNameSchema } from '../../protocol/names.ts';
import { RoutingFrameSchema, type Signed } from '../../protocol/routing.ts';
import { TableHash } from '../../protocol/table-hash.ts';
import { ensureKeys, openSigner, openVerifier, type Signer, type Verifier } from '../../trust/signature.ts';
import { keptBounds, KeptFrames, prove } from './kept-frames.ts';
import { Routing } from './routing.ts';

const fleet = Value.Parse(FleetIdSchema, 'fleet-of-the-test');
const acme = Value.Parse(TenantNameSchema, 'acme');

let folder: string;
let signer: Signer;
let verifier: Verifier;
let problems: Fault[];
let file: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cellwright-frames-'));
  file = join(folder, 'frames');
  const keys = { privateKeyFile: join(folder, 'private.pem'), publicKeyFile: join(folder, 'public.pem') };
  await ensureKeys(keys);
  signer = openSigner(keys.privateKeyFile);
  verifier = openVerifier(keys.publicKeyFile);
  problems = [];
});
afterEach(() => rm(folder, { recursive: true }));

/** Signed frames 1 to `count`: a snapshot, then changes that move acme to epoch 2, 3, … */
function framesOf(count: number, ofFleet: string = fleet): Signed[] {
  const hash = new TableHash();
  return Array.from({ length: count }, (_, at) => {
    const draft = Value.Parse(RoutingFrameSchema, {
      ...(at === 0 ? { kind: 'snapshot' } : { kind: 'change', previous: at }),
      fleet: ofFleet,
      generation: 1,
      version: at + 1,
      cells: at === 0 ? [{ name: 'tokyo-1', address: 'http://127.0.0.1:1' }] : [],
      tenants: [{ tenant: 'acme', cell: 'tokyo-1', epoch: at + 1 }],
      hash: '',
    });
    hash.apply(draft);
    return signer.sign({ ...draft, hash: hash.text });
  });
}
const load = () =>
  Routing.load({ fleet, folder, verifier, onProblem: (problem) => problems.push(problem), onChanged: () => undefined });
const take = (routing: Routing, signed: unknown) =>
  routing.take({ type: 'frame', id: undefined, data: JSON.stringify(signed) });
const lines = (frames: readonly unknown[]) => frames.map((signed) => `${JSON.stringify(signed)}\n`).join('');

test('D1 what was taken from the stream is there after a restart, without the control plane', async () => {
  const routing = await load();
  for (const signed of framesOf(3)) take(routing, signed);
  await routing.stop();
  const again = await load();
  assert.deepEqual(again.table.position, { generation: 1, version: 3 });
  assert.equal(again.table.hash, routing.table.hash);
  assert.equal(again.live, false);
  assert.deepEqual(problems, []);
  take(again, framesOf(4)[3]);
  await again.stop();
  assert.equal((await readFile(file, 'utf8')).split('\n').length, 5);
});

test('D2 a torn last line is dropped without a word, and the file goes on behind it', async () => {
  const text = lines(framesOf(3));
  for (const cut of [1, 40, text.length - lines(framesOf(2)).length - 1]) {
    await writeFile(file, text.slice(0, -cut));
    const routing = await load();
    assert.equal(routing.table.position?.version, 2);
    take(routing, framesOf(3)[2]);
    await routing.stop();
    assert.equal(await readFile(file, 'utf8'), text);
  }
  assert.deepEqual(problems, []);
});

test('D3 a flipped byte: reported, everything provable before it is used, the damaged file is put aside', async () => {
  const frames = framesOf(4);
  const bytes = Buffer.from(lines(frames));
  const at = Buffer.from(lines(frames.slice(0, 2))).length + 60;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await writeFile(file, bytes);
  const routing = await load();
  assert.equal(routing.table.position?.version, 2);
  assert.match(problems[0]?.message ?? '', /frames: line 3 of 4/);
  assert.deepEqual(await readFile(`${file}.damaged`), bytes);
  assert.equal(await readFile(file, 'utf8'), lines(frames.slice(0, 2)));
  await routing.stop();
});

test('D3 what can be proven stays in use and in place when the disk cannot be written during the start', async (t) => {
  const frames = framesOf(4);
  const damaged = `${lines(frames.slice(0, 2))}garbage\n${lines(frames.slice(3))}`;
  const torn = lines(frames).slice(0, -9);
  for (const [text, version] of [
    [damaged, 2],
    [torn, 3],
  ] as const) {
    await writeFile(file, text);
    problems = [];
    const full = t.mock.method(fsPromises, 'rename', () => Promise.reject(new Error('ENOSPC')));
    syncBuiltinESMExports();
    const routing = await load();
    full.mock.restore();
    syncBuiltinESMExports();
    assert.equal(routing.table.position?.version, version);
    assert.match(problems.at(-1)?.message ?? '', /cannot be written/);
    assert.equal(await readFile(file, 'utf8'), text, 'the file stays until a whole one takes its place');
    await routing.stop();
    assert.equal((await load()).table.position?.version, version);
  }
});

test('D4 damage in the first line leaves no table, and the stream brings it again', async () => {
  await writeFile(file, 'garbage\n');
  const routing = await load();
  assert.equal(routing.table.position, undefined);
  assert.equal(problems.length, 1);
  take(routing, framesOf(1)[0]);
  await routing.stop();
  assert.equal((await load()).table.position?.version, 1);
});

test('D5 frames of another fleet, or signed with another key, are refused from disk and stream', async () => {
  const routing = await load();
  take(routing, framesOf(1, 'another-fleet')[0]);
  const other = { privateKeyFile: join(folder, 'other.pem'), publicKeyFile: join(folder, 'other-public.pem') };
  await ensureKeys(other);
  take(routing, openSigner(other.privateKeyFile).sign(JSON.parse(framesOf(1)[0]?.payload ?? '')));
  take(routing, { payload: 'x' });
  assert.equal(routing.table.position, undefined);
  assert.deepEqual(
    problems.map((problem) => problem.code),
    ['frame-refused', 'frame-refused', 'frame-refused'],
  );
  await routing.stop();
  await writeFile(file, lines(framesOf(1, 'another-fleet')));
  assert.equal((await load()).table.position, undefined);
});

test('D6 an old frame changes nothing', async () => {
  const routing = await load();
  const frames = framesOf(3);
  for (const signed of frames) take(routing, signed);
  take(routing, frames[0]);
  take(routing, frames[1]);
  assert.equal(routing.table.position?.version, 3);
  const route = routing.table.lookup(acme);
  assert.equal(route.kind === 'assigned' ? route.epoch : undefined, 3);
  await routing.stop();
});

test('D7 a snapshot takes the place of what was kept', async () => {
  const routing = await load();
  for (const signed of framesOf(3)) take(routing, signed);
  const latest = framesOf(3)[2];
  const { payload } = latest ?? { payload: '{}' };
  const { previous, ...rest } = JSON.parse(payload) as Record<string, unknown>;
  const cells = [{ name: 'tokyo-1', address: 'http://127.0.0.1:1' }];
  assert.equal(previous, 2);
  take(routing, signer.sign({ ...rest, kind: 'snapshot', cells }));
  await routing.flushed();
  assert.equal((await readFile(file, 'utf8')).split('\n').length, 2);
  assert.deepEqual(problems, []);
  assert.equal(routing.framesConcerning(acme).length, 1);
  await routing.stop();
});

test('D7 a fresh snapshot is asked for above the bound of changes, or of their bytes, and not at it', async () => {
  const options = { folder, verifier, apply: () => undefined, onProblem: (problem: Fault) => problems.push(problem) };
  const [snapshot, change] = framesOf(2).map((signed) => prove(signed, verifier));
  assert.ok(snapshot !== undefined && change !== undefined);
  const kept = await KeptFrames.open(options);
  kept.add(snapshot);
  for (let i = 0; i < keptBounds.changesMax; i++) kept.add(change);
  assert.equal(kept.isFull, false);
  kept.add(change);
  assert.equal(kept.isFull, true);
  kept.add(snapshot);
  assert.equal(kept.isFull, false);
  const large = { ...change, signed: { ...change.signed, payload: 'x'.repeat(keptBounds.changeBytesMax) } };
  kept.add(large);
  assert.equal(kept.isFull, false);
  kept.add(change);
  assert.equal(kept.isFull, true);
  await kept.close();
});

test('D8 a disk that cannot be written is reported and serving goes on', async () => {
  const routing = await load();
  await rm(folder, { recursive: true });
  await writeFile(folder, 'a file where the folder was');
  take(routing, framesOf(1)[0]);
  await routing.flushed();
  assert.equal(routing.table.position?.version, 1);
  assert.match(problems[0]?.message ?? '', /cannot be written/);
  await routing.stop();
});

test('D9 nothing but frames is written beside the folder of the router', async () => {
  const routing = await load();
  take(routing, framesOf(1)[0]);
  await routing.stop();
  assert.deepEqual(
    (await readdir(folder)).filter((name) => !name.endsWith('.pem')),
    ['frames'],
  );
});
