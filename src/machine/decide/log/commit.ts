import { assert, unreachable } from '../../../kernel/assert.ts';
import { BoundedQueue } from '../../../kernel/queue.ts';

/**
 * When an answer may leave. Every answer, also a read or a refusal, observed some position of the log,
 * and leaves only once that position is durable: otherwise a crash would take back what somebody saw.
 *
 * One batch is being written at a time; everything that arrives meanwhile goes with the next (group
 * commit). After one failed write or sync nothing is released any more, because what the disk holds is
 * then unknown; the process ends and recovers from what it can prove.
 *
 * A full disk is no such failure: it is known that nothing of the batch was written. Everything that is not
 * durable is taken back, whoever saw it is refused, and so is every write, until a probe finds room again.
 */

/** Bounds of what is not durable yet. At a bound new work is refused before it decides. */
export const commitBounds = {
  /** Records queued for the next batches. */
  queuedRecordsMax: 16_384,
  /** Their text, in UTF-16 code units. */
  queuedUnitsMax: 32 * 1024 * 1024,
  /** Answers that wait, reads included. */
  waitingMax: 65_536,
  /** Records of one batch: keeps the wait of the next one short. */
  batchRecordsMax: 4_096,
  /** Between two probes whether a full disk has room again. */
  probeEveryMs: 1_000,
} as const;

export type CommitInput<Entry, Token> =
  /** A record was decided and takes the next position. */
  | { readonly type: 'append'; readonly position: number; readonly units: number; readonly entry: Entry }
  /** An answer was computed from a state that includes everything up to `position`. */
  | { readonly type: 'observe'; readonly position: number; readonly token: Token }
  /** All requests at hand were decided: write what is queued, unless a batch is in flight. */
  | { readonly type: 'flush' }
  /** The batch in flight, which ends at `position`, is on disk and so is its mark. */
  | { readonly type: 'durable'; readonly position: number }
  /** The disk has no room for the batch in flight, and nothing of it is there. */
  | { readonly type: 'full' }
  /** A write was refused because the disk is full; `nowMs` of a clock that never goes back. */
  | { readonly type: 'wanted'; readonly nowMs: number }
  /** What a probe found. */
  | { readonly type: 'space'; readonly room: boolean }
  | { readonly type: 'failed' };

export type CommitEffect<Entry, Token> =
  | { readonly type: 'write'; readonly upTo: number; readonly entries: readonly Entry[] }
  /** Durable now, in log order: whoever follows the log is told before any answer leaves. */
  | { readonly type: 'publish'; readonly entries: readonly Entry[] }
  | { readonly type: 'release'; readonly tokens: readonly Token[] }
  /** Taken back: the log ends at `position` again, and every state that holds any of `entries` must be thrown away. */
  | { readonly type: 'rollback'; readonly position: number; readonly entries: readonly Entry[] }
  /** Never to be released: they saw what was taken back. That none of it happened is known. */
  | { readonly type: 'refuse'; readonly tokens: readonly Token[] }
  /** Find out whether there is room, and answer with `space`. */
  | { readonly type: 'probe' }
  /** Never to be released: their outcome is unknown. Comes once, with everything that waited. */
  | { readonly type: 'abandon'; readonly tokens: readonly Token[] };

export interface CommitState<Entry, Token> {
  appended: number;
  durable: number;
  inFlight: { readonly upTo: number; readonly entries: readonly Entry[]; readonly tokens: Token[] } | undefined;
  readonly queue: BoundedQueue<Entry>;
  /** Tokens that wait for something in the queue, with the position that they observed. */
  waiting: { readonly position: number; readonly token: Token }[];
  waitingCount: number;
  /** The disk was found to be full, and no probe has found room since. */
  full: boolean;
  /** A probe is under way. */
  probing: boolean;
  /** No probe before this. */
  probeAfterMs: number;
  stopped: boolean;
}

export function commitState<Entry, Token>(durable: number): CommitState<Entry, Token> {
  return {
    appended: durable,
    durable,
    inFlight: undefined,
    queue: new BoundedQueue<Entry>({
      entriesMax: commitBounds.queuedRecordsMax,
      sizeMax: commitBounds.queuedUnitsMax,
    }),
    waiting: [],
    waitingCount: 0,
    full: false,
    probing: false,
    probeAfterMs: Number.NEGATIVE_INFINITY,
    stopped: false,
  };
}

/** Whether new work may be decided; if not, `busy` (try again), `full` (writes only) or `stopped` (for good). */
export function admits<Entry, Token>(
  state: CommitState<Entry, Token>,
  intent: 'read' | 'write',
): 'yes' | 'busy' | 'full' | 'stopped' {
  if (state.stopped) return 'stopped';
  if (state.full && intent === 'write') return 'full';
  return state.queue.admits && state.waitingCount < commitBounds.waitingMax ? 'yes' : 'busy';
}

