import { PerformanceObserver } from 'node:perf_hooks';
import { orders } from '../../examples/orders/machine.ts';
import { Instance } from '../../src/machine/decide/instance/instance.ts';
import { decodeRecord, type PlacedRecord } from '../../src/machine/decide/log/record.ts';
import { logFiles, type StoredRecord } from '../../src/machine/serve/log/files.ts';
import { LogProof } from '../../src/machine/serve/log/proof.ts';
import { answerAsks } from './children.ts';

/** What state costs: an event on much of it, its bytes, and reading it back from a log. One core: no thread beside. */
export type StateAsk =
  | { readonly do: 'events'; readonly rows: number; readonly count: number }
  | { readonly do: 'tenants'; readonly tenants: number }
  | { readonly do: 'replay'; readonly folder: string; readonly owner: string };

export interface Cost {
  /** Of a core. */
  readonly nsPerEvent: number;
  /** Collections of the whole heap while it was measured, and the share of time that any collection took. */
  readonly fullCollections: number;
  readonly collectingShare: number;
  readonly bytesPerRow: number;
}
export interface EventCost {
  /** Tables that were scanned before, as they are where orders are listed, keep their rows in order from then on. */
  readonly listed: Cost;
  /** Tables that were only read by key. */
  readonly unlisted: Cost;
}
export interface Replay {
  readonly records: number;
  /** From disk: pages, digests and chain proven, texts decoded, every state hash and keys hash compared. */
  readonly eventsPerSecond: number;
  /** Texts in memory, decoded and replayed. */
  readonly textsPerSecond: number;
  /** Decoded records in memory, replayed: evolving and hashing alone. */
  readonly decodedPerSecond: number;
  readonly hashes: Readonly<Record<string, string>>;
}

/** Where a Map of one tenant ends for us: above it there are more tenants. */
const rowsPerInstanceMax = 100_000;
const ordersPerItem = 1_000;

/**
 * Time of a core: what the work itself took and, on other threads, compiling it and collecting its garbage. Unlike the time
 * of the clock, it is nearly the same when others use the machine as well.
 */
function cpuMsOf(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Bytes that are in use after everything that can be collected was. */
function bytesInUse(): number {
  globalThis.gc?.();
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function filled(name: string, rows: number): Instance {
  const instance = new Instance(name, orders);
  const items = Math.ceil(rows / ordersPerItem);
  for (let s = 0; s < items; s++) {
    instance.execute({ command: 'addStock', input: { item: `item-${s}`, quantity: 1_000_000 } }, 0);
  }
  for (let o = 0; o < rows - items; o++) instance.execute({ command: 'placeOrder', input: order(o, items) }, 0);
  return instance;
}

function order(n: number, items: number): { readonly id: string; readonly item: string; readonly quantity: number } {
  return { id: `order-${n}`, item: `item-${n % items}`, quantity: 1 };
}

/** Mulberry32 by Tommy Ettinger (public domain): every row is as likely, so that no cache helps. */
function randomBelow(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * bound);
  };
}

async function measureEvents(rows: number, count: number): Promise<EventCost> {
  const before = bytesInUse();
  const perInstance = Math.min(rows, rowsPerInstanceMax);
  const instances: Instance[] = [];
  for (let i = 0; i < rows / perInstance; i++) instances.push(filled(`tenant-${i}`, perInstance));
  const bytesPerRow = (): number => (bytesInUse() - before) / rows;
  const unlisted = { bytesPerRow: bytesPerRow(), ...(await costOf(instances, perInstance, count)) };
  for (const instance of instances) {
    instance.query('orders', { limit: 1 });
    instance.query('stock', {});
  }
  const listed = { bytesPerRow: bytesPerRow(), ...(await costOf(instances, perInstance, count)) };
  return { listed, unlisted };
}

