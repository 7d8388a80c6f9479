import { readdirSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

/** One process as /proc shows it. The start time tells it from a later one with the same id. */
export interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  readonly startTicks: string;
  readonly zombie: boolean;
  readonly command: string;
}

function read(pid: number): ProcessInfo | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The program's name stands in brackets and may hold spaces and brackets: fields start after the last one.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    return { pid, parent: Number(fields[1]), startTicks: fields[19] ?? '', zombie: fields[0] === 'Z', command };
  } catch {
    return undefined;
  }
}

function everyProcess(): readonly ProcessInfo[] {
  return readdirSync('/proc').flatMap((entry) => {
    const info = /^\d+$/.test(entry) ? read(Number(entry)) : undefined;
    return info === undefined ? [] : [info];
  });
}

/** A process and all that descend from it, parents first. Empty if it is gone. */
export function treeOf(root: number): readonly ProcessInfo[] {
  const all = everyProcess();
  const found = all.filter(({ pid }) => pid === root);
  for (const parent of found) found.push(...all.filter((info) => info.parent === parent.pid && !found.includes(info)));
  return found;
}

/** Every live process whose environment holds `NAME=value`: finds orphans, which are in no tree any more. */
export function processesWith(name: string, value: string): readonly ProcessInfo[] {
  const wanted = `${name}=${value}`;
  return everyProcess().filter(({ pid, zombie }) => {
    try {
      return !zombie && readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(wanted);
    } catch {
      return false;
    }
  });
}

/** Whether this very process still runs; a zombie does not, although `kill(pid, 0)` finds it. */
export function runs(process: ProcessInfo): boolean {
  const now = read(process.pid);
  return now !== undefined && !now.zombie && now.startTicks === process.startTicks;
}

/** Sends SIGKILL; false if there was nobody left to receive it. */
export function killHard(pid: number): boolean {
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}

const pollIntervalMs = 20;

/** Waits until `probe` gives something other than undefined or false, and returns it; fails at the deadline. */
export async function eventually<T>(
  what: string,
  deadlineMs: number,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const began = performance.now();
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (performance.now() - began > deadlineMs) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await pause(pollIntervalMs);
  }
}

/** Lets time pass where the duration is the subject of the test, never to wait for something. */
export async function hold(durationMs: number): Promise<void> {
  await pause(durationMs);
}

const portMin = 20_000;
const portMax = 32_000;
let nextPort = portMin + (process.pid % (portMax - portMin));

/** A port of 127.0.0.1 that nobody uses, below the range from which the kernel takes ports of outgoing connections. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < portMax - portMin; tries += 1) {
    const port = nextPort;
    nextPort = nextPort + 1 > portMax ? portMin : nextPort + 1;
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port between ${portMin} and ${portMax}`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Whether somebody accepts connections there. */
export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
