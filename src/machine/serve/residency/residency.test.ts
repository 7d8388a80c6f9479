import { test } from 'node:test';
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { orders } from '../../../../examples/orders/machine.ts';
import { SetHash } from '../../../kernel/hash.ts';
import type { DriftEvidence } from '../../decide/replica/drift.ts';
import { entryHashText, type EntryText } from '../../decide/residency/guard.ts';
import type { CommandAnswer } from '../../decide/instance/instance.ts';
import { machine, table } from '../../decide/definition/machine.ts';
import { decodeHead } from '../../decide/log/record.ts';
import type { ResidencyBounds } from '../../decide/residency/residency.ts';
import { chainOf, chainStart, digestOf, type StoredRecord, type WalkedRecord } from '../log/files.ts';
import type { Log, LogEvents, LogPlace, Replay } from '../log/log.ts';
import type { Mark } from '../log/mark.ts';
import { openRuntime, type Runtime, type RuntimeOptions } from '../runtime.ts';
import type { Checkpoint } from '../state/file.ts';
import type { StateStore } from '../state/store.ts';

const owner = 'test/log';

/** What the files of a log and of its states hold, without files: a crash is to open them again. */
class Disk {
  readonly records: StoredRecord[] = [];
  readonly chains: string[] = [];
  readonly entries = new Map<string, string>();
  readonly parts = new Map<string, string>();
  readonly snapshots = new Map<string, { position: number; parts: number }[]>();
  checkpoint: { readonly mark: Mark; readonly nowMs: number } | undefined;
  /** Grows with each opening: what an earlier process still does is not there after its crash. */
  generation = 0;
  /** How often a part was read, and how many records. */
  reads = { parts: 0, records: 0 };

  get last(): Mark {
    const position = this.records.length;
    return { position, chain: this.chains.at(-1) ?? chainStart(owner) };
  }
}

class DiskLog implements Log {
  readonly #disk: Disk;
  readonly #events: LogEvents;
  readonly #generation: number;

  constructor(disk: Disk, events: LogEvents) {
    this.#disk = disk;
    this.#events = events;
    this.#generation = disk.generation;
  }

  get last(): Mark {
    return this.#disk.last;
  }

