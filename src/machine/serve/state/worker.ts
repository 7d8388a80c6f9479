import { parentPort, workerData } from 'node:worker_threads';
import { assert, unreachable } from '../../../kernel/assert.ts';
import { isPlainObject } from '../../decide/state/value.ts';
import { StateFile, StateLoad } from './file.ts';
import type { FromStateWorker, ToStateWorker } from './messages.ts';

/**
 * The thread that owns `state.db`, so that neither its writes nor its syncs ever delay a batch of the log. It reads the
 * directory, then writes and reads as it is asked, and answers strictly in the order of its messages.
 */
const port = parentPort;
assert(port !== null, 'this module is the body of a worker thread');
const given: unknown = workerData;
const { folder, owner } = isPlainObject(given) ? given : {};
assert(typeof folder === 'string' && typeof owner === 'string', 'the worker is given a StatePlace');
const place = { folder, owner };

let load: StateLoad | undefined;
let file: StateFile | undefined;

port.on('message', (message: ToStateWorker) => {
  let answered: FromStateWorker;
  try {
    answered = answer(message);
  } catch (thrown) {
    answered = { type: 'failed', message: thrown instanceof Error ? thrown.message : String(thrown) };
  }
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  port.postMessage(answered);
});

function opened(): StateFile {
  assert(file !== undefined, 'a state file is opened for writing before it is used');
  return file;
}

const done = { type: 'done' } as const;

function answer(message: ToStateWorker): FromStateWorker {
  switch (message.type) {
    case 'load':
      load = new StateLoad(place);
      return { type: 'loaded', checkpoint: load.checkpoint, why: load.why };
    case 'entries':
      return { type: 'entries', entries: load?.entries(message.count) ?? [] };
    case 'serve':
      load?.close();
      load = undefined;
      file = new StateFile(place, message.keep);
      return done;
    case 'put':
      opened().put(message.entries);
      return done;
    case 'checkpoint':
      opened().checkpoint(message.mark, message.nowMs);
      return done;
    case 'putPart':
      opened().putPart(message.instance, message.position, message.number, message.text);
      return done;
    case 'snapshot':
      opened().snapshot(message.instance, message.position, message.parts);
      return done;
    case 'snapshots':
      return { type: 'snapshots', snapshots: opened().snapshots(message.instance) };
    case 'part':
      return { type: 'part', text: opened().part(message.instance, message.position, message.number) };
    case 'drop':
      opened().drop(message.instance, message.position);
      return done;
    case 'erase':
      opened().erase(message.instance);
      return done;
    case 'close':
      load?.close();
      file?.close();
      load = undefined;
      file = undefined;
      return done;
    default:
      return unreachable(message, 'unknown message to the state file');
  }
}
