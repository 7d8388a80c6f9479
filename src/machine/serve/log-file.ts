import { hash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { assert } from '../../kernel/assert.ts';
import { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import type { RecordText } from '../decide/record.ts';
import { createMark, MarkWriter, readMark, syncFolder, type Mark } from './mark.ts';

/**
 * The log on disk: `log.db` and `log.mark`. Everything here blocks, so it runs in the log's worker
 * thread only. `docs/log-format.md` specifies tables, chain and mark.
 */

export const logFormat = 2;

/** Chain before the first record: names the owner, so that no record proves anything in another's log. */
export function chainStart(owner: string): string {
  return hash('sha256', `cellwright-log ${logFormat}\n${owner}`);
}

/** What stands for a payload in the chain, so that the payload can be erased and the chain still be proven. */
export function digestOf(payload: string): string {
  return hash('sha256', payload, 'base64');
}

/** Chain of a record: SHA-256 over the chain before it, its head, and the digest of its payload. */
export function chainOf(previous: string, head: string, digest: string): string {
  return hash('sha256', `${previous}\n${digest}\n${head}`);
}

export interface LogFiles {
  readonly folder: string;
  readonly database: string;
  readonly wal: string;
  readonly mark: string;
}

export function logFiles(folder: string): LogFiles {
  const database = join(folder, 'log.db');
  return { folder, database, wal: `${database}-wal`, mark: join(folder, 'log.mark') };
}

function damaged(files: LogFiles, what: string, cause?: unknown): Fault {
  return fault(
    'log-damaged',
    `${what}. Nothing was changed. Keep a copy of ${files.folder} as evidence, and restore it from a backup`,
    { field: files.database, cause },
  );
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** SQLite's primary result code of an error, e.g. 11 for SQLITE_CORRUPT; undefined for other errors. */
function sqliteCode(thrown: unknown): number | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('errcode' in thrown)) return undefined;
  return typeof thrown.errcode === 'number' ? thrown.errcode & 0xff : undefined;
}

const sqliteBusy = 5;
/** What `PRAGMA synchronous` answers when it is FULL. */
const syncFull = 2;

function asOpenFault(files: LogFiles, thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  if (sqliteCode(thrown) === sqliteBusy) {
    const message = `${files.database} is in use by another process; stop it first`;
    return fault('folder-in-use', message, { field: files.folder, cause: thrown });
  }
  return damaged(files, `SQLite cannot read ${files.database}: ${messageOf(thrown)}`, thrown);
}

/** Which log is meant, as whoever opens it knows. */
export interface LogIdentity {
  /** What the log belongs to, e.g. `FLEET/CELL`. A log of another owner is refused. */
  readonly owner: string;
  /** Whether there was a log before: then a missing one is damage, and none is made. */
  readonly mustExist: boolean;
}

/**
 * Makes an empty log if there is none. Fault `log-damaged` if only one of its two files is there, or if there must
 * be one; then nothing is made, not even the folder.
 */
export function createIfMissing(files: LogFiles, { owner, mustExist }: LogIdentity): void {
  try {
    if (existsSync(files.database)) return;
    if (existsSync(files.mark)) throw damaged(files, `${files.mark} is there, but ${files.database} is missing`);
    if (mustExist) {
      throw damaged(files, `The log that was there is gone: ${files.database} is missing, and with it what it held`);
    }
    mkdirSync(files.folder, { recursive: true, mode: 0o700 });
    const temporary = `${files.database}.new`;
    for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(temporary + suffix, { force: true });
    const database = new DatabaseSync(temporary);
    database.exec(`PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
      CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
      CREATE TABLE record (position INTEGER PRIMARY KEY, head TEXT NOT NULL, payload TEXT, digest TEXT NOT NULL, chain TEXT) STRICT;
      INSERT INTO meta VALUES ('format', '${logFormat}');`);
    database.prepare("INSERT INTO meta VALUES ('owner', ?)").run(owner);
    database.close();
    renameSync(temporary, files.database);
    syncFolder(files.folder);
  } catch (thrown) {
    if (thrown instanceof Fault) throw thrown;
    const message = `The folder ${files.folder} cannot be written: ${messageOf(thrown)}`;
    throw fault('folder-unwritable', message, { field: files.folder, cause: thrown });
  }
}

/** A record as it lies in the log. */
export interface StoredRecord extends RecordText {
  readonly position: number;
}

/**
 * Reads a log from its first record to its last and proves it on the way: pages, chain, mark. Reads
 * only: nothing is recovered, checkpointed or truncated before `end`, so evidence stays as it is.
 */
export class LogProof {
  readonly #files: LogFiles;
  readonly #identity: LogIdentity;
  readonly #database: DatabaseSync;
  readonly #rows: Iterator<Record<string, unknown>>;
  readonly #mark: Mark | undefined;
  readonly #made: readonly string[];
  readonly #counter: number;
  #position = 0;
  #chain: string;
  #chainedAt = 0;

  constructor(files: LogFiles, identity: LogIdentity) {
    this.#files = files;
    this.#identity = identity;
    this.#chain = chainStart(identity.owner);
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
      const check = database.prepare('PRAGMA quick_check(1)').get();
      const verdict = Object.values(check ?? {})[0];
      if (verdict !== 'ok') throw damaged(files, `${files.database} is damaged: ${String(verdict)}`);
      this.#rows = database
        .prepare('SELECT position, head, payload, digest, chain FROM record ORDER BY position')
        .iterate();
    } catch (thrown) {
      database?.close();
      const refused = asOpenFault(files, thrown);
      // While another process has the log open, what appeared meanwhile is its own.
      if (refused.code !== 'folder-in-use') this.#removeMade();
      throw refused;
    }
    if (this.#mark?.position === 0) this.#compareMark();
  }

  /** The next records, at most `count`; fewer only at the end. Fault `log-damaged` at the first that is not proven. */
  read(count: number): readonly StoredRecord[] {
    const records: StoredRecord[] = [];
    try {
      while (records.length < count) {
        const next = this.#rows.next();
        if (next.done === true) break;
        records.push(this.#prove(next.value));
      }
    } catch (thrown) {
      throw asOpenFault(this.#files, thrown);
    }
    return records;
  }

  /** After the last record: proves that nothing that was acknowledged is missing. */
  end(): { readonly last: Mark; readonly counter: number; readonly marked: boolean } {
    const { database, mark } = this.#files;
    if (this.#chainedAt !== this.#position) {
      throw damaged(
        this.#files,
        `${database} ends inside a batch: records ${this.#chainedAt + 1} to ${this.#position} have no chain`,
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

  #prove(row: Record<string, unknown>): StoredRecord {
    const { position, head, payload, digest, chain } = row;
    const expected = this.#position + 1;
    if (
      position !== expected ||
      typeof head !== 'string' ||
      typeof payload !== 'string' ||
      digest !== digestOf(payload)
    ) {
      throw damaged(this.#files, `Record ${expected} of ${this.#files.database} is missing or was changed`);
    }
    const record = { position: expected, head, payload };
    this.#chain = chainOf(this.#chain, head, digest);
    this.#position = expected;
    if (chain !== null) {
      if (chain !== this.#chain) {
        throw damaged(
          this.#files,
          `The chain of ${this.#files.database} breaks at record ${expected}, or before it since record ${this.#chainedAt}`,
        );
      }
      this.#chainedAt = expected;
    }
    if (this.#mark?.position === expected) this.#compareMark();
    return record;
  }

  #compareMark(): void {
    if (this.#mark?.chain === this.#chain) return;
    throw damaged(
      this.#files,
      `Record ${this.#position} of ${this.#files.database} is not the one that ${this.#files.mark} names`,
    );
  }
}

const rowsPerInsert = 32;
const columns = 5;

/** A proven log, open for appending. */
export class LogWriter {
  readonly #database: DatabaseSync;
  readonly #mark: MarkWriter;
  readonly #insertMany: StatementSync;
  readonly #insertOne: StatementSync;
  readonly #select: StatementSync;
  #last: Mark;

  /** Opens what `LogProof` has proven, and makes everything in it durable before anybody is told of it. */
  constructor(files: LogFiles, proof: { readonly last: Mark; readonly counter: number; readonly marked: boolean }) {
    this.#last = proof.last;
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(files.database);
      database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
      const { journal_mode: journalMode } = database.prepare('PRAGMA journal_mode').get() ?? {};
      const { synchronous } = database.prepare('PRAGMA synchronous').get() ?? {};
      // SQLite says nothing if it cannot do as it is told, and then an answer would leave before it is on disk.
      assert(journalMode === 'wal' && synchronous === syncFull, 'each commit must reach the disk before it returns');
      const last = database.prepare('SELECT position, chain FROM record ORDER BY position DESC LIMIT 1').get();
      const { position, chain } = last ?? { position: 0, chain: proof.last.chain };
      if (position !== proof.last.position || chain !== proof.last.chain) {
        throw damaged(files, `${files.database} changed while it was being opened`);
      }
      // After a crash the records may be in the page cache only: a checkpoint syncs them.
      const { busy } = database.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get() ?? {};
      assert(busy === 0, 'nobody else can hold a log that is locked');
      database.exec('PRAGMA wal_autocheckpoint = 2000');
      if (!proof.marked) createMark(files.mark, proof.last);
      this.#mark = new MarkWriter(files.mark, proof.counter);
      this.#mark.write(proof.last);
    } catch (thrown) {
      database?.close();
      throw asOpenFault(files, thrown);
    }
    this.#database = database;
    const values = Array.from({ length: rowsPerInsert }, () => '(?, ?, ?, ?, ?)').join(', ');
    this.#insertMany = database.prepare(`INSERT INTO record VALUES ${values}`);
    this.#insertOne = database.prepare('INSERT INTO record VALUES (?, ?, ?, ?, ?)');
    this.#select = database.prepare('SELECT head, payload FROM record WHERE position = ?');
  }

  /** Appends a batch and its mark. When it returns, both are on disk; if it throws, nobody knows what is. */
  append(heads: readonly string[], payloads: readonly string[]): number {
    let { position, chain } = this.#last;
    const rows: (string | number | null)[] = [];
    this.#database.exec('BEGIN IMMEDIATE');
    for (let i = 0; i < heads.length; i++) {
      const head = heads[i] ?? '';
      const payload = payloads[i] ?? '';
      const digest = digestOf(payload);
      chain = chainOf(chain, head, digest);
      position += 1;
      rows.push(position, head, payload, digest, i === heads.length - 1 ? chain : null);
      if (rows.length === rowsPerInsert * columns) {
        this.#insertMany.run(...rows);
        rows.length = 0;
      }
    }
    for (let i = 0; i < rows.length; i += columns) this.#insertOne.run(...rows.slice(i, i + columns));
    this.#database.exec('COMMIT');
    this.#last = { position, chain };
    this.#mark.write(this.#last);
    return position;
  }

  read(positions: readonly number[]): readonly StoredRecord[] {
    return positions.map((position) => {
      const row = this.#select.get(position);
      const { head, payload } = row ?? {};
      if (typeof head !== 'string' || typeof payload !== 'string') {
        throw fault('log-damaged', `Record ${position} of the log cannot be read`, { field: `record ${position}` });
      }
      return { position, head, payload };
    });
  }

  close(): void {
    this.#database.close();
    this.#mark.close();
  }
}