  write(heads: readonly string[], payloads: readonly string[]): void {
    setImmediate(() => {
      if (this.#disk.generation !== this.#generation) return;
      heads.forEach((head, i) => {
        const payload = payloads[i] ?? '';
        this.#disk.chains.push(chainOf(this.last.chain, head, digestOf(payload)));
        this.#disk.records.push({ position: this.#disk.records.length + 1, head, payload });
      });
      this.#events.durable(this.#disk.records.length);
    });
  }

  async read(positions: readonly number[]): Promise<readonly StoredRecord[]> {
    await turn();
    this.#disk.reads.records += positions.length;
    return positions.flatMap((position) => this.#disk.records[position - 1] ?? []);
  }

  async walk(position: number, count: number): Promise<readonly WalkedRecord[]> {
    await turn();
    const walked: WalkedRecord[] = [];
    for (let at = position; at > 0 && walked.length < count; at = walked.at(-1)?.previous ?? 0) {
      const { previous, seqBefore, hashes } = decodeHead(at, this.#disk.records[at - 1]?.head ?? '');
      walked.push({ position: at, previous, seqBefore, seqAfter: seqBefore + hashes.length - 1 });
    }
    return walked;
  }

  probe(): void {}
  async erase(): Promise<never> {
    throw new Error('nothing is erased here');
  }
  readonly erased = [];
  async archive(): Promise<never> {
    throw new Error('nothing is archived here');
  }

  async close(): Promise<void> {}
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

class DiskStore implements StateStore {
  readonly #disk: Disk;
  readonly #generation: number;
  #pending: EntryText[] = [];

  constructor(disk: Disk) {
    this.#disk = disk;
    this.#generation = disk.generation;
  }

  async #turn(): Promise<void> {
    await turn();
    if (this.#disk.generation !== this.#generation) await new Promise(() => {});
  }

  async load(): ReturnType<StateStore['load']> {
    const { checkpoint, entries } = this.#disk;
    if (checkpoint === undefined) return { checkpoint, entries: [], why: undefined };
    const hash = new SetHash();
    for (const entry of entries) hash.add(entryHashText(entry));
    const whole: Checkpoint = { ...checkpoint, entries: entries.size, hash: hash.text };
    return { checkpoint: whole, entries: [...entries], why: undefined };
  }

  async serve(keep: boolean): Promise<void> {
    if (keep) return;
    this.#disk.entries.clear();
    this.#disk.parts.clear();
    this.#disk.snapshots.clear();
    this.#disk.checkpoint = undefined;
  }

  async put(entries: readonly EntryText[]): Promise<void> {
    await this.#turn();
    this.#pending.push(...entries);
  }

  async checkpoint(mark: Mark, nowMs: number): Promise<void> {
    await this.#turn();
    for (const [instance, text] of this.#pending) this.#disk.entries.set(instance, text);
    this.#pending = [];
    this.#disk.checkpoint = { mark, nowMs };
  }

  async putPart(instance: string, position: number, number: number, text: string): Promise<void> {
    await this.#turn();
    this.#disk.parts.set(`${instance} ${position} ${number}`, text);
  }

  async snapshot(instance: string, position: number, parts: number): Promise<void> {
    await this.#turn();
    const before = this.#disk.snapshots.get(instance) ?? [];
    this.#disk.snapshots.set(instance, [{ position, parts }, ...before].slice(0, 2));
  }

  async snapshots(instance: string): Promise<readonly { position: number; parts: number }[]> {
    await turn();
    return this.#disk.snapshots.get(instance) ?? [];
  }

  async part(instance: string, position: number, number: number): Promise<string | undefined> {
    await this.#turn();
    this.#disk.reads.parts += 1;
    return this.#disk.parts.get(`${instance} ${position} ${number}`);
  }

  async erase(instance: string): Promise<void> {
    this.#disk.snapshots.delete(instance);
  }

  async drop(instance: string, position: number): Promise<void> {
    const left = (this.#disk.snapshots.get(instance) ?? []).filter((each) => each.position !== position);
    this.#disk.snapshots.set(instance, left);
  }

  async close(): Promise<void> {}
}

interface Run {
  readonly runtime: Runtime;
  readonly notices: string[];
}

async function openOn(disk: Disk, bounds: Partial<ResidencyBounds>, more: Partial<RuntimeOptions> = {}): Promise<Run> {
  const notices: string[] = [];
  disk.generation += 1;
  const open = async ({ from }: LogPlace, replay: Replay, events: LogEvents): Promise<Log> => {
    const holds = from !== undefined && from.position > 0 && disk.chains[from.position - 1] === from.chain;
    const start = holds ? from : { position: 0, chain: chainStart(owner) };
    replay(disk.records.slice(start.position), start);
    return new DiskLog(disk, events);
  };
  const options: RuntimeOptions = {
    folder: 'nowhere',
    owner,
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => 1_000,
    entropy: () => 'entropy',
    onStopped: (reason) => {
      throw reason;
    },
    onNotice: (message) => notices.push(message),
    bounds,
    ...more,
  };
  return { runtime: await openRuntime(options, open, new DiskStore(disk)), notices };
}

/** So small that nearly every use of another instance evicts one; snapshots and checkpoints all the time. */
const tiny: Partial<ResidencyBounds> = { residentBytesMax: 6_000, snapshotRecordsMin: 3, checkpointRecords: 5 };

type Step =
  | { readonly do: 'add' | 'place' | 'cancel'; readonly tenant: string; readonly id: string; readonly key: boolean }
  | { readonly do: 'read'; readonly tenant: string }
  | { readonly do: 'reopen' | 'crash' };

const tenants = ['acme', 'bolt', 'coop', 'dyna'];
const tenantArbitrary = fc.constantFrom(...tenants);
const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constantFrom('add' as const, 'place' as const, 'cancel' as const),
      tenant: tenantArbitrary,
      id: fc.constantFrom('1', '2', '3'),
      key: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('read' as const), tenant: tenantArbitrary }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('reopen' as const, 'crash' as const) }) },
);

function shown(answer: CommandAnswer): unknown {
  if (answer.kind === 'accepted') return answer;
  return { code: answer.fault.code, message: answer.fault.message, reason: answer.reason, repeated: answer.repeated };
}

async function perform(runtime: Runtime, step: Step, number: number): Promise<unknown> {
  switch (step.do) {
    case 'add':
    case 'place':
    case 'cancel': {
      const { tenant, id } = step;
      const [command, input]: readonly [string, object] =
        step.do === 'add'
          ? ['addStock', { item: id, quantity: 2 }]
          : step.do === 'place'
            ? ['placeOrder', { id: `${id}-${number % 3}`, item: id, quantity: 1 }]
            : ['cancelOrder', { id: `${id}-${number % 3}` }];
      const key = step.key ? { idempotencyKey: `${step.do}-${id}-${number % 4}` } : {};
      return shown(await runtime.execute({ instance: tenant, command, input, ...key }));
    }
    case 'read':
      return {
        state: await runtime.state(step.tenant),
        stock: await runtime.query({ instance: step.tenant, query: 'stock', input: {} }),
        orders: await runtime.query({ instance: step.tenant, query: 'orders', input: {} }),
        history: await runtime.history(step.tenant, { afterSeq: number % 7, limit: 5 }),
      };
    default:
      return undefined;
  }
}

test('eviction, hydration, restarts and crashes are invisible: same answers, hashes and keys as if nothing ever left', async () => {
  let evictions = 0;
  let snapshotsRead = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(stepArbitrary, { minLength: 40, maxLength: 160, size: 'max' }), async (steps) => {
      const disk = new Disk();
      const reference = await openOn(new Disk(), {});
      let small = await openOn(disk, tiny);
      for (const [number, step] of steps.entries()) {
        if (step.do === 'crash' || step.do === 'reopen') {
          evictions += small.runtime.residency.evictions;
          if (step.do === 'reopen') await small.runtime.close();
          small = await openOn(disk, tiny);
          continue;
        }
        const expected = perform(reference.runtime, step, number);
        deepStrictEqual(await perform(small.runtime, step, number), await expected);
      }
      for (const tenant of tenants) {
        deepStrictEqual(await small.runtime.state(tenant), await reference.runtime.state(tenant));
      }
      deepStrictEqual(small.notices, []);
      evictions += small.runtime.residency.evictions;
      snapshotsRead += disk.reads.parts;
      await Promise.all([small.runtime.close(), reference.runtime.close()]);
    }),
    { numRuns: 60 },
  );
  ok(evictions > 100 && snapshotsRead > 50, `${evictions} evictions, ${snapshotsRead} parts of snapshots read`);
});

