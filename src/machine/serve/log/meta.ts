import type { DatabaseSync } from 'node:sqlite';
import { chainStart } from './files.ts';
import type { Mark } from './mark.ts';

/** What a file of a log says of itself beside its records. */

export function readMeta(database: DatabaseSync, name: string): Mark | undefined {
  const value = database.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.['value'];
  const match = /^(\d+) ([0-9a-f]{64})$/.exec(typeof value === 'string' ? value : '');
  return match === null ? undefined : { position: Number(match[1]), chain: match[2] ?? '' };
}

export function writeMeta(database: DatabaseSync, name: string, { position, chain }: Mark): void {
  database.prepare('INSERT OR REPLACE INTO meta VALUES (?, ?)').run(name, `${position} ${chain}`);
}

/** The record before the first that the file holds; position 0 and the owner's chain unless others were archived. */
export function baseOf(database: DatabaseSync, owner: string): Mark {
  return readMeta(database, 'base') ?? { position: 0, chain: chainStart(owner) };
}

export function writeBase(database: DatabaseSync, base: Mark): void {
  writeMeta(database, 'base', base);
}

/** An instance that was erased: what its records before `position` said is gone, or goes once `pending` is worked off. */
export interface Erased {
  readonly instance: string;
  readonly position: number;
  readonly pending: boolean;
}

const pendingTag = 'erasing ';
const doneTag = 'erased ';

export function erasedOf(database: DatabaseSync): readonly Erased[] {
  return database
    .prepare("SELECT name, value FROM meta WHERE name LIKE 'eras%' ORDER BY name")
    .all()
    .flatMap(({ name, value }) => {
      const text = String(name);
      const tag = [pendingTag, doneTag].find((each) => text.startsWith(each));
      if (tag === undefined) return [];
      return [{ instance: text.slice(tag.length), position: Number(value), pending: tag === pendingTag }];
    });
}

export function noteErasure(database: DatabaseSync, { instance, position, pending }: Erased): void {
  const [tag, other] = pending ? [pendingTag, doneTag] : [doneTag, pendingTag];
  database.prepare('INSERT OR REPLACE INTO meta VALUES (?, ?)').run(tag + instance, String(position));
  if (!pending) database.prepare('DELETE FROM meta WHERE name = ?').run(other + instance);
}
