import { fork, type ChildProcess } from 'node:child_process';
import { Value } from 'typebox/value';
import { assert, unreachable } from '../../kernel/assert.ts';
import { fault } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { asFault } from '../../protocol/problem.ts';
import type { Fault } from '../../kernel/fault.ts';
import { ChildMessageSchema } from '../../protocol/supervision.ts';
import {
  initialSupervision,
  isRunning,
  step,
  type Supervised,
  type Supervision,
  type SupervisionEffect,
  type SupervisionInput,
  type TimerName,
} from '../decide/supervise.ts';
import type { Outputs } from './output.ts';

/** A child stops by itself within the grace; one that does not is killed a little later. */
export const killAfterMs = limits.stopGraceMs + 500;

/** How one process is started: the program, and its only argument. */
export interface Command {
  readonly program: string;
  readonly bootFile: string;
}

export interface SupervisorOptions {
  readonly held: readonly string[];
  readonly outputs: Outputs;
  readonly environment: NodeJS.ProcessEnv;
  /** Makes everything ready for a start (folder, token, ports, boot file); a fault counts as a failed start. */
  readonly prepare: (name: string) => Promise<Command>;
  readonly persistHeld: (names: readonly string[]) => Promise<void>;
  readonly onChange: (process: Supervised) => void;
  /** Something of the host's own failed; supervision goes on. */
  readonly onProblem: (reason: Fault) => void;
}

/** One process as it stands, with the id of its instance. */
export interface ProcessView extends Supervised {
  readonly pid: number | undefined;
}