async function add(runtime: Runtime, tenant: string, item: string): Promise<void> {
  const answer = await runtime.execute({ instance: tenant, command: 'addStock', input: { item, quantity: 1 } });
  ok(answer.kind === 'accepted');
}

test('requests for an instance that is being loaded are answered in the order in which they came', async () => {
  const disk = new Disk();
  const first = await openOn(disk, {});
  await add(first.runtime, 'acme', 'nut');
  await first.runtime.close();
  const { runtime } = await openOn(disk, {});
  const adds = Array.from({ length: 20 }, () =>
    runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'nut', quantity: 1 } }),
  );
  const other = add(runtime, 'bolt', 'nut').then(() => runtime.residency.hydrations);
  strictEqual(await other, 0, 'who is in memory, or new, does not wait');
  const seqs = (await Promise.all(adds)).map((answer) => (answer.kind === 'accepted' ? answer.seq : 0));
  deepStrictEqual(
    seqs,
    Array.from({ length: 20 }, (_, i) => i + 2),
  );
  await runtime.close();
});

test('at the bounds of what may wait for a hydration, requests are refused; below they wait', async () => {
  const disk = new Disk();
  const first = await openOn(disk, {});
  for (const tenant of tenants) await add(first.runtime, tenant, 'nut');
  await first.runtime.close();
  const { runtime } = await openOn(disk, { waitingPerInstanceMax: 3, waitingMax: 5, hydrationsMax: 1 });
  const asked = ['acme', 'acme', 'acme', 'acme', 'bolt', 'bolt', 'bolt'];
  const outcomes = await Promise.all(
    asked.map((tenant) =>
      runtime.state(tenant).then(
        () => 'ok',
        (reason: unknown) => (reason instanceof Error && 'code' in reason ? reason.code : reason),
      ),
    ),
  );
  deepStrictEqual(outcomes, ['ok', 'ok', 'ok', 'log-busy', 'ok', 'ok', 'log-busy']);
  strictEqual((await runtime.state('coop')).seq, 1);
  await runtime.close();
});

