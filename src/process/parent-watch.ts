import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { limits } from '../protocol/limits.ts';

/** What `endWithParent` tells its thread when the process is to be gone at once. */
export const endNow = 'end-now';

/** A process gets another parent only when its parent died. */
const lookEveryMs = 250;
/** Leaves the main thread its time to stop by itself, and keeps the process within its bound. */
const killAfterMs = limits.orphanLifeMsMax - 1_000;

/** The thread of `endWithParent`. */
function watchParent(parentPid: number): void {
  const kill = (): boolean => process.kill(process.pid, 'SIGKILL');
  parentPort?.on('message', (message) => {
    if (message === endNow) kill();
  });
  const looking = setInterval(() => {
    if (process.ppid === parentPid) return;
    clearInterval(looking);
    setTimeout(kill, killAfterMs);
  }, lookEveryMs);
}

/** Checked by hand: a schema library would make this thread cost as much as the process. */
function isOrder(value: unknown): value is { readonly parentPid: number } {
  return typeof value === 'object' && value !== null && 'parentPid' in value && typeof value.parentPid === 'number';
}

const order: unknown = workerData;
// Another thread that imports this file is not that one.
if (!isMainThread && isOrder(order)) watchParent(order.parentPid);
