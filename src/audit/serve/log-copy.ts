import {
  constants,
  existsSync,
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fault } from '../../protocol/errors.ts';
import { logFiles, type LogFiles } from '../../machine/serve/log/files.ts';

/** How often a log is copied again because its write-ahead log began anew meanwhile. */
export const copyAttemptsMax = 20;

/** The header of a write-ahead log: its two salts change whenever it begins anew. */
const walHeaderBytes = 32;

export interface LogCopy {
  /** Of the copy. */
  readonly files: LogFiles;
  readonly sizeBytes: number;
  /** Takes the copy away. */
  remove(): void;
}

/**
 * Copies the files of a log, whether its process runs or not, to a temporary folder (TMPDIR). It takes no lock and
 * changes nothing, so it holds up neither the process nor its next start.
 *
 * The order makes it a state that the log really had: mark, then database, then write-ahead log. SQLite changes the
 * database only by moving pages out of the write-ahead log, and begins that one anew only when all were moved. So if
 * it did not begin anew between the first and the last step, every page that may have been half copied stands in the
 * copied write-ahead log, which wins; and it reaches at least as far as the mark did. If it did, copying is repeated.
 * `copyFile` is the seam to the disk. Faults: `file-unreadable` (no log there), `log-busy` (written so fast that no copy succeeded).
 */
export function copyLog(folder: string, copyFile: typeof copyIfThere = copyIfThere): LogCopy {
  const source = logFiles(folder);
  if (!existsSync(source.database) && !existsSync(source.mark)) {
    throw fault('file-unreadable', `There is no log in ${folder}: ${source.database} is not there`, { field: folder });
  }
  const target = logFiles(mkdtempSync(join(tmpdir(), 'cellwright-log-')));
  const remove = (): void => rmSync(target.folder, { recursive: true, force: true });
  try {
    for (let attempt = 0; attempt < copyAttemptsMax; attempt++) {
      // The cache first: what it knows of the log is then in the copied log.
      if (!copyOnce(stateOf(folder), stateOf(target.folder), [], copyFile)) continue;
      if (!copyOnce(source, target, [[source.mark, target.mark]], copyFile)) continue;
      const state = stateOf(target.folder);
      const copied = [target.database, target.wal, state.database, state.wal];
      const sizeBytes = copied.reduce((sum, file) => sum + sizeOf(file), 0);
      return { files: target, sizeBytes, remove };
    }
  } catch (cause) {
    remove();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw fault('file-unreadable', `The log in ${folder} cannot be copied to ${target.folder}: ${why}`, { cause });
  }
  remove();
  throw fault(
    'log-busy',
    `The log in ${folder} is written so fast that ${copyAttemptsMax} copies of it were overtaken; ` +
      'repeat this when there is less to do, or stop the cell first: cellwright stop CELL',
    { field: folder, retryAfterMs: 60_000 },
  );
}

/** Copies a database and its write-ahead log, after what must not be newer than they are. Whether it succeeded. */
function copyOnce(
  source: Database,
  target: Database,
  before: readonly (readonly [from: string, to: string])[],
  copyFile: typeof copyIfThere,
): boolean {
  for (const file of [...before.map(([, to]) => to), target.database, target.wal]) rmSync(file, { force: true });
  const header = walHeader(source.wal);
  for (const [from, to] of before) copyFile(from, to);
  copyFile(source.database, target.database);
  copyFile(source.wal, target.wal);
  return walHeader(source.wal) === header && walHeader(target.wal) === header;
}

interface Database {
  readonly database: string;
  readonly wal: string;
}

function stateOf(folder: string): Database {
  const database = join(folder, 'state.db');
  return { database, wal: `${database}-wal` };
}

function copyIfThere(from: string, to: string): void {
  if (existsSync(from)) copyFileSync(from, to, constants.COPYFILE_FICLONE);
}

/** The header of a write-ahead log as text; empty if there is no whole one. */
function walHeader(file: string): string {
  if (!existsSync(file)) return '';
  const handle = openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(walHeaderBytes);
    return readSync(handle, bytes, 0, walHeaderBytes, 0) === walHeaderBytes ? bytes.toString('hex') : '';
  } finally {
    closeSync(handle);
  }
}

function sizeOf(file: string): number {
  return existsSync(file) ? statSync(file).size : 0;
}
