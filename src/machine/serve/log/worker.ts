import { parentPort, workerData } from 'node:worker_threads';
import { isPlainObject } from '../../decide/state/value.ts';
import { assert, unreachable } from '../../../kernel/assert.ts';
import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import { asOpenFault, createIfMissing, isFull, logFiles } from './files.ts';
import type { FromWorker, ToWorker } from './messages.ts';
import { LogProof } from './proof.ts';
import { leaveFailure, recover } from './recovery.ts';
import { LogWriter } from './writer.ts';
import type { Mark } from './mark.ts';

/**
 * The thread that owns a log's files. It proves the log page by page, then writes batch by batch, and
 * answers strictly in the order of its messages. After a failed write it answers nothing more.
 */
const port = parentPort;
assert(port !== null, 'this module is the body of a worker thread');
const place: unknown = workerData;
const { folder, owner, mustExist, from } = isPlainObject(place) ? place : {};
assert(
  typeof folder === 'string' && typeof owner === 'string' && typeof mustExist === 'boolean',
  'the worker is given a LogPlace',
);
const identity = { owner, mustExist };
const checkpoint = markOf(from);

type Phase =
  | { readonly name: 'idle' }
  | { readonly name: 'proving'; readonly proof: LogProof }
  | { readonly name: 'writing'; readonly writer: LogWriter }
  | { readonly name: 'stopped' };
let phase: Phase = { name: 'idle' };
const files = logFiles(folder);
const jobs: Job[] = [];

port.on('message', (message: ToWorker) => {
  if (phase.name === 'stopped') return;
  try {
    const answered = answer(message);
    if (answered !== undefined) post(answered);
    if (message.type === 'write' && phase.name === 'writing') phase.writer.maintain();
  } catch (thrown) {
    stop(thrown);
  }
});

function stop(thrown: unknown): void {
  if (phase.name === 'proving') phase.proof.close();
  if (phase.name === 'writing') leaveFailure(files, thrown);
  phase = { name: 'stopped' };
  post(failureOf(thrown));
}

/** Work that takes long: a step of it at a time, so that batches and reads come between. */
interface Job {
  readonly id: number;
  readonly steps: Generator<undefined, FromWorker>;
}

function begin(id: number, steps: Job['steps']): undefined {
  jobs.push({ id, steps });
  if (jobs.length === 1) setImmediate(advance);
}

function advance(): void {
  const [job] = jobs;
  if (job === undefined || phase.name !== 'writing') return;
  try {
    const { done, value } = job.steps.next();
    if (done === true) {
      jobs.shift();
      post(value);
    }
  } catch (thrown) {
    if (!(thrown instanceof Fault) && !isFull(thrown)) {
      stop(thrown);
      return;
    }
    phase.writer.rollback();
    jobs.shift();
    const refused = isFull(thrown) ? fault('log-full', 'The disk is full; what was begun is done later') : thrown;
    post({ ...failureOf(refused), type: 'unread', id: job.id });
  }
  setImmediate(advance);
}

function* erase(writer: LogWriter, id: number): Job['steps'] {
  return { type: 'erased', id, erased: yield* writer.erase() };
}

function* archive(writer: LogWriter, { id, upTo, retention }: Extract<ToWorker, { type: 'archive' }>): Job['steps'] {
  return { type: 'archived', id, archive: yield* writer.archive(upTo, retention) };
}

function failureOf(thrown: unknown): Extract<FromWorker, { type: 'failed' }> {
  if (thrown instanceof Fault)
    return { type: 'failed', code: thrown.code, message: thrown.message, field: thrown.field };
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return { type: 'failed', code: 'internal', message, field: undefined };
}

function markOf(value: unknown): Mark | undefined {
  if (!isPlainObject(value)) return undefined;
  const { position, chain } = value;
  assert(typeof position === 'number' && typeof chain === 'string', 'a checkpoint is a position and its chain');
  return { position, chain };
}

/** Reading what cannot be proven fails the reader alone: nothing was written, so the log is as it was. */
function readRecords(id: number, read: () => FromWorker): FromWorker {
  try {
    return read();
  } catch (thrown) {
    return { ...failureOf(asOpenFault(files, thrown)), type: 'unread', id };
  }
}

function readOf(writer: LogWriter, { id, positions }: Extract<ToWorker, { type: 'read' }>): () => FromWorker {
  return () => ({ type: 'read', id, records: writer.read(positions) });
}

function walkOf(writer: LogWriter, { id, position, count }: Extract<ToWorker, { type: 'walk' }>): () => FromWorker {
  return () => ({ type: 'walk', id, records: writer.walk(position, count) });
}

function post(message: FromWorker): void {
  port?.postMessage(message);
}

function answer(message: ToWorker): FromWorker | undefined {
  switch (message.type) {
    case 'next': {
      if (phase.name === 'idle') {
        recover(files, identity);
        createIfMissing(files, identity);
        phase = { name: 'proving', proof: new LogProof(files, identity, { from: checkpoint }) };
      }
      assert(phase.name === 'proving', 'pages are read before the log is served');
      const records = phase.proof.read(message.count);
      return { type: 'page', start: phase.proof.start, records, done: records.length < message.count };
    }
    case 'serve': {
      assert(phase.name === 'proving', 'a log is served only after it was proven');
      const end = phase.proof.end();
      phase.proof.close();
      phase = { name: 'idle' };
      const writer = new LogWriter(files, end, identity.owner);
      phase = { name: 'writing', writer };
      return { type: 'serving', last: writer.last, erased: writer.erased };
    }
    case 'write': {
      assert(phase.name === 'writing', 'only a served log is written');
      const { heads, payloads } = recordsIn(message.lines, message.count);
      const last = phase.writer.append(heads, payloads);
      return last === undefined ? { type: 'full' } : { type: 'durable', last };
    }
    case 'probe':
      assert(phase.name === 'writing', 'only a served log is written');
      return { type: 'space', room: phase.writer.probe() };
    case 'read':
      assert(phase.name === 'writing', 'only a served log is read');
      return readRecords(message.id, readOf(phase.writer, message));
    case 'walk':
      assert(phase.name === 'writing', 'only a served log is read');
      return readRecords(message.id, walkOf(phase.writer, message));
    case 'erase':
      assert(phase.name === 'writing', 'only a served log is written');
      return begin(message.id, erase(phase.writer, message.id));
    case 'archive':
      assert(phase.name === 'writing', 'only a served log is written');
      return begin(message.id, archive(phase.writer, message));
    case 'close':
      if (phase.name === 'proving') phase.proof.close();
      if (phase.name === 'writing') phase.writer.close();
      phase = { name: 'stopped' };
      port?.unref();
      return { type: 'closed' };
    default:
      return unreachable(message, 'unknown message to the log');
  }
}

function recordsIn(lines: string, count: number): { readonly heads: string[]; readonly payloads: string[] } {
  const parts = lines.split('\n');
  assert(parts.length === 2 * count + 1, 'heads and payloads are JSON, which has no line feed of its own');
  const heads: string[] = [];
  const payloads: string[] = [];
  for (let i = 0; i < count; i++) {
    heads.push(parts[2 * i] ?? '');
    payloads.push(parts[2 * i + 1] ?? '');
  }
  return { heads, payloads };
}
