import { assert, unreachable } from '../../kernel/assert.ts';
import type { Problem } from '../../protocol/problem.ts';
import type { ChildMessage } from '../../protocol/supervision.ts';

/**
 * Supervision of the processes of one machine. Pure: `step` says what to do, `host/serve` does it.
 * The rules are numbered in docs/host.md.
 */

/** Delay before the first restart after a settled life, doubled at each further failure up to the most. */
export const restartDelayMsMin = 100;
export const restartDelayMsMax = 5_000;
/** A process that was settled for so long starts again with the least delay. */
export const settledMsToForget = 2_000;

/**
 * - `down`: not running and not to run (held, retired, or shutting down)
 * - `starting`: started, said nothing yet; `listening`: can be reached, not yet doing what it is for
 * - `serving`, `refusing`: settled; a refusal would not be changed by a restart
 * - `stopping`: told to stop; `backing-off`: exited, waits for its restart
 * - `failed`: a restart would not help; a person has to look, and to start it
 */
export type Phase = 'down' | 'starting' | 'listening' | 'serving' | 'refusing' | 'stopping' | 'backing-off' | 'failed';

export interface Supervised {
  readonly name: string;
  readonly phase: Phase;
  readonly wanted: boolean;
  readonly held: boolean;
  /** Counts the starts; names one instance, so that news of an earlier one are told apart. */
  readonly run: number;
  /** Exits since it was last settled for long enough: the exponent of the delay. */
  readonly failures: number;
  /** Starts that nobody asked for, since the host started. */
  readonly restarts: number;
  readonly settledAtMs: number | undefined;
  readonly neverRestart: boolean;
  readonly url: string | undefined;
  readonly adminUrl: string | undefined;
  /** Why it refuses, failed, or last exited by itself. */
  readonly problem: Problem | undefined;
}

export interface Supervision {
  readonly processes: ReadonlyMap<string, Supervised>;
  readonly shutDown: boolean;
}

export type SupervisionInput =
  /** What is not listed stays as it is: absence removes nothing. */
  | {
      readonly type: 'desired';
      readonly processes: readonly { readonly name: string; readonly state: 'wanted' | 'retired' }[];
    }
  | { readonly type: 'exited'; readonly name: string; readonly run: number; readonly atMs: number }
  | {
      readonly type: 'message';
      readonly name: string;
      readonly run: number;
      readonly atMs: number;
      readonly message: ChildMessage;
    }
  | { readonly type: 'timer'; readonly name: string; readonly timer: TimerName; readonly run: number }
  | { readonly type: 'hold' | 'release'; readonly name: string }
  | { readonly type: 'shut-down' };

export type TimerName = 'restart' | 'kill';

/** To be performed in order. A timer replaces the one of the same process and name. */
export type SupervisionEffect =
  | { readonly type: 'start'; readonly name: string; readonly run: number }
  | { readonly type: 'signal'; readonly name: string; readonly run: number; readonly signal: 'SIGTERM' | 'SIGKILL' }
  | {
      readonly type: 'set-timer';
      readonly name: string;
      readonly timer: TimerName;
      readonly run: number;
      readonly after: { readonly delayMs: number } | 'grace';
    }
  | { readonly type: 'clear-timer'; readonly name: string; readonly timer: TimerName }
  | { readonly type: 'persist-held'; readonly names: readonly string[] };

export interface Step {
  readonly state: Supervision;
  readonly effects: readonly SupervisionEffect[];
}

/** A machine on which nothing runs yet; `held` is what an earlier life of the host was told to hold down. */
export function initialSupervision(held: readonly string[]): Supervision {
  return { processes: new Map(held.map((name) => [name, { ...unstarted(name), held: true }])), shutDown: false };
}

