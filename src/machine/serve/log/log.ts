import { Worker } from 'node:worker_threads';
import type { Fault } from '../../../kernel/fault.ts';
import { errorTable, fault, type ErrorCode } from '../../../protocol/errors.ts';
import { asFault } from '../../../protocol/problem.ts';
import type { Archived, Retention } from './archive.ts';
import type { LogIdentity, StoredRecord, WalkedRecord } from './files.ts';
import type { FromWorker, ToWorker } from './messages.ts';
import type { Erased } from './meta.ts';
import type { Mark } from './mark.ts';

/** Records that travel to the serving thread at once while the log is proven. */
const pageRecords = 1_024;

export interface LogEvents {
  /** The batch that ends at `position` and its mark are on disk. */
  readonly durable: (position: number) => void;
  /** The disk had no room for the batch in flight, and nothing of it is there. */
  readonly full: () => void;
  /** What a probe found. */
  readonly space: (room: boolean) => void;
  /** A write or sync failed; called at most once, and nothing is called after it. */
  readonly failed: (reason: Fault) => void;
}

/** Where a log lies, and whose it must be. */
export interface LogPlace extends LogIdentity {
  readonly folder: string;
  /** A checkpoint: what the caller knows everything up to. Only what is after it is read and proven, if the log holds it. */
  readonly from?: Mark | undefined;
}

/** A log that is proven and served: one batch at a time is written, off the event loop. */
export interface Log {
  write(heads: readonly string[], payloads: readonly string[]): void;
  /**
   * Records by their positions, each proven by its digest. Rejects with `log-damaged` if one is not as it was
   * written; the log goes on.
   */
  read(positions: readonly number[]): Promise<readonly StoredRecord[]>;
  /** From a record of an instance back to those before it, the newest first, at most `count`; not proven. */
  walk(position: number, count: number): Promise<readonly WalkedRecord[]>;
  /** Finds out whether a full disk has room again; `space` is called with the answer. */
  probe(): void;
  /**
   * Works off erasures that are recorded: what the records of those instances said leaves the log's files. Resolves
   * with the instances of which nothing is left. Rejects with `log-full` if that needs room; it is done later then.
   */
  erase(): Promise<readonly Erased[]>;
  /** Instances that were erased, as the log knew them when it was opened. */
  readonly erased: readonly Erased[];
  /**
   * Moves records up to a position into the archive. Everything up to there must be known from elsewhere, twice; reads
   * go on as before. Rejects with `log-full`, or with `log-damaged` if what would leave cannot be proven.
   */
  archive(upTo: number, retention: Retention): Promise<Archived>;
  /** The last record that is durable. */
  readonly last: Mark;
  close(): Promise<void>;
}

/**
 * Takes the next records of a log that is being opened. The first of all is the one after `start`: the
 * checkpoint that was asked for, or position 0 if there was none or the log does not hold it.
 */
export type Replay = (records: readonly StoredRecord[], start: Mark) => void;

/**
 * Opens the log in a folder, hands every record after the checkpoint to `replay` in order, and then serves
 * it. If the log cannot be proven or `replay` throws, rejects and has changed nothing on disk.
 */
export async function openLog(
  { folder, owner, mustExist, from }: LogPlace,
  replay: Replay,
  events: LogEvents,
): Promise<Log> {
  const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
  const worker = new Worker(new URL(file, import.meta.url), {
    workerData: { folder, owner, mustExist, from },
    name: 'log',
  });
  const thread = new LogThread(worker);
  try {
    const next = () => thread.ask({ type: 'next', count: pageRecords }, 'page');
    let page = await next();
    while (!page.done) {
      // The thread proves the next page while this one is replayed.
      const coming = next();
      replay(page.records, page.start);
      page = await coming;
    }
    replay(page.records, page.start);
    const { last, erased } = await thread.ask({ type: 'serve' }, 'serving');
    thread.last = last;
    thread.erased = erased;
  } catch (thrown) {
    // Reading made files beside the log; closing takes them away again.
    await thread.close().catch(() => thread.end());
    throw thrown;
  }
  return thread.serve(events);
}

/** Who waits for what was asked of the log's thread. */
type Read =
  | { readonly type: 'read'; resolve(records: readonly StoredRecord[]): void; reject(reason: Fault): void }
  | { readonly type: 'walk'; resolve(records: readonly WalkedRecord[]): void; reject(reason: Fault): void }
  | { readonly type: 'erased'; resolve(erased: readonly Erased[]): void; reject(reason: Fault): void }
  | { readonly type: 'archived'; resolve(archive: Archived): void; reject(reason: Fault): void };

