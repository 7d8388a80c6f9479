import { assert, unreachable } from '../../kernel/assert.ts';
import { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { asFault } from '../../protocol/problem.ts';
import {
  admits,
  commitBounds,
  commitState,
  step,
  type CommitEffect,
  type CommitInput,
  type CommitState,
} from '../decide/commit.ts';
import {
  Instance,
  type CommandAnswer,
  type CommandRequest,
  type Decision,
  type RecordedEvent,
} from '../decide/instance.ts';
import type { Machine } from '../decide/machine.ts';
import { decodeRecord, encodeRecord, type LogRecord, type RecordText } from '../decide/record.ts';
import type { StoredRecord } from './log-files.ts';
import { openLog, type Log } from './log.ts';

export type { CommandAnswer, RecordedEvent } from '../decide/instance.ts';

/** Names one instance of a machine in a log: a tenant, or `$name` for the process's own. */
export type InstanceName = string;

export type QueryAnswer =
  | { readonly kind: 'answered'; readonly value: unknown; readonly seq: number }
  | { readonly kind: 'rejected'; readonly fault: Fault };

export interface InstanceSummary {
  readonly instance: InstanceName;
  readonly seq: number;
  readonly stateHash: string;
}

/** One durable record with events, as subscribers and history see it. */
export interface Committed {
  readonly instance: InstanceName;
  readonly command: string;
  readonly input: unknown;
  /** Milliseconds since 1970, as the command saw it. */
  readonly now: number;
  readonly events: readonly RecordedEvent[];
  /** State hash after the last of the events. */
  readonly stateHash: string;
}

export interface RuntimeOptions {
  /** Holds the log and its mark; created if missing. */
  readonly folder: string;
  /** What the log belongs to, e.g. `FLEET/CELL`: written into a new log; a log of another owner is refused. */
  readonly owner: string;
  /** There was a log before: a missing one is then `log-damaged`, and none is made. */
  readonly mustExist: boolean;
  /** The machine of an instance, or undefined if no such instance may exist. */
  readonly machineFor: (instance: InstanceName) => Machine | undefined;
  readonly nowMs: () => number;
  /** The log stopped (write or sync error): the process must end and be restarted. Called once. */
  readonly onStopped: (reason: Fault) => void;
}

export interface Runtime {
  /** Runs a command; resolves when the answer may leave. Never rejects but for defects. */
  execute(request: CommandRequest & { readonly instance: InstanceName }): Promise<CommandAnswer>;
  query(request: {
    readonly instance: InstanceName;
    readonly query: string;
    readonly input: unknown;
  }): Promise<QueryAnswer>;
  /** Where an instance stands; resolves when that is durable. Rejects with a fault if there can be no such instance. */
  state(instance: InstanceName): Promise<InstanceSummary>;
  /** Instances that have at least one durable record. */
  instances(): readonly InstanceName[];
  /** Durable records of an instance with events after `afterSeq`, oldest first, at most `limit`. */
  history(
    instance: InstanceName,
    options: { readonly afterSeq: number; readonly limit: number },
  ): Promise<readonly Committed[]>;
  /** Called for each record with events once it is durable, in log order, before its answer leaves. Returns how to stop. */
  subscribe(instance: InstanceName, listener: (record: Committed) => void): () => void;
  readonly recovered: { readonly records: number; readonly events: number; readonly durationMs: number };
  /** Waits until everything decided is durable, and closes the log. */
  close(): Promise<void>;
}

/** An instance and where its records are: 16 bytes a record, so that the log needs no second index. */
interface Hosted {
  readonly instance: Instance;
  readonly listeners: Set<(record: Committed) => void>;
  /** Position of its first record; infinite before there is one. */
  first: number;
  /** Position of its last record: what every answer about it has observed. */
  position: number;
  /** Positions of its records with events, and the last event of each; both ascending. */
  readonly positions: number[];
  readonly seqs: number[];
}

interface Entry {
  readonly hosted: Hosted;
  readonly record: LogRecord;
  readonly text: RecordText;
}

/** An answer that waits: how to let it leave, and how to say that its outcome is unknown. */
interface Token {
  readonly release: () => void;
  /** It saw what was taken back, because the disk is full. */
  readonly refuse: () => void;
  readonly abandon: () => void;
}

/**
 * Opens or creates a log and replays it, checking hashes and chain.
 * Faults: `folder-foreign` (the log of another owner), `log-damaged` (cannot be proven), `folder-newer` (format of a
 * newer version), `folder-in-use`, `folder-unwritable`, `machine-unloadable` (records of another machine, or of none
 * that is known). After any of them nothing is changed. `open` is the seam to the disk.
 */
export async function openRuntime(options: RuntimeOptions, open: typeof openLog = openLog): Promise<Runtime> {
  assert(/^[\x21-\x7e]{1,255}$/.test(options.owner), 'the owner of a log is a name that reads the same everywhere');
  const runtime = new HostRuntime(options);
  await runtime.open(open);
  return runtime;
}

class HostRuntime implements Runtime {
  readonly #options: RuntimeOptions;
  readonly #hosted = new Map<InstanceName, Hosted>();
  #log: Log | undefined;
  #commit: CommitState<Entry, Token> = commitState(0);
  #lastNow = 0;
  #flushing = false;
  #closing = false;
  #idle: (() => void) | undefined;
  recovered = { records: 0, events: 0, durationMs: 0 };

  constructor(options: RuntimeOptions) {
    this.#options = options;
  }

  async open(open: typeof openLog): Promise<void> {
    const startedMs = performance.now();
    let records = 0;
    let events = 0;
    const replay = (page: readonly StoredRecord[]): void => {
      for (const { position, ...text } of page) {
        const record = decodeRecord(position, text);
        this.#replay(position, record);
        records += 1;
        events += record.hashes.length - 1;
      }
    };
    this.#log = await open(this.#options, replay, {
      durable: (position) => this.#step({ type: 'durable', position }),
      full: () => this.#step({ type: 'full' }),
      space: (room) => this.#step({ type: 'space', room }),
      failed: (reason) => this.#stop(reason),
    });
    this.#commit = commitState(records);
    this.recovered = { records, events, durationMs: performance.now() - startedMs };
  }

  async execute(request: CommandRequest & { readonly instance: InstanceName }): Promise<CommandAnswer> {
    const hosted = this.#admit(request.instance, 'write');
    if (hosted instanceof Fault) return { kind: 'rejected', fault: hosted, repeated: false };
    const now = Math.max(this.#lastNow, this.#options.nowMs());
    let decision: Decision;
    try {
      decision = hosted.instance.execute(request, now);
      if (decision.record !== undefined) this.#append(hosted, decision.record);
    } catch (thrown) {
      // What is in memory is not what the log says any more; a new start replays what the log says.
      const reason = asFault(thrown);
      this.#stop(reason);
      return { kind: 'rejected', fault: reason, repeated: false };
    }
    const { answer, record } = decision;
    const stopped = record === undefined ? 'log-stopped' : 'outcome-unknown';
    return this.#observed(hosted, answer, stopped, (fault) => ({ kind: 'rejected', fault, repeated: false }));
  }

  async query(request: {
    readonly instance: InstanceName;
    readonly query: string;
    readonly input: unknown;
  }): Promise<QueryAnswer> {
    const hosted = this.#admit(request.instance, 'read');
    if (hosted instanceof Fault) return { kind: 'rejected', fault: hosted };
    const { instance } = hosted;
    let answer: QueryAnswer;
    try {
      answer = { kind: 'answered', value: instance.query(request.query, request.input), seq: instance.seq };
    } catch (thrown) {
      answer = { kind: 'rejected', fault: asFault(thrown) };
    }
    return this.#observed(hosted, answer, 'log-stopped', (fault) => ({ kind: 'rejected', fault }));
  }

  async state(instance: InstanceName): Promise<InstanceSummary> {
    const hosted = this.#admit(instance, 'read');
    if (hosted instanceof Fault) throw hosted;
    const { seq, stateHash } = hosted.instance;
    return this.#observed(hosted, { instance, seq, stateHash }, 'log-stopped', (fault) => {
      throw fault;
    });
  }

  instances(): readonly InstanceName[] {
    return [...this.#hosted].filter(([, { first }]) => first <= this.#commit.durable).map(([name]) => name);
  }

  async history(
    instance: InstanceName,
    options: { readonly afterSeq: number; readonly limit: number },
  ): Promise<readonly Committed[]> {
    const hosted = this.#hosted.get(instance);
    if (hosted === undefined || this.#log === undefined) return [];
    const first = firstAbove(hosted.seqs, options.afterSeq);
    const wanted = hosted.positions
      .slice(first, first + Math.max(0, options.limit))
      .filter((position) => position <= this.#commit.durable);
    const records = await this.#log.read(wanted);
    return records.map(({ position, ...text }) => committed(decodeRecord(position, text)));
  }

  subscribe(instance: InstanceName, listener: (record: Committed) => void): () => void {
    const hosted = this.#host(instance);
    if (hosted instanceof Fault) throw hosted;
    // A wrapper, so that one function may subscribe twice and stop once.
    const own = (record: Committed): void => listener(record);
    hosted.listeners.add(own);
    return () => hosted.listeners.delete(own);
  }

  async close(): Promise<void> {
    this.#closing = true;
    if (!this.#commit.stopped && this.#commit.durable < this.#commit.appended) {
      await new Promise<void>((resolve) => (this.#idle = resolve));
    }
    await this.#log?.close();
  }

  /** The instance, or why nothing may be asked of it now. */
  #admit(instance: InstanceName, intent: 'read' | 'write'): Hosted | Fault {
    if (this.#closing)
      return fault('draining', 'This process is stopping; repeat the request', { retryAfterMs: 1_000 });
    const admitted = admits(this.#commit, intent);
    switch (admitted) {
      case 'yes':
        return this.#host(instance);
      case 'busy':
        return fault('log-busy', 'The log has more work queued than it may hold; repeat the request later', {
          retryAfterMs: 100,
        });
      case 'full':
        this.#step({ type: 'wanted', nowMs: performance.now() });
        return fullFault();
      case 'stopped':
        return stoppedFault('log-stopped');
      default:
        return unreachable(admitted, 'admits has four answers');
    }
  }

  #host(name: InstanceName): Hosted | Fault {
    const known = this.#hosted.get(name);
    if (known !== undefined) return known;
    const machine = this.#options.machineFor(name);
    if (machine === undefined) return fault('tenant-unknown', `There is no instance ${name} here`, { field: name });
    const hosted = {
      instance: new Instance(name, machine),
      listeners: new Set<(record: Committed) => void>(),
      first: Number.POSITIVE_INFINITY,
      position: 0,
      positions: [],
      seqs: [],
    };
    this.#hosted.set(name, hosted);
    return hosted;
  }

  #replay(position: number, record: LogRecord): void {
    const hosted = this.#host(record.instance);
    if (hosted instanceof Fault) {
      const message = `Record ${position} belongs to instance ${record.instance} of machine ${record.machine}, which is not served here`;
      throw fault('machine-unloadable', message, { field: record.instance, cause: hosted });
    }
    hosted.instance.replay(record);
    this.#lastNow = Math.max(this.#lastNow, record.now);
    note(hosted, position, record);
  }

  #append(hosted: Hosted, record: LogRecord): void {
    const position = this.#commit.appended + 1;
    const text = encodeRecord(position, hosted.position, record);
    this.#lastNow = record.now;
    note(hosted, position, record);
    const entry = { hosted, record, text };
    this.#step({ type: 'append', position, units: text.head.length + text.payload.length, entry });
    if (this.#flushing) return;
    this.#flushing = true;
    // After this turn of the event loop, so that requests that arrived together share one sync.
    setImmediate(() => {
      this.#flushing = false;
      this.#step({ type: 'flush' });
    });
  }

  /** Resolves with the answer once what it observed is durable. */
  #observed<Answer>(
    hosted: Hosted,
    answer: Answer,
    stopped: 'log-stopped' | 'outcome-unknown',
    otherwise: (reason: Fault) => Answer,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const settle = (reason: Fault): void => {
        try {
          resolve(otherwise(reason));
        } catch (thrown) {
          reject(thrown);
        }
      };
      const token: Token = {
        release: () => resolve(answer),
        refuse: () => settle(fullFault()),
        abandon: () => settle(stoppedFault(stopped)),
      };
      this.#step({ type: 'observe', position: hosted.position, token });
    });
  }

  #step(input: CommitInput<Entry, Token>): void {
    for (const effect of step(this.#commit, input)) this.#perform(effect);
    if (this.#idle !== undefined && (this.#commit.stopped || this.#commit.durable === this.#commit.appended))
      this.#idle();
  }

  #perform(effect: CommitEffect<Entry, Token>): void {
    switch (effect.type) {
      case 'write':
        this.#log?.write(
          effect.entries.map(({ text }) => text.head),
          effect.entries.map(({ text }) => text.payload),
        );
        return;
      case 'publish':
        for (const { hosted, record } of effect.entries) publish(hosted, record);
        return;
      case 'release':
        for (const token of effect.tokens) token.release();
        return;
      case 'rollback':
        this.#takeBack(effect.position, effect.entries);
        return;
      case 'refuse':
        for (const token of effect.tokens) token.refuse();
        return;
      case 'probe':
        this.#log?.probe();
        return;
      case 'abandon':
        for (const token of effect.tokens) token.abandon();
        return;
      default:
        unreachable(effect, 'unknown effect of the commit protocol');
    }
  }

  /** The log ends at `position` again: what these records led to must not be seen any more. */
  #takeBack(_position: number, _entries: readonly Entry[]): void {
    // After the answers that saw it were refused: a new start replays what is durable.
    queueMicrotask(() => this.#stop(fullFault()));
  }

  #stop(reason: Fault): void {
    if (this.#commit.stopped) return;
    this.#step({ type: 'failed' });
    const message = `The log in ${this.#options.folder} stopped: ${reason.message}; restart the process, which recovers what is proven`;
    this.#options.onStopped(fault('log-stopped', message, { field: this.#options.folder, cause: reason }));
  }
}

