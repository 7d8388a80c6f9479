import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/**
 * A disk that remembers only what was synced. It is fed the system calls of real processes (`traced.ts`), and says
 * what may be on the disk if the power goes at any of them:
 *
 * - what was written and not synced is there in part, sector by sector, in any order, or not at all;
 * - what a failed sync should have brought to the disk never gets there by a later one, because the page cache
 *   holds it to be clean from then on;
 * - names (made, renamed, removed) are there once their folder was synced, before that up to some point.
 */

const sectorBytes = 512;

interface Write {
  readonly at: number;
  /** Undefined: the file was cut, or made longer, to `at`. */
  readonly bytes: Buffer | undefined;
  /** Pending until a sync: then on the disk, or, if that failed, perhaps, and never by a later sync. */
  state: 'pending' | 'synced' | 'lost';
}

export interface SimulatedFile {
  /** What is on the disk for certain, before the first of `writes`. */
  synced: Buffer;
  writes: Write[];
}

type Names = Map<string, SimulatedFile | 'folder'>;

interface Naming {
  readonly folders: readonly string[];
  readonly apply: (names: Names) => void;
}

/** Between 0 and 1: above a half, something that was not synced is there all the same. */
export type Chance = () => number;

export class SimulatedDisk {
  readonly #folder: string;
  /** Names as the processes see them, and as they are on the disk. */
  readonly #seen: Names = new Map();
  readonly #synced: Names = new Map();
  #namings: Naming[] = [];

  constructor(folder: string) {
    this.#folder = folder;
    for (const names of [this.#seen, this.#synced]) names.set(folder, 'folder');
  }

  /** Whether a path is on this disk. */
  holds(path: string): boolean {
    return path === this.#folder || path.startsWith(`${this.#folder}/`);
  }

  open(path: string, options: { readonly create: boolean; readonly truncate: boolean }): SimulatedFile | undefined {
    let file = this.#seen.get(path);
    if (file === undefined && options.create) {
      file = { synced: Buffer.alloc(0), writes: [] };
      this.#name(path, file);
    }
    if (file === 'folder') return undefined;
    if (options.truncate) file?.writes.push({ at: 0, bytes: undefined, state: 'pending' });
    return file;
  }

  makeFolder(path: string): void {
    this.#name(path, 'folder');
  }

  rename(from: string, to: string): void {
    const move = (names: Names): void => {
      const file = names.get(from);
      if (file === undefined) return;
      names.delete(from);
      names.set(to, file);
    };
    move(this.#seen);
    this.#namings.push({ folders: [dirname(from), dirname(to)], apply: move });
  }

  remove(path: string): void {
    this.#seen.delete(path);
    this.#namings.push({ folders: [dirname(path)], apply: (names) => void names.delete(path) });
  }

  syncFolder(path: string): void {
    const rest: Naming[] = [];
    for (const naming of this.#namings) {
      if (naming.folders.includes(path)) naming.apply(this.#synced);
      else rest.push(naming);
    }
    this.#namings = rest;
  }

  /** Writes what may be on the disk after a power loss now. */
  image(to: string, chance: Chance): void {
    const names: Names = new Map(this.#synced);
    for (const naming of this.#namings) {
      if (chance() <= 0.5) break;
      naming.apply(names);
    }
    mkdirSync(to, { recursive: true });
    for (const [path, file] of names) {
      if (file === 'folder' || names.get(dirname(path)) !== 'folder') continue;
      const target = join(to, relative(this.#folder, path));
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, contentOf(file, chance));
    }
  }

  #name(path: string, file: SimulatedFile | 'folder'): void {
    this.#seen.set(path, file);
    this.#namings.push({ folders: [dirname(path)], apply: (names) => void names.set(path, file) });
  }
}

export function syncFile(file: SimulatedFile): void {
  for (const write of file.writes) if (write.state === 'pending') write.state = 'synced';
  const lost = file.writes.findIndex(({ state }) => state === 'lost');
  const certain = lost < 0 ? file.writes : file.writes.slice(0, lost);
  file.synced = contentOf({ synced: file.synced, writes: certain }, () => 1);
  file.writes = file.writes.slice(certain.length);
}

/** The page cache keeps what it has, and thinks that the disk has it too. */
export function failSync(file: SimulatedFile): void {
  for (const write of file.writes) if (write.state === 'pending') write.state = 'lost';
}

function contentOf({ synced, writes }: SimulatedFile, chance: Chance): Buffer {
  if (writes.length === 0) return synced;
  const most = Math.max(synced.length, ...writes.map(({ at, bytes }) => at + (bytes?.length ?? 0)));
  const content = Buffer.alloc(most);
  synced.copy(content);
  let size = synced.length;
  for (const { at, bytes, state } of writes) {
    const isThere = (): boolean => state === 'synced' || chance() > 0.5;
    if (bytes === undefined) {
      if (!isThere()) continue;
      if (at < size) content.fill(0, at, size);
      size = at;
      continue;
    }
    // By sectors of the disk: a write may be torn between any two of them.
    for (let from = 0; from < bytes.length;) {
      const upTo = Math.min(bytes.length, (Math.floor((at + from) / sectorBytes) + 1) * sectorBytes - at);
      if (isThere()) {
        bytes.copy(content, at + from, from, upTo);
        size = Math.max(size, at + upTo);
      }
      from = upTo;
    }
  }
  return content.subarray(0, size);
}
