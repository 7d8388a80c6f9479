import { hash } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { assert } from '../../../kernel/assert.ts';
import { SetHash } from '../../../kernel/hash.ts';
import { entryHashText, type DirectoryGuard, type EntryText } from '../../decide/residency/guard.ts';
import { isPlainObject } from '../../decide/state/value.ts';
import type { Mark } from '../log/mark.ts';

/**
 * `state.db`, beside the log: the directory of instances at a checkpoint, and snapshots of their states. All of it can
 * be made again from the log, so nothing waits for the disk here, and whatever is wrong with it is answered by reading
 * the log instead. Everything here blocks, so it runs in a thread of its own. `docs/log-format.md` specifies it.
 */

const stateFormat = '1';

export interface StatePlace {
  /** Where the log is. */
  readonly folder: string;
  /** What the log belongs to. */
  readonly owner: string;
}

/** Up to which record of the log a directory holds, and what it must come to. */
export interface Checkpoint extends DirectoryGuard {
  readonly mark: Mark;
  /** Time of the last record, in milliseconds since 1970: no later one is earlier. */
  readonly nowMs: number;
}

function fileOf(folder: string): string {
  return join(folder, 'state.db');
}

function digestOf(...parts: readonly (string | number)[]): string {
  return hash('sha256', JSON.stringify(parts), 'base64');
}

function encodeCheckpoint(owner: string, { mark, nowMs, entries, hash: over }: Checkpoint): string {
  const text = JSON.stringify({ ...mark, nowMs, entries, hash: over });
  return `${digestOf(owner, text)} ${text}`;
}

function decodeCheckpoint(owner: string, stored: string): Checkpoint | undefined {
  const space = stored.indexOf(' ');
  const text = stored.slice(space + 1);
  if (stored.slice(0, space) !== digestOf(owner, text)) return undefined;
  const said: unknown = JSON.parse(text);
  const { position, chain, nowMs, entries, hash: over } = isPlainObject(said) ? said : {};
  const numbers = typeof position === 'number' && typeof nowMs === 'number' && typeof entries === 'number';
  if (!numbers || typeof chain !== 'string' || typeof over !== 'string') return undefined;
  return { mark: { position, chain }, nowMs, entries, hash: over };
}

/** What a snapshot was found to be: what `position` the state is of, and in how many parts. */
export interface StoredSnapshot {
  readonly position: number;
  readonly parts: number;
}

/** Reads the directory. Changes nothing on disk: the log decides first whether it is the right one. */
export class StateLoad {
  /** Undefined if there is none that could be of use; then `why` says why, unless there is no file. */
  readonly checkpoint: Checkpoint | undefined;
  readonly why: string | undefined;
  readonly #database: DatabaseSync | undefined;
  readonly #made: readonly string[];
  readonly #rows: Iterator<Record<string, unknown>> | undefined;

  constructor({ folder, owner }: StatePlace) {
    const file = fileOf(folder);
    this.#made = [`${file}-shm`, `${file}-wal`].filter((each) => !existsSync(each));
    if (!existsSync(file)) return;
    try {
      this.#database = new DatabaseSync(file, { readOnly: true });
      const meta = this.#database.prepare('SELECT value FROM meta WHERE name = ?');
      const read = (name: string): unknown => meta.get(name)?.['value'];
      const found = read('owner');
      const stored = read('checkpoint');
      if (read('format') !== stateFormat) this.why = 'it has another format';
      else if (found !== owner) this.why = `it belongs to ${String(found)}, not to ${owner}`;
      else if (typeof stored !== 'string') {
        // None was taken yet, as in the first minutes of a log; entries without one are what an interruption left.
        const [entry] = this.#database.prepare('SELECT 1 FROM directory LIMIT 1').all();
        if (entry !== undefined) this.why = 'it holds no checkpoint';
      } else {
        this.checkpoint = decodeCheckpoint(owner, stored);
        if (this.checkpoint === undefined) this.why = 'its checkpoint was changed';
        else this.#rows = this.#database.prepare('SELECT instance, entry FROM directory').iterate();
      }
    } catch (thrown) {
      this.checkpoint = undefined;
      this.why = `it cannot be read: ${messageOf(thrown)}`;
    }
  }