test('a start reads what came after the last checkpoint, and a hydration what came after its snapshot', async () => {
  const disk = new Disk();
  const bounds = { checkpointRecords: 50, snapshotRecordsMin: 20 };
  const first = await openOn(disk, bounds);
  for (let i = 0; i < 1_000; i++) await add(first.runtime, 'acme', `item-${i % 5}`);
  const { stateHash } = await first.runtime.state('acme');
  // No close: as after a crash.
  const second = await openOn(disk, bounds);
  ok(second.runtime.recovered.records <= 100, `${second.runtime.recovered.records} records were read`);
  disk.reads.records = 0;
  strictEqual((await second.runtime.state('acme')).stateHash, stateHash);
  ok(disk.reads.records <= 60, `${disk.reads.records} records were replayed`);
  ok(disk.reads.parts > 0);
  strictEqual((disk.snapshots.get('acme') ?? []).length, 2);
  await second.runtime.close();
  const third = await openOn(disk, bounds);
  strictEqual(third.runtime.recovered.records, 0);
  await third.runtime.close();
});

/** A log of one tenant with two snapshots, and what its state must be. */
async function withSnapshots(): Promise<{ readonly disk: Disk; readonly stateHash: string }> {
  const disk = new Disk();
  const { runtime } = await openOn(disk, { snapshotRecordsMin: 20, checkpointRecords: 10 });
  for (let i = 0; i < 150; i++) await add(runtime, 'acme', `item-${i % 5}`);
  const { stateHash } = await runtime.state('acme');
  await runtime.close();
  strictEqual(disk.snapshots.get('acme')?.length, 2);
  return { disk, stateHash };
}

test('a snapshot that was changed, cut or mixed up is passed over, for the one before and at last for the log', async () => {
  const edits: readonly ((disk: Disk, newest: string) => void)[] = [
    (disk, newest) =>
      disk.parts.set(`${newest} 1`, (disk.parts.get(`${newest} 1`) ?? '').replace('"quantity":', '"quantity":1')),
    (disk, newest) => disk.parts.delete(`${newest} 0`),
    (disk, newest) => disk.parts.set(`${newest} 1`, disk.parts.get(`${newest} 0`) ?? ''),
    (disk, newest) => disk.parts.set(`${newest} 0`, (disk.parts.get(`${newest} 0`) ?? '').replace('acme', 'bolt')),
  ];
  for (const edit of edits) {
    for (const damagedCount of [1, 2]) {
      const { disk, stateHash } = await withSnapshots();
      const snapshots = disk.snapshots.get('acme') ?? [];
      for (const { position } of snapshots.slice(0, damagedCount)) edit(disk, `acme ${position}`);
      const { runtime, notices } = await openOn(disk, {});
      strictEqual((await runtime.state('acme')).stateHash, stateHash);
      strictEqual(notices.length, damagedCount, notices.join('\n'));
      await runtime.close();
    }
  }
});