function note(hosted: Hosted, position: number, record: LogRecord): void {
  hosted.first = Math.min(hosted.first, position);
  hosted.position = position;
  const events = record.hashes.length - 1;
  if (events === 0) return;
  hosted.positions.push(position);
  hosted.seqs.push(record.seqBefore + events);
}

function publish(hosted: Hosted, record: LogRecord): void {
  if (hosted.listeners.size === 0 || record.hashes.length === 1) return;
  const event = committed(record);
  for (const listener of hosted.listeners) {
    try {
      listener(event);
    } catch (thrown) {
      // A listener's defect must neither hold back answers nor pass unseen.
      queueMicrotask(() => {
        throw thrown;
      });
    }
  }
}

function committed(record: LogRecord): Committed {
  const { instance, command, input, now, outcome, seqBefore, hashes } = record;
  const events =
    outcome.kind === 'accepted'
      ? outcome.events.map(({ type, data }, i) => ({ seq: seqBefore + i + 1, type, data }))
      : [];
  return { instance, command, input, now, events, stateHash: hashes[hashes.length - 1] ?? '' };
}

/** Index of the first number greater than `limit` in an ascending list. O(log n). */
function firstAbove(ascending: readonly number[], limit: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ascending[middle] ?? 0) > limit) high = middle;
    else low = middle + 1;
  }
  return low;
}

function stoppedFault(code: 'log-stopped' | 'outcome-unknown'): Fault {
  return code === 'log-stopped'
    ? fault(code, 'The log stopped after a write error; the process restarts, so repeat the request', {
        retryAfterMs: 1_000,
      })
    : fault(code, 'The log stopped while the command was written; repeat it with the same Idempotency-Key', {
        retryAfterMs: 1_000,
      });
}

function fullFault(): Fault {
  const message = 'The disk of the log is full: nothing was changed, and nothing can be until there is room';
  return fault('log-full', message, { retryAfterMs: commitBounds.probeEveryMs });
}
