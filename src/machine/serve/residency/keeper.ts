import { setImmediate as nextTurn } from 'node:timers/promises';
import { Fault } from '../../../kernel/fault.ts';
import type { Directory } from '../../decide/residency/directory.ts';
import { checkpointDue, type ResidencyBounds } from '../../decide/residency/residency.ts';
import { removable, type ArchiveBounds } from '../../decide/residency/archiving.ts';
import { encodeState } from '../../decide/state/state.ts';
import { messageOf } from '../../decide/state/value.ts';
import type { Hosted } from './hosted.ts';
import type { Log } from '../log/log.ts';
import type { Mark } from '../log/mark.ts';
import type { StateStore } from '../state/store.ts';

/** Entries of the directory that are written out in one turn of the event loop. */
const entriesPerTurn = 512;

export interface KeeperSources {
  readonly directory: Directory;
  readonly store: StateStore;
  readonly bounds: ResidencyBounds;
  readonly resident: (instance: string) => Hosted | undefined;
  /** Resolves with whether the record at a position is on disk, once that is known. */
  readonly durable: (position: number) => Promise<boolean>;
  /** The last durable record, which the directory includes, and its time. */
  readonly last: () => { readonly mark: Mark; readonly nowMs: number };
  readonly archive: Pick<Log, 'archive'> & {
    readonly bounds: ArchiveBounds;
    /** Whether what an instance's records said was erased: then nobody needs them. */
    readonly isErased: (instance: string) => boolean;
  };
  /** It can do nothing any more; the log has everything. */
  readonly onFailed: (message: string) => void;
  /** Records could not be archived; they stay in the log. */
  readonly onNotArchived: (message: string) => void;
}

/**
 * Writes snapshots and checkpoints to the store: one thing at a time, a slice per turn of the event loop, and nobody
 * waits for it. If the store fails it stops, and the next start reads more of the log.
 */
export class Keeper {
  readonly #sources: KeeperSources;
  /** Instances whose state is to be written out, the longest waiting first. */
  readonly #wanted = new Set<string>();
  #recordsSince = 0;
  #working: Promise<void> | undefined;
  #stopped = false;
  /** Whose state is being written out, unless that was given up. */
  #writing: string | undefined;
  /** Up to which record the log is archived; undefined before it was asked. */
  #archivedUpTo: number | undefined;
  #archiveRefused = false;
  /** What it did so far. */
  readonly figures = { checkpoints: 0, snapshots: 0, slices: 0, archived: 0 };

  constructor(sources: KeeperSources) {
    this.#sources = sources;
  }

  /** So many records more are durable, and the directory includes them. */
  followed(records: number): void {
    this.#recordsSince += records;
    if (checkpointDue(this.#recordsSince, this.#sources.bounds)) this.#work();
  }

  wantSnapshot(instance: string): void {
    this.#wanted.add(instance);
    this.#work();
  }

  /** Stores nothing more of what an instance was: it was erased or taken back. */
  forget(instance: string): void {
    this.#wanted.delete(instance);
    if (this.#writing === instance) this.#writing = undefined;
  }

  /** Ends what is under way. With `checkpoint`, the next start has nothing to read. */
  async close(checkpoint: boolean): Promise<void> {
    this.#wanted.clear();
    const stopped = this.#stopped;
    this.#stopped = true;
    await this.#working;
    if (!checkpoint || stopped) return;
    try {
      await this.#checkpoint();
    } catch (thrown) {
      this.#sources.onFailed(messageOf(thrown));
    }
  }

  #work(): void {
    if (this.#working !== undefined || this.#stopped) return;
    this.#working = this.#run()
      .catch((thrown: unknown) => {
        this.#stopped = true;
        this.#sources.onFailed(messageOf(thrown));
      })
      .finally(() => (this.#working = undefined));
  }

  async #run(): Promise<void> {
    for (;;) {
      // Never in the middle of a batch that is being published: the directory must include all of it.
      await nextTurn();
      if (this.#stopped) return;
      const [instance] = this.#wanted;
      if (checkpointDue(this.#recordsSince, this.#sources.bounds)) {
        await this.#archive(await this.#checkpoint());
      } else if (instance === undefined) {
        return;
      } else {
        this.#wanted.delete(instance);
        await this.#snapshot(instance);
      }
    }
  }

  /** Writes what the directory says, and returns up to which record. */
  async #checkpoint(): Promise<number> {
    const { directory, store, last } = this.#sources;
    const { mark, nowMs } = last();
    this.#recordsSince = 0;
    if (mark.position === 0) return 0;
    const checkpoint = directory.checkpoint();
    for (;;) {
      const entries = checkpoint.take(entriesPerTurn);
      if (entries.length === 0) break;
      this.figures.slices += 1;
      await store.put(entries);
    }
    await store.checkpoint(mark, nowMs);
    this.figures.checkpoints += 1;
    return mark.position;
  }

  /** Moves records out of the log, once there are many before the checkpoint. From the archive they can still be read. */
  async #archive(checkpoint: number): Promise<void> {
    const { directory, archive, last, onNotArchived } = this.#sources;
    const { afterRecords, retention } = archive.bounds;
    if (this.#archiveRefused || checkpoint - (this.#archivedUpTo ?? 0) < afterRecords) return;
    try {
      this.#archivedUpTo ??= (await archive.archive(0, {})).upTo;
      if (checkpoint - this.#archivedUpTo < afterRecords) return;
      const { bytesMax, keptForMs } = retention;
      const upTo = removable(directory.entries(), checkpoint, archive.isErased);
      const keptSinceMs = keptForMs === undefined ? undefined : last().nowMs - keptForMs;
      this.#archivedUpTo = (await archive.archive(checkpoint, { bytesMax, keptSinceMs, upTo })).upTo;
      this.figures.archived = this.#archivedUpTo;
    } catch (thrown) {
      // A full disk may have room at the next checkpoint; what cannot be proven stays where it is for good.
      this.#archiveRefused = !(thrown instanceof Fault && thrown.code === 'log-full');
      onNotArchived(messageOf(thrown));
    }
  }

  async #snapshot(instance: string): Promise<void> {
    const { directory, store, resident, durable } = this.#sources;
    const hosted = resident(instance);
    // It left memory meanwhile: when it comes back its tail is still too long.
    if (hosted === undefined) return;
    const { position } = hosted;
    const records = (directory.get(instance)?.tail ?? 0) + hosted.pending;
    const state = hosted.instance.capture();
    this.#writing = instance;
    let number = 0;
    for (const text of encodeState(state)) {
      await store.putPart(instance, position, number, text);
      number += 1;
      this.figures.slices += 1;
      if (this.#stopped || this.#writing !== instance) return;
    }
    // A snapshot of what the log may yet lose would be a snapshot of another history.
    if (!(await durable(position)) || this.#writing !== instance) return;
    await store.snapshot(instance, position, number);
    directory.snapshotted(instance, position, (directory.get(instance)?.tail ?? records) - records);
    this.figures.snapshots += 1;
  }
}
