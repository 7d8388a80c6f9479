import { pino, type Logger } from 'pino';
import type { Static, TSchema } from 'typebox';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import type { Fault } from '../kernel/fault.ts';
import type { ErrorCode } from '../protocol/errors.ts';
import { fault } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import { asFault, problemOf } from '../protocol/problem.ts';
import { HostMessageSchema, type ChildMessage } from '../protocol/supervision.ts';
import { openDataFolder, privateUmask, readJsonFile, type DataFolder } from './folder.ts';
import { endWithParent, onParentGone } from './parent.ts';

/** What a supervised process can say and hear while it lives. */
export interface Life {
  readonly log: Logger;
  report(message: ChildMessage): void;
  /** Reports the fault, flushes the log, stops and exits. `never`: a restart would not help. */
  fail(reason: Fault, restart: 'backoff' | 'never'): void;
}

/** A part that can be stopped once; resolves when it let go of everything. */
export interface Stoppable {
  stop(): Promise<void>;
}

/** Environment variable with the least level that is logged: trace, debug, info, warn, error, fatal. */
export const logLevelVariable = 'CELLWRIGHT_LOG';

/** How long a last message may take to reach the host, before the process ends without it. */
const reportTimeoutMs = 500;

/**
 * A log of JSON lines on standard output. A full or closed output loses lines, never the process:
 * telemetry must not stop what it observes.
 */
export function openLog(bindings: Readonly<Record<string, unknown>>): Logger {
  const wanted = process.env[logLevelVariable] ?? 'info';
  const level = wanted in pino.levels.values ? wanted : 'info';
  const output = pino.destination({ fd: 1, sync: true });
  output.on('error', () => undefined);
  return pino({ level, base: { pid: process.pid, ...bindings } }, output);
}

/**
 * The life of one supervised process: reads and locks its folder from the boot file in argv[2], starts, and stops on
 * SIGTERM, SIGINT, a `stop` message, or the end of the IPC channel (its host died), within limits.stopGraceMs.
 *
 * A fault while starting is reported as fatal: `never` when only a person can help (a damaged log,
 * a folder of a newer version or of something else), else `backoff`. An error that nobody caught is
 * reported as `internal` and ends the process at once with 1: what it left in memory is not trusted.
 */
export function runProcess<S extends TSchema>(options: {
  readonly boot: S;
  readonly start: (boot: Static<S>, life: Life) => Promise<Stoppable>;
}): void {
  process.umask(privateUmask);
  const life = new ProcessLife();
  life.run(async () => {
    const bootFile = process.argv[2];
    if (bootFile === undefined) {
      throw fault('usage', 'This process is started by `cellwright up`, with the path of its boot file.');
    }
    const boot = await readJsonFile(bootFile, options.boot);
    const common = await readJsonFile(bootFile, CommonBootSchema);
    if (boot === undefined || common === undefined) {
      throw fault('file-unreadable', `${bootFile} does not exist. Start the fleet with \`cellwright up\`.`, {
        field: bootFile,
      });
    }
    life.name(common.name ?? common.process);
    const folder = await openDataFolder(common.folder, common.process);
    life.owns(folder);
    return options.start(boot, life);
  });
}

const CommonBootSchema = Type.Object({
  process: Type.String(),
  folder: Type.String(),
  name: Type.Optional(Type.String()),
});

/** Faults that a restart cannot cure, because a person has to look or to choose. */
const lasting: readonly ErrorCode[] = ['log-damaged', 'folder-newer', 'folder-older', 'folder-foreign', 'usage'];

class ProcessLife implements Life {
  log = openLog({ name: 'starting' });
  #folder: DataFolder | undefined;
  #starting: Promise<Stoppable | undefined> = Promise.resolve(undefined);
  #ending = false;
  #orphaned = false;
  #endNow: () => void = () => undefined;

  name(name: string): void {
    this.log = openLog({ name });
  }

  owns(folder: DataFolder): void {
    this.#folder = folder;
  }

  run(start: () => Promise<Stoppable>): void {
    process.on('uncaughtException', (thrown) => this.#crash(asFault(thrown)));
    process.on('SIGTERM', () => void this.#stop(0, 'SIGTERM'));
    process.on('SIGINT', () => void this.#stop(0, 'SIGINT'));
    process.on('message', (message) => {
      if (Value.Check(HostMessageSchema, message)) void this.#stop(0, 'the host asks to stop');
    });
    onParentGone(() => {
      this.#orphaned = true;
      void this.#stop(0, 'the host is gone');
    });
    this.#endNow = endWithParent();
    this.#starting = start().catch((thrown: unknown) => {
      const reason = asFault(thrown);
      this.fail(reason, lasting.some((code) => code === reason.code) ? 'never' : 'backoff');
      return undefined;
    });
  }

  report(message: ChildMessage): void {
    void send(message);
  }

  fail(reason: Fault, restart: 'backoff' | 'never'): void {
    if (this.#ending) return;
    this.log.fatal({ code: reason.code, err: reason }, reason.message);
    this.report({ type: 'fatal', problem: problemOf(reason), restart });
    void this.#stop(1, reason.code);
  }

  async #stop(exitCode: number, why: string): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.log.info({ why }, 'stopping');
    const deadline = setTimeout(() => {
      this.log.error('stopping took too long, so this process ends without waiting');
      this.#exit(exitCode);
    }, limits.stopGraceMs);
    try {
      const part = await this.#starting;
      await part?.stop();
      this.#folder?.release();
    } catch (thrown) {
      this.log.error({ err: thrown }, 'stopping failed');
    }
    clearTimeout(deadline);
    await flushReports();
    this.#exit(exitCode);
  }

  /** An orphan has little time, and nobody who reads its exit code. */
  #exit(exitCode: number): void {
    if (this.#orphaned) this.#endNow();
    process.exit(exitCode);
  }

  #crash(reason: Fault): void {
    this.#ending = true;
    this.log.fatal({ code: reason.code, err: reason.cause ?? reason }, reason.message);
    void send({ type: 'fatal', problem: problemOf(reason), restart: 'backoff' });
    void flushReports().then(() => process.exit(1));
  }
}

const unsent = new Set<Promise<void>>();

/** Sends a message to the host, if there is one; whoever has lost its host stops for that reason. */
function send(message: ChildMessage): Promise<void> {
  if (process.send === undefined || !process.connected) return Promise.resolve();
  const sent = new Promise<void>((resolve) => {
    process.send?.(message, undefined, {}, () => resolve());
  });
  unsent.add(sent);
  return sent.finally(() => unsent.delete(sent));
}

async function flushReports(): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, reportTimeoutMs);
  });
  await Promise.race([Promise.all(unsent), timeout]);
  clearTimeout(timer);
}
