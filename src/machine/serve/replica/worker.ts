import { parentPort, workerData } from 'node:worker_threads';
import { assert, unreachable } from '../../../kernel/assert.ts';
import type { Machine } from '../../decide/definition/machine.ts';
import { Follower } from '../../decide/replica/follower.ts';
import { isPlainObject, messageOf } from '../../decide/state/value.ts';
import type { FromReplica, ToReplica } from './messages.ts';

/**
 * The thread of a verifying replica: modules, and so whatever handlers keep outside their tables, are its own. It
 * answers every batch once, and whatever happens in it harms nobody else.
 */
const port = parentPort;
assert(port !== null, 'this module is the body of a worker thread');
const { module, loader, data } = isPlainObject(workerData) ? workerData : {};
assert(typeof module === 'string' && typeof loader === 'string', 'the worker is given a ReplicaSource');

type MachineFor = (instance: string) => Machine | undefined;

async function loadMachines(url: string, name: string): Promise<MachineFor> {
  const loaded: unknown = await import(url);
  const load: unknown = typeof loaded === 'object' && loaded !== null ? Reflect.get(loaded, name) : undefined;
  assert(isLoader(load), `${url} exports a function ${name}`);
  return load(data);
}

function isLoader(value: unknown): value is (data: unknown) => Promise<MachineFor> {
  return typeof value === 'function';
}

function post(message: FromReplica): void {
  port?.postMessage(message);
}

let follower: Follower | undefined;

port.on('message', (message: ToReplica) => {
  if (follower !== undefined) take(follower, message);
});

function take(replica: Follower, message: ToReplica): void {
  switch (message.type) {
    case 'records':
      for (const news of replica.apply(message.records)) post(news);
      return;
    case 'forget':
      replica.forget(message.instance);
      return;
    case 'text':
      replica.read(message.instance, message.text);
      return;
    case 'state': {
      const news = replica.start(message.instance, message.position);
      if (news !== undefined) post(news);
      return;
    }
    case 'compare': {
      const states = replica.compare(message.instance);
      if (states !== undefined) post({ type: 'compared', instance: message.instance, states });
      return;
    }
    case 'end':
      post({ type: 'done', verified: replica.takeVerified() });
      return;
    default:
      unreachable(message, 'unknown message to the replica');
  }
}

try {
  follower = new Follower(await loadMachines(module, loader));
  post({ type: 'ready' });
} catch (thrown) {
  post({ type: 'unloadable', message: messageOf(thrown) });
}
