import { assert, unreachable } from '../../kernel/assert.ts';
import { BoundedQueue } from '../../kernel/queue.ts';

/**
 * When an answer may leave. Every answer, also a read or a refusal, observed some position of the log,
 * and leaves only once that position is durable: otherwise a crash would take back what somebody saw.
 *
 * One batch is being written at a time; everything that arrives meanwhile goes with the next (group
 * commit). After one failed write or sync nothing is released any more, because what the disk holds is
 * then unknown; the process ends and recovers from what it can prove.
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
  | { readonly type: 'failed' };

export type CommitEffect<Entry, Token> =
  | { readonly type: 'write'; readonly upTo: number; readonly entries: readonly Entry[] }
  /** Durable now, in log order: whoever follows the log is told before any answer leaves. */
  | { readonly type: 'publish'; readonly entries: readonly Entry[] }
  | { readonly type: 'release'; readonly tokens: readonly Token[] }
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
    stopped: false,
  };
}

/** Whether new work may be decided; if not, `busy` (try again) or `stopped` (for good). */
export function admits<Entry, Token>(state: CommitState<Entry, Token>): 'yes' | 'busy' | 'stopped' {
  if (state.stopped) return 'stopped';
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

function fail<Entry, Token>(state: CommitState<Entry, Token>): readonly CommitEffect<Entry, Token>[] {
  if (state.stopped) return [];
  const tokens = [...(state.inFlight?.tokens ?? []), ...state.waiting.map(({ token }) => token)];
  state.stopped = true;
  state.inFlight = undefined;
  state.waiting = [];
  state.waitingCount = 0;
  return [{ type: 'abandon', tokens }];
}
