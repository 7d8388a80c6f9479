import { Worker } from 'node:worker_threads';
import { fault } from '../../../protocol/errors.ts';
import { asFault } from '../../../protocol/problem.ts';
import type { EntryText } from '../../decide/residency/guard.ts';
import type { Mark } from '../log/mark.ts';
import type { Checkpoint, StatePlace, StoredSnapshot } from './file.ts';
import type { FromStateWorker, ToStateWorker } from './messages.ts';

/** Entries of a directory that travel between the threads at once. */
const pageEntries = 4_096;

/**
 * What a runtime keeps beside its log: directory and snapshots. It may lose everything at any time and need not keep
 * anything; it must give back either what it was given or nothing. A promise rejects if it can do nothing any more.
 */
export interface StateStore {
  /** What was kept. Changes nothing. Undefined if there is nothing; `why` if that is worth a notice. */
  load(): Promise<{
    readonly checkpoint: Checkpoint | undefined;
    readonly entries: readonly EntryText[];
    readonly why: string | undefined;
  }>;
  /** From here on it is written; what was kept before is thrown away unless `keep`. */
  serve(keep: boolean): Promise<void>;
  put(entries: readonly EntryText[]): Promise<void>;
  checkpoint(mark: Mark, nowMs: number): Promise<void>;
  putPart(instance: string, position: number, number: number, text: string): Promise<void>;
  snapshot(instance: string, position: number, parts: number): Promise<void>;
  /** The newest first. */
  snapshots(instance: string): Promise<readonly StoredSnapshot[]>;
  /** Undefined if it is not there as it was given. */
  part(instance: string, position: number, number: number): Promise<string | undefined>;
  drop(instance: string, position: number): Promise<void>;
  /** Forgets all snapshots of an instance, and leaves no byte of them. */
  erase(instance: string): Promise<void>;
  close(): Promise<void>;
}

/** `state.db` beside the log, in a thread of its own. */
export function openStateFile({ folder, owner }: StatePlace): StateStore {
  const name = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
  const url = new URL(name, import.meta.url);
  return new StateThread(new Worker(url, { workerData: { folder, owner }, name: 'state' }));
}

/** Keeps nothing: each start reads the whole log, and no state ever leaves memory. */
export const noStateStore: StateStore = {
  load: async () => ({ checkpoint: undefined, entries: [], why: undefined }),
  serve: async () => {},
  put: async () => {},
  checkpoint: async () => {},
  putPart: async () => {},
  snapshot: async () => {},
  snapshots: async () => [],
  part: async () => undefined,
  drop: async () => {},
  erase: async () => {},
  close: async () => {},
};

class StateThread implements StateStore {
  readonly #worker: Worker;
  readonly #waiting: { resolve(answer: FromStateWorker): void; reject(reason: Error): void }[] = [];
  #ended: Error | undefined;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.on('message', (answer: FromStateWorker) => {
      const waiting = this.#waiting.shift();
      if (answer.type === 'failed') waiting?.reject(fault('internal', `state.db: ${answer.message}`));
      else waiting?.resolve(answer);
    });
    worker.on('error', (error) => this.#end(asFault(error)));
    worker.on('exit', () => this.#end(fault('internal', 'The thread of state.db ended by itself')));
  }

  async load(): ReturnType<StateStore['load']> {
    const loaded = await this.#ask({ type: 'load' }, 'loaded');
    const { checkpoint } = loaded;
    const entries: EntryText[] = [];
    if (checkpoint === undefined) return { checkpoint, entries, why: loaded.why };
    try {
      for (;;) {
        const page = await this.#ask({ type: 'entries', count: pageEntries }, 'entries');
        for (const entry of page.entries) entries.push(entry);
        if (page.entries.length < pageEntries) return { checkpoint, entries, why: undefined };
      }
    } catch (thrown) {
      return { checkpoint: undefined, entries: [], why: String(thrown) };
    }
  }

  async serve(keep: boolean): Promise<void> {
    await this.#ask({ type: 'serve', keep }, 'done');
  }

  async put(entries: readonly EntryText[]): Promise<void> {
    await this.#ask({ type: 'put', entries }, 'done');
  }

  async checkpoint(mark: Mark, nowMs: number): Promise<void> {
    await this.#ask({ type: 'checkpoint', mark, nowMs }, 'done');
  }

  async putPart(instance: string, position: number, number: number, text: string): Promise<void> {
    await this.#ask({ type: 'putPart', instance, position, number, text }, 'done');
  }

  async snapshot(instance: string, position: number, parts: number): Promise<void> {
    await this.#ask({ type: 'snapshot', instance, position, parts }, 'done');
  }

  async snapshots(instance: string): Promise<readonly StoredSnapshot[]> {
    return (await this.#ask({ type: 'snapshots', instance }, 'snapshots')).snapshots;
  }

  async part(instance: string, position: number, number: number): Promise<string | undefined> {
    return (await this.#ask({ type: 'part', instance, position, number }, 'part')).text;
  }

  async drop(instance: string, position: number): Promise<void> {
    await this.#ask({ type: 'drop', instance, position }, 'done');
  }

  async erase(instance: string): Promise<void> {
    await this.#ask({ type: 'erase', instance }, 'done');
  }

  async close(): Promise<void> {
    try {
      if (this.#ended === undefined) await this.#ask({ type: 'close' }, 'done');
    } finally {
      this.#ended ??= fault('internal', 'state.db is closed');
      await this.#worker.terminate();
    }
  }

  #ask<Type extends FromStateWorker['type']>(
    message: ToStateWorker,
    type: Type,
  ): Promise<Extract<FromStateWorker, { type: Type }>> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) {
        reject(this.#ended);
        return;
      }
      this.#waiting.push({
        resolve: (answer) => {
          if (isOfType(answer, type)) resolve(answer);
          else reject(fault('internal', `The thread of state.db answered ${answer.type} instead of ${type}`));
        },
        reject,
      });
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
      this.#worker.postMessage(message);
    });
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(reason);
  }
}

function isOfType<Type extends FromStateWorker['type']>(
  answer: FromStateWorker,
  type: Type,
): answer is Extract<FromStateWorker, { type: Type }> {
  return answer.type === type;
}
