import { parentPort, workerData } from 'node:worker_threads';
import { isPlainObject } from '../decide/value.ts';
import { assert, unreachable } from '../../kernel/assert.ts';
import { Fault } from '../../kernel/fault.ts';
import { createIfMissing, logFiles, LogProof, LogWriter } from './log-file.ts';
import type { FromWorker, ToWorker } from './log-messages.ts';

/**
 * The thread that owns a log's files. It proves the log page by page, then writes batch by batch, and
 * answers strictly in the order of its messages. After a failed write it answers nothing more.
 */
const port = parentPort;
assert(port !== null, 'this module is the body of a worker thread');
const place: unknown = workerData;
const { folder, owner, mustExist } = isPlainObject(place) ? place : {};
assert(
  typeof folder === 'string' && typeof owner === 'string' && typeof mustExist === 'boolean',
  'the worker is given a LogPlace',
);
const identity = { owner, mustExist };

type Phase =
  | { readonly name: 'idle' }
  | { readonly name: 'proving'; readonly proof: LogProof }
  | { readonly name: 'writing'; readonly writer: LogWriter }
  | { readonly name: 'stopped' };
let phase: Phase = { name: 'idle' };
const files = logFiles(folder);

port.on('message', (message: ToWorker) => {
  if (phase.name === 'stopped') return;
  try {
    post(answer(message));
  } catch (thrown) {
    if (phase.name === 'proving') phase.proof.close();
    phase = { name: 'stopped' };
    post(failureOf(thrown));
  }
});

function failureOf(thrown: unknown): FromWorker {
  if (thrown instanceof Fault)
    return { type: 'failed', code: thrown.code, message: thrown.message, field: thrown.field };
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return { type: 'failed', code: 'internal', message, field: undefined };
}

function post(message: FromWorker): void {
  port?.postMessage(message);
}

function answer(message: ToWorker): FromWorker {
  switch (message.type) {
    case 'next': {
      if (phase.name === 'idle') {
        createIfMissing(files, identity);
        phase = { name: 'proving', proof: new LogProof(files, identity) };
      }
      assert(phase.name === 'proving', 'pages are read before the log is served');
      const records = phase.proof.read(message.count);
      return { type: 'page', records, done: records.length < message.count };
    }
    case 'serve': {
      assert(phase.name === 'proving', 'a log is served only after it was proven');
      const end = phase.proof.end();
      phase.proof.close();
      phase = { name: 'idle' };
      const writer = new LogWriter(files, end);
      phase = { name: 'writing', writer };
      return { type: 'serving' };
    }
    case 'write':
      assert(phase.name === 'writing', 'only a served log is written');
      return { type: 'durable', position: phase.writer.append(message.heads, message.payloads) };
    case 'read':
      assert(phase.name === 'writing', 'only a served log is read');
      return { type: 'read', id: message.id, records: phase.writer.read(message.positions) };
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
