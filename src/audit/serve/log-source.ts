import { DatabaseSync } from 'node:sqlite';
import { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { messageOf } from '../../machine/decide/state/value.ts';
import { segmentsOf } from '../../machine/serve/log/archive.ts';
import { chainOf, chainStart, digestOf, logFiles, logFormat } from '../../machine/serve/log/files.ts';
import { readMark } from '../../machine/serve/log/mark.ts';
import { ChainProof, type MarkedEnd, type ProvenCounts, type ProvenRow } from '../decide/chain-proof.ts';
import { Findings } from '../decide/finding.ts';
import { copyLog } from './log-copy.ts';

/** Rows between two calls of `onProgress`. */
const progressRows = 20_000;

/** How far reading has come. */
export interface LogProgress {
  readonly position: number;
  /** The last position that the log has. */
  readonly last: number;
}

export interface LogSourceOptions {
  /** Folder of the log: a cell's, or the control plane's. */
  readonly folder: string;
  /** Whose log it must be, e.g. `FLEET/CELL`; whose it says it is if absent. */
  readonly owner?: string | undefined;
  readonly onProgress?: ((progress: LogProgress) => void) | undefined;
}

/** Called when the log's copy can be opened, before the first record. */
export type OnCopied = (folder: string, owner: string) => void;

/** What reading a whole log came to. */
export interface LogRead {
  readonly owner: string;
  readonly counts: ProvenCounts;
  readonly marked: number | undefined;
  /** Files of the archive that were read. */
  readonly segments: number;
  /** Records up to this one were removed from the archive on purpose; 0 if none was. */
  readonly removed: number;
  readonly copiedBytes: number;
  readonly findings: Findings;
}

/**
 * Reads a copy of a log from its first record to its last, proves each row, and hands those that can be used to `take`.
 * Damage is collected in the findings and does not end it. Faults: those of `copyLog`; `folder-foreign`, `folder-newer`,
 * `folder-older`, and what `take` throws.
 */
export function readLog(
  options: LogSourceOptions,
  take: (row: ProvenRow, file: string, findings: Findings) => void,
  onCopied: OnCopied = () => {},
): LogRead {
  const named = logFiles(options.folder);
  const copy = copyLog(options.folder);
  try {
    const findings = new Findings();
    let owner = options.owner ?? '';
    let mark: MarkedEnd | undefined;
    let removed = 0;
    let segments: ReturnType<typeof segmentsOf> = [];
    let counts: ProvenCounts = { first: 0, last: 0, records: 0, instances: 0, erased: 0, batches: 0 };
    try {
      mark = readMark(copy.files.mark)?.mark;
    } catch (thrown) {
      if (thrown instanceof Fault && thrown.code !== 'log-damaged') throw thrown;
      const message = 'The mark has no whole slot, so nobody knows how far the log must reach';
      findings.add({ kind: 'mark-unreadable', file: named.mark, message });
    }
    const opened = openCopy(copy.files.database, named.database, findings);
    if (opened !== undefined) {
      try {
        owner = checkedOwner(opened, named.database, options.owner);
        checkPages(opened, named.database, findings);
        onCopied(copy.files.folder, owner);
        const nothing = { position: 0, chain: chainStart(owner) };
        const base = markIn(opened, 'base') ?? nothing;
        const gone = markIn(opened, 'removed') ?? nothing;
        removed = gone.position;
        segments = segmentsOf(named, base).filter(({ last }) => last > removed);
        const last = Number(opened.prepare('SELECT max(position) AS last FROM record').get()?.['last'] ?? 0);
        const proof = new ChainProof(gone, { digestOf, chainOf }, mark, findings);
        const read = (database: DatabaseSync, file: string): void =>
          readRows(database, file, last, options.onProgress, findings, (row) => {
            const proven = proof.take(file, row);
            if (proven !== undefined) take(proven, file, findings);
          });
        for (const { file } of segments) readSegment(file, findings, read);
        proof.begin(named.database, named.archive, base);
        read(opened, named.database);
        proof.end(named.database, named.mark);
        counts = proof.counts;
        if (mark === undefined && counts.last > 0 && findings.listed.every(({ kind }) => kind !== 'mark-unreadable')) {
          const message = 'The mark is missing, so nobody knows how far the log must reach';
          findings.add({ kind: 'mark-missing', file: named.mark, position: counts.last, message });
        }
      } finally {
        opened.close();
      }
    }
    const { sizeBytes: copiedBytes } = copy;
    return { owner, counts, marked: mark?.position, segments: segments.length, removed, copiedBytes, findings };
  } finally {
    copy.remove();
  }
}

function openCopy(copied: string, named: string, findings: Findings): DatabaseSync | undefined {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(copied);
    database.exec('PRAGMA query_only = ON');
    database.prepare('SELECT count(*) FROM meta').get();
    return database;
  } catch (thrown) {
    database?.close();
    const message = `SQLite cannot read ${named}: ${messageOf(thrown)}`;
    findings.add({ kind: 'page-damaged', file: named, message });
    return undefined;
  }
}