/** One event: a command that cancels an order or places it again, at random among all rows. */
async function costOf(
  instances: readonly Instance[],
  perInstance: number,
  count: number,
): Promise<Omit<Cost, 'bytesPerRow'>> {
  const items = Math.ceil(perInstance / ordersPerItem);
  const random = randomBelow(7);
  const run = (pairs: number): void => {
    for (let i = 0; i < pairs; i++) {
      const instance = instances[random(instances.length)];
      const input = order(random(perInstance - items), items);
      instance?.execute({ command: 'cancelOrder', input: { id: input.id } }, 0);
      const { answer } = instance?.execute({ command: 'placeOrder', input }, 0) ?? {};
      if (answer?.kind !== 'accepted') throw new Error('a command of the benchmark was refused');
    }
  };
  run(Math.min(count, 20_000));
  let collectingMs = 0;
  let fullCollections = 0;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      collectingMs += entry.duration;
      const { kind } = (entry as unknown as { readonly detail: { readonly kind: number } }).detail;
      if (kind === fullCollection) fullCollections += 1;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  const elapsedMs = cpuMsOf(() => run(count / 2));
  // What was observed is told some turns of the event loop later.
  await new Promise((resolve) => setTimeout(resolve, 100));
  observer.disconnect();
  return { nsPerEvent: (elapsedMs / count) * 1e6, fullCollections, collectingShare: collectingMs / elapsedMs };
}

/** `NODE_PERFORMANCE_GC_MAJOR`. */
const fullCollection = 4;

/** Bytes of a tenant with five rows: two items and three orders. */
function measureTenants(tenants: number): { readonly bytesPerTenant: number; readonly bytesPerEmptyTenant: number } {
  const instances: Instance[] = [];
  const before = bytesInUse();
  for (let i = 0; i < tenants; i++) instances.push(new Instance(`tenant-${i}`, orders));
  const empty = bytesInUse();
  for (const instance of instances) {
    for (let s = 0; s < 2; s++) {
      instance.execute({ command: 'addStock', input: { item: `item-${s}`, quantity: 100 } }, 0);
    }
    for (let o = 0; o < 3; o++) instance.execute({ command: 'placeOrder', input: order(o, 2) }, 0);
  }
  const full = bytesInUse();
  return {
    bytesPerTenant: (full - before) / instances.length,
    bytesPerEmptyTenant: (empty - before) / instances.length,
  };
}

type Hosted = Map<string, Instance>;

function replayInto(hosted: Hosted, record: PlacedRecord): number {
  let instance = hosted.get(record.instance);
  if (instance === undefined) {
    instance = new Instance(record.instance, orders);
    hosted.set(record.instance, instance);
  }
  instance.replay(record);
  return record.hashes.length - 1;
}

function fromDisk(folder: string, owner: string): { readonly hosted: Hosted; readonly texts: readonly StoredRecord[] } {
  const hosted: Hosted = new Map();
  const texts: StoredRecord[] = [];
  const proof = new LogProof(logFiles(folder), { owner, mustExist: true });
  for (;;) {
    const page = proof.read(1_024);
    for (const stored of page) {
      replayInto(hosted, decodeRecord(stored.position, stored));
      texts.push(stored);
    }
    if (page.length === 0) break;
  }
  proof.end();
  proof.close();
  return { hosted, texts };
}

/** How many of what `work` counts a core does in a second. */
function perSecond(work: () => number): number {
  let count = 0;
  const elapsedMs = cpuMsOf(() => (count = work()));
  return (count / elapsedMs) * 1000;
}

function measureReplay(folder: string, owner: string): Replay {
  const { hosted, texts } = fromDisk(folder, owner);
  const events = [...hosted.values()].reduce((sum, { seq }) => sum + seq, 0);
  const eventsPerSecond = perSecond(() => {
    fromDisk(folder, owner);
    return events;
  });
  const textsPerSecond = perSecond(() => {
    const again: Hosted = new Map();
    return texts.reduce((sum, stored) => sum + replayInto(again, decodeRecord(stored.position, stored)), 0);
  });
  const records = texts.map((stored) => decodeRecord(stored.position, stored));
  const decodedPerSecond = perSecond(() => {
    const again: Hosted = new Map();
    return records.reduce((sum, record) => sum + replayInto(again, record), 0);
  });
  const hashes = Object.fromEntries([...hosted].map(([name, { stateHash }]) => [name, stateHash]));
  return { records: texts.length, eventsPerSecond, textsPerSecond, decodedPerSecond, hashes };
}

answerAsks((ask: StateAsk) => {
  switch (ask.do) {
    case 'events':
      return measureEvents(ask.rows, ask.count);
    case 'tenants':
      return measureTenants(ask.tenants);
    default:
      return measureReplay(ask.folder, ask.owner);
  }
});
