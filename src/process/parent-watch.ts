import { workerData } from 'node:worker_threads';
import { limits } from '../protocol/limits.ts';

/** A thread of `endWithParent`: a process gets another parent only when its parent died. */
const lookEveryMs = 250;
/** Leaves the main thread its time to stop by itself, and keeps the process within its bound. */
const killAfterMs = limits.orphanLifeMsMax - 1_000;

const parentPid: unknown = workerData?.parentPid;

const looking = setInterval(() => {
  if (process.ppid === parentPid) return;
  clearInterval(looking);
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), killAfterMs);
}, lookEveryMs);
