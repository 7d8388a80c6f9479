/**
 * `npm run bench machine [-- PART…] [COMMANDS] [--tiny]`
 *
 * - `commands`: durable commands per second beside raw `node:sqlite`, which inserts the same bytes with the same durability.
 * - `emmett`: the same beside Emmett on SQLite and on PostgreSQL. Implies `commands`.
 * - `replay`: events per second when a log is read back.
 * - `events`: cost of an event at 10^3, 10^5 and 10^7 rows of state, and bytes of a row.
 * - `memory`: bytes of a small tenant.
 *
 * Without a part, all of them. COMMANDS, a number, makes a short run without peers and without 10^7 rows: for comparing
 * before and after a change. `--tiny` is for the test of this file: its figures mean nothing.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { freemem, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Side } from './children.ts';
import { measureDurable, p99MaxMs, writtenLog, type DurableSize } from './durable.ts';
import { installedPeers } from './peers.ts';
import type { Round } from './rounds.ts';
import type { EventCost, Replay, StateAsk } from './state-side.ts';

const partNames = ['commands', 'emmett', 'replay', 'events', 'memory'] as const;
type Part = (typeof partNames)[number];

const args = process.argv.slice(2).filter((arg) => arg !== 'machine' && arg !== '--large');
const tiny = args.includes('--tiny');
const count = Number(args.find((arg) => /^\d+$/.test(arg)) ?? '0');
const short = tiny || count > 0;
const asked = partNames.filter((name) => args.includes(name));
const unknown = args.filter((arg) => arg !== '--tiny' && !/^\d+$/.test(arg) && !partNames.some((name) => name === arg));
if (unknown.length > 0) {
  console.error(`Unknown: ${unknown.join(' ')}. Parts are ${partNames.join(', ')}; see bench/machine/run.ts.`);
  process.exit(2);
}
const parts = new Set<Part>(asked.length > 0 ? asked : partNames.filter((name) => !short || name !== 'emmett'));
if (parts.has('emmett')) parts.add('commands');

const memoryOf1e7Gib = 6;
const folder = mkdtempSync(join(tmpdir(), 'cellwright-bench-machine-'));
// PostgreSQL runs as another user when this one is root, and has to reach its own folder in this one.
chmodSync(folder, 0o711);
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));

const ratios: Record<string, number> = {};
const figures: Record<string, number> = {};

function say(name: string, value: number, unit: string): void {
  const text = value.toLocaleString('en-US', { maximumFractionDigits: value < 100 ? 2 : 0 });
  console.log(`${name.padEnd(64)} ${text.padStart(12)} ${unit}`);
}

function sayRound(name: string, { perSecond, p50Ms, p99Ms, cpuMicroseconds }: Round): void {
  const inTime = `p50 ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)} ms, CPU ${cpuMicroseconds.toFixed(1)} µs each`;
  say(name, perSecond, `per second; ${inTime}`);
}

/** Three digits are as much as such a measurement says. */
function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

async function measureCommands(): Promise<void> {
  const size: DurableSize = {
    tenants: tiny ? 20 : 300,
    warmUpCommands: tiny ? 400 : count > 0 ? count : 100_000,
    roundMs: tiny ? 20 : count > 0 ? 600 : 1_200,
    rounds: tiny ? 1 : count > 0 ? 3 : 5,
    concurrencies: tiny ? [32] : count > 0 ? [256, 512] : [64, 128, 256, 512, 1_024, 2_048],
    rawBatches: tiny ? [64] : count > 0 ? [256, 1_024] : [64, 128, 256, 512, 1_024, 4_096],
    rawPagesBytes: tiny ? [16_384] : [4_096, 8_192, 16_384],
  };
  const peers = parts.has('emmett') ? installedPeers() : undefined;
  const { concurrency, ours, raw, rawUnbounded, emmett } = await measureDurable(folder, size, peers);
  sayRound(`durable commands, ${size.tenants} tenants, ${concurrency} outstanding`, ours);
  if (ours.p99Ms > p99MaxMs)
    console.log(`  No concurrency kept p99 at or below ${p99MaxMs} ms: this is the one that came nearest.`);
  for (const [name, { round, shape }] of [
    ['as many outstanding', raw],
    ['any batch', rawUnbounded],
  ] as const) {
    const { batch, pageBytes, rowsPerInsert } = shape;
    sayRound(`raw node:sqlite, ${name}: ${batch} a commit, ${rowsPerInsert} an insert, ${pageBytes} B pages`, round);
  }
  ratios['commandsToRawSqlite'] = rounded(ours.perSecond / raw.round.perSecond);
  ratios['commandsToRawSqliteAnyBatch'] = rounded(ours.perSecond / rawUnbounded.round.perSecond);
  figures['commandsPerSecond'] = Math.round(ours.perSecond);
  figures['commandsOutstanding'] = concurrency;
  figures['commandsP50Ms'] = rounded(ours.p50Ms);
  figures['commandsP99Ms'] = rounded(ours.p99Ms);
  figures['commandCpuMicroseconds'] = rounded(ours.cpuMicroseconds);
  figures['rawSqlitePerSecond'] = Math.round(raw.round.perSecond);
  figures['rawSqliteP99Ms'] = rounded(raw.round.p99Ms);
  for (const [store, key] of [
    ['sqlite', 'Sqlite'],
    ['postgres', 'Postgres'],
  ] as const) {
    const measured = emmett[store];
    if (measured === undefined) {
      if (parts.has('emmett')) console.log(`Emmett on ${key} did not run: bench/peers has nothing for this platform.`);
      continue;
    }
    sayRound(`Emmett on ${key}, ${measured.concurrency} outstanding (its best)`, measured.round);
    ratios[`commandsToEmmett${key}`] = rounded(ours.perSecond / measured.round.perSecond);
    figures[`emmett${key}PerSecond`] = Math.round(measured.round.perSecond);
    figures[`emmett${key}P99Ms`] = rounded(measured.round.p99Ms);
  }
}