test('a directory entry that is missing, shorter or older never makes an instance shorter', async () => {
  const { disk, stateHash } = await withSnapshots();
  const whole = new Map(disk.entries);
  const { checkpoint } = disk;
  ok(checkpoint !== undefined);
  // The guard of the stored directory is computed over what is there, as if its writer had been wrong.
  const older = { position: 100, chain: disk.chains[99] ?? '' };
  const edits: readonly (() => void)[] = [
    () => (disk.checkpoint = { ...checkpoint, mark: older }),
    () => {
      disk.entries.delete('acme');
      disk.checkpoint = { ...checkpoint, mark: older };
    },
  ];
  for (const edit of edits) {
    disk.entries.clear();
    for (const [instance, text] of whole) disk.entries.set(instance, text);
    edit();
    const { runtime, notices } = await openOn(disk, {});
    strictEqual(runtime.recovered.records, 150, 'the whole log is read');
    ok(
      notices.some((notice) => notice.includes('does not fit the log')),
      notices.join('\n'),
    );
    strictEqual((await runtime.state('acme')).stateHash, stateHash);
    await runtime.close();
  }
});

test('a checkpoint of another log, or newer than the log, is ignored in favour of the log', async () => {
  const { disk } = await withSnapshots();
  const other = await withSnapshots();
  disk.records.length = 120;
  disk.chains.length = 120;
  const { runtime, notices } = await openOn(disk, {});
  strictEqual(runtime.recovered.records, 120);
  strictEqual((await runtime.state('acme')).seq, 120);
  strictEqual(notices.length, 1);
  await runtime.close();
  other.disk.chains[149] = 'another chain';
  const second = await openOn(other.disk, {});
  strictEqual(second.runtime.recovered.records, 150);
  await second.runtime.close();
});

test('an instance that drifted is refused by itself, with evidence, and the others are served', async () => {
  const { disk } = await withSnapshots();
  const bolt = await openOn(disk, {});
  await add(bolt.runtime, 'bolt', 'nut');
  await bolt.runtime.close();
  disk.snapshots.clear();
  const at = disk.records[9];
  ok(at !== undefined);
  // A machine that evolves differently sees other hashes than the ones in the log.
  disk.records[9] = { ...at, head: at.head.replaceAll(/c2:[0-9a-f]{4}/g, 'c2:0000') };
  const added: [string, DriftEvidence][] = [];
  const has = (instance: string): boolean => added.some(([name]) => name === instance);
  const quarantine = { has, add: (instance: string, evidence: DriftEvidence) => void added.push([instance, evidence]) };
  const { runtime } = await openOn(disk, {}, { quarantine });
  const answer = await runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'x', quantity: 1 } });
  ok(answer.kind === 'rejected' && answer.fault.code === 'tenant-quarantined');
  strictEqual((await runtime.state('bolt')).seq, 1);
  deepStrictEqual(
    added.map(([name, { position, foundBy }]) => [name, position, foundBy]),
    [['acme', 10, 'hydration']],
  );
  await runtime.close();
});

test('an instance that is quarantined while it is being loaded is not served', async () => {
  const { disk } = await withSnapshots();
  const { runtime } = await openOn(disk, {});
  const hash = { seq: 150, stateHash: '', keysHash: '' };
  const waits = runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'x', quantity: 1 } });
  await turn();
  const reason = 'the replica came to another state';
  runtime.quarantineInstance('acme', { foundBy: 'replica', position: 150, recorded: hash, found: undefined, reason });
  for (const answer of [await waits, await runtime.query({ instance: 'acme', query: 'stock', input: {} })]) {
    ok(answer.kind === 'rejected' && answer.fault.code === 'tenant-quarantined', answer.kind);
  }
  await runtime.close();
});

test('an instance whose quarantine could not be ended after all is not served, though it is in memory', async () => {
  const quarantined = new Set<string>();
  const quarantine = { has: (instance: string) => quarantined.has(instance), add: () => {} };
  const { runtime } = await openOn(new Disk(), {}, { quarantine });
  await add(runtime, 'acme', 'nut');
  quarantined.add('acme');
  const answer = await runtime.query({ instance: 'acme', query: 'orders', input: {} });
  ok(answer.kind === 'rejected' && answer.fault.code === 'tenant-quarantined', answer.kind);
  await runtime.close();
});

