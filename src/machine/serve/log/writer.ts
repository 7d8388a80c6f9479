import { closeSync, existsSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { assert } from '../../../kernel/assert.ts';
import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import { isErasure } from '../../decide/log/erasure.ts';
import { decodeHead } from '../../decide/log/head.ts';
import { ArchiveReader, archiveSegment, removedUpTo, retain, type Archived, type Retention } from './archive.ts';
import {
  asOpenFault,
  chainOf,
  damaged,
  digestOf,
  isFull,
  messageOf,
  sqlite,
  sqliteCode,
  type LogFiles,
  type StoredRecord,
  type WalkedRecord,
} from './files.ts';
import { erasePending } from './erasure.ts';
import { baseOf, erasedOf, noteErasure, type Erased } from './meta.ts';
import type { ProvenEnd } from './proof.ts';
import { RecordReader } from './reader.ts';
import { leaveFailure } from './recovery.ts';
import { createMark, MarkWriter, syncFolder, type Mark } from './mark.ts';

/** What `PRAGMA synchronous` answers when it is FULL. */
const syncFull = 2;
const rowsPerInsert = 32;
/** The chain is stored at each position that is a multiple of it too, so that one record is proven by few others. */
const chainEvery = 16;
const columns = 5;
/** Pages of the write-ahead log, estimated, after which they are brought into the database. */
const checkpointPages = 2_000;
const pageBytes = 16_384;
/** What must fit on a disk that was full before it is written again. */
const probeBytes = 1024 * 1024;

/** A proven log, open for appending. */
export class LogWriter {
  readonly #files: LogFiles;
  readonly #database: DatabaseSync;
  readonly #mark: MarkWriter;
  readonly #insertMany: StatementSync;
  readonly #insertOne: StatementSync;
  readonly #selectLast: StatementSync;
  readonly #reader: RecordReader;
  readonly #archive: ArchiveReader;
  readonly #owner: string;
  readonly #erased = new Map<string, number>();
  #base: Mark;
  #removed: Mark;
  #last: Mark;
  #pagesWritten = 0;

  /** Opens what `LogProof` has proven, and makes everything in it durable before anybody is told of it. */
  constructor(files: LogFiles, proof: ProvenEnd, owner: string) {
    this.#files = files;
    this.#owner = owner;
    this.#last = proof.last;
    let database: DatabaseSync | undefined;
    try {
      // Before SQLite opens it: closing any other handle of a file gives up the locks that this process has on it.
      syncFile(files.wal);
      syncFile(files.database);
      database = new DatabaseSync(files.database);
      database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
      const { journal_mode: journalMode } = database.prepare('PRAGMA journal_mode').get() ?? {};
      const { synchronous } = database.prepare('PRAGMA synchronous').get() ?? {};
      // SQLite says nothing if it cannot do as it is told, and then an answer would leave before it is on disk.
      assert(journalMode === 'wal' && synchronous === syncFull, 'each commit must reach the disk before it returns');
      // SQLite's own checkpoints fail in silence: a sync that failed there, repeated, could claim what is not so.
      database.exec('PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = ON');
      this.#base = baseOf(database, owner);
      this.#removed = removedUpTo(database, owner);
      for (const each of erasedOf(database)) this.#noteErased(each);
      this.#selectLast = database.prepare('SELECT position, chain FROM record ORDER BY position DESC LIMIT 1');
      const { position, chain } = this.#selectLast.get() ?? this.#base;
      if (position !== proof.last.position || chain !== proof.last.chain) {
        throw damaged(files, `${files.database} changed while it was being opened`);
      }
      this.#database = database;
      this.#checkpoint('TRUNCATE');
      // SQLite syncs the name of its write-ahead log too, but does not say if that fails.
      syncFolder(files.folder);
      if (!proof.marked) createMark(files.mark, proof.last);
      this.#mark = new MarkWriter(files.mark, proof.counter);
      this.#mark.write(proof.last);
      const isErased = (instance: string, at: number): boolean => at < (this.#erased.get(instance) ?? 0);
      this.#reader = new RecordReader(database, this.#base, isErased);
      this.#archive = new ArchiveReader(files, owner, isErased);
    } catch (thrown) {
      database?.close();
      throw writableFault(files, thrown);
    }
    const values = Array.from({ length: rowsPerInsert }, () => '(?, ?, ?, ?, ?)').join(', ');
    this.#insertMany = database.prepare(`INSERT INTO record VALUES ${values}`);
    this.#insertOne = database.prepare('INSERT INTO record VALUES (?, ?, ?, ?, ?)');
  }

  /** The last record that is on disk with its mark: what a checkpoint names. */
  get last(): Mark {
    return this.#last;
  }

  /**
   * Appends a batch and its mark. When it returns, both are on disk; or it returns undefined, because the disk is
   * full, and nothing of the batch is there. If it throws, nobody knows what is.
   */
  append(heads: readonly string[], payloads: readonly string[]): Mark | undefined {
    let last: Mark;
    try {
      last = this.#insert(heads, payloads);
      this.#database.exec('COMMIT');
    } catch (thrown) {
      if (sqliteCode(thrown) !== sqlite.full) throw thrown;
      this.#takeBack(thrown);
      return undefined;
    }
    this.#last = last;
    if (payloads.some(isErasure)) for (const each of erasedOf(this.#database)) this.#noteErased(each);
    this.#mark.write(last);
    return last;
  }

  /** After a batch: brings the write-ahead log into the database once it is long. Throws as `append` does. */
  maintain(pages = checkpointPages): void {
    if (this.#pagesWritten >= pages) this.#checkpoint('PASSIVE');
  }

  /** Whether a full disk has room again. Throws if it fails in another way. */
  probe(): boolean {
    const file = `${this.#files.database}.probe`;
    try {
      const handle = openSync(file, 'w', 0o600);
      try {
        // Its bytes differ, so that a file system that compresses needs room for them too.
        const bytes = Buffer.allocUnsafe(probeBytes);
        for (let i = 0; i < probeBytes; i += 4) bytes.writeUInt32LE(Math.imul(i, 0x9e37_79b1) >>> 0, i);
        for (let at = 0; at < probeBytes;) at += writeSync(handle, bytes, at);
        fdatasyncSync(handle);
      } finally {
        closeSync(handle);
      }
      return true;
    } catch (thrown) {
      if (isFull(thrown)) return false;
      throw thrown;
    } finally {
      rmSync(file, { force: true });
    }
  }

  /** Records by their positions, each proven. Fault `log-damaged` at one that is not as it was written. */
  read(positions: readonly number[]): readonly StoredRecord[] {
    return positions.map((position) => this.#readerOf(position).read(position));
  }

  /**
   * From a record of an instance back to those before it, the newest first, at most `count`, and none from the first
   * on that is not there any more: whoever needs that one asks for it. Nothing of it is proven.
   */
  walk(position: number, count: number): readonly WalkedRecord[] {
    const walked: WalkedRecord[] = [];
    for (let at = position; at > 0 && walked.length < count;) {
      try {
        const record = this.#readerOf(at).walked(at);
        walked.push(record);
        at = record.previous;
      } catch (thrown) {
        if (walked.length === 0) throw thrown;
        break;
      }
    }
    return walked;
  }

  /** Instances whose erasure is recorded, whether or not the bytes are gone yet. */
  get erased(): readonly Erased[] {
    return erasedOf(this.#database);
  }

  /**
   * Works off recorded erasures, a chunk at a step. Returns the instances of which nothing is left in the log's files;
   * none if the disk is full: then it is done at the next opening, or the next time that it is asked for.
   */
  *erase(): Generator<undefined, readonly Erased[]> {
    const walked = (position: number): WalkedRecord => this.#readerOf(position).walked(position);
    const checkpoint = (): boolean => this.#checkpoint('TRUNCATE');
    this.#archive.close();
    const done = yield* erasePending(this.#files, this.#database, this.#owner, walked, checkpoint);
    this.#archive.close();
    return done;
  }

  /**
   * Moves records up to `upTo` into the archive, a segment at a step, and removes what is not to be kept. The space
   * that they took in `log.db` is used for records to come.
   */
  *archive(upTo: number, retention: Retention): Generator<undefined, Archived> {
    const bound = Math.min(upTo, this.#last.position - 1);
    // What is to be erased is found in the log first.
    while (this.erased.every(({ pending }) => !pending)) {
      const base = archiveSegment(this.#files, this.#database, this.#owner, bound);
      if (base === undefined) break;
      this.#base = base;
      this.#reader.base = base;
      yield;
    }
    this.#archive.close();
    retain(this.#files, this.#database, this.#owner, retention);
    this.#removed = removedUpTo(this.#database, this.#owner);
    return { upTo: this.#base.position, removedUpTo: this.#removed.position };
  }

  /** Takes back what work between two batches left unfinished. */
  rollback(): void {
    if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
  }

  close(): void {
    this.#archive.close();
    this.#database.close();
    this.#mark.close();
  }

  #readerOf(position: number): RecordReader {
    return position > this.#base.position ? this.#reader : this.#archive.of(position, this.#base, this.#removed);
  }

  #noteErased({ instance, position }: Erased): void {
    this.#erased.set(instance, Math.max(position, this.#erased.get(instance) ?? 0));
  }

  #insert(heads: readonly string[], payloads: readonly string[]): Mark {
    let { position, chain } = this.#last;
    const rows: (string | number | null)[] = [];
    let units = 0;
    this.#database.exec('BEGIN IMMEDIATE');
    for (let i = 0; i < heads.length; i++) {
      const head = heads[i] ?? '';
      const payload = payloads[i] ?? '';
      const digest = digestOf(payload);
      chain = chainOf(chain, head, digest);
      position += 1;
      units += head.length + payload.length;
      if (isErasure(payload)) {
        noteErasure(this.#database, { instance: decodeHead(position, head).instance, position, pending: true });
      }
      const chained = i === heads.length - 1 || position % chainEvery === 0;
      rows.push(position, head, payload, digest, chained ? chain : null);
      if (rows.length === rowsPerInsert * columns) {
        this.#insertMany.run(...rows);
        rows.length = 0;
      }
    }
    for (let i = 0; i < rows.length; i += columns) this.#insertOne.run(...rows.slice(i, i + columns));
    this.#pagesWritten += 2 + Math.ceil(units / pageBytes);
    return { position, chain };
  }

  /**
   * SQLite says FULL when a frame could not be written whole. The commit frame is the last one, and without all of
   * it recovery drops the batch; the next batch overwrites what is there of it.
   */
  #takeBack(cause: unknown): void {
    this.rollback();
    const { position, chain } = this.#selectLast.get() ?? this.#last;
    if (position === this.#last.position && chain === this.#last.chain) return;
    throw new Error('the batch that found the disk full is there all the same', { cause });
  }

  /** A full disk is no failure: the records are in the write-ahead log, and stay there. */
  #checkpoint(mode: 'PASSIVE' | 'TRUNCATE'): boolean {
    this.#pagesWritten = 0;
    try {
      const { busy } = this.#database.prepare(`PRAGMA wal_checkpoint(${mode})`).get() ?? {};
      assert(busy === 0, 'nobody else can hold a log that is locked');
    } catch (thrown) {
      if (sqliteCode(thrown) !== sqlite.full) throw thrown;
      return false;
    }
    return true;
  }
}

/** What a killed process wrote may be in the page cache only. */
function syncFile(file: string): void {
  if (!existsSync(file)) return;
  const handle = openSync(file, 'r+');
  try {
    fdatasyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** Why a log that is proven cannot be written: it is not damaged, but what the disk holds is not known any more. */
function writableFault(files: LogFiles, thrown: unknown): Fault {
  if (thrown instanceof Fault || sqliteCode(thrown) === sqlite.busy) return asOpenFault(files, thrown);
  if (isFull(thrown)) {
    const message = `There is no room on the disk of ${files.folder}, not even to open the log; make some`;
    return fault('log-full', message, { field: files.folder, cause: thrown });
  }
  leaveFailure(files, thrown);
  const message = `The log in ${files.folder} is proven, but cannot be written: ${messageOf(thrown)}; check the disk`;
  return fault('log-stopped', message, { field: files.folder, cause: thrown });
}
