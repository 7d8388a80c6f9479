import { spawn } from 'node:child_process';
import { endProcesses, instanceVariable, workloadGraceMs, type WorkloadMark } from '../../process/descendants.ts';

/** What a cell asks of its guardian, once. The end of the channel asks it to end the workload. */
export interface GuardOrder {
  readonly instance: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly directory: string;
}

/** What a guardian tells its cell. `ended` is the last word: nothing of the workload is left. */
export type GuardReport =
  | { readonly type: 'started'; readonly group: number }
  | { readonly type: 'ended'; readonly reason: string };

/**
 * The guardian process: runs a workload in a process group of its own and outlives the cell for
 * as long as it takes to end that group. It holds no state, imports nearly nothing, and ends
 * when the workload ends, when the cell asks, or when the cell is gone.
 */
export function runGuardian(): void {
  let mark: WorkloadMark | undefined;
  let ending = false;

  function report(message: GuardReport): Promise<void> {
    return new Promise((resolve) => {
      if (!process.connected || process.send === undefined) resolve();
      else process.send(message, () => resolve());
    });
  }

  async function end(reason: string): Promise<void> {
    if (ending) return;
    ending = true;
    if (mark !== undefined) await endProcesses(mark, workloadGraceMs);
    await report({ type: 'ended', reason });
    process.exit(0);
  }

  process.on('disconnect', () => void end('the cell is gone'));
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, () => void end(`got ${name}`));
  process.once('message', (order: GuardOrder) => {
    if (ending) return;
    const [program = '', ...parameters] = order.command;
    const child = spawn(program, parameters, {
      cwd: order.directory,
      env: { ...order.env, [instanceVariable]: order.instance },
      // A group, and a session, of its own: signals to the cell's terminal do not reach it.
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    mark = { instance: order.instance, group: child.pid };
    child.once('error', (error) => void end(`it could not be started: ${error.message}`));
    child.once('exit', (code, signal) => {
      void end(signal === null ? `it ended with exit code ${code}` : `it ended by ${signal}`);
    });
    if (child.pid !== undefined) void report({ type: 'started', group: child.pid });
  });
}
