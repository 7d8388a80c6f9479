import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import { asOpenFault, isFull, messageOf, recordTables, type LogFiles, type LogIdentity } from './files.ts';
import { LogProof } from './proof.ts';
import { baseOf } from './meta.ts';
import { createMark, syncFolder, type Mark } from './mark.ts';

/**
 * After a failed write or sync the page cache may hold what the disk does not, and a later sync may claim
 * otherwise. So nothing is written to those files again: what can be proven is read, through the same page
 * cache, and written to a new file, which is synced and takes the place of the old one.
 */

/**
 * Leaves word of a failed write or sync for the next opening. It need not be durable: a power loss that takes it
 * away takes the page cache too, and then what is read is what the disk holds. A full disk leaves no doubt, so no word.
 */
export function leaveFailure(files: LogFiles, thrown: unknown): void {
  if (isFull(thrown)) return;
  try {
    writeFileSync(files.failure, `${messageOf(thrown)}\n`, { mode: 0o600 });
  } catch {
    // A disk that takes no write at all takes none of the next opening either.
  }
}

/**
 * Brings a log that failed into a new file, if word of a failure is there, and completes what an earlier opening began.
 * Faults: those of a proof, if the log cannot be proven up to its mark, and then nothing was changed; `log-full` and
 * `log-stopped` if the new file cannot be written.
 */
export function recover(files: LogFiles, identity: LogIdentity): void {
  try {
    if (!existsSync(files.recovered) && existsSync(files.failure) && existsSync(files.database)) copy(files, identity);
    if (existsSync(files.recovered)) takeOver(files, identity.owner);
  } catch (thrown) {
    if (thrown instanceof Fault) throw thrown;
    const what = isFull(thrown) ? 'log-full' : 'log-stopped';
    const message = `A write of the log in ${files.folder} failed, and it cannot be brought into a new file: ${messageOf(thrown)}`;
    throw fault(what, `${message}; the old one is as it was`, { field: files.folder, cause: thrown });
  }
}

/** Writes all that can be proven to a file of its own. Only whole and synced does it get the name that counts. */
function copy(files: LogFiles, identity: LogIdentity): void {
  const temporary = `${files.database}.copy`;
  removeDatabase(temporary);
  const proof = new LogProof(files, identity, { checkPages: false, fromArchive: false });
  try {
    const database = new DatabaseSync(temporary);
    try {
      database.exec(`PRAGMA page_size = 16384; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; ${recordTables}`);
      const meta = database.prepare('INSERT INTO meta VALUES (?, ?)');
      for (const [name, value] of proof.meta()) meta.run(name, value);
      const insert = database.prepare('INSERT INTO record VALUES (?, ?, ?, ?, ?)');
      try {
        for (let row = proof.next(); row !== undefined; row = proof.next()) {
          insert.run(row.position, row.head, row.payload, row.digest, row.chain);
        }
        proof.end();
      } catch (thrown) {
        // What was never acknowledged may be lost; what was must be proven.
        if (!(thrown instanceof Fault) || !proof.reachedMark) throw thrown;
        database.prepare('DELETE FROM record WHERE position > ?').run(proof.chained.position);
      }
      // As a log is made: a change of mode later would be a transaction of another kind, with a journal of its own.
      database.exec('COMMIT; PRAGMA journal_mode = WAL');
    } finally {
      database.close();
    }
  } catch (thrown) {
    removeDatabase(temporary);
    throw thrown;
  } finally {
    proof.close();
  }
  rmSync(files.evidence, { recursive: true, force: true });
  mkdirSync(files.evidence, { mode: 0o700 });
  renameSync(temporary, files.recovered);
  syncFolder(files.folder);
}

function removeDatabase(file: string): void {
  for (const suffix of ['', '-journal', '-wal', '-shm']) rmSync(file + suffix, { force: true });
}

/** Each step can be repeated, and is on disk before the next: at no time does an old write-ahead log meet the new file. */
function takeOver(files: LogFiles, owner: string): void {
  mkdirSync(files.evidence, { recursive: true, mode: 0o700 });
  for (const file of [files.wal, `${files.database}-shm`, files.database]) {
    if (existsSync(file)) renameSync(file, join(files.evidence, basename(file)));
  }
  syncFolder(files.evidence);
  syncFolder(files.folder);
  createMark(files.mark, lastOf(files, owner));
  rmSync(files.failure, { force: true });
  renameSync(files.recovered, files.database);
  syncFolder(files.folder);
}

function lastOf(files: LogFiles, owner: string): Mark {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(files.recovered, { readOnly: true });
    const { position, chain } =
      database.prepare('SELECT position, chain FROM record ORDER BY position DESC LIMIT 1').get() ?? {};
    if (typeof position === 'number' && typeof chain === 'string') return { position, chain };
    return baseOf(database, owner);
  } catch (thrown) {
    throw asOpenFault({ ...files, database: files.recovered }, thrown);
  } finally {
    database?.close();
  }
}
