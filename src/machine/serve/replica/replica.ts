import { setImmediate as immediately } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { unreachable } from '../../../kernel/assert.ts';
import { asFault } from '../../../protocol/problem.ts';
import type { DriftEvidence, DriftStates } from '../../decide/replica/drift.ts';
import { Feed, type FeedEntry, type FeedInput, type FeedRecord } from '../../decide/replica/feed.ts';
import { encodeState, type CapturedState } from '../../decide/state/state.ts';
import type { FromReplica, ReplicaSource, ToReplica } from './messages.ts';

export type { ReplicaSource } from './messages.ts';

/** Bounds of a replica; those of what it is fed are `feedBounds`. */
export const replicaBounds = {
  /** Memory of its thread. Beyond, the thread ends and is started again. */
  heapMiBMax: 512,
  /** How long it may take over one batch, before it is taken for hung and started again. */
  batchTimeoutMs: 60_000,
  /** How often it is started again, and after which pause; each pause is twice the one before. Then it stays off. */
  restartsMax: 5,
  restartPauseMs: 1_000,
  /** After verifying so many records without a crash, restarts count from zero again. */
  steadyRecords: 100_000,
  /** Rows of an instance that is captured: copying their list is the only part that holds up serving, some 50 ns a row. */
  capturedRowsMax: 200_000,
} as const;

/** What of an instance is needed to take it up in the middle. */
export interface Captured {
  /** The state is the one after this record. */
  readonly position: number;
  /** How long its rows and remembered answers are, about, in UTF-16 code units. */
  readonly units: number;
  readonly state: CapturedState;
}

export interface ReplicaOptions {
  readonly source: ReplicaSource;
  /** The state of a resident instance as it is; undefined if it is not in memory, or may not be served. */
  readonly capture: (instance: string) => Captured | undefined;
  /** How many rows a resident instance has. */
  readonly rowsOf: (instance: string) => number;
  /** Drift was found; the instance must not be served any more when this returns. */
  readonly onDrift: (instance: string, evidence: DriftEvidence) => void;
  /** Both states beside each other, some time after `onDrift`; never, if one of the sides went away. */
  readonly onCompared: (instance: string, states: DriftStates) => void;
  /** It crashed, hung, or its machines cannot be loaded; `off` if it will not be started again. */
  readonly onProblem: (message: string, off: boolean) => void;
  readonly restartPauseMs?: number;
}

/** What the replica did so far. */
export interface ReplicaFigures {
  readonly state: 'starting' | 'verifying' | 'off';
  /** Records whose hashes it found to agree. */
  readonly verified: number;
  /** Durable records that it has not seen. */
  readonly skipped: number;
  /** How often it fell so far behind that everything waiting was left out. */
  readonly fellBehind: number;
  readonly captures: number;
  readonly restarts: number;
  /** Instances that it holds, and records that wait for it. */
  readonly following: number;
  readonly waiting: number;
}

/**
 * A second opinion on every record: a thread with modules of its own replays what is durable and compares hashes.
 * Serving never waits for it; it costs the serving thread a copy of each record's text.
 */