  /** The next entries of the directory, at most `count`; fewer only at the end. Throws what SQLite throws. */
  entries(count: number): readonly EntryText[] {
    const entries: EntryText[] = [];
    while (entries.length < count) {
      const next = this.#rows?.next();
      if (next === undefined || next.done === true) break;
      const { instance, entry } = next.value;
      entries.push([String(instance), String(entry)]);
    }
    return entries;
  }

  close(): void {
    this.#database?.close();
    for (const file of this.#made) rmSync(file, { force: true });
  }
}

/** How many snapshots of an instance are kept: if one turns out to be damaged, the one before it serves. */
export const snapshotsMax = 2;

/** Writes the directory and snapshots, and reads snapshots. */
export class StateFile {
  readonly #owner: string;
  readonly #database: DatabaseSync;
  readonly #entry: StatementSync;
  readonly #putEntry: StatementSync;
  readonly #putMeta: StatementSync;
  readonly #putPart: StatementSync;
  readonly #putSnapshot: StatementSync;
  readonly #snapshots: StatementSync;
  readonly #part: StatementSync;
  readonly #dropParts: StatementSync;
  readonly #dropSnapshot: StatementSync;
  readonly #dropUnfinished: StatementSync;
  /** Over all entries, as stored; kept up to date, so that a checkpoint costs what changed. */
  readonly #hash = new SetHash();
  #entries = 0;
  #inTransaction = false;
  #truncates = false;

