import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { assert } from '../../kernel/assert.ts';
import { fault } from '../../protocol/errors.ts';
import { decodeHead } from '../decide/record.ts';
import { asOpenFault, chainOf, chainStart, damaged, digestOf, type LogFiles, type StoredRecord, type WalkedRecord } from './log-files.ts';
import type { ProvenEnd } from './log-proof.ts';
import { createMark, MarkWriter, type Mark } from './mark.ts';

/** What `PRAGMA synchronous` answers when it is FULL. */
const syncFull = 2;
const rowsPerInsert = 32;
/** The chain is stored at each position that is a multiple of it too, so that one record is proven by few others. */
const chainEvery = 16;
const columns = 5;

/** A proven log, open for appending. */
export class LogWriter {
  readonly #database: DatabaseSync;
  readonly #mark: MarkWriter;
  readonly #insertMany: StatementSync;
  readonly #insertOne: StatementSync;
  readonly #select: StatementSync;
  readonly #selectHead: StatementSync;
  readonly #selectChained: StatementSync;
  readonly #selectAfter: StatementSync;
  readonly #chainStart: string;
  #last: Mark;

  /** Opens what `LogProof` has proven, and makes everything in it durable before anybody is told of it. */
  constructor(files: LogFiles, proof: ProvenEnd) {
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
    this.#select = database.prepare('SELECT head, payload, digest FROM record WHERE position = ?');
    this.#selectHead = database.prepare('SELECT head FROM record WHERE position = ?');
    this.#selectChained = database.prepare(
      'SELECT position, chain FROM record WHERE position < ? AND chain IS NOT NULL ORDER BY position DESC LIMIT 1',
    );
    this.#selectAfter = database.prepare(
      'SELECT position, head, digest, chain FROM record WHERE position > ? ORDER BY position',
    );
    this.#chainStart = chainStart(
      String(database.prepare("SELECT value FROM meta WHERE name = 'owner'").get()?.['value']),
    );
  }

  /** The last record that is on disk with its mark: what a checkpoint names. */
  get last(): Mark {
    return this.#last;
  }

  /** Appends a batch and its mark. When it returns, both are on disk; if it throws, nobody knows what is. */
  append(heads: readonly string[], payloads: readonly string[]): Mark {
    let { position, chain } = this.#last;
    const rows: (string | number | null)[] = [];
    this.#database.exec('BEGIN IMMEDIATE');
    for (let i = 0; i < heads.length; i++) {
      const head = heads[i] ?? '';
      const payload = payloads[i] ?? '';
      const digest = digestOf(payload);
      chain = chainOf(chain, head, digest);
      position += 1;
      const chained = i === heads.length - 1 || position % chainEvery === 0;
      rows.push(position, head, payload, digest, chained ? chain : null);
      if (rows.length === rowsPerInsert * columns) {
        this.#insertMany.run(...rows);
        rows.length = 0;
      }
    }
    for (let i = 0; i < rows.length; i += columns) this.#insertOne.run(...rows.slice(i, i + columns));
    this.#database.exec('COMMIT');
    this.#last = { position, chain };
    this.#mark.write(this.#last);
    return this.#last;
  }

  /**
   * Records by their positions, each payload proven by its digest, and digest and head by the stored chains around
   * them: what lies before a checkpoint was not proven at opening. Fault `log-damaged` at one that is not.
   */
  read(positions: readonly number[]): readonly StoredRecord[] {
    return positions.map((position) => {
      const { head, payload, digest } = this.#select.get(position) ?? {};
      if (
        typeof head !== 'string' ||
        typeof payload !== 'string' ||
        digest !== digestOf(payload) ||
        !this.#chains(position, head, digest)
      ) {
        throw fault('log-damaged', `Record ${position} of the log is missing or was changed`, {
          field: `record ${position}`,
        });
      }
      return { position, head, payload };
    });
  }

  /**
   * From a record of an instance back to those before it, the newest first, at most `count`. Nothing of it is
   * proven: whoever needs the records reads them.
   */
  walk(position: number, count: number): readonly WalkedRecord[] {
    const walked: WalkedRecord[] = [];
    for (let at = position; at > 0 && walked.length < count;) {
      const { head } = this.#selectHead.get(at) ?? {};
      if (typeof head !== 'string') {
        throw fault('log-damaged', `Record ${at} of the log is missing`, { field: `record ${at}` });
      }
      const { previous, seqBefore, hashes } = decodeHead(at, head);
      walked.push({ position: at, previous, seqBefore, seqAfter: seqBefore + hashes.length - 1 });
      at = previous;
    }
    return walked;
  }

  /** Whether head and digest are what the next stored chain at or after them says, from the one before. */
  #chains(position: number, head: string, digest: string): boolean {
    const before = this.#selectChained.get(position);
    let at = Number(before?.['position'] ?? 0);
    let chain = String(before?.['chain'] ?? this.#chainStart);
    for (const row of this.#selectAfter.iterate(at)) {
      at += 1;
      if (row['position'] !== at || typeof row['head'] !== 'string' || typeof row['digest'] !== 'string') return false;
      if (at === position && (row['head'] !== head || row['digest'] !== digest)) return false;
      chain = chainOf(chain, row['head'], row['digest']);
      if (row['chain'] !== null) return at >= position && row['chain'] === chain;
    }
    return false;
  }

  close(): void {
    this.#database.close();
    this.#mark.close();
  }
}
