import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Finding and ending every process of one workload: its process group, and what left the group but
 * still carries the environment that it was started with (Linux, `/proc/PID/environ`). A process
 * that both leaves the group and is started with an emptied environment is not found.
 */
export const instanceVariable = 'CELLWRIGHT_INSTANCE';

/** What a workload gets between SIGTERM and SIGKILL. */
export const workloadGraceMs = 1_000;
/** After SIGKILL the kernel needs no longer than this, unless the process hangs in a system call. */
const killedLifeMsMax = 1_500;
const pollMs = 20;

export interface WorkloadMark {
  /** Unique to one start of the workload; every process of it has it in its environment. */
  readonly instance: string;
  /** Its process group; unknown when only the instance was recorded. */
  readonly group: number | undefined;
}

/** Processes of the workload that still run (zombies do not). O(processes of the machine). */
export function findProcesses(mark: WorkloadMark): readonly number[] {
  if (process.platform !== 'linux') return mark.group !== undefined && isGroupAlive(mark.group) ? [mark.group] : [];
  const needle = `${instanceVariable}=${mark.instance}`;
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .filter((pid) => {
      const stat = statOf(pid);
      if (stat === undefined || stat.state === 'Z' || stat.state === 'X') return false;
      return stat.group === mark.group || carries(pid, needle);
    });
}

/**
 * Ends every process of the workload: SIGTERM, after `graceMs` SIGKILL, until none is left.
 * Returns those that survive even that, which is empty unless the kernel itself hangs.
 */
export async function endProcesses(mark: WorkloadMark, graceMs: number): Promise<readonly number[]> {
  const startMs = performance.now();
  const terminated = new Set<number>();
  for (;;) {
    const alive = findProcesses(mark);
    const elapsedMs = performance.now() - startMs;
    if (alive.length === 0 || elapsedMs > graceMs + killedLifeMsMax) return alive;
    for (const pid of alive) {
      if (elapsedMs >= graceMs) signal(mark, pid, 'SIGKILL');
      else if (!terminated.has(pid)) signal(mark, pid, 'SIGTERM');
      terminated.add(pid);
    }
    await delay(pollMs);
  }
}

function signal(mark: WorkloadMark, pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(process.platform !== 'linux' && pid === mark.group ? -pid : pid, name);
  } catch {
    // It ended by itself since it was listed.
  }
}

function isGroupAlive(group: number): boolean {
  try {
    process.kill(-group, 0);
    return true;
  } catch {
    return false;
  }
}

function statOf(pid: number): { readonly state: string; readonly group: number } | undefined {
  const text = read(`/proc/${pid}/stat`);
  // The name in parentheses may hold anything, also parentheses; what follows the last one is fixed.
  const [state, , group] = text?.slice(text.lastIndexOf(')') + 2).split(' ') ?? [];
  return state === undefined || group === undefined ? undefined : { state, group: Number(group) };
}

function carries(pid: number, needle: string): boolean {
  return read(`/proc/${pid}/environ`)?.split('\0').includes(needle) ?? false;
}

/** Text of a /proc file; undefined if the process is gone or belongs to somebody else. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