export class Replica {
  readonly #options: ReplicaOptions;
  readonly #feed = new Feed<CapturedState>(isAfter);
  #worker: Worker | undefined;
  #state: ReplicaFigures['state'] = 'starting';
  #verified = 0;
  #steady = 0;
  #restarts = 0;
  #attempts = 0;
  #watch: NodeJS.Timeout | undefined;
  #pause: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#start();
  }

  get figures(): ReplicaFigures {
    const { skipped, fellBehind, captures, following, waiting } = this.#feed;
    const own = { state: this.#state, verified: this.#verified, restarts: this.#restarts };
    return { ...own, skipped, fellBehind, captures, following, waiting };
  }

  /** Takes durable records in log order. Never throws, never waits. */
  publish(records: readonly FeedRecord[]): void {
    this.#step({ type: 'publish', records });
  }

  /** Stops verifying an instance, because it left the log or was quarantined by somebody else. */
  forget(instance: string): void {
    this.#step({ type: 'forget', instance });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#state = 'off';
    clearTimeout(this.#pause);
    clearTimeout(this.#watch);
    await this.#worker?.terminate();
  }

  #start(): void {
    const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
    const { module, loader, data } = this.#options.source;
    const worker = new Worker(new URL(file, import.meta.url), {
      name: 'replica',
      workerData: { module, loader, data },
      resourceLimits: { maxOldGenerationSizeMb: replicaBounds.heapMiBMax },
      // Whatever a handler reads there is not the same here, so that it is found.
      env: environment(),
    });
    this.#worker = worker;
    worker.unref();
    worker.on('message', (message: FromReplica) => {
      if (worker === this.#worker) this.#hear(message);
    });
    let why = 'it ended by itself';
    worker.on('error', (error) => (why = asFault(error).message));
    worker.on('exit', () => {
      if (worker === this.#worker) this.#lost(why);
    });
  }

  #hear(message: FromReplica): void {
    const { onDrift, onCompared, onProblem } = this.#options;
    switch (message.type) {
      case 'ready':
        this.#state = 'verifying';
        this.#step({ type: 'ready' });
        return;
      case 'done':
        clearTimeout(this.#watch);
        this.#verified += message.verified;
        this.#steady += message.verified;
        if (this.#steady >= replicaBounds.steadyRecords) this.#attempts = 0;
        this.#step({ type: 'done' });
        return;
      case 'astray':
        this.#step({ type: 'forget', instance: message.instance });
        return;
      case 'drift': {
        const { instance } = message;
        // Before it is refused, which lets go of what is in memory.
        const captured = this.#options.capture(instance);
        onDrift(instance, message.evidence);
        if (captured === undefined) this.#step({ type: 'forget', instance });
        else this.#step({ type: 'drifted', instance, position: captured.position, state: captured.state });
        return;
      }
      case 'compared':
        onCompared(message.instance, message.states);
        return;
      case 'unloadable':
        // A restart loads the same again.
        this.#end();
        onProblem(`The machines of the verifying replica cannot be loaded: ${message.message}`, true);
        return;
      default:
        unreachable(message, 'unknown message of the replica');
    }
  }

  #step(input: FeedInput<CapturedState>): void {
    if (this.#closed) return;
    for (const effect of this.#feed.step(input)) {
      if (effect.type === 'send') void this.#send(effect.entries);
      else this.#capture(effect.instance);
    }
  }

  #capture(instance: string): void {
    const captured =
      this.#options.rowsOf(instance) > replicaBounds.capturedRowsMax ? undefined : this.#options.capture(instance);
    if (captured === undefined) this.#step({ type: 'uncapturable', instance });
    else this.#step({ type: 'captured', instance, captured });
  }

  /** Sends a batch; the texts of a state one at a time, so that requests come in between. */
  async #send(entries: readonly FeedEntry<CapturedState>[]): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    const post = (message: ToReplica): void => worker.postMessage(message);
    this.#watch = setTimeout(() => this.#hung(worker), replicaBounds.batchTimeoutMs);
    this.#watch.unref();
    let records: FeedRecord[] = [];
    const flush = (): void => {
      if (records.length > 0) post({ type: 'records', records });
      records = [];
    };
    for (const entry of entries) {
      if (entry.type === 'record') {
        records.push(entry.record);
        continue;
      }
      flush();
      if (entry.type === 'forget') {
        post(entry);
        continue;
      }
      const { type, instance, position } = entry;
      for (const text of encodeState(entry.state)) {
        post({ type: 'text', instance, text });
        await immediately();
        if (worker !== this.#worker) return;
      }
      post({ type, instance, position });
    }
    flush();
    post({ type: 'end' });
  }

  #hung(worker: Worker): void {
    if (worker !== this.#worker) return;
    this.#lost(`it did not finish a batch within ${replicaBounds.batchTimeoutMs} ms`);
    void worker.terminate();
  }

  #lost(why: string): void {
    clearTimeout(this.#watch);
    this.#worker = undefined;
    if (this.#closed) return;
    this.#step({ type: 'lost' });
    this.#steady = 0;
    const off = this.#attempts >= replicaBounds.restartsMax;
    this.#state = off ? 'off' : 'starting';
    if (!off) {
      const pauseMs = (this.#options.restartPauseMs ?? replicaBounds.restartPauseMs) * 2 ** this.#attempts;
      this.#attempts += 1;
      this.#restarts += 1;
      this.#pause = setTimeout(() => this.#start(), pauseMs);
      this.#pause.unref();
    }
    const then = off ? `it stays off, after ${replicaBounds.restartsMax} restarts` : 'it is started again';
    this.#options.onProblem(`The verifying replica failed: ${why}; ${then}`, off);
  }

  #end(): void {
    const worker = this.#worker;
    this.#worker = undefined;
    this.#state = 'off';
    this.#step({ type: 'lost' });
    void worker?.terminate();
  }
}

/** Whether a state is the one after a record: its hashes are the last of the head. */
function isAfter({ stateHash, keysHash }: CapturedState, { head }: FeedRecord): boolean {
  return head.includes(`"${stateHash}"],`) && head.endsWith(`,"${keysHash}"]`);
}

/** What a thread needs to load modules, and nothing else of the environment. */
function environment(): NodeJS.ProcessEnv {
  const kept: NodeJS.ProcessEnv = {};
  for (const name of ['PATH', 'HOME', 'TMPDIR', 'NODE_ENV', 'NODE_COMPILE_CACHE']) {
    const value = process.env[name];
    if (value !== undefined) kept[name] = value;
  }
  return kept;
}
