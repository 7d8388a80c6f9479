import { existsSync, rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { fault } from '../../../protocol/errors.ts';
import { isErasure } from '../../decide/log/erasure.ts';
import { decodeHead } from '../../decide/log/head.ts';
import { removedUpTo, segmentsOf } from './archive.ts';
import {
  asOpenFault,
  chainOf,
  chainStart,
  damaged,
  digestOf,
  logFormat,
  type LogFiles,
  type LogIdentity,
  type StoredRecord,
} from './files.ts';
import { baseOf, erasedOf } from './meta.ts';
import { readMark, type Mark } from './mark.ts';

/** What a log's end was proven to be, and the counter of its mark. */
export interface ProvenEnd {
  readonly last: Mark;
  readonly counter: number;
  readonly marked: boolean;
}

export interface ProofOptions {
  /** Begin after this record, which was proven before. */
  readonly from?: Mark | undefined;
  /** Check the file's pages first, as is done by itself when it is read from its beginning. */
  readonly checkPages?: boolean;
  /** Begin with the archive, if there is one, and not with the first record that is in `log.db`. */
  readonly fromArchive?: boolean;
}

/** A record as its row says, proven. */
export interface ProvenRow {
  readonly position: number;
  readonly head: string;
  /** Null if it was erased. */
  readonly payload: string | null;
  readonly digest: string;
  readonly chain: string | null;
}

/**
 * Reads a log from its first record, or from a point that was proven before, to its last and proves it on
 * the way: pages, chain, mark. Reads only: nothing is recovered, checkpointed or truncated before `end`, so
 * evidence stays as it is.
 */
export class LogProof {
  /**
   * After which record reading begins. It is the `from` that was asked for, or the log's beginning if the log
   * does not hold `from`: a checkpoint that fits no record of this log proves nothing in it.
   */
  readonly start: Mark;
  readonly #files: LogFiles;
  readonly #identity: LogIdentity;
  readonly #database: DatabaseSync;
  readonly #rows: Generator<Record<string, unknown>>;
  readonly #base: Mark;
  /** Up to which record each instance was erased, and those of them whose erasure is not worked off yet. */
  readonly #erased = new Map<string, number>();
  readonly #erasing = new Map<string, number>();
  /** First records without payload of instances whose erasure has not come yet. */
  readonly #missing = new Map<string, number>();
  /** The file that is being read. */
  #file: string;
  readonly #mark: Mark | undefined;
  readonly #made: readonly string[];
  readonly #counter: number;
  #position = 0;
  #chain: string;
  #chained: Mark;

  constructor(
    files: LogFiles,
    identity: LogIdentity,
    { from, checkPages = true, fromArchive = true }: ProofOptions = {},
  ) {
    this.#files = files;
    this.#file = files.database;
    this.#identity = identity;
    this.#chain = chainStart(identity.owner);
    this.#chained = { position: 0, chain: this.#chain };
    // Reading in WAL mode makes these, empty, if they are missing; what was there before stays.
    this.#made = [`${files.database}-shm`, files.wal].filter((file) => !existsSync(file));
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(files.database, { readOnly: true });
      this.#database = database;
      this.#checkFormat();
      this.#checkOwner();
      const marked = readMark(files.mark);
      this.#mark = marked?.mark;
      this.#counter = marked?.counter ?? 1;
      this.#base = baseOf(database, identity.owner);
      for (const { instance, position, pending } of erasedOf(database)) {
        this.#erased.set(instance, Math.max(position, this.#erased.get(instance) ?? 0));
        if (pending) this.#erasing.set(instance, position);
      }
      if (from !== undefined && this.#holds(from)) {
        this.#position = from.position;
        this.#chain = from.chain;
        this.#chained = from;
        this.#checkMarkBefore();
      } else {
        if (checkPages) this.#checkPages();
        // A log that lost its first records to retention is proven from the first that there is.
        const removed = fromArchive ? removedUpTo(database, identity.owner) : this.#base;
        this.#position = removed.position;
        this.#chain = removed.chain;
        this.#chained = removed;
      }
      this.start = { position: this.#position, chain: this.#chain };
      this.#rows = this.#read();
      if (this.#mark?.position === this.#position) this.#compareMark();
    } catch (thrown) {
      database?.close();
      const refused = asOpenFault(files, thrown);
      // While another process has the log open, what appeared meanwhile is its own.
      if (refused.code !== 'folder-in-use') this.#removeMade();
      throw refused;
    }
  }

  /** The next records, at most `count`, without those that were erased; fewer only at the end. Fault `log-damaged` at the first that is not proven. */
  read(count: number): readonly StoredRecord[] {
    const records: StoredRecord[] = [];
    while (records.length < count) {
      const row = this.next();
      if (row === undefined) break;
      const { position, head, payload } = row;
      if (payload !== null && !this.#isErased(row)) records.push({ position, head, payload });
    }
    return records;
  }

  /** The next record; undefined after the last. Fault `log-damaged` if it is not proven. */
  next(): ProvenRow | undefined {
    try {
      const next = this.#rows.next();
      return next.done === true ? undefined : this.#prove(next.value);
    } catch (thrown) {
      throw asOpenFault(this.#files, thrown);
    }
  }

  /** The last record that a stored chain has proven: all that is certain if a later one is not. */
  get chained(): Mark {
    return this.#chained;
  }

  /** Whether everything that may have been acknowledged is proven. */
  get reachedMark(): boolean {
    return this.#mark !== undefined && this.#chained.position >= this.#mark.position;
  }

  /** What the log says of itself, name by name. */
  meta(): readonly (readonly [string, string])[] {
    const rows = this.#database.prepare('SELECT name, value FROM meta ORDER BY name').all();
    return rows.map(({ name, value }) => [String(name), String(value)]);
  }

  /** After the last record: proves that nothing that was acknowledged is missing. */
  end(): ProvenEnd {
    const { database, mark } = this.#files;
    for (const [instance, position] of this.#missing) {
      throw damaged(
        this.#files,
        `Record ${position} of ${database} lost what it said, and ${instance} was never erased`,
      );
    }
    if (this.#chained.position !== this.#position) {
      throw damaged(
        this.#files,
        `${database} ends inside a batch: records ${this.#chained.position + 1} to ${this.#position} have no chain`,
      );
    }
    if (this.#mark === undefined && (this.#position > 0 || this.#identity.mustExist)) {
      throw damaged(
        this.#files,
        `${database} ends at record ${this.#position}, but ${mark} is missing, so the log may be cut off`,
      );
    }
    if (this.#mark !== undefined && this.#position < this.#mark.position) {
      throw damaged(
        this.#files,
        `${database} ends at record ${this.#position}, but records up to ${this.#mark.position} were acknowledged`,
      );
    }
    return {
      last: { position: this.#position, chain: this.#chain },
      counter: this.#counter,
      marked: this.#mark !== undefined,
    };
  }

  close(): void {
    // A segment that is being read is open.
    this.#rows.return(undefined);
    this.#database.close();
    this.#removeMade();
  }

  #removeMade(): void {
    for (const file of this.#made) rmSync(file, { force: true });
  }

  #checkFormat(): void {
    const row = this.#database.prepare("SELECT value FROM meta WHERE name = 'format'").get();
    const format = Number(row?.['value']);
    if (Number.isInteger(format) && format > logFormat) {
      const message = `${this.#files.database} has format ${format}, this version of Cellwright reads up to ${logFormat}; run a newer one`;
      throw fault('folder-newer', message, { field: this.#files.database });
    }
    if (format === 1) {
      const message = `${this.#files.database} has format 1, of versions before the first release, which this one does not read`;
      throw fault('folder-older', `${message}; run the version that wrote it, or start empty`, {
        field: this.#files.database,
      });
    }
    if (format !== logFormat) throw damaged(this.#files, `${this.#files.database} names no format that ever was`);
  }

  /** Before anything is proven: of a log in the wrong folder that alone is worth saying. */
  #checkOwner(): void {
    const { database, folder } = this.#files;
    const { owner } = this.#identity;
    const found = this.#database.prepare("SELECT value FROM meta WHERE name = 'owner'").get()?.['value'];
    if (typeof found !== 'string') throw damaged(this.#files, `${database} does not say what it belongs to`);
    if (found === owner) return;
    throw fault(
      'folder-foreign',
      `${database} belongs to ${found}, but ${owner} was started on it. Nothing was changed. ` +
        `Give ${folder} the files of ${owner} again, from where they were moved or from a backup`,
      { field: database },
    );
  }

  #checkPages(): void {
    const check = this.#database.prepare('PRAGMA quick_check(1)').get();
    const verdict = Object.values(check ?? {})[0];
    if (verdict !== 'ok') {
      throw damaged(this.#files, `${this.#files.database} is damaged: ${String(verdict)}`);
    }
  }

  /** The chain that is stored with a record; undefined if there is no such record, null inside a batch. */
  #storedChain(position: number): unknown {
    return this.#database.prepare('SELECT chain FROM record WHERE position = ?').get(position)?.['chain'];
  }

  #holds({ position, chain }: Mark): boolean {
    if (position === this.#base.position) return chain === this.#base.chain;
    return position > 0 && this.#storedChain(position) === chain;
  }

  /** A mark may be older than where reading begins; then its record is not read, but must still be the one it names. */
  #checkMarkBefore(): void {
    const { database, mark } = this.#files;
    if (this.#mark === undefined || this.#mark.position <= this.#base.position) return;
    if (this.#mark.position >= this.#position) return;
    if (this.#storedChain(this.#mark.position) === this.#mark.chain) return;
    throw damaged(this.#files, `Record ${this.#mark.position} of ${database} is not the one that ${mark} names`);
  }

  /** All rows after where reading begins: of the archive's segments, then of the log. */
  *#read(): Generator<Record<string, unknown>> {
    const select = 'SELECT position, head, payload, digest, chain FROM record WHERE position > ? ORDER BY position';
    if (this.#position < this.#base.position) {
      for (const { file, last } of segmentsOf(this.#files, this.#base)) {
        if (last <= this.#position) continue;
        this.#file = file;
        const segment = new DatabaseSync(file, { readOnly: true });
        try {
          yield* segment.prepare(select).iterate(this.#position);
        } finally {
          segment.close();
        }
      }
      if (this.#position !== this.#base.position || this.#chain !== this.#base.chain) {
        throw damaged(
          this.#files,
          `${this.#files.archive} ends at record ${this.#position}, but ${this.#files.database} begins after record ${this.#base.position}`,
        );
      }
    }
    this.#file = this.#files.database;
    yield* this.#database.prepare(select).iterate(this.#position);
  }

  /** Whether a record is of an instance whose erasure is under way, so that others of it may be gone. */
  #isErased({ position, head }: ProvenRow): boolean {
    if (this.#erasing.size === 0) return false;
    return position < (this.#erasing.get(decodeHead(position, head).instance) ?? 0);
  }

  /** What an erased payload must be: its instance was erased by a later record. */
  #expectErasure(position: number, head: string): void {
    const { instance } = decodeHead(position, head);
    if (position >= (this.#erased.get(instance) ?? 0)) {
      throw damaged(
        this.#files,
        `Record ${position} of ${this.#file} lost what it said, and ${instance} was not erased`,
      );
    }
    if (!this.#missing.has(instance)) this.#missing.set(instance, position);
  }

  #prove(row: Record<string, unknown>): ProvenRow {
    const { position, head, payload, digest, chain } = row;
    const expected = this.#position + 1;
    if (position !== expected) throw damaged(this.#files, `Record ${expected} of ${this.#file} is missing`);
    if (
      typeof head !== 'string' ||
      typeof digest !== 'string' ||
      !(payload === null || (typeof payload === 'string' && digest === digestOf(payload)))
    ) {
      throw damaged(this.#files, `Record ${expected} of ${this.#file} was changed`);
    }
    if (payload === null) this.#expectErasure(expected, head);
    else if (isErasure(payload)) this.#missing.delete(decodeHead(expected, head).instance);
    this.#chain = chainOf(this.#chain, head, digest);
    this.#position = expected;
    if (chain !== null) {
      if (chain !== this.#chain) {
        throw damaged(
          this.#files,
          `The chain of ${this.#file} breaks at record ${expected}, or before it since record ${this.#chained.position}`,
        );
      }
      this.#chained = { position: expected, chain: this.#chain };
    }
    if (this.#mark?.position === expected) this.#compareMark();
    return { position: expected, head, payload, digest, chain: chain === null ? null : this.#chain };
  }

  #compareMark(): void {
    if (this.#mark?.chain === this.#chain) return;
    throw damaged(
      this.#files,
      `Record ${this.#position} of ${this.#files.database} is not the one that ${this.#files.mark} names`,
    );
  }
}
