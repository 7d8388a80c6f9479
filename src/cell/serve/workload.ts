import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { request } from 'node:http';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import type { Workload } from '../../protocol/resources.ts';
import { endProcesses, workloadGraceMs } from '../../process/descendants.ts';
import { endLeftWorkload, recordWorkload } from '../../process/left-workload.ts';
import { backoffMs } from '../decide/backoff.ts';
import type { GuardOrder } from './guard.ts';

/** How often health is asked while the application starts, and once it is healthy. */
const startingPollMs = 50;
const healthyPollMs = 1_000;
/** How long one health check may take. */
const healthTimeoutMs = 2_000;
/** Health checks that fail in a row before a healthy application counts as down. */
const failuresUntilDown = 3;
/** Starts in a row that never became healthy before the cell says that it refuses. */
const startsUntilSettled = 3;

const ReportSchema = Type.Union([
  Type.Object({ type: Type.Literal('started'), group: Type.Integer({ minimum: 2 }) }),
  Type.Object({ type: Type.Literal('ended'), reason: Type.String() }),
]);

/** The only variables of the cell's own environment that a workload gets; the blueprint adds to them. */
const inheritedVariables = ['PATH', 'HOME', 'LANG', 'TZ'];

export interface WorkloadOptions {
  readonly workload: Workload;
  readonly cell: string;
  /** The cell's folder; the workload's data is its folder `workload`. */
  readonly folder: string;
  readonly port: number;
  /** Module that calls runGuardian: `main/guardian`. */
  readonly guardianFile: string;
  /** Called when `down` changed, and with how many starts in a row failed. */
  readonly onChange: (change: { readonly down: string | undefined; readonly hopeless: boolean }) => void;
}

export interface RunningWorkload {
  /** Why it does not answer; undefined while it is healthy. */
  readonly down: string | undefined;
  /** Ends it with everything that it started. */
  stop(): Promise<void>;
}

/** Ends what an earlier life of this cell left running, then keeps the workload running until stopped. */
export async function startWorkload(options: WorkloadOptions): Promise<RunningWorkload> {
  const supervisor = new Supervisor(options);
  await endLeftWorkload(options.folder);
  await mkdir(join(options.folder, 'workload'), { recursive: true });
  void supervisor.run();
  return supervisor;
}

class Supervisor implements RunningWorkload {
  down: string | undefined = 'It is starting.';
  readonly #options: WorkloadOptions;
  readonly #stopping = new AbortController();
  readonly #finished = Promise.withResolvers<void>();
  #failedStarts = 0;

  constructor(options: WorkloadOptions) {
    this.#options = options;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#finished.promise;
  }