/** Whose the log is. First its format: of another one nothing else may be read. */
function checkedOwner(database: DatabaseSync, named: string, expected: string | undefined): string {
  const meta = (name: string): unknown =>
    database.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.['value'];
  const format = Number(meta('format'));
  if (format !== logFormat) {
    const code = format > logFormat ? 'folder-newer' : 'folder-older';
    const message = `${named} has format ${shownFormat(meta('format'))}; this version of Cellwright reads ${logFormat}. Use the version that wrote it`;
    throw fault(code, message, { field: named });
  }
  const owner = meta('owner');
  const found = typeof owner === 'string' ? owner : '';
  if (expected === undefined || expected === found) return found;
  throw fault('folder-foreign', `${named} belongs to ${found || 'nobody'}, and not to ${expected}`, { field: named });
}

function shownFormat(value: unknown): string {
  return typeof value === 'string' ? value : 'no name';
}

/** A record that the log names by position and chain. */
function markIn(database: DatabaseSync, name: string): MarkedEnd | undefined {
  const value = database.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.['value'];
  const match = /^(\d+) ([0-9a-f]{64})$/.exec(typeof value === 'string' ? value : '');
  return match === null ? undefined : { position: Number(match[1]), chain: match[2] ?? '' };
}

/** Segments are written once and replaced as a whole, so they are read where they are. */
function readSegment(file: string, findings: Findings, read: (database: DatabaseSync, file: string) => void): void {
  let segment: DatabaseSync;
  try {
    segment = new DatabaseSync(file, { readOnly: true });
  } catch (thrown) {
    findings.add({ kind: 'page-damaged', file, message: `SQLite cannot read it: ${messageOf(thrown)}` });
    return;
  }
  try {
    checkPages(segment, file, findings);
    read(segment, file);
  } finally {
    segment.close();
  }
}

function checkPages(database: DatabaseSync, named: string, findings: Findings): void {
  try {
    for (const row of database.prepare('PRAGMA quick_check(10)').all()) {
      const verdict = String(Object.values(row)[0]);
      if (verdict !== 'ok')
        findings.add({ kind: 'page-damaged', file: named, message: `Its pages are damaged: ${verdict}` });
    }
  } catch (thrown) {
    findings.add({ kind: 'page-damaged', file: named, message: `Its pages are damaged: ${messageOf(thrown)}` });
  }
}

function readRows(
  database: DatabaseSync,
  named: string,
  last: number,
  onProgress: ((progress: LogProgress) => void) | undefined,
  findings: Findings,
  take: (row: StoredColumns) => void,
): void {
  let at = 0;
  let count = 0;
  let rows: Iterator<Record<string, unknown>>;
  const next = (): IteratorResult<Record<string, unknown>, unknown> | undefined => {
    try {
      return rows.next();
    } catch (thrown) {
      const message = `After record ${at} SQLite cannot read on: ${messageOf(thrown)}`;
      findings.add({ kind: 'page-damaged', file: named, position: at, message });
      return undefined;
    }
  };
  try {
    rows = database.prepare('SELECT position, head, payload, digest, chain FROM record ORDER BY position').iterate();
  } catch (thrown) {
    findings.add({ kind: 'page-damaged', file: named, message: `SQLite cannot read it: ${messageOf(thrown)}` });
    return;
  }
  for (;;) {
    const row = next();
    if (row === undefined || row.done === true) break;
    const { position, head, payload, digest, chain } = row.value;
    take({ position, head, payload, digest, chain });
    if (typeof position === 'number') at = position;
    count += 1;
    if (count % progressRows === 0) onProgress?.({ position: at, last });
  }
  onProgress?.({ position: at, last });
}

interface StoredColumns {
  readonly position: unknown;
  readonly head: unknown;
  readonly payload: unknown;
  readonly digest: unknown;
  readonly chain: unknown;
}
