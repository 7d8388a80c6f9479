import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fault } from '../../../protocol/errors.ts';
import { decodeHead } from '../../decide/log/head.ts';
import { chainOf, chainStart, digestOf, logFormat, makeFolder, recordTables, type LogFiles } from './files.ts';
import { baseOf, readMeta, writeBase, writeMeta } from './meta.ts';
import { RecordReader } from './reader.ts';
import { syncFolder, type Mark } from './mark.ts';

/**
 * The archive: segments of the log's beginning, each a file of its own with the same tables, so that a record is found
 * by its position there too. A segment is written, synced and proven by reading it back before anything leaves the log.
 */

/** Records of one segment at most. */
export const segmentRecordsMax = 16_384;

export interface Segment {
  readonly file: string;
  readonly first: number;
  readonly last: number;
}

const digits = 12;

function segmentFile(files: LogFiles, first: number, last: number): string {
  const name = `${String(first).padStart(digits, '0')}-${String(last).padStart(digits, '0')}.db`;
  return join(files.archive, name);
}

/** The segments up to the log's base, in order; what an interrupted archiving left beyond it does not count. */
export function segmentsOf(files: LogFiles, base: Mark): readonly Segment[] {
  if (!existsSync(files.archive)) return [];
  return readdirSync(files.archive)
    .flatMap((name) => {
      const match = /^(\d{12})-(\d{12})\.db$/.exec(name);
      if (match === null) return [];
      const segment = { file: join(files.archive, name), first: Number(match[1]), last: Number(match[2]) };
      return segment.last <= base.position ? [segment] : [];
    })
    .sort((a, b) => a.first - b.first);
}

/** What retention has removed: records up to this one are gone; none by default. */
export function removedUpTo(database: DatabaseSync, owner: string): Mark {
  return readMeta(database, 'removed') ?? { position: 0, chain: chainStart(owner) };
}

interface Row {
  readonly position: number;
  readonly head: string;
  readonly payload: string | null;
  readonly digest: string;
  readonly chain: string | null;
}

function rowsOf(database: DatabaseSync, after: number, upTo: number): Iterable<Row> {
  const rows = database
    .prepare(
      'SELECT position, head, payload, digest, chain FROM record WHERE position > ? AND position <= ? ORDER BY position',
    )
    .iterate(after, upTo);
  return mapped(rows);
}

function* mapped(rows: Iterable<Record<string, unknown>>): Generator<Row> {
  for (const { position, head, payload, digest, chain } of rows) {
    yield {
      position: Number(position),
      head: String(head),
      payload: typeof payload === 'string' ? payload : null,
      digest: String(digest),
      chain: typeof chain === 'string' ? chain : null,
    };
  }
}

/**
 * Moves the oldest records, at most a segment of them and none after `upTo`, out of the log. Returns its new base, or
 * undefined if there is nothing to move. Fault `log-damaged` if the segment cannot be proven; then nothing has left.
 */
export function archiveSegment(files: LogFiles, database: DatabaseSync, owner: string, upTo: number): Mark | undefined {
  const base = baseOf(database, owner);
  const bound = Math.min(upTo, base.position + segmentRecordsMax);
  const end = database
    .prepare(
      'SELECT position FROM record WHERE position <= ? AND position > ? AND chain IS NOT NULL ORDER BY position DESC LIMIT 1',
    )
    .get(bound, base.position)?.['position'];
  if (typeof end !== 'number') return undefined;
  makeFolder(files.archive);
  const temporary = join(files.archive, 'segment.new');
  const last = writeSegment(temporary, owner, base, rowsOf(database, base.position, end));
  renameSync(temporary, segmentFile(files, base.position + 1, end));
  syncFolder(files.archive);
  database.exec('BEGIN IMMEDIATE');
  database.prepare('DELETE FROM record WHERE position <= ?').run(end);
  writeBase(database, last);
  database.exec('COMMIT');
  return last;
}

/** Erases what records of a segment said, by a new file in its place. */
export function eraseInSegment(segment: Segment, owner: string, positions: ReadonlySet<number>): void {
  const temporary = `${segment.file}.new`;
  const database = new DatabaseSync(segment.file, { readOnly: true });
  try {
    const rows = function* (): Generator<Row> {
      for (const row of rowsOf(database, 0, segment.last)) {
        yield positions.has(row.position) ? { ...row, payload: null } : row;
      }
    };
    writeSegment(temporary, owner, baseOf(database, owner), rows());
  } finally {
    database.close();
  }
  renameSync(temporary, segment.file);
  syncFolder(join(segment.file, '..'));
}

/** Writes and syncs a segment and proves it by reading it back. Returns its last record. */
function writeSegment(file: string, owner: string, base: Mark, rows: Iterable<Row>): Mark {
  for (const suffix of ['', '-journal']) rmSync(file + suffix, { force: true });
  const segment = new DatabaseSync(file);
  try {
    segment.exec(`PRAGMA page_size = 16384; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; ${recordTables}
      INSERT INTO meta VALUES ('format', '${logFormat}');`);
    segment.prepare("INSERT INTO meta VALUES ('owner', ?)").run(owner);
    writeBase(segment, base);
    const insert = segment.prepare('INSERT INTO record VALUES (?, ?, ?, ?, ?)');
    for (const { position, head, payload, digest, chain } of rows) insert.run(position, head, payload, digest, chain);
    segment.exec('COMMIT');
    return proveSegment(segment, file, base);
  } finally {
    segment.close();
  }
}

