import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Directory } from '../../machine/decide/residency/directory.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import type { RecordHead } from '../../machine/decide/log/record.ts';
import { StateReader } from '../../machine/decide/state/state.ts';
import { messageOf } from '../../machine/decide/state/value.ts';
import { StateLoad } from '../../machine/serve/state/file.ts';

/** Problems of one cache that are listed; more are counted. */
export const cacheProblemsMax = 20;

/** What `state.db` holds, compared with what the log says. Whatever is wrong with it is made anew from the log. */
export interface CacheReport {
  /** Record up to which its directory holds; 0 if it has none that can be used. */
  readonly checkpoint: number;
  readonly snapshots: number;
  /** Snapshots that were read and are the state of their record; the others have a machine that is not known here. */
  readonly proven: number;
  readonly problems: readonly string[];
  readonly problemsTotal: number;
}

/** Compares a copy of `state.db` with the log while that is read. Memory: two entries an instance. */
export class CacheProof {
  readonly #machineNamed: (name: string) => Machine | undefined;
  readonly #snapshots = new Map<number, { readonly instance: string; readonly parts: number }>();
  readonly #last = new Map<string, RecordHead>();
  readonly #problems: string[] = [];
  #problemsTotal = 0;
  #proven = 0;
  #total = 0;
  #checkpoint = 0;
  #directory: Directory | undefined;
  #database: DatabaseSync | undefined;

  constructor(machineNamed: (name: string) => Machine | undefined) {
    this.#machineNamed = machineNamed;
  }

  /** Reads what there is to compare; a folder without `state.db` is fine. */
  open(folder: string, owner: string): void {
    const file = join(folder, 'state.db');
    if (!existsSync(file)) return;
    try {
      this.#readDirectory(folder, owner);
      this.#database = new DatabaseSync(file, { readOnly: true });
      for (const row of this.#database.prepare('SELECT instance, position, parts FROM snapshot').iterate()) {
        const { instance, position, parts } = row;
        this.#snapshots.set(Number(position), { instance: String(instance), parts: Number(parts) });
      }
      this.#total = this.#snapshots.size;
    } catch (thrown) {
      this.#add(`state.db cannot be read: ${messageOf(thrown)}`);
    }
  }

  /** Takes the next record of the log. */
  take(head: RecordHead): void {
    const { position, instance } = head;
    if (position <= this.#checkpoint) this.#last.set(instance, head);
    const snapshot = this.#snapshots.get(position);
    if (snapshot === undefined) return;
    this.#snapshots.delete(position);
    const what = `The snapshot of ${snapshot.instance} at record ${position}`;
    if (snapshot.instance !== instance) {
      this.#add(`${what} stands at a record of ${instance}`);
      return;
    }
    const machine = this.#machineNamed(head.machine);
    if (machine === undefined) return;
    try {
      const { stateHash, keysHash, seq } = this.#restored(instance, position, snapshot.parts, machine);
      const recorded = head.hashes[head.hashes.length - 1];
      const same =
        stateHash === recorded && keysHash === head.keysHash && seq === head.seqBefore + head.hashes.length - 1;
      if (same) this.#proven += 1;
      else this.#add(`${what} is state ${stateHash}, and the record says ${recorded}`);
    } catch (thrown) {
      this.#add(`${what} cannot be read: ${messageOf(thrown)}`);
    }
  }

  /** After the last record, which is at `last`. */
  end(last: number): CacheReport {
    for (const [position, { instance }] of this.#snapshots) {
      if (position <= last) this.#add(`The snapshot of ${instance} at record ${position} stands at no record of it`);
    }
    for (const { instance, position, seq, stateHash, keysHash } of this.#directory?.entries() ?? []) {
      const head = this.#last.get(instance);
      const same =
        head?.position === position &&
        head.seqBefore + head.hashes.length - 1 === seq &&
        head.hashes[head.hashes.length - 1] === stateHash &&
        head.keysHash === keysHash;
      // Of what the archive let go there is no record to compare with.
      if (!same && head !== undefined)
        this.#add(`The directory says otherwise of ${instance} than record ${head.position}`);
    }
    this.#database?.close();
    return {
      checkpoint: this.#checkpoint,
      snapshots: this.#total,
      proven: this.#proven,
      problems: this.#problems,
      problemsTotal: this.#problemsTotal,
    };
  }

  #readDirectory(folder: string, owner: string): void {
    const load = new StateLoad({ folder, owner });
    try {
      const { checkpoint, why } = load;
      if (checkpoint === undefined) {
        if (why !== undefined) this.#add(`state.db is of no use: ${why}`);
        return;
      }
      this.#directory = Directory.read(load.entries(Number.MAX_SAFE_INTEGER), checkpoint);
      if (this.#directory === undefined) this.#add('The directory of instances was changed');
      else this.#checkpoint = checkpoint.mark.position;
    } finally {
      load.close();
    }
  }

  #restored(instance: string, position: number, parts: number, machine: Machine) {
    const select = this.#database?.prepare('SELECT text FROM part WHERE instance = ? AND position = ? AND number = ?');
    const reader = new StateReader(instance, machine);
    for (let number = 0; number < parts; number++) {
      const text = select?.get(instance, position, number)?.['text'];
      if (typeof text !== 'string') throw new TypeError(`its part ${number} is missing`);
      reader.take(text);
    }
    return reader.finish();
  }

  #add(problem: string): void {
    this.#problemsTotal += 1;
    if (this.#problems.length < cacheProblemsMax) this.#problems.push(problem);
  }
}