/** O(processes) for `desired` and `shut-down`, else O(1) but for the copy of the map. */
export function step(state: Supervision, input: SupervisionInput): Step {
  switch (input.type) {
    case 'desired':
      return fold(state, input.processes, (before, { name, state: wish }) =>
        settle(before, { ...processOf(before, name), wanted: wish === 'wanted' }),
      );
    case 'shut-down':
      return fold({ ...state, shutDown: true }, [...state.processes.values()], settle);
    case 'hold':
    case 'release':
      return onHold(state, input.name, input.type === 'hold');
    case 'exited':
      return onExited(state, input);
    case 'message':
      return onMessage(state, input);
    case 'timer':
      return onTimer(state, input);
    default:
      return unreachable(input, 'every input of supervision is handled');
  }
}

/** Whether an instance of it may exist at this moment. */
export function isRunning(process: Supervised): boolean {
  switch (process.phase) {
    case 'starting':
    case 'listening':
    case 'serving':
    case 'refusing':
    case 'stopping':
      return true;
    case 'down':
    case 'backing-off':
    case 'failed':
      return false;
    default:
      return unreachable(process.phase, 'every phase either has an instance or has none');
  }
}

/** Exponential backoff, capped; without jitter, because the processes of one machine start in any order anyway. */
export function restartDelayMs(failures: number): number {
  return Math.min(restartDelayMsMax, restartDelayMsMin * 2 ** Math.min(failures, 30));
}

function onHold(state: Supervision, name: string, held: boolean): Step {
  const before = state.processes.get(name);
  if (before === undefined) return { state, effects: [] };
  // Asking for a start is also what releases a failed process, and one that waits for its turn.
  const asked: Supervised = held
    ? { ...before, held: true }
    : {
        ...before,
        held: false,
        neverRestart: false,
        failures: 0,
        phase: isRunning(before) ? before.phase : 'down',
        problem: isRunning(before) ? before.problem : undefined,
      };
  const changed = put(state, asked);
  const persist: readonly SupervisionEffect[] =
    before.held === held ? [] : [{ type: 'persist-held', names: heldNames(changed) }];
  const wakes: readonly SupervisionEffect[] =
    !held && before.phase === 'backing-off' ? [{ type: 'clear-timer', name, timer: 'restart' }] : [];
  const then = settle(changed, asked);
  return { state: then.state, effects: [...persist, ...wakes, ...then.effects] };
}

function onExited(state: Supervision, input: { name: string; run: number; atMs: number }): Step {
  const before = current(state, input);
  if (before === undefined) return { state, effects: [] };
  const clear: SupervisionEffect = { type: 'clear-timer', name: before.name, timer: 'kill' };
  const forgotten = before.settledAtMs !== undefined && input.atMs - before.settledAtMs >= settledMsToForget;
  const asked = before.phase === 'stopping' && !before.neverRestart;
  const gone: Supervised = {
    ...before,
    phase: before.neverRestart ? 'failed' : 'down',
    settledAtMs: undefined,
    url: undefined,
    adminUrl: undefined,
    failures: asked || forgotten ? 0 : before.failures,
  };
  if (asked || before.neverRestart || !mayRun(state, gone)) {
    const then = settle(state, gone);
    return { state: then.state, effects: [clear, ...then.effects] };
  }
  const waiting: Supervised = { ...gone, phase: 'backing-off', failures: gone.failures + 1 };
  const after = { delayMs: restartDelayMs(gone.failures) };
  return {
    state: put(state, waiting),
    effects: [clear, { type: 'set-timer', name: gone.name, timer: 'restart', run: gone.run, after }],
  };
}

