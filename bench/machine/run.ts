/**
 * Machine benchmark: `node bench/machine/run.ts [commands] [--large]`.
 *
 * 1. Durable commands per second through the runtime, beside raw node:sqlite that inserts the same bytes with
 *    the same durability at its best batch size, in the same run.
 * 2. Cost of an event at 10^3, 10^5 and (with --large, about 4 GB) 10^7 rows of state.
 * 3. Events per second at replay.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { orders } from '../../examples/orders/machine.ts';
import { Instance } from '../../src/machine/decide/instance.ts';
import { openRuntime } from '../../src/machine/serve/runtime.ts';

const large = process.argv.includes('--large');
const commandCount = Number(process.argv[2] ?? '') || 200_000;
const tenants = 300;
const outstandingMax = 8_192;
const rounds = 3;

const folder = mkdtempSync(join(tmpdir(), 'cellwright-bench-machine-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

function say(name: string, value: number, unit: string): void {
  console.log(`${name.padEnd(52)} ${Math.round(value).toLocaleString('en-US').padStart(14)} ${unit}`);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** Commands as they vary in practice: many tenants, new rows and changed rows, two thirds with a key. */
function request(i: number): { instance: string; command: string; input: unknown; idempotencyKey?: string } {
  const instance = `tenant-${i % tenants}`;
  const keyed = i % 3 === 0 ? {} : { idempotencyKey: `0b7e5f7a-${i}` };
  const item = `item-${Math.floor(i / tenants) % 17}`;
  const n = Math.floor(i / tenants);
  if (n < 17) return { instance, command: 'addStock', input: { item, quantity: 900_000 }, ...keyed };
  return { instance, command: 'placeOrder', input: { id: `order-${i}`, item, quantity: 1 + (i % 9) }, ...keyed };
}

async function runCommands(path: string): Promise<{ readonly perSecond: number; readonly hashes: string }> {
  const runtime = await openRuntime({
    folder: path,
    owner: 'bench/log',
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => Date.now(),
    onStopped: (reason) => {
      throw reason;
    },
  });
  const started = performance.now();
  let sent = 0;
  let answered = 0;
  await new Promise<void>((resolve, reject) => {
    const answer = (accepted: boolean): void => {
      if (!accepted) reject(new Error('a command of the benchmark was refused'));
      answered += 1;
      if (answered === commandCount) resolve();
      else if (sent < commandCount && sent - answered < outstandingMax / 2) send();
    };
    const send = (): void => {
      while (sent < commandCount && sent - answered < outstandingMax) {
        const next = request(sent);
        sent += 1;
        void runtime.execute(next).then(({ kind }) => answer(kind === 'accepted'), reject);
      }
    };
    send();
  });
  const perSecond = (commandCount / (performance.now() - started)) * 1000;
  const states = await Promise.all(runtime.instances().map((instance) => runtime.state(instance)));
  await runtime.close();
  return { perSecond, hashes: states.map(({ stateHash }) => stateHash).join() };
}

/** The bytes of the log just written, as a plain program would insert them. */
function runRaw(path: string, source: string, batch: number, pageSize: number): number {
  const read = new DatabaseSync(source, { readOnly: true });
  const rows = read.prepare('SELECT position, head, payload, digest FROM record ORDER BY position').all();
  read.close();
  const records = rows.map(
    (row) => [Number(row['position']), String(row['head']), String(row['payload']), String(row['digest'])] as const,
  );
  const database = new DatabaseSync(path);
  database.exec(`PRAGMA page_size = ${pageSize}; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL; CREATE TABLE record (position INTEGER PRIMARY KEY, head TEXT, payload TEXT, digest TEXT) STRICT;`);
  const insert = database.prepare('INSERT INTO record VALUES (?, ?, ?, ?)');
  const started = performance.now();
  for (let i = 0; i < records.length; i += batch) {
    database.exec('BEGIN');
    for (const record of records.slice(i, i + batch)) insert.run(...record);
    database.exec('COMMIT');
  }
  const perSecond = (records.length / (performance.now() - started)) * 1000;
  database.close();
  return perSecond;
}