async function inOwnProcess<Answer>(ask: StateAsk, heapMib: number): Promise<Answer> {
  const execArgv = ['--expose-gc', `--max-old-space-size=${heapMib}`];
  const side = new Side(new URL('state-side.ts', import.meta.url), execArgv);
  try {
    return await side.ask<Answer>(ask);
  } finally {
    side.end();
  }
}

async function measureReplay(): Promise<void> {
  const path = join(folder, 'replay');
  const hashes = await writtenLog(path, tiny ? 20 : 300, tiny ? 500 : count > 0 ? count : 200_000);
  const replay = await inOwnProcess<Replay>({ do: 'replay', folder: join(path, 'log'), owner: 'bench/log' }, 8_000);
  if (!isDeepStrictEqual(hashes, replay.hashes)) throw new Error('replay led to other states than the commands did');
  say(
    'replay of a log, chain and every hash checked',
    replay.eventsPerSecond,
    'events per second of a core (one event a record)',
  );
  say('  of texts in memory', replay.textsPerSecond, 'events per second of a core');
  say('  of decoded records in memory', replay.decodedPerSecond, 'events per second of a core');
  figures['replayEventsPerSecond'] = Math.round(replay.eventsPerSecond);
  figures['replayTextsPerSecond'] = Math.round(replay.textsPerSecond);
  figures['replayDecodedPerSecond'] = Math.round(replay.decodedPerSecond);
}

function power(rows: number): string {
  return tiny ? String(rows) : `1e${Math.round(Math.log10(rows))}`;
}

async function measureEvents(): Promise<void> {
  const sizes = tiny ? [1_000, 2_000] : short ? [1_000, 100_000] : [1_000, 100_000, 10_000_000];
  const costs = new Map<number, EventCost>();
  for (const rows of sizes) {
    if (rows === 10_000_000 && freemem() < memoryOf1e7Gib * 2 ** 30) {
      console.log(`10^7 rows are left out: less than ${memoryOf1e7Gib} GiB of memory is free.`);
      continue;
    }
    const events = tiny ? 1_000 : short ? 200_000 : 500_000;
    const heapMib = rows > 1_000_000 ? 14_000 : 4_000;
    const cost = await inOwnProcess<EventCost>({ do: 'events', rows, count: events }, heapMib);
    costs.set(rows, cost);
    for (const [kind, { nsPerEvent, collectingShare, fullCollections }] of Object.entries(cost)) {
      const collected = `${(collectingShare * 100).toFixed(0)} % collecting garbage, ${fullCollections} times all of it`;
      const name = `event on ${rows.toLocaleString('en-US')} rows, ${kind === 'listed' ? 'kept in order' : 'read by key only'}`;
      say(name, nsPerEvent, `ns of a core; ${collected}`);
    }
    figures[`eventNs${power(rows)}`] = Math.round(cost.listed.nsPerEvent);
    figures[`eventNs${power(rows)}Unlisted`] = Math.round(cost.unlisted.nsPerEvent);
    figures['bytesPerRow'] = Math.round(cost.listed.bytesPerRow);
    figures['bytesPerRowUnlisted'] = Math.round(cost.unlisted.bytesPerRow);
  }
  const small = costs.get(1_000);
  for (const rows of sizes.slice(1)) {
    const cost = costs.get(rows);
    if (cost === undefined || small === undefined) continue;
    ratios[`eventCost${power(rows)}To1e3`] = rounded(cost.listed.nsPerEvent / small.listed.nsPerEvent);
    ratios[`eventCost${power(rows)}To1e3Unlisted`] = rounded(cost.unlisted.nsPerEvent / small.unlisted.nsPerEvent);
  }
  const { bytesPerRow } = figures;
  if (bytesPerRow !== undefined) say('memory of a row, kept in order', bytesPerRow, 'bytes');
}

async function measureMemory(): Promise<void> {
  const { bytesPerTenant, bytesPerEmptyTenant } = await inOwnProcess<{
    readonly bytesPerTenant: number;
    readonly bytesPerEmptyTenant: number;
  }>({ do: 'tenants', tenants: tiny ? 100 : 10_000 }, 4_000);
  say('memory of a tenant of five rows', bytesPerTenant, 'bytes');
  say('memory of a tenant without rows', bytesPerEmptyTenant, 'bytes');
  figures['bytesPerTenant'] = Math.round(bytesPerTenant);
  figures['bytesPerEmptyTenant'] = Math.round(bytesPerEmptyTenant);
}

const loadBefore = loadavg()[0] ?? 0;
if (parts.has('commands')) await measureCommands();
if (parts.has('replay')) await measureReplay();
if (parts.has('events')) await measureEvents();
if (parts.has('memory')) await measureMemory();
// Others on the machine cost throughput and, above all, the slowest answers: so a reader must know of them.
if (loadBefore > 0.5)
  console.log(`The machine was in use when this began (load ${loadBefore.toFixed(1)}): figures are low.`);
figures['loadBefore'] = rounded(loadBefore);

console.log(JSON.stringify({ bench: 'machine', ratios, figures }));
