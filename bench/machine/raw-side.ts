import { rmSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { answerAsks } from './children.ts';
import { roundOf, type Round } from './rounds.ts';

/**
 * Raw `node:sqlite`: the bytes of a log that Cellwright wrote, inserted by a plain program with the same durability:
 * no chain, no hashes, no second thread, everything known beforehand.
 */
export type RawAsk =
  | { readonly do: 'load'; readonly log: string; readonly recordsMax: number }
  | { readonly do: 'round'; readonly file: string; readonly shape: RawShape };

export interface RawShape {
  /** Rows of one transaction. */
  readonly batch: number;
  readonly pageBytes: number;
  /** Rows of one INSERT statement. */
  readonly rowsPerInsert: number;
}

type Row = readonly [number, string, string, string, string | null];
let rows: readonly Row[] = [];

function load(log: string, recordsMax: number): number {
  const database = new DatabaseSync(log, { readOnly: true });
  const found = database
    .prepare('SELECT position, head, payload, digest, chain FROM record ORDER BY position LIMIT ?')
    .all(recordsMax);
  database.close();
  rows = found.map(({ position, head, payload, digest, chain }) => [
    Number(position),
    String(head),
    String(payload),
    String(digest),
    chain === null ? null : String(chain),
  ]);
  return rows.length;
}

function round(file: string, { batch, pageBytes, rowsPerInsert }: RawShape): Round {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA page_size = ${pageBytes}; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000;
    CREATE TABLE record (position INTEGER PRIMARY KEY, head TEXT NOT NULL, payload TEXT, digest TEXT NOT NULL, chain TEXT) STRICT;`);
  const values = Array.from({ length: rowsPerInsert }, () => '(?, ?, ?, ?, ?)').join(', ');
  const insertMany = database.prepare(`INSERT INTO record VALUES ${values}`);
  const insertOne = database.prepare('INSERT INTO record VALUES (?, ?, ?, ?, ?)');
  const latenciesMs = new Float64Array(rows.length);
  const cpuBefore = process.cpuUsage();
  const startedMs = performance.now();
  for (let first = 0; first < rows.length; first += batch) {
    const end = Math.min(rows.length, first + batch);
    const batchMs = performance.now();
    database.exec('BEGIN');
    let i = first;
    for (; i + rowsPerInsert <= end; i += rowsPerInsert) insertMany.run(...rows.slice(i, i + rowsPerInsert).flat());
    for (; i < end; i++) insertOne.run(...(rows[i] ?? []));
    database.exec('COMMIT');
    latenciesMs.fill(performance.now() - batchMs, first, end);
  }
  const measured = roundOf(latenciesMs, performance.now() - startedMs, cpuBefore);
  database.close();
  for (const ending of ['', '-wal', '-shm']) rmSync(file + ending, { force: true });
  return measured;
}

answerAsks((ask: RawAsk) => (ask.do === 'load' ? load(ask.log, ask.recordsMax) : round(ask.file, ask.shape)));
