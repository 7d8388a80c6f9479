import { hash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import type { RecordText } from '../../decide/log/record.ts';
import { syncFolder } from './mark.ts';

/**
 * The files of a log: their names, whose they are, what chains their records, and how an empty one is
 * made. Everything here blocks, so it runs in the log's worker thread only. `docs/log-format.md`
 * specifies tables, chain and mark.
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
  /** Says that a write or sync failed, so that the page cache may hold what the disk does not. */
  readonly failure: string;
  /** A whole, synced copy of what could be proven after a failure; from then on it is the log. */
  readonly recovered: string;
  /** Where what a failure left is kept. */
  readonly evidence: string;
  /** Segments of the log's beginning. */
  readonly archive: string;
}

export function logFiles(folder: string): LogFiles {
  const database = join(folder, 'log.db');
  return {
    folder,
    database,
    wal: `${database}-wal`,
    mark: join(folder, 'log.mark'),
    failure: join(folder, 'log.failed'),
    recovered: `${database}.recovered`,
    evidence: join(folder, 'log.evidence'),
    archive: join(folder, 'archive'),
  };
}

/** A record as it lies in the log. */
export interface StoredRecord extends RecordText {
  readonly position: number;
}

/** Where a record of an instance stands, and where the one before; 0 if there is none. */
export interface WalkedRecord {
  readonly position: number;
  readonly previous: number;
  /** Events of the instance before and after it. */
  readonly seqBefore: number;
  readonly seqAfter: number;
}

/** Which log is meant, as whoever opens it knows. */
export interface LogIdentity {
  /** What the log belongs to, e.g. `FLEET/CELL`. A log of another owner is refused. */
  readonly owner: string;
  /** Whether there was a log before: then a missing one is damage, and none is made. */
  readonly mustExist: boolean;
}

export function damaged(files: LogFiles, what: string, cause?: unknown): Fault {
  return fault(
    'log-damaged',
    `${what}. Nothing was changed. Keep a copy of ${files.folder} as evidence, and restore it from a backup`,
    { field: files.database, cause },
  );
}

export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Primary result codes of SQLite that mean something of their own here. */
export const sqlite = { busy: 5, full: 13 } as const;

/** SQLite's primary result code of an error, e.g. 11 for SQLITE_CORRUPT; undefined for other errors. */
export function sqliteCode(thrown: unknown): number | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('errcode' in thrown)) return undefined;
  return typeof thrown.errcode === 'number' ? thrown.errcode & 0xff : undefined;
}

/** Whether SQLite or the system says that the disk has no room. A quota or a limit of file size says something else. */
export function isFull(thrown: unknown): boolean {
  if (sqliteCode(thrown) === sqlite.full) return true;
  return typeof thrown === 'object' && thrown !== null && 'code' in thrown && thrown.code === 'ENOSPC';
}

export function asOpenFault(files: LogFiles, thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  if (sqliteCode(thrown) === sqlite.busy) {
    const message = `${files.database} is in use by another process; stop it first`;
    return fault('folder-in-use', message, { field: files.folder, cause: thrown });
  }
  return damaged(files, `SQLite cannot read ${files.database}: ${messageOf(thrown)}`, thrown);
}

/** The tables of a log and of a segment of its archive. */
export const recordTables = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE record (position INTEGER PRIMARY KEY, head TEXT NOT NULL, payload TEXT, digest TEXT NOT NULL, chain TEXT) STRICT;`;

/** Makes a folder and those above it, each of them on disk before anything is put there. */
export function makeFolder(folder: string): void {
  const first = mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  for (let made = folder; ; made = dirname(made)) {
    syncFolder(dirname(made));
    if (resolve(made) === resolve(first)) return;
  }
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
    makeFolder(files.folder);
    const temporary = `${files.database}.new`;
    for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(temporary + suffix, { force: true });
    const database = new DatabaseSync(temporary);
    database.exec(`PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; ${recordTables}
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