function proveSegment(segment: DatabaseSync, file: string, base: Mark): Mark {
  let { position, chain } = base;
  let chained = position;
  for (const row of rowsOf(segment, 0, Number.MAX_SAFE_INTEGER)) {
    position += 1;
    chain = chainOf(chain, row.head, row.digest);
    const isWhole = row.position === position && (row.payload === null || digestOf(row.payload) === row.digest);
    if (!isWhole || (row.chain !== null && row.chain !== chain)) {
      throw fault('log-damaged', `Record ${position} of ${file} is not what the log says; nothing has left the log`, {
        field: file,
      });
    }
    if (row.chain !== null) chained = position;
  }
  if (chained !== position) throw fault('log-damaged', `${file} ends without a chain`, { field: file });
  return { position, chain };
}

/** How much of the archive is kept. Nothing is removed unless one of these is given. */
export interface Retention {
  /** Bytes of all segments together. */
  readonly bytesMax?: number | undefined;
  /** Segments whose newest record is older than this recorded time, in milliseconds since 1970, are not kept. */
  readonly keptSinceMs?: number | undefined;
  /** Nothing after this record is removed, whatever the others say: states are made from it. */
  readonly upTo?: number | undefined;
}

/** Where the archive stands. */
export interface Archived {
  /** The last record that is in it. */
  readonly upTo: number;
  /** The last record that retention removed; 0 if none. */
  readonly removedUpTo: number;
}

/** Removes the oldest segments that are not to be kept. What is removed is recorded before it is gone. */
export function retain(files: LogFiles, database: DatabaseSync, owner: string, retention: Retention): void {
  const {
    bytesMax = Number.POSITIVE_INFINITY,
    keptSinceMs = Number.NEGATIVE_INFINITY,
    upTo = Number.POSITIVE_INFINITY,
  } = retention;
  const segments = segmentsOf(files, baseOf(database, owner));
  let bytes = 0;
  for (const { file } of segments) bytes += statSync(file).size;
  const removed = removedUpTo(database, owner);
  for (const { file, last } of segments) {
    // What an earlier removal did not come to is removed now.
    if (last > removed.position) {
      if (last > upTo) return;
      const end = endOf(file, last);
      if (bytes <= bytesMax && end.nowMs >= keptSinceMs) return;
      writeMeta(database, 'removed', { position: last, chain: end.chain });
    }
    bytes -= statSync(file).size;
    rmSync(file);
    syncFolder(files.archive);
  }
}

function endOf(file: string, last: number): { readonly chain: string; readonly nowMs: number } {
  const segment = new DatabaseSync(file, { readOnly: true });
  try {
    const { head, chain } = segment.prepare('SELECT head, chain FROM record WHERE position = ?').get(last) ?? {};
    if (typeof head === 'string' && typeof chain === 'string') return { chain, nowMs: decodeHead(last, head).now };
    throw fault('log-damaged', `${file} ends without a chain`, { field: file });
  } finally {
    segment.close();
  }
}

/** Segments that are open for reading at once. */
const openMax = 4;

/** Reads archived records by their positions. */
export class ArchiveReader {
  readonly #files: LogFiles;
  readonly #owner: string;
  readonly #isErased: (instance: string, position: number) => boolean;
  readonly #open = new Map<string, { readonly database: DatabaseSync; readonly reader: RecordReader }>();

  constructor(files: LogFiles, owner: string, isErased: (instance: string, position: number) => boolean) {
    this.#files = files;
    this.#owner = owner;
    this.#isErased = isErased;
  }

  /** The reader of the segment that holds a position. Faults: `history-erased` if retention removed it, else `log-damaged`. */
  of(position: number, base: Mark, removed: Mark): RecordReader {
    if (position <= removed.position) {
      throw fault('history-erased', `Record ${position} was removed from the archive, as its retention says`, {
        field: `record ${position}`,
      });
    }
    const segment = segmentsOf(this.#files, base).find(({ first, last }) => first <= position && position <= last);
    if (segment === undefined) {
      throw fault('log-damaged', `The segment of ${this.#files.archive} that holds record ${position} is missing`, {
        field: this.#files.archive,
      });
    }
    const known = this.#open.get(segment.file);
    if (known !== undefined) return known.reader;
    const [oldest] = this.#open;
    if (oldest !== undefined && this.#open.size >= openMax) this.#drop(oldest[0]);
    const database = new DatabaseSync(segment.file, { readOnly: true });
    const reader = new RecordReader(database, baseOf(database, this.#owner), this.#isErased);
    this.#open.set(segment.file, { database, reader });
    return reader;
  }

  /** Before segments are replaced or removed, and at the end. */
  close(): void {
    for (const { database } of this.#open.values()) database.close();
    this.#open.clear();
  }

  #drop(file: string): void {
    this.#open.get(file)?.database.close();
    this.#open.delete(file);
  }
}