  async run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      let reason: string;
      try {
        reason = await this.#live();
      } catch (thrown) {
        reason = thrown instanceof Error ? thrown.message : String(thrown);
      }
      if (signal.aborted) break;
      this.#failedStarts += 1;
      const delayMs = backoffMs(this.#failedStarts, Math.random());
      this.#say(`It is not running: ${reason}. It is started again in ${delayMs} ms; its output is in the cell's log.`);
      await pause(delayMs, signal);
    }
    this.#finished.resolve();
  }

  /** One life of the workload, from its start until nothing of it is left. Returns why it ended. */
  async #live(): Promise<string> {
    const { folder, guardianFile, port } = this.#options;
    const instance = randomUUID();
    await assertPortFree(port);
    await recordWorkload(folder, instance);
    if (this.#stopping.signal.aborted) return 'the cell stops';
    const guardian = fork(guardianFile, [], {
      env: environment(new Map()),
      execArgv: [],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const life = new AbortController();
    const ended = outcomeOf(guardian);
    const stop = () => guardian.connected && guardian.disconnect();
    this.#stopping.signal.addEventListener('abort', stop);
    guardian.send(this.#order(instance));
    const watching = this.#watchHealth(life.signal);
    const { reason, group, clean } = await ended;
    life.abort();
    this.#stopping.signal.removeEventListener('abort', stop);
    await watching;
    // Whoever ended the guardian did not end the workload: its last duty falls to the cell.
    if (!clean) await endProcesses({ instance, group }, workloadGraceMs);
    return reason;
  }

  #order(instance: string): GuardOrder {
    const { workload, cell, folder, port } = this.#options;
    const values: Readonly<Record<string, string>> = { port: String(port), data: join(folder, 'workload'), cell };
    const fill = (text: string) =>
      text.replace(/\{(port|data|cell)\}/g, (whole, name: string) => values[name] ?? whole);
    const given = new Map(Object.entries(workload.env ?? {}).map(([name, value]) => [name, fill(value)] as const));
    return {
      instance,
      command: workload.command.map(fill),
      env: environment(given),
      directory: workload.directory ?? join(folder, 'workload'),
    };
  }

  async #watchHealth(ended: AbortSignal): Promise<void> {
    let failures = 0;
    while (!ended.aborted) {
      const problem = await checkHealth(this.#options.port, this.#options.workload.health, ended);
      if (ended.aborted) break;
      if (problem === undefined) {
        failures = 0;
        this.#failedStarts = 0;
        this.#say(undefined);
      } else {
        failures += 1;
        if (this.down !== undefined || failures >= failuresUntilDown) this.#say(problem);
      }
      await pause(this.down === undefined ? healthyPollMs : startingPollMs, ended);
    }
  }

  #say(down: string | undefined): void {
    const hopeless = down !== undefined && this.#failedStarts >= startsUntilSettled;
    if (this.#stopping.signal.aborted || (down === this.down && !hopeless)) return;
    this.down = down;
    this.#options.onChange({ down, hopeless });
  }
}

/** How a guardian ended: `clean` if it said itself that nothing of the workload is left. */
function outcomeOf(
  guardian: ChildProcess,
): Promise<{ readonly reason: string; readonly group: number | undefined; readonly clean: boolean }> {
  return new Promise((resolve) => {
    let group: number | undefined;
    let reason: string | undefined;
    guardian.on('message', (message) => {
      if (!Value.Check(ReportSchema, message)) return;
      if (message.type === 'started') group = message.group;
      else reason = message.reason;
    });
    guardian.once('error', (error) =>
      resolve({ reason: `its guardian failed: ${error.message}`, group, clean: false }),
    );
    guardian.once('exit', (code, signal) => {
      if (reason !== undefined) resolve({ reason, group, clean: true });
      else if (code === 0) resolve({ reason: 'the cell stops', group, clean: true });
      else resolve({ reason: `its guardian ended by ${signal ?? `exit code ${code}`}`, group, clean: false });
    });
  });
}

function environment(given: ReadonlyMap<string, string>): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const name of inheritedVariables) {
    const value = process.env[name];
    if (value !== undefined) variables[name] = value;
  }
  for (const [name, value] of given) variables[name] = value;
  return variables;
}

/** A stranger on the port would be taken for the workload, and be sent its tenants' requests. */
function assertPortFree(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', (cause) => {
      reject(new Error(`port ${port}, which belongs to this workload, is in use by another process`, { cause }));
    });
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve()));
  });
}

/** What is wrong with the workload's health, or undefined. Without a path, any answer over HTTP will do. */
function checkHealth(port: number, path: string | undefined, ended: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve) => {
    const signal = AbortSignal.any([ended, AbortSignal.timeout(healthTimeoutMs)]);
    const check = request({ host: '127.0.0.1', port, path: path ?? '/', agent: false, signal }, (response) => {
      response.resume();
      const status = response.statusCode ?? 0;
      const healthy = path === undefined || (status >= 200 && status < 300);
      resolve(healthy ? undefined : `Its health path ${path} answers ${status}.`);
    });
    check.once('error', (error) => resolve(`It does not answer on port ${port} (${error.message}).`));
    check.end();
  });
}

function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const finish = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, durationMs);
    signal.addEventListener('abort', finish);
  });
}
