import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';

/** Every regular file under a folder, in order of paths. */
export function filesUnder(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/**
 * Path → SHA-256 of what a folder holds, to show that nothing was overwritten. Locks, SQLite's shared
 * memory and the text that processes write for people are no data.
 */
export function hashesOf(folder: string): Readonly<Record<string, string>> {
  const data = filesUnder(folder).filter((path) => !/(lock\.db(-\w+)?|-shm|\.log)$/.test(path));
  return Object.fromEntries(
    data.map((path) => [relative(folder, path), createHash('sha256').update(readFileSync(path)).digest('hex')]),
  );
}

/** Flips bits of one byte; a negative offset counts from the end. */
export function flip(path: string, offset: number): number {
  const bytes = readFileSync(path);
  const at = offset < 0 ? bytes.length + offset : offset;
  const byte = bytes[at];
  if (byte === undefined) throw new Error(`${path} has no byte ${offset}: it has ${bytes.length}`);
  bytes[at] = byte ^ 0x11;
  writeFileSync(path, bytes);
  return at;
}

/** Where a text stands in the log of a folder: in its database, or in what SQLite has not moved there yet. */
export function findInLog(
  folder: string,
  text: string,
): { readonly path: string; readonly offset: number } | undefined {
  for (const name of ['log.db-wal', 'log.db']) {
    const path = join(folder, name);
    const offset = exists(path) ? readFileSync(path).lastIndexOf(text) : -1;
    if (offset >= 0) return { path, offset };
  }
  return undefined;
}

export function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
