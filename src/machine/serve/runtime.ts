import { randomUUID } from 'node:crypto';
import { assert, unreachable } from '../../kernel/assert.ts';
import { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { asFault } from '../../protocol/problem.ts';
import {
  admits,
  commitState,
  step,
  type CommitEffect,
  type CommitInput,
  type CommitState,
} from '../decide/log/commit.ts';
import { archiveBounds } from '../decide/residency/archiving.ts';
import type { NextTimer } from '../decide/residency/directory.ts';
import { MemoryQuarantine, type DriftEvidence } from '../decide/replica/drift.ts';
import type { Message } from '../decide/state/effects.ts';
import { erasureRecord, isErasure } from '../decide/log/erasure.ts';
import type { FeedRecord } from '../decide/replica/feed.ts';
import type { CommandAnswer, CommandRequest, Decision, Instance } from '../decide/instance/instance.ts';
import { InvariantCounts } from '../decide/instance/invariants.ts';
import { encodeRecord, type LogRecord, type RecordText } from '../decide/log/record.ts';
import { residencyBounds } from '../decide/residency/residency.ts';
import { Alarm } from './alarm.ts';
import type {
  CapturedInstance,
  InstanceSummary,
  QueryAnswer,
  ResidencyFigures,
  Runtime,
  RuntimeOptions,
} from './contract.ts';
import { History } from './history.ts';
import type { Hosted, InstanceName } from './residency/hosted.ts';
import { Keeper } from './residency/keeper.ts';
import { openLog, type Log } from './log/log.ts';
import { openWithState, serveStore, type Recovered } from './residency/opening.ts';
import { nextTimerOf, Residents } from './residency/residents.ts';
import { noStateStore, openStateFile, type StateStore } from './state/store.ts';
import { committed, Subscribers, type Committed } from './subscribers.ts';
import { fullFault, stoppedFault, WaitingAnswer, type Waiting } from './waiting.ts';

export type { CommandAnswer } from '../decide/instance/instance.ts';
export type { Committed } from './subscribers.ts';
export type { Runtime, RuntimeOptions } from './contract.ts';

interface Entry {
  readonly hosted: Hosted;
  readonly record: LogRecord;
  readonly text: RecordText;
  readonly position: number;
  readonly previous: number;
  /** As it is after the record. */
  readonly nextTimer: NextTimer;
}

/**
 * Opens or creates a log and proves what comes after its last checkpoint.
 * Faults: `folder-foreign` (the log of another owner), `log-damaged` (cannot be proven), `folder-newer` (format of a
 * newer version), `folder-in-use`, `folder-unwritable`, `machine-unloadable` (records of another machine, or of none
 * that is known). After any of them nothing is changed. `open` and `store` are the seams to the disk.
 */
export async function openRuntime(
  options: RuntimeOptions,
  open: typeof openLog = openLog,
  store: StateStore = open === openLog ? openStateFile(options) : noStateStore,
): Promise<Runtime> {
  assert(/^[\x21-\x7e]{1,255}$/.test(options.owner), 'the owner of a log is a name that reads the same everywhere');
  const runtime = new HostRuntime(options, store);
  try {
    await runtime.open(open);
  } catch (thrown) {
    await store.close().catch(() => {});
    throw thrown;
  }
  return runtime;
}

class HostRuntime implements Runtime {
  readonly #options: RuntimeOptions;
  readonly #store: StateStore;
  readonly #residents: Residents;
  readonly #subscribers = new Subscribers();
  readonly #alarm: Alarm;
  readonly #entropy: () => string;
  #keeper: Keeper | undefined;
  #history: History | undefined;
  #log: Log | undefined;
  #commit: CommitState<Entry, Waiting> = commitState(0);
  readonly #erased = new Set<InstanceName>();
  #lastNow = 0;
  #durableNow = 0;
  #flushing = false;
  #closing = false;
  #closed: Promise<void> | undefined;
  #idle: (() => void) | undefined;
  readonly invariants = new InvariantCounts();
  recovered: Recovered = { records: 0, events: 0, checkpoint: 0, durationMs: 0 };

  constructor(options: RuntimeOptions, store: StateStore) {
    this.#options = options;
    this.#store = store;
    this.#entropy = options.entropy ?? randomUUID;
    this.#residents = new Residents({
      machineFor: options.machineFor,
      bounds: { ...residencyBounds, ...options.bounds },
      quarantine: options.quarantine ?? new MemoryQuarantine(),
      store,
      onNotice: (message, instance) => options.onNotice?.(message, instance),
      onHydrated: (hosted) => this.#upgrade(hosted),
      onSnapshotDue: (instance) => this.#keeper?.wantSnapshot(instance),
    });
    this.#alarm = new Alarm(options.nowMs, (instance) => this.#fireTimer(instance));
  }

  async open(open: typeof openLog): Promise<void> {
    const startedMs = performance.now();
    const { folder, owner, mustExist, proveWhole = false } = this.#options;
    const onNotice = (message: string): void => this.#options.onNotice?.(message, undefined);
    const { log, recovered, lastNowMs, keep } = await openWithState({
      place: { folder, owner, mustExist },
      open,
      events: {
        durable: (position) => this.#step({ type: 'durable', position }),
        full: () => this.#step({ type: 'full' }),
        space: (room) => this.#step({ type: 'space', room }),
        failed: (reason) => this.#stop(reason),
      },
      residents: this.#residents,
      store: this.#store,
      whole: proveWhole,
      onNotice,
    });
    this.#log = log;
    for (const { instance } of log.erased) this.#erased.add(instance);
    this.#lastNow = lastNowMs;
    this.#durableNow = lastNowMs;
    this.#commit = commitState(log.last.position);
    const { directory } = this.#residents;
    this.#history = new History(directory, log);
    if (this.#store !== noStateStore && (await serveStore(this.#store, keep, directory, onNotice))) {
      this.#keeper = new Keeper({
        directory,
        store: this.#store,
        bounds: { ...residencyBounds, ...this.#options.bounds },
        resident: (instance) => this.#residents.peek(instance),
        durable: (position) => this.#durable(position),
        last: () => ({ mark: log.last, nowMs: this.#durableNow }),
        archive: {
          bounds: this.#options.archive ?? archiveBounds,
          isErased: (instance) => this.#erased.has(instance),
          archive: (upTo, retention) => log.archive(upTo, retention),
        },
        onNotArchived: (why) => onNotice(`Old records stay in the log and are not archived: ${why}`),
        onFailed: (why) =>
          onNotice(`state.db is not written any more, so the next start reads more of the log: ${why}`),
      });
      this.#keeper.followed(recovered.records);
    }
    this.#residents.serve(log);
    for (const entry of directory.entries()) if (entry.nextTimer !== 'none') this.#alarm.follow(entry);
    this.recovered = { ...recovered, durationMs: performance.now() - startedMs };
  }

  execute(request: CommandRequest & { readonly instance: InstanceName }): Promise<CommandAnswer> {
    // Not `async`, which would wrap the promise that most commands get anyway into another one.
    try {
      const answer = this.#change(request.instance, (instance, nowMs) =>
        instance.execute(request, nowMs, this.#entropy),
      );
      return answer instanceof Promise ? answer : Promise.resolve(answer);
    } catch (thrown) {
      return Promise.reject(asFault(thrown));
    }
  }

  async messageDelivered(instance: InstanceName, id: string): Promise<CommandAnswer> {
    return this.#change(instance, (hosted, nowMs) => hosted.messageDelivered(id, nowMs));
  }

  async query(request: {
    readonly instance: InstanceName;
    readonly query: string;
    readonly input: unknown;
  }): Promise<QueryAnswer> {
    const rejected = (reason: Fault): QueryAnswer => ({ kind: 'rejected', fault: reason });
    const read = (hosted: Hosted): Promise<QueryAnswer> => {
      const { instance } = hosted;
      let answer: QueryAnswer;
      try {
        answer = { kind: 'answered', value: instance.query(request.query, request.input), seq: instance.seq };
      } catch (thrown) {
        answer = rejected(asFault(thrown));
      }
      return this.#observed(hosted.position, answer, 'log-stopped', rejected);
    };
    return this.#with(request.instance, 'read', read, rejected);
  }

  async state(instance: InstanceName): Promise<InstanceSummary> {
    const read = (hosted: Hosted): Promise<InstanceSummary> => {
      const { seq, stateHash } = hosted.instance;
      return this.#observed(hosted.position, { instance, seq, stateHash }, 'log-stopped', raise);
    };
    return this.#with(instance, 'read', read, raise);
  }

  async messages(
    instance: InstanceName,
    options: { readonly after?: string; readonly limit: number },
  ): Promise<readonly Message[]> {
    const read = (hosted: Hosted): Promise<readonly Message[]> =>
      this.#observed(hosted.position, [...hosted.instance.messages(options)], 'log-stopped', raise);
    return this.#with(instance, 'read', read, raise);
  }

  async erase(name: InstanceName): Promise<void> {
    const mark = (hosted: Hosted): Promise<void> => {
      const { machine, seq, stateHash, keysHash } = hosted.instance;
      const of = { instance: name, machine: machine.name, machineVersion: machine.version, now: this.#now() };
      this.#append(hosted, erasureRecord({ ...of, seq, stateHash, keysHash }));
      this.#residents.discard(name);
      return this.#observed(hosted.position, undefined, 'outcome-unknown', raise);
    };
    try {
      await this.#with(name, 'write', mark, raise);
    } catch (thrown) {
      // It is recorded already, and perhaps not worked off.
      if (!(thrown instanceof Fault && thrown.code === 'history-erased')) throw thrown;
    }
    this.#options.quarantine?.erase?.(name);
    this.#keeper?.forget(name);
    await this.#store.erase(name);
    await this.#log?.erase();
    this.#erased.add(name);
  }

  instances(): readonly InstanceName[] {
    return [...this.#residents.directory.entries()].map(({ instance }) => instance);
  }

  async history(
    instance: InstanceName,
    { afterSeq, limit }: { readonly afterSeq: number; readonly limit: number },
  ): Promise<readonly Committed[]> {
    return ((await this.#history?.read(instance, afterSeq, limit)) ?? []).map(committed);
  }

  subscribe(instance: InstanceName, listener: (record: Committed) => void): () => void {
    if (this.#options.machineFor(instance) === undefined) {
      throw fault('tenant-unknown', `There is no instance ${instance} here`, { field: instance });
    }
    return this.#subscribers.add(instance, listener);
  }

  capture(name: InstanceName): CapturedInstance | undefined {
    const hosted = this.#residents.peek(name);
    if (hosted === undefined) return undefined;
    return { position: hosted.position, units: hosted.bytes, state: hosted.instance.capture() };
  }

  rowsOf(name: InstanceName): number {
    return this.#residents.peek(name)?.rows ?? 0;
  }

  quarantineInstance(instance: InstanceName, evidence: DriftEvidence): void {
    this.#residents.quarantine(instance, evidence);
  }

  get residency(): ResidencyFigures {
    const { directory, size, bytes, figures } = this.#residents;
    const { snapshots = 0, checkpoints = 0, archived: archivedUpTo = 0 } = this.#keeper?.figures ?? {};
    const kept = { snapshots, checkpoints, archivedUpTo };
    return { instances: directory.size, resident: size, residentBytes: bytes, ...figures, ...kept };
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#closing = true;
    this.#alarm.stop();
    this.#residents.refuseAll(drainingFault());
    if (!this.#commit.stopped && this.#commit.durable < this.#commit.appended) {
      await new Promise<void>((resolve) => (this.#idle = resolve));
    }
    // After a failed write nobody knows what the log holds, and a checkpoint would say that it is known.
    await this.#keeper?.close(!this.#commit.stopped);
    await this.#store.close().catch(() => {});
    await this.#log?.close();
  }

  /** Why nothing may be asked now; undefined if it may. */
  #refusal(intent: 'read' | 'write'): Fault | undefined {
    if (this.#closing) return drainingFault();
    const admitted = admits(this.#commit, intent);
    switch (admitted) {
      case 'yes':
        return undefined;
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

  /** Uses an instance at once if it is in memory, else when it is, after everybody who asked for it before. */
  #with<Answer>(
    name: InstanceName,
    intent: 'read' | 'write',
    use: (hosted: Hosted) => Answer | Promise<Answer>,
    refuse: (reason: Fault) => Answer,
  ): Answer | Promise<Answer> {
    const refusal = this.#refusal(intent);
    if (refusal !== undefined) return refuse(refusal);
    const found = this.#residents.find(name);
    if (found instanceof Fault) return refuse(found);
    if (found !== 'absent') return use(found);
    return new Promise((resolve, reject) => {
      this.#residents.wait(name, (hosted) => {
        const reason = hosted instanceof Fault ? hosted : this.#refusal(intent);
        try {
          resolve(hosted instanceof Fault || reason !== undefined ? refuse(asFault(reason)) : use(hosted));
        } catch (thrown) {
          reject(thrown);
        }
      });
    });
  }

  #change(
    name: InstanceName,
    decide: (instance: Instance, nowMs: number) => Decision,
  ): CommandAnswer | Promise<CommandAnswer> {
    return this.#with(name, 'write', (hosted) => this.#decide(hosted, decide), rejected);
  }

  #decide(
    hosted: Hosted,
    decide: (instance: Instance, nowMs: number) => Decision,
  ): CommandAnswer | Promise<CommandAnswer> {
    let decision: Decision;
    try {
      decision = decide(hosted.instance, this.#now());
      if (decision.record !== undefined) this.#append(hosted, decision.record);
    } catch (thrown) {
      // What is in memory is not what the log says any more; a new start replays what the log says.
      const reason = asFault(thrown);
      this.#stop(reason);
      return rejected(reason);
    }
    const { answer, record, broken } = decision;
    if (broken.length > 0) this.invariants.add(broken);
    const stopped = record === undefined ? 'log-stopped' : 'outcome-unknown';
    return this.#observed(hosted.position, answer, stopped, rejected);
  }

  #now(): number {
    return Math.max(this.#lastNow, this.#options.nowMs());
  }

  /** Before anybody uses a state that the present version makes of older records: its record comes first. */
  #upgrade(hosted: Hosted): Fault | undefined {
    if (!hosted.instance.needsUpgrade) return undefined;
    const refusal = this.#refusal('write');
    if (refusal !== undefined) return refusal;
    this.#append(hosted, hosted.instance.upgrade(this.#now()));
    return undefined;
  }

  async #fireTimer(instance: InstanceName): Promise<boolean> {
    const answer = await this.#change(instance, (hosted, nowMs) => hosted.fireTimer(nowMs, this.#entropy));
    const entry = this.#residents.directory.get(instance);
    if (answer.kind === 'accepted' && entry !== undefined) this.#alarm.follow(entry);
    return answer.kind === 'accepted' || answer.fault.code === 'history-erased';
  }

  #append(hosted: Hosted, record: LogRecord): void {
    const position = this.#commit.appended + 1;
    const previous = hosted.position;
    const text = encodeRecord(position, previous, record);
    this.#lastNow = record.now;
    this.#residents.appended(hosted, position);
    // What is erased has nothing to do any more.
    const nextTimer = isErasure(record.payload) ? 'none' : nextTimerOf(hosted.instance);
    const entry = { hosted, record, text, position, previous, nextTimer };
    this.#step({ type: 'append', position, units: text.head.length + text.payload.length, entry });
    if (this.#flushing) return;
    this.#flushing = true;
    // After this turn of the event loop, so that requests that arrived together share one sync.
    setImmediate(() => {
      this.#flushing = false;
      this.#step({ type: 'flush' });
    });
  }

  /** Resolves with the answer once what it observed, everything up to `position`, is durable. */
  #observed<Answer>(
    position: number,
    answer: Answer,
    stopped: 'log-stopped' | 'outcome-unknown',
    otherwise: (reason: Fault) => Answer,
  ): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const token = new WaitingAnswer({ resolve, reject, answer, stopped, otherwise });
    this.#step({ type: 'observe', position, token });
    return promise;
  }

  /** Whether a record that was decided came to be on disk, once that is known. */
  #durable(position: number): Promise<boolean> {
    if (position > this.#commit.appended) return Promise.resolve(false);
    return this.#observed(position, true, 'log-stopped', () => false);
  }

  #step(input: CommitInput<Entry, Waiting>): void {
    for (const effect of step(this.#commit, input)) this.#perform(effect);
    if (this.#idle !== undefined && (this.#commit.stopped || this.#commit.durable === this.#commit.appended))
      this.#idle();
  }

  #perform(effect: CommitEffect<Entry, Waiting>): void {
    switch (effect.type) {
      case 'write':
        this.#log?.write(
          effect.entries.map(({ text }) => text.head),
          effect.entries.map(({ text }) => text.payload),
        );
        return;
      case 'publish':
        this.#publish(effect.entries);
        return;
      case 'release':
        for (const token of effect.tokens) token.release();
        return;
      case 'rollback':
        // What these records led to must not be seen any more: the next who asks gets what the log says.
        for (const { hosted } of effect.entries) {
          this.#residents.takenBack(hosted);
          this.#keeper?.forget(hosted.name);
        }
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

  #publish(entries: readonly Entry[]): void {
    for (const { hosted, record, position, nextTimer } of entries) {
      this.#durableNow = record.now;
      this.#residents.followed(hosted, record, position, nextTimer);
      this.#alarm.follow({ instance: record.instance, nextTimer });
      this.#subscribers.publish(record);
    }
    this.#keeper?.followed(entries.length);
    this.#options.onDurable?.(entries.map(feedOf));
  }

  #stop(reason: Fault): void {
    if (this.#commit.stopped) return;
    this.#step({ type: 'failed' });
    const message = `The log in ${this.#options.folder} stopped: ${reason.message}; restart the process, which recovers what is proven`;
    this.#options.onStopped(fault('log-stopped', message, { field: this.#options.folder, cause: reason }));
  }
}

function feedOf({ record, position, previous, text }: Entry): FeedRecord {
  return { instance: record.instance, position, previous, head: text.head, payload: text.payload };
}

function rejected(reason: Fault): CommandAnswer {
  return { kind: 'rejected', fault: reason, repeated: false };
}

function raise(reason: Fault): never {
  throw reason;
}

function drainingFault(): Fault {
  return fault('draining', 'This process is stopping; repeat the request', { retryAfterMs: 1_000 });
}
