import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import { Directory } from '../../decide/residency/directory.ts';
import { decodeRecord } from '../../decide/log/record.ts';
import type { LogIdentity, StoredRecord } from '../log/files.ts';
import type { Log, LogEvents, openLog } from '../log/log.ts';
import type { Mark } from '../log/mark.ts';
import { DirectoryMisfit, type Residents } from './residents.ts';
import type { StateStore } from '../state/store.ts';

/** What an opening read and proved. */
export interface Recovered {
  /** Records that were read; with a good checkpoint, those after it. */
  readonly records: number;
  readonly events: number;
  /** Position of the checkpoint after which they come; 0 if the whole log was read. */
  readonly checkpoint: number;
  readonly durationMs: number;
}

export interface Opening {
  readonly place: LogIdentity & { readonly folder: string };
  readonly open: typeof openLog;
  readonly events: LogEvents;
  readonly residents: Residents;
  readonly store: StateStore;
  /** Read the whole log, whatever is stored. */
  readonly whole: boolean;
  readonly onNotice: (message: string) => void;
}

export interface Opened {
  readonly log: Log;
  readonly recovered: Recovered;
  /** Time of the last record, in milliseconds since 1970. */
  readonly lastNowMs: number;
  /** Whether what is stored goes on; else it is made anew. */
  readonly keep: boolean;
}

interface Stored {
  readonly mark: Mark;
  readonly nowMs: number;
  readonly directory: Directory;
}

/**
 * Opens a log: with a good checkpoint only what comes after it is read and proven. Whatever is wrong with what is stored
 * or does not fit the log, the whole log is read and proven instead. Rejects as `openLog` does, and has changed nothing then.
 */
export async function openWithState(opening: Opening): Promise<Opened> {
  const stored = opening.whole ? undefined : await loadStored(opening);
  if (stored !== undefined) {
    try {
      return await openFrom(opening, stored);
    } catch (thrown) {
      if (!(thrown instanceof DirectoryMisfit)) throw thrown;
      opening.onNotice(`state.db does not fit the log, so the whole log is read: ${thrown.message}`);
    }
  }
  return await openFrom(opening, undefined);
}

/** What is stored, if it is whole: nothing in it is missing, changed or from elsewhere. */
async function loadStored({ store, onNotice }: Opening): Promise<Stored | undefined> {
  const ignored = (why: string): undefined => {
    onNotice(`state.db is ignored, and the whole log is read: ${why}`);
  };
  const { checkpoint, entries, why } = await store.load();
  if (checkpoint === undefined) return why === undefined ? undefined : ignored(why);
  const directory = Directory.read(entries, checkpoint);
  if (directory === undefined) return ignored('its directory of instances was changed');
  return { mark: checkpoint.mark, nowMs: checkpoint.nowMs, directory };
}

async function openFrom(
  { place, open, events, residents, onNotice }: Opening,
  stored: Stored | undefined,
): Promise<Opened> {
  const startedMs = performance.now();
  let lastNowMs = 0;
  let records = 0;
  let recordedEvents = 0;
  let checkpoint = 0;
  let begun = false;
  const begin = (start: Mark): void => {
    begun = true;
    const fits = stored !== undefined && start.position === stored.mark.position;
    if (stored !== undefined && !fits) {
      onNotice(`state.db is of another log, or of one that went on after this copy, so the whole log is read`);
    }
    if (!fits && start.position > 0) {
      const message = `Records up to ${start.position} were removed from the archive, as its retention says, and state.db, which knows what they led to, is missing or damaged`;
      throw fault('log-damaged', `${message}. Restore the folder from a backup`, {
        field: place.folder,
      });
    }
    residents.load(fits ? stored.directory : new Directory());
    lastNowMs = fits ? stored.nowMs : 0;
    checkpoint = fits ? start.position : 0;
  };
  const replay = (page: readonly StoredRecord[], start: Mark): void => {
    if (!begun) begin(start);
    for (const { position, ...text } of page) {
      const record = decodeRecord(position, text);
      if (checkpoint > 0) residents.followTail(record);
      else residents.replay(record);
      lastNowMs = Math.max(lastNowMs, record.now);
      records += 1;
      recordedEvents += record.hashes.length - 1;
    }
  };
  const log = await open({ ...place, from: stored?.mark }, replay, events);
  const durationMs = performance.now() - startedMs;
  return {
    log,
    lastNowMs,
    keep: checkpoint > 0,
    recovered: { records, events: recordedEvents, checkpoint, durationMs },
  };
}

/** Opens the store for writing, once the log is served. What cannot be kept is made anew; false if that fails too. */
export async function serveStore(
  store: StateStore,
  keep: boolean,
  directory: Directory,
  onNotice: (message: string) => void,
): Promise<boolean> {
  for (const old of keep ? [true, false] : [false]) {
    if (!old) directory.changeAll();
    try {
      await store.serve(old);
      return true;
    } catch (thrown) {
      const why = thrown instanceof Fault ? thrown.message : String(thrown);
      onNotice(
        old ? `state.db is made anew: ${why}` : `state.db cannot be written, so each start reads the log: ${why}`,
      );
    }
  }
  return false;
}