  /** Opens the file; anew and empty unless `keep`, which says that its directory was read and is whole. */
  constructor({ folder, owner }: StatePlace, keep: boolean) {
    const file = fileOf(folder);
    this.#owner = owner;
    if (!keep) for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(file + suffix, { force: true });
    const database = openDatabase(file);
    this.#database = database;
    this.#entry = database.prepare('SELECT entry FROM directory WHERE instance = ?');
    this.#putEntry = database.prepare('INSERT OR REPLACE INTO directory VALUES (?, ?)');
    this.#putMeta = database.prepare('INSERT OR REPLACE INTO meta VALUES (?, ?)');
    this.#putPart = database.prepare(
      'INSERT OR REPLACE INTO part (instance, position, number, text, digest) VALUES (?, ?, ?, ?, ?)',
    );
    this.#putSnapshot = database.prepare('INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)');
    this.#snapshots = database.prepare(
      'SELECT position, parts, digest FROM snapshot WHERE instance = ? ORDER BY position DESC',
    );
    this.#part = database.prepare('SELECT text, digest FROM part WHERE instance = ? AND position = ? AND number = ?');
    this.#dropParts = database.prepare('DELETE FROM part WHERE instance = ? AND position = ?');
    this.#dropSnapshot = database.prepare('DELETE FROM snapshot WHERE instance = ? AND position = ?');
    this.#dropUnfinished = database.prepare(
      'DELETE FROM part WHERE instance = ?1 AND position NOT IN (SELECT position FROM snapshot WHERE instance = ?1)',
    );
    try {
      this.#putMeta.run('owner', owner);
      for (const { instance, entry } of database.prepare('SELECT instance, entry FROM directory').iterate()) {
        this.#hash.add(entryHashText([String(instance), String(entry)]));
        this.#entries += 1;
      }
      if (keep && !this.#isWhole()) throw new Error(`${file} changed while it was being opened`);
    } catch (thrown) {
      database.close();
      throw thrown;
    }
  }

  #isWhole(): boolean {
    const stored = this.#database.prepare("SELECT value FROM meta WHERE name = 'checkpoint'").get()?.['value'];
    const checkpoint = typeof stored === 'string' ? decodeCheckpoint(this.#owner, stored) : undefined;
    return checkpoint?.entries === this.#entries && checkpoint.hash === this.#hash.text;
  }

  /** Takes entries of the next checkpoint. They count from `checkpoint` on, all together or not at all. */
  put(entries: readonly EntryText[]): void {
    if (!this.#inTransaction) this.#database.exec('BEGIN');
    this.#inTransaction = true;
    for (const entry of entries) {
      const [instance, text] = entry;
      const before = this.#entry.get(instance)?.['entry'];
      if (typeof before === 'string') this.#hash.remove(entryHashText([instance, before]));
      else this.#entries += 1;
      this.#hash.add(entryHashText(entry));
      this.#putEntry.run(instance, text);
    }
  }

  /** From here on the directory holds up to `mark`. */
  checkpoint(mark: Mark, nowMs: number): void {
    this.put([]);
    const said: Checkpoint = { mark, nowMs, entries: this.#entries, hash: this.#hash.text };
    this.#putMeta.run('checkpoint', encodeCheckpoint(this.#owner, said));
    this.#database.exec('COMMIT');
    this.#inTransaction = false;
    // It syncs, too: what the checkpoint and the snapshots before it spare the log may leave the log after this.
    this.#database.exec(`PRAGMA wal_checkpoint(${this.#truncates ? 'TRUNCATE' : 'PASSIVE'})`);
    this.#truncates = false;
  }

  /** Stores one part of a snapshot, which does not count before `snapshot`. */
  putPart(instance: string, position: number, number: number, text: string): void {
    this.#putPart.run(instance, position, number, text, digestOf(instance, position, number, text));
  }

  /** All parts were stored: from here on it can be read, and the oldest above the bound is forgotten. */
  snapshot(instance: string, position: number, parts: number): void {
    this.#putSnapshot.run(instance, position, parts, digestOf(instance, position, parts));
    for (const { position: old } of this.#snapshots.all(instance).slice(snapshotsMax)) {
      if (typeof old === 'number') this.drop(instance, old);
    }
    this.#dropUnfinished.run(instance);
  }

  /** Snapshots of an instance, the newest first. */
  snapshots(instance: string): readonly StoredSnapshot[] {
    return this.#snapshots.all(instance).flatMap(({ position, parts, digest }) => {
      if (typeof position !== 'number' || typeof parts !== 'number') return [];
      return digest === digestOf(instance, position, parts) ? [{ position, parts }] : [];
    });
  }

  /** A part as it was stored; undefined if it is missing or was changed. */
  part(instance: string, position: number, number: number): string | undefined {
    const { text, digest } = this.#part.get(instance, position, number) ?? {};
    if (typeof text !== 'string') return undefined;
    return digest === digestOf(instance, position, number, text) ? text : undefined;
  }

  /** Forgets a snapshot. */
  drop(instance: string, position: number): void {
    this.#dropSnapshot.run(instance, position);
    this.#dropParts.run(instance, position);
  }

  /** Forgets every snapshot of an instance, unfinished ones included, so that no byte of them is left in the file or beside it. */
  erase(instance: string): void {
    for (const { position } of this.#snapshots.all(instance)) {
      if (typeof position === 'number') this.drop(instance, position);
    }
    this.#dropUnfinished.run(instance);
    // The write-ahead log still has them, unless a checkpoint under way holds it open; then the next one truncates it.
    if (!this.#inTransaction) this.#database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    else this.#truncates = true;
  }

  close(): void {
    assert(!this.#inTransaction, 'a checkpoint ends before its file is closed, or its entries would be lost');
    this.#database.close();
  }
}

function openDatabase(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  try {
    database.exec(`PRAGMA page_size = 16384; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;
        PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;
        CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS directory (instance TEXT PRIMARY KEY, entry TEXT NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS snapshot (instance TEXT, position INTEGER, parts INTEGER NOT NULL, digest TEXT NOT NULL,
          PRIMARY KEY (instance, position)) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS part (id INTEGER PRIMARY KEY, instance TEXT NOT NULL, position INTEGER NOT NULL,
          number INTEGER NOT NULL, text TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (instance, position, number)) STRICT;
        INSERT OR IGNORE INTO meta VALUES ('format', '${stateFormat}');
        DELETE FROM part WHERE NOT EXISTS
          (SELECT 1 FROM snapshot s WHERE s.instance = part.instance AND s.position = part.position);`);
    return database;
  } catch (thrown) {
    database.close();
    throw thrown;
  }
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