test('a damaged record does not cost an instance its snapshots, which may be right', async () => {
  const { disk } = await withSnapshots();
  const snapshots = disk.snapshots.get('acme');
  const last = disk.records[149];
  ok(last !== undefined);
  disk.records[149] = { ...last, head: last.head.replaceAll(/c2:[0-9a-f]{4}/g, 'c2:0000') };
  const damaged = await openOn(disk, {});
  const answer = await damaged.runtime.execute({
    instance: 'acme',
    command: 'addStock',
    input: { item: 'x', quantity: 1 },
  });
  ok(answer.kind === 'rejected' && answer.fault.code === 'tenant-quarantined');
  await damaged.runtime.close();
  deepStrictEqual(disk.snapshots.get('acme'), snapshots);
});

test('a large state is written out and read back in slices, and others are answered between them', async () => {
  const disk = new Disk();
  const { runtime } = await openOn(disk, { snapshotRecordsMin: 20_000, checkpointRecords: 1_000_000 });
  const large = Array.from({ length: 30_000 }, (_, i) =>
    runtime.execute({ instance: 'acme', command: 'addStock', input: { item: `item-${i}`, quantity: 1 } }),
  );
  const refused = (await Promise.all(large)).filter(({ kind }) => kind !== 'accepted').length;
  for (let i = 0; i < refused; i++) await add(runtime, 'acme', `more-${i}`);
  while (runtime.residency.snapshots === 0) await add(runtime, 'acme', 'nut');
  await runtime.close();
  const second = await openOn(disk, {});
  let others = 0;
  const loaded = second.runtime.state('acme');
  const progress = { done: false };
  void loaded.then(() => (progress.done = true));
  while (!progress.done) {
    await add(second.runtime, 'bolt', 'nut');
    others += 1;
  }
  const { parts } = disk.snapshots.get('acme')?.[0] ?? { parts: 0 };
  ok(parts > 10, `${parts} parts`);
  ok(others >= parts / 8, `${others} others were answered while ${parts} parts were read`);
  await second.runtime.close();
});

const Note = Type.Object({ id: Type.String() });

/** Sets a timer with each note; when it is due, the note is marked and a message sent. */
const reminders = machine({
  name: 'reminders',
  version: 1,
  tables: { notes: table(Note, { key: 'id' }) },
  events: {
    noted: {
      data: Note,
      evolve: (state, event, effects) => {
        state.notes.insert(event);
        effects.schedule({ id: `remind-${event.id}`, at: 5_000, command: 'remind', input: event });
      },
    },
    reminded: {
      data: Note,
      evolve: (state, event, effects) => {
        state.notes.delete(event.id);
        effects.send({ topic: 'reminder', body: event });
      },
    },
  },
  commands: {
    note: { input: Note, decide: (_, input) => [{ type: 'noted', data: input }] },
    remind: { input: Note, decide: (_, input) => [{ type: 'reminded', data: input }] },
  },
});

test('timers fire of instances in memory, of evicted ones, and of ones that only the log knows after a crash', async () => {
  const disk = new Disk();
  let nowMs = 1_000;
  const more = { machineFor: () => reminders, nowMs: () => nowMs };
  const first = await openOn(disk, { ...tiny, checkpointRecords: 3 }, more);
  for (const instance of ['acme', 'bolt', 'coop', 'dyna']) {
    await first.runtime.execute({ instance, command: 'note', input: { id: '1' } });
  }
  const crashed = await openOn(disk, tiny, more);
  nowMs = 6_000;
  for (const instance of ['acme', 'bolt', 'coop', 'dyna']) {
    let sent = await crashed.runtime.messages(instance, { limit: 10 });
    while (sent.length === 0) {
      await turn();
      sent = await crashed.runtime.messages(instance, { limit: 10 });
    }
    deepStrictEqual(
      sent.map(({ topic, body }) => [topic, body]),
      [['reminder', { id: '1' }]],
    );
    const delivered = await crashed.runtime.messageDelivered(instance, sent[0]?.id ?? '');
    ok(delivered.kind === 'accepted' && delivered.events.length === 1);
    deepStrictEqual(await crashed.runtime.messages(instance, { limit: 10 }), []);
  }
  await crashed.runtime.close();
});