class LogThread implements Log {
  last: Mark = { position: 0, chain: '' };
  erased: readonly Erased[] = [];
  readonly #worker: Worker;
  #receive: (message: FromWorker) => void = () => {};
  #fail: (reason: Fault) => void = () => {};
  #failed: Fault | undefined;
  readonly #reads = new Map<number, Read>();
  #readId = 0;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.on('message', (message: FromWorker) => {
      if (message.type === 'failed') this.#stop(faultOf(message));
      else this.#receive(message);
    });
    worker.on('exit', () => this.#stop(fault('internal', 'The thread of the log ended by itself')));
    worker.on('error', (error) => {
      const { message } = asFault(error);
      this.#stop(fault('internal', `The thread of the log failed: ${message}`, { cause: error }));
    });
  }

  /** Sends one message and waits for its answer; used before the log is served and at its end. */
  ask<Type extends FromWorker['type']>(message: ToWorker, type: Type): Promise<Extract<FromWorker, { type: Type }>> {
    return new Promise((resolve, reject) => {
      if (this.#failed !== undefined) {
        reject(this.#failed);
        return;
      }
      this.#receive = (answer) => {
        if (isOfType(answer, type)) resolve(answer);
        else this.#settleRead(answer);
      };
      this.#fail = reject;
      this.#post(message);
    });
  }

  serve(events: LogEvents): Log {
    this.#receive = (message) => {
      if (message.type === 'durable') {
        this.last = message.last;
        events.durable(message.last.position);
      } else if (message.type === 'full') {
        events.full();
      } else if (message.type === 'space') {
        events.space(message.room);
      } else {
        this.#settleRead(message);
      }
    };
    this.#fail = events.failed;
    if (this.#failed !== undefined) events.failed(this.#failed);
    return this;
  }

  write(heads: readonly string[], payloads: readonly string[]): void {
    let lines = '';
    for (let i = 0; i < heads.length; i++) lines += `${heads[i] ?? ''}\n${payloads[i] ?? ''}\n`;
    this.#post({ type: 'write', count: heads.length, lines });
  }

  probe(): void {
    this.#post({ type: 'probe' });
  }

  read(positions: readonly number[]): Promise<readonly StoredRecord[]> {
    return new Promise((resolve, reject) => {
      const id = this.#expectRead({ type: 'read', resolve, reject });
      if (id !== undefined) this.#post({ type: 'read', id, positions });
    });
  }

  walk(position: number, count: number): Promise<readonly WalkedRecord[]> {
    return new Promise((resolve, reject) => {
      const id = this.#expectRead({ type: 'walk', resolve, reject });
      if (id !== undefined) this.#post({ type: 'walk', id, position, count });
    });
  }

  erase(): Promise<readonly Erased[]> {
    return new Promise((resolve, reject) => {
      const id = this.#expectRead({ type: 'erased', resolve, reject });
      if (id !== undefined) this.#post({ type: 'erase', id });
    });
  }

  archive(upTo: number, retention: Retention): Promise<Archived> {
    return new Promise((resolve, reject) => {
      const id = this.#expectRead({ type: 'archived', resolve, reject });
      if (id !== undefined) this.#post({ type: 'archive', id, upTo, retention });
    });
  }

  #expectRead(read: Read): number | undefined {
    if (this.#failed !== undefined) {
      read.reject(this.#failed);
      return undefined;
    }
    this.#readId += 1;
    this.#reads.set(this.#readId, read);
    return this.#readId;
  }

  async close(): Promise<void> {
    if (this.#failed === undefined) await this.ask({ type: 'close' }, 'closed');
    await this.end();
  }

  async end(): Promise<void> {
    if (this.#failed === undefined) this.#failed = fault('log-stopped', 'The log is closed');
    await this.#worker.terminate();
  }

  #settleRead(message: FromWorker): void {
    if (!('id' in message)) return;
    const read = this.#reads.get(message.id);
    this.#reads.delete(message.id);
    if (message.type === 'unread') read?.reject(faultOf(message));
    else if (message.type === 'read' && read?.type === 'read') read.resolve(message.records);
    else if (message.type === 'walk' && read?.type === 'walk') read.resolve(message.records);
    else if (message.type === 'erased' && read?.type === 'erased') read.resolve(message.erased);
    else if (message.type === 'archived' && read?.type === 'archived') read.resolve(message.archive);
  }

  #stop(reason: Fault): void {
    if (this.#failed !== undefined) return;
    this.#failed = reason;
    for (const read of this.#reads.values()) read.reject(reason);
    this.#reads.clear();
    this.#fail(reason);
  }

  #post(message: ToWorker): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#worker.postMessage(message);
  }
}

function isOfType<Type extends FromWorker['type']>(
  message: FromWorker,
  type: Type,
): message is Extract<FromWorker, { type: Type }> {
  return message.type === type;
}

function faultOf(failed: Extract<FromWorker, { type: 'failed' | 'unread' }>): Fault {
  const { code, message, field } = failed;
  return isErrorCode(code) ? fault(code, message, { field }) : fault('internal', message, { field });
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}