/** One step of the protocol: changes `state` and says what is to be done, in order. */
export function step<Entry, Token>(
  state: CommitState<Entry, Token>,
  input: CommitInput<Entry, Token>,
): readonly CommitEffect<Entry, Token>[] {
  switch (input.type) {
    case 'append':
      assert(!state.stopped, 'a record decided after the log stopped could never become durable');
      assert(!state.full, 'a record decided while the disk is full could not be written');
      assert(
        input.position === state.appended + 1,
        'positions have no gaps, or the log could not prove that nothing is missing',
      );
      state.appended = input.position;
      state.queue.push(input.entry, input.units);
      return [];
    case 'observe':
      return observe(state, input.position, input.token);
    case 'flush':
      return state.inFlight === undefined ? write(state) : [];
    case 'durable':
      return durable(state, input.position);
    case 'full':
      return full(state);
    case 'wanted':
      return wanted(state, input.nowMs);
    case 'space':
      state.probing = false;
      if (input.room) state.full = false;
      return [];
    case 'failed':
      return fail(state);
    default:
      return unreachable(input, 'unknown input of the commit protocol');
  }
}

function observe<Entry, Token>(
  state: CommitState<Entry, Token>,
  position: number,
  token: Token,
): readonly CommitEffect<Entry, Token>[] {
  assert(position <= state.appended, 'nobody can have observed what was not appended');
  if (state.stopped) return [{ type: 'abandon', tokens: [token] }];
  if (position <= state.durable) return [{ type: 'release', tokens: [token] }];
  state.waitingCount += 1;
  if (state.inFlight !== undefined && position <= state.inFlight.upTo) state.inFlight.tokens.push(token);
  else state.waiting.push({ position, token });
  return [];
}

function write<Entry, Token>(state: CommitState<Entry, Token>): readonly CommitEffect<Entry, Token>[] {
  if (state.stopped || state.queue.length === 0) return [];
  const entries = state.queue.take(commitBounds.batchRecordsMax);
  const upTo = state.appended - state.queue.length;
  const tokens: Token[] = [];
  const later: typeof state.waiting = [];
  for (const each of state.waiting) {
    if (each.position <= upTo) tokens.push(each.token);
    else later.push(each);
  }
  state.waiting = later;
  state.inFlight = { upTo, entries, tokens };
  return [{ type: 'write', upTo, entries }];
}

function durable<Entry, Token>(
  state: CommitState<Entry, Token>,
  position: number,
): readonly CommitEffect<Entry, Token>[] {
  if (state.stopped) return [];
  const { inFlight } = state;
  assert(
    inFlight !== undefined && inFlight.upTo === position,
    'only the batch in flight can become durable, and all of it',
  );
  state.durable = position;
  state.inFlight = undefined;
  state.waitingCount -= inFlight.tokens.length;
  return [
    { type: 'publish', entries: inFlight.entries },
    { type: 'release', tokens: inFlight.tokens },
    ...write(state),
  ];
}

function full<Entry, Token>(state: CommitState<Entry, Token>): readonly CommitEffect<Entry, Token>[] {
  if (state.stopped) return [];
  const { inFlight } = state;
  assert(inFlight !== undefined, 'only a batch in flight can find the disk full');
  const entries = [...inFlight.entries, ...state.queue.take(state.queue.length)];
  const tokens = [...inFlight.tokens, ...state.waiting.map(({ token }) => token)];
  state.appended = state.durable;
  state.inFlight = undefined;
  state.waiting = [];
  state.waitingCount = 0;
  state.full = true;
  return [
    { type: 'rollback', position: state.durable, entries },
    { type: 'refuse', tokens },
  ];
}

function wanted<Entry, Token>(state: CommitState<Entry, Token>, nowMs: number): readonly CommitEffect<Entry, Token>[] {
  if (!state.full || state.probing || state.stopped || nowMs < state.probeAfterMs) return [];
  state.probing = true;
  state.probeAfterMs = nowMs + commitBounds.probeEveryMs;
  return [{ type: 'probe' }];
}

function fail<Entry, Token>(state: CommitState<Entry, Token>): readonly CommitEffect<Entry, Token>[] {
  if (state.stopped) return [];
  const tokens = [...(state.inFlight?.tokens ?? []), ...state.waiting.map(({ token }) => token)];
  state.stopped = true;
  state.inFlight = undefined;
  state.waiting = [];
  state.waitingCount = 0;
  return [{ type: 'abandon', tokens }];
}