function onMessage(
  state: Supervision,
  input: { name: string; run: number; atMs: number; message: ChildMessage },
): Step {
  const before = current(state, input);
  if (before === undefined) return { state, effects: [] };
  const { message } = input;
  switch (message.type) {
    case 'listening': {
      const phase = before.phase === 'starting' ? 'listening' : before.phase;
      return { state: put(state, { ...before, phase, url: message.url, adminUrl: message.adminUrl }), effects: [] };
    }
    case 'settled': {
      const phase = before.phase === 'stopping' ? before.phase : message.state;
      const settledAtMs = before.settledAtMs ?? input.atMs;
      return { state: put(state, { ...before, phase, settledAtMs, problem: message.problem }), effects: [] };
    }
    case 'fatal': {
      const doomed: Supervised = {
        ...before,
        phase: 'stopping',
        problem: message.problem,
        // A failure is no stop that was asked for: the delay must grow, so the exit counts below.
        neverRestart: message.restart === 'never',
      };
      const kill: SupervisionEffect = {
        type: 'set-timer',
        name: before.name,
        timer: 'kill',
        run: before.run,
        after: 'grace',
      };
      // A process that said it would exit stays in its phase unless a person is needed: its exit is a failure.
      const next = message.restart === 'never' ? doomed : { ...doomed, phase: before.phase };
      return { state: put(state, next), effects: [kill] };
    }
    default:
      return unreachable(message, 'every message of a child is handled');
  }
}

function onTimer(state: Supervision, input: { name: string; run: number; timer: TimerName }): Step {
  const before = state.processes.get(input.name);
  if (before === undefined || before.run !== input.run) return { state, effects: [] };
  if (input.timer === 'kill') {
    if (!isRunning(before)) return { state, effects: [] };
    return { state, effects: [{ type: 'signal', name: before.name, run: before.run, signal: 'SIGKILL' }] };
  }
  if (before.phase !== 'backing-off') return { state, effects: [] };
  return settle(state, { ...before, phase: 'down', restarts: before.restarts + 1 });
}

/** Brings one process nearer to what is asked of it: the only place where anything starts or is stopped. */
function settle(state: Supervision, process: Supervised): Step {
  const { name, run } = process;
  const wish = mayRun(state, process);
  if (wish && process.phase === 'down') {
    const started: Supervised = { ...process, phase: 'starting', run: run + 1, settledAtMs: undefined };
    return { state: put(state, started), effects: [{ type: 'start', name, run: run + 1 }] };
  }
  if (wish || process.phase === 'down' || process.phase === 'failed')
    return { state: put(state, process), effects: [] };
  if (process.phase === 'backing-off') {
    return {
      state: put(state, { ...process, phase: 'down' }),
      effects: [{ type: 'clear-timer', name, timer: 'restart' }],
    };
  }
  if (process.phase === 'stopping') return { state: put(state, process), effects: [] };
  assert(isRunning(process), 'whatever is neither down, failed nor waiting has an instance to stop');
  return {
    state: put(state, { ...process, phase: 'stopping' }),
    effects: [
      { type: 'signal', name, run, signal: 'SIGTERM' },
      { type: 'set-timer', name, timer: 'kill', run, after: 'grace' },
    ],
  };
}

function mayRun(state: Supervision, process: Supervised): boolean {
  return process.wanted && !process.held && !state.shutDown;
}

/** The process that an instance's news are about, or undefined if they come from an earlier instance. */
function current(state: Supervision, input: { name: string; run: number }): Supervised | undefined {
  const process = state.processes.get(input.name);
  return process !== undefined && process.run === input.run && isRunning(process) ? process : undefined;
}

function processOf(state: Supervision, name: string): Supervised {
  return state.processes.get(name) ?? unstarted(name);
}

function unstarted(name: string): Supervised {
  return {
    name,
    phase: 'down',
    wanted: false,
    held: false,
    run: 0,
    failures: 0,
    restarts: 0,
    settledAtMs: undefined,
    neverRestart: false,
    url: undefined,
    adminUrl: undefined,
    problem: undefined,
  };
}

function heldNames(state: Supervision): readonly string[] {
  return [...state.processes.values()].filter((process) => process.held).map((process) => process.name);
}

function put(state: Supervision, process: Supervised): Supervision {
  return { ...state, processes: new Map(state.processes).set(process.name, process) };
}

function fold<T>(state: Supervision, items: readonly T[], each: (state: Supervision, item: T) => Step): Step {
  const effects: SupervisionEffect[] = [];
  let after = state;
  for (const item of items) {
    const next = each(after, item);
    after = next.state;
    effects.push(...next.effects);
  }
  return { state: after, effects };
}
