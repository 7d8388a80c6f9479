import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { fault } from '../../../protocol/errors.ts';
import { decodeHead } from '../../decide/log/head.ts';
import { chainOf, digestOf, type StoredRecord, type WalkedRecord } from './files.ts';
import type { Mark } from './mark.ts';

/** Reads records of one file of a log by their positions. */
export class RecordReader {
  /** The record before the first that the file holds. */
  base: Mark;
  readonly #isErased: (instance: string, position: number) => boolean;
  readonly #select: StatementSync;
  readonly #selectHead: StatementSync;
  readonly #selectChained: StatementSync;
  readonly #selectAfter: StatementSync;

  constructor(database: DatabaseSync, base: Mark, isErased: (instance: string, position: number) => boolean) {
    this.base = base;
    this.#isErased = isErased;
    this.#select = database.prepare('SELECT head, payload, digest FROM record WHERE position = ?');
    this.#selectHead = database.prepare('SELECT head FROM record WHERE position = ?');
    this.#selectChained = database.prepare(
      'SELECT position, chain FROM record WHERE position < ? AND chain IS NOT NULL ORDER BY position DESC LIMIT 1',
    );
    this.#selectAfter = database.prepare(
      'SELECT position, head, digest, chain FROM record WHERE position > ? ORDER BY position',
    );
  }

  /**
   * A record, its payload proven by its digest, digest and head by the stored chains around them: what lies before a
   * checkpoint was not proven at opening. Fault `log-damaged` if it is not as it was written.
   */
  read(position: number): StoredRecord {
    const { head, payload, digest } = this.#select.get(position) ?? {};
    if (payload === null && typeof head === 'string' && this.#isErased(decodeHead(position, head).instance, position)) {
      throw fault('history-erased', `What record ${position} of the log said was erased`, {
        field: `record ${position}`,
      });
    }
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
  }

  /** Where a record stands among those of its instance; not proven. */
  walked(position: number): WalkedRecord {
    const { head } = this.#selectHead.get(position) ?? {};
    if (typeof head !== 'string') {
      throw fault('log-damaged', `Record ${position} of the log is missing`, { field: `record ${position}` });
    }
    const { previous, seqBefore, hashes } = decodeHead(position, head);
    return { position, previous, seqBefore, seqAfter: seqBefore + hashes.length - 1 };
  }

  /** Whether head and digest are what the next stored chain at or after them says, from the one before. */
  #chains(position: number, head: string, digest: string): boolean {
    const before = this.#selectChained.get(position);
    let at = Number(before?.['position'] ?? this.base.position);
    let chain = String(before?.['chain'] ?? this.base.chain);
    for (const row of this.#selectAfter.iterate(at)) {
      at += 1;
      if (row['position'] !== at || typeof row['head'] !== 'string' || typeof row['digest'] !== 'string') return false;
      if (at === position && (row['head'] !== head || row['digest'] !== digest)) return false;
      chain = chainOf(chain, row['head'], row['digest']);
      if (row['chain'] !== null) return at >= position && row['chain'] === chain;
    }
    return false;
  }
}
