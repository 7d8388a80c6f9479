import { test } from 'node:test';
import { deepStrictEqual, ok, rejects, strictEqual } from 'node:assert/strict';
import { orders } from '../../../examples/orders/machine.ts';
import type { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { decodeHead } from '../decide/log/record.ts';
import type { StoredRecord, WalkedRecord } from './log/files.ts';
import type { Log, LogEvents, LogPlace, Replay } from './log/log.ts';
import { openRuntime, type Committed, type Runtime, type RuntimeOptions } from './runtime.ts';

/** A log whose disk is as slow as a test wants: nothing is durable before `sync`. */
class HeldLog implements Log {
  readonly records: StoredRecord[] = [];
  readonly batches: number[] = [];
  events: LogEvents | undefined;
  closed = false;
  last = { position: 0, chain: '' };

  readonly open = async (_: LogPlace, replay: Replay, events: LogEvents): Promise<Log> => {
    replay([], { position: 0, chain: '' });
    this.events = events;
    return this;
  };

  write(heads: readonly string[], payloads: readonly string[]): void {
    heads.forEach((head, i) => {
      this.records.push({ position: this.records.length + 1, head, payload: payloads[i] ?? '' });
    });
    this.batches.push(this.records.length);
  }

  async read(positions: readonly number[]): Promise<readonly StoredRecord[]> {
    return this.records.filter(({ position }) => positions.includes(position));
  }

  async walk(position: number, count: number): Promise<readonly WalkedRecord[]> {
    const walked: WalkedRecord[] = [];
    for (let at = position; at > 0 && walked.length < count; at = walked.at(-1)?.previous ?? 0) {
      const { previous, seqBefore, hashes } = decodeHead(at, this.records[at - 1]?.head ?? '');
      walked.push({ position: at, previous, seqBefore, seqAfter: seqBefore + hashes.length - 1 });
    }
    return walked;
  }

  readonly erased = [];

  async erase(): Promise<readonly []> {
    return [];
  }

  async archive(): Promise<{ readonly upTo: number; readonly removedUpTo: number }> {
    return { upTo: 0, removedUpTo: 0 };
  }

  probes = 0;

  probe(): void {
    this.probes += 1;
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  /** Makes the batch in flight durable. */
  sync(): void {
    const upTo = this.batches.shift();
    ok(upTo !== undefined, 'no batch is in flight');
    this.events?.durable(upTo);
  }
}

async function held(options: Partial<RuntimeOptions> = {}): Promise<{
  readonly log: HeldLog;
  readonly runtime: Runtime;
  readonly stops: Fault[];
}> {
  const log = new HeldLog();
  const stops: Fault[] = [];
  const runtime = await openRuntime(
    {
      folder: 'nowhere',
      owner: 'test/log',
      mustExist: false,
      machineFor: () => orders,
      nowMs: () => 1_000,
      onStopped: (reason) => stops.push(reason),
      ...options,
    },
    log.open,
  );
  return { log, runtime, stops };
}

function add(runtime: Runtime) {
  return runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'nut', quantity: 1 } });
}

/** After everything that could happen without the disk has happened. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

/** Notes when each of these promises settles. */
function watched(named: Readonly<Record<string, Promise<unknown>>>): string[] {
  const done: string[] = [];
  const note = (name: string) => (): void => void done.push(name);
  for (const [name, promise] of Object.entries(named)) promise.then(note(name), note(`${name} failed`));
  return done;
}

test('no answer, accepted, refused or read, leaves before what it saw is on disk', async () => {
  const { log, runtime } = await held();
  const done = watched({
    command: add(runtime),
    state: runtime.state('acme'),
    query: runtime.query({ instance: 'acme', query: 'stock', input: {} }),
    wrongQuery: runtime.query({ instance: 'acme', query: 'nothing', input: {} }),
    refusal: runtime.execute({ instance: 'acme', command: 'cancelOrder', input: { id: '1' } }),
    stranger: runtime.state('bolt'),
  });
  await settled();
  deepStrictEqual(log.batches, [2], 'the command and the refusal');
  deepStrictEqual(done, ['stranger'], 'only what saw nothing of the record may leave');
  log.sync();
  await settled();
  deepStrictEqual(done.toSorted(), ['command', 'query', 'refusal', 'state', 'stranger', 'wrongQuery']);
  await runtime.close();
});

test('history, the list of instances and subscribers show only what is on disk', async () => {
  const { log, runtime } = await held();
  const seen: Committed[] = [];
  runtime.subscribe('acme', (record) => seen.push(record));
  const answer = add(runtime);
  await settled();
  deepStrictEqual(await runtime.history('acme', { afterSeq: 0, limit: 10 }), []);
  deepStrictEqual(runtime.instances(), []);
  strictEqual(seen.length, 0);
  void answer.then(() => strictEqual(seen.length, 1, 'subscribers are told before the answer leaves'));
  log.sync();
  await answer;
  strictEqual((await runtime.history('acme', { afterSeq: 0, limit: 10 })).length, 1);
  deepStrictEqual(runtime.instances(), ['acme']);
  await runtime.close();
});

test('what arrives while a batch is written waits for the next, and closing waits for both', async () => {
  const { log, runtime } = await held();
  const first = add(runtime);
  await settled();
  const second = add(runtime);
  const done = watched({ first, second, closed: runtime.close() });
  await settled();
  log.sync();
  await settled();
  deepStrictEqual(done, ['first']);
  strictEqual(log.closed, false);
  log.sync();
  await settled();
  deepStrictEqual(done, ['first', 'second', 'closed']);
  strictEqual(log.closed, true);
});

test('after a failed write nothing that waited is acknowledged, and the process is told once', async () => {
  const { log, runtime, stops } = await held();
  const command = add(runtime);
  const state = runtime.state('acme');
  await settled();
  log.events?.failed(fault('internal', 'the disk is full'));
  const answer = await command;
  ok(answer.kind === 'rejected' && answer.fault.code === 'outcome-unknown');
  await rejects(state, { code: 'log-stopped' });
  const late = await add(runtime);
  ok(late.kind === 'rejected' && late.fault.code === 'log-stopped');
  deepStrictEqual(
    stops.map(({ code }) => code),
    ['log-stopped'],
  );
  await runtime.close();
});

test('a defect that leaves memory and log apart stops the runtime instead of going on', async () => {
  let now = 1_000;
  const { log, runtime, stops } = await held({ nowMs: () => now });
  const waiting = add(runtime);
  await settled();
  now = Number.NaN;
  const broken = await add(runtime);
  ok(broken.kind === 'rejected' && broken.fault.code === 'internal');
  const answer = await waiting;
  ok(answer.kind === 'rejected' && answer.fault.code === 'outcome-unknown');
  log.sync();
  strictEqual(stops.length, 1);
  await runtime.close();
});
