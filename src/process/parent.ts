import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { endNow } from './parent-watch.ts';

/**
 * Calls back once when the process at the other end of the IPC channel is gone (also by SIGKILL:
 * the kernel closes its end). Does nothing for a process that was started without a channel, and
 * does not keep this process alive.
 *
 * The command line uses it too: a launcher that runs under an older Node stays as the parent, with a
 * channel to the Node that does the work.
 */
export function onParentGone(listener: () => void): void {
  // A parent that is gone already took the channel with it; only `connected` still tells that there was one.
  const hadChannel = typeof process.connected === 'boolean';
  if (hadChannel && !process.connected) {
    queueMicrotask(listener);
    return;
  }
  if (process.channel === undefined || process.channel === null) return;
  process.once('disconnect', listener);
  process.channel.unref();
}

/**
 * Makes sure that this process ends within `limits.orphanLifeMsMax` of its parent, even while its
 * own event loop is blocked by a handler that never returns: a thread compares the parent's process
 * id and kills the whole process. Costs one thread and a look a quarter of a second.
 *
 * Returns how to be killed at once. A process cannot do that to itself: Node writes its cache of
 * compiled modules before it exits, also before it signals itself, which took seconds on a slow disk.
 */
export function endWithParent(): () => void {
  const file = fileURLToPath(new URL(`./parent-watch${extname(import.meta.url)}`, import.meta.url));
  const worker = new Worker(file, {
    workerData: { parentPid: process.ppid },
    execArgv: [],
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  });
  worker.on('error', () => undefined);
  worker.unref();
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  return () => worker.postMessage(endNow);
}