/** Performs what `host/decide/supervise` says. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #children = new Map<string, { readonly run: number; readonly child: ChildProcess }>();
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #waiting = new Set<() => void>();
  #state: Supervision;
  #persisting: Promise<void> = Promise.resolve();

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#state = initialSupervision(options.held);
  }

  processes(): readonly ProcessView[] {
    return [...this.#state.processes.values()].map((process) => this.#view(process));
  }

  process(name: string): ProcessView | undefined {
    const process = this.#state.processes.get(name);
    return process === undefined ? undefined : this.#view(process);
  }

  want(names: readonly string[]): void {
    this.#take({ type: 'desired', processes: names.map((name) => ({ name, state: 'wanted' })) });
  }

  retire(names: readonly string[]): void {
    const known = names.filter((name) => this.#state.processes.has(name));
    this.#take({ type: 'desired', processes: known.map((name) => ({ name, state: 'retired' })) });
  }

  /** Holds a process down; resolves once that outlives a restart of the host, rejects if that could not be written. */
  async hold(name: string): Promise<void> {
    this.#take({ type: 'hold', name });
    await this.#persisting;
  }

  /** Lets a held, failed or waiting process up again; resolves and rejects like `hold`. */
  async release(name: string): Promise<void> {
    this.#take({ type: 'release', name });
    await this.#persisting;
  }

  /** Stops every process; resolves when the last one is gone. */
  async shutDown(): Promise<void> {
    this.#take({ type: 'shut-down' });
    await this.until(() => this.#children.size === 0 && this.processes().every((process) => !isRunning(process)));
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await this.#persisting.catch(() => undefined);
  }

  /** Resolves to true once a condition on the processes holds, to false if it does not in time. */
  until(condition: () => boolean, timeoutMs?: number, signal?: AbortSignal): Promise<boolean> {
    if (condition()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const done = (met: boolean): void => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        signal?.removeEventListener('abort', giveUp);
        resolve(met);
      };
      const look = (): void => {
        if (condition()) done(true);
      };
      const giveUp = (): void => done(false);
      const timer = timeoutMs === undefined ? undefined : setTimeout(giveUp, timeoutMs);
      signal?.addEventListener('abort', giveUp);
      this.#waiting.add(look);
      if (signal?.aborted === true) giveUp();
    });
  }

  #view(process: Supervised): ProcessView {
    const instance = this.#children.get(process.name);
    return { ...process, pid: instance?.run === process.run ? instance.child.pid : undefined };
  }

  #take(input: SupervisionInput): void {
    const before = this.#state;
    const { state, effects } = step(before, input);
    this.#state = state;
    for (const effect of effects) this.#perform(effect);
    this.#announce(before);
  }

  #announce(before: Supervision): void {
    for (const process of this.#state.processes.values()) {
      if (process !== before.processes.get(process.name)) this.#options.onChange(process);
    }
    for (const look of this.#waiting) look();
  }

  #perform(effect: SupervisionEffect): void {
    switch (effect.type) {
      case 'start':
        void this.#start(effect.name, effect.run);
        return;
      case 'signal': {
        const instance = this.#children.get(effect.name);
        if (instance?.run === effect.run) instance.child.kill(effect.signal);
        return;
      }
      case 'set-timer':
        this.#setTimer(effect);
        return;
      case 'clear-timer':
        this.#clearTimer(effect.name, effect.timer);
        return;
      case 'persist-held':
        // A write that failed is made good by the next: each holds all names.
        this.#persisting = this.#persisting.catch(() => undefined).then(() => this.#options.persistHeld(effect.names));
        this.#persisting.catch((thrown: unknown) => this.#options.onProblem(asFault(thrown)));
        return;
      default:
        unreachable(effect, 'every effect of supervision is performed');
    }
  }

  #setTimer(effect: SupervisionEffect & { type: 'set-timer' }): void {
    const { name, timer, run, after } = effect;
    this.#clearTimer(name, timer);
    const delayMs = after === 'grace' ? killAfterMs : after.delayMs;
    const handle = setTimeout(() => this.#take({ type: 'timer', name, timer, run }), delayMs);
    this.#timers.set(`${timer} ${name}`, handle);
  }

  #clearTimer(name: string, timer: TimerName): void {
    clearTimeout(this.#timers.get(`${timer} ${name}`));
    this.#timers.delete(`${timer} ${name}`);
  }

  async #start(name: string, run: number): Promise<void> {
    let child: ChildProcess;
    try {
      const command = await this.#options.prepare(name);
      const now = this.#state.processes.get(name);
      // While the files were written it was told to stop: an instance that never was is gone already.
      if (now?.run !== run || now.phase === 'stopping') {
        this.#exited(name, run);
        return;
      }
      child = this.#fork(name, command);
    } catch (thrown) {
      const reason = asFault(thrown);
      this.#options.onProblem(
        fault('start-failed', `${name} could not be started: ${reason.message}`, { cause: reason }),
      );
      this.#exited(name, run);
      return;
    }
    assert(!this.#children.has(name), 'two instances of a process would write the same data');
    this.#children.set(name, { run, child });
    child.on('message', (message) => {
      if (!Value.Check(ChildMessageSchema, message)) return;
      this.#take({ type: 'message', name, run, atMs: performance.now(), message });
    });
    child.once('exit', () => this.#gone(name, run));
    // More than once: also each message and signal that it cannot be given is such an error.
    child.on('error', (cause) => {
      this.#options.onProblem(fault('start-failed', `${name} failed to start or to hear: ${cause.message}`, { cause }));
      if (child.pid === undefined) this.#gone(name, run);
    });
    this.#announcePid(name);
  }

  #announcePid(name: string): void {
    const process = this.#state.processes.get(name);
    if (process !== undefined) this.#options.onChange(process);
    for (const look of this.#waiting) look();
  }

  #fork(name: string, command: Command): ChildProcess {
    const output = this.#options.outputs.open(name);
    try {
      return fork(command.program, [command.bootFile], {
        execPath: process.execPath,
        execArgv: [],
        env: this.#options.environment,
        stdio: ['ignore', output.descriptor, output.descriptor, 'ipc'],
      });
    } finally {
      output.close();
    }
  }

  #gone(name: string, run: number): void {
    if (this.#children.get(name)?.run !== run) return;
    this.#children.delete(name);
    this.#exited(name, run);
  }

  #exited(name: string, run: number): void {
    this.#take({ type: 'exited', name, run, atMs: performance.now() });
  }
}