/** Nanoseconds of one accepted command on a state of `rows` rows, spread over instances of at most 10^5. */
function eventCostNs(rows: number): { readonly ns: number; readonly bytesPerRow: number } {
  const perInstance = Math.min(rows, 100_000);
  const instances: Instance[] = [];
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  for (let i = 0; i < rows / perInstance; i++) {
    const instance = new Instance(`tenant-${i}`, orders);
    for (let s = 0; s < perInstance / 1000; s++) {
      instance.execute({ command: 'addStock', input: { item: `item-${s}`, quantity: 1_000_000 } }, 0);
    }
    for (let o = 0; o < perInstance; o++) {
      const input = { id: `order-${o}`, item: `item-${o % (perInstance / 1000)}`, quantity: 1 };
      instance.execute({ command: 'placeOrder', input }, 0);
    }
    instances.push(instance);
  }
  globalThis.gc?.();
  const bytesPerRow = (process.memoryUsage().rss - before) / rows;
  const samples: number[] = [];
  const pairs = 10_000;
  let seed = 12_345;
  for (let round = 0; round < 9; round++) {
    const started = performance.now();
    for (let i = 0; i < pairs; i++) {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      const instance = instances[seed % instances.length];
      const order = (seed >>> 8) % perInstance;
      const item = `item-${order % (perInstance / 1000)}`;
      instance?.execute({ command: 'cancelOrder', input: { id: `order-${order}` } }, 0);
      instance?.execute({ command: 'placeOrder', input: { id: `order-${order}`, item, quantity: 1 } }, 0);
    }
    samples.push(((performance.now() - started) / (pairs * 2)) * 1e6);
  }
  return { ns: median(samples), bytesPerRow };
}

const ours: number[] = [];
const raw = new Map<number, number[]>();
let replayEventsPerSecond = 0;
for (let round = 0; round < rounds; round++) {
  const path = join(folder, `log-${round}`);
  ours.push((await runCommands(path)).perSecond);
  for (const batch of [100, 1_000, 4_000]) {
    for (const pageSize of [4_096, 16_384]) {
      const perSecond = runRaw(
        join(folder, `raw-${round}-${batch}-${pageSize}.db`),
        join(path, 'log.db'),
        batch,
        pageSize,
      );
      const key = batch * 100_000 + pageSize;
      raw.set(key, [...(raw.get(key) ?? []), perSecond]);
    }
  }
  const runtime = await openRuntime({
    folder: path,
    owner: 'bench/log',
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => Date.now(),
    onStopped: () => {},
  });
  replayEventsPerSecond = Math.max(
    replayEventsPerSecond,
    (runtime.recovered.events / runtime.recovered.durationMs) * 1000,
  );
  await runtime.close();
}
const oursPerSecond = median(ours);
say(`durable commands, ${tenants} tenants, ${outstandingMax} outstanding`, oursPerSecond, 'per second');
let rawPerSecond = 0;
for (const [key, values] of raw) {
  const perSecond = median(values);
  say(
    `raw node:sqlite, ${Math.floor(key / 100_000)} rows a transaction, ${key % 100_000} B pages`,
    perSecond,
    'per second',
  );
  rawPerSecond = Math.max(rawPerSecond, perSecond);
}
say('replay, chain and hashes checked, start included', replayEventsPerSecond, 'events per second');

const small = eventCostNs(1_000);
say('event on 10^3 rows', small.ns, 'ns');
const middle = eventCostNs(100_000);
say('event on 10^5 rows', middle.ns, 'ns');
const big = large ? eventCostNs(10_000_000) : undefined;
if (big !== undefined) {
  say('event on 10^7 rows (100 instances)', big.ns, 'ns');
  say('memory per row at 10^7 rows', big.bytesPerRow, 'bytes');
}

console.log(
  JSON.stringify({
    bench: 'machine',
    ratios: {
      commandsToRawSqlite: Number((oursPerSecond / rawPerSecond).toFixed(3)),
      eventCost1e5To1e3: Number((middle.ns / small.ns).toFixed(3)),
      ...(big === undefined ? {} : { eventCost1e7To1e3: Number((big.ns / small.ns).toFixed(3)) }),
    },
    figures: {
      commandsPerSecond: Math.round(oursPerSecond),
      rawSqlitePerSecond: Math.round(rawPerSecond),
      replayEventsPerSecond: Math.round(replayEventsPerSecond),
      ...(big === undefined ? {} : { bytesPerRow: Math.round(big.bytesPerRow) }),
    },
  }),
);
