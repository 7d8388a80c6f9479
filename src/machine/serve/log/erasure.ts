import { rmSync } from 'node:fs';
import type { DatabaseSync } from 'node:sqlite';
import { eraseInSegment, segmentsOf } from './archive.ts';
import type { LogFiles, WalkedRecord } from './files.ts';
import { baseOf, erasedOf, noteErasure, type Erased } from './meta.ts';

/** Payloads that are erased in one transaction: a few milliseconds. */
const chunkRecords = 256;

/**
 * Erases what the records of instances said whose erasure is recorded, a chunk at a step, so that batches are written
 * between two of them; interrupted, it begins again at the next opening. Yields after each chunk. At the end the bytes
 * are in no file of the log; what the blocks of a disk hold that no file names is not in its hands.
 */
export function* erasePending(
  files: LogFiles,
  database: DatabaseSync,
  owner: string,
  walked: (position: number) => WalkedRecord,
  checkpoint: () => boolean,
): Generator<undefined, readonly Erased[]> {
  const pending = erasedOf(database).filter((each) => each.pending);
  for (const erasure of pending) yield* erase(files, database, owner, erasure, walked);
  if (pending.length === 0) return [];
  // Pages that held it lie in the write-ahead log, too, and what a failure left holds all of it.
  if (!checkpoint()) return [];
  rmSync(files.evidence, { recursive: true, force: true });
  for (const erasure of pending) noteErasure(database, { ...erasure, pending: false });
  return pending;
}

function* erase(
  files: LogFiles,
  database: DatabaseSync,
  owner: string,
  { position: upTo }: Erased,
  walked: (position: number) => WalkedRecord,
): Generator<undefined> {
  const base = baseOf(database, owner);
  const update = database.prepare('UPDATE record SET payload = NULL WHERE position = ? AND payload IS NOT NULL');
  let at = walked(upTo).previous;
  while (at > base.position) {
    database.exec('BEGIN IMMEDIATE');
    for (let i = 0; i < chunkRecords && at > base.position; i++) {
      update.run(at);
      at = walked(at).previous;
    }
    database.exec('COMMIT');
    yield;
  }
  for (const segment of segmentsOf(files, base).toReversed()) {
    const positions = new Set<number>();
    for (; at >= segment.first; at = walked(at).previous) positions.add(at);
    if (positions.size === 0) continue;
    eraseInSegment(segment, owner, positions);
    yield;
  }
}
