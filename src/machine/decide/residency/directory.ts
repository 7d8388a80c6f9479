import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { SetHash } from '../../../kernel/hash.ts';
import { entryHashText, type DirectoryGuard, type EntryText } from './guard.ts';
import type { LogRecord, PlacedRecord } from '../log/record.ts';

/**
 * All instances of a log, resident or not: where the last record of each is and what the state was after it. It says
 * only what is durable. From it an instance is found and proven again without reading the log from its first record.
 */

/** When a timer of an instance is due next; `unknown` until its state was seen again. */
export type NextTimer = number | 'none' | 'unknown';

/** One instance of a directory. Changed by the directory alone. */
export interface DirectoryEntry {
  readonly instance: string;
  readonly machine: string;
  readonly machineVersion: number;
  /** Position of its last record. */
  readonly position: number;
  /** Events so far, and both hashes after its last record. */
  readonly seq: number;
  readonly stateHash: string;
  readonly keysHash: string;
  readonly nextTimer: NextTimer;
  /** Positions that its newest snapshot and the one before hold the state of; 0 if there is none. */
  readonly snapshot: number;
  readonly snapshotBefore: number;
  /** Its records after the newest snapshot: what a hydration replays. */
  readonly tail: number;
}

/** What a record says of its instance, as far as the directory keeps it. */
export type Followed = Pick<LogRecord, 'instance' | 'machine' | 'machineVersion' | 'seqBefore' | 'hashes' | 'keysHash'>;

const Position = Type.Integer({ minimum: 0 });
const EntrySchema = Type.Tuple([
  Type.Literal('d1'),
  Type.String(), // machine
  Type.Integer({ minimum: 1 }), // machine version
  Type.Integer({ minimum: 1 }), // position
  Position, // seq
  Type.String(), // state hash
  Type.String(), // keys hash
  Type.Union([Position, Type.Literal('none'), Type.Literal('unknown')]), // next timer
  Position, // newest snapshot
  Position, // the one before
  Position, // tail
]);
const shape = Compile(EntrySchema);

function encodeEntry(entry: DirectoryEntry): string {
  const text: Static<typeof EntrySchema> = [
    'd1',
    entry.machine,
    entry.machineVersion,
    entry.position,
    entry.seq,
    entry.stateHash,
    entry.keysHash,
    entry.nextTimer,
    entry.snapshot,
    entry.snapshotBefore,
    entry.tail,
  ];
  return JSON.stringify(text);
}

interface Entry extends DirectoryEntry {
  machine: string;
  machineVersion: number;
  position: number;
  seq: number;
  stateHash: string;
  keysHash: string;
  nextTimer: NextTimer;
  snapshot: number;
  snapshotBefore: number;
  tail: number;
  /** `changed` since the last checkpoint began; `captured` by it and not yet written out. */
  stage: 'written' | 'changed' | 'captured';
}

/** Entries of one checkpoint, as they were when it began. */
export interface DirectoryCheckpoint {
  /** The next entries, about `count`; empty at the end. */
  take(count: number): readonly EntryText[];
}

export class Directory {
  readonly #entries = new Map<string, Entry>();
  #changed: Entry[] = [];
  /** Of the checkpoint under way: entries that changed since it began, as they were then. */
  #kept: EntryText[] = [];

  get size(): number {
    return this.#entries.size;
  }

  get(instance: string): DirectoryEntry | undefined {
    return this.#entries.get(instance);
  }

  /** Every entry; in no order that means anything. */
  entries(): IterableIterator<DirectoryEntry> {
    return this.#entries.values();
  }

  /** Reads stored entries back. Undefined if a single one is not as it was written, or one is missing, or too many. */
  static read(texts: Iterable<EntryText>, guard: DirectoryGuard): Directory | undefined {
    const directory = new Directory();
    const hash = new SetHash();
    for (const stored of texts) {
      hash.add(entryHashText(stored));
      if (!directory.#read(stored)) return undefined;
    }
    return directory.size === guard.entries && hash.text === guard.hash ? directory : undefined;
  }

  #read([instance, text]: EntryText): boolean {
    let parts: unknown;
    try {
      parts = JSON.parse(text);
    } catch {
      return false;
    }
    if (!shape.Check(parts) || this.#entries.has(instance)) return false;
    const [, machine, machineVersion, position, seq, stateHash, keysHash, nextTimer, snapshot, before, tail] = parts;
    this.#entries.set(instance, {
      instance,
      machine,
      machineVersion,
      position,
      seq,
      stateHash,
      keysHash,
      nextTimer,
      snapshot,
      snapshotBefore: before,
      tail,
      stage: 'written',
    });
    return true;
  }

  /**
   * Why a record cannot be the next of its instance, or undefined if it can: it must name the instance's last record as
   * the one before it, and start from the events and the state after that one. `emptyHash` is the state before any.
   */
  misfit(record: PlacedRecord, emptyHash: string): string | undefined {
    const entry = this.#entries.get(record.instance);
    const previous = entry?.position ?? 0;
    if (record.previous !== previous) {
      return `record ${record.position} of ${record.instance} says that ${record.previous} came before it, not ${previous}`;
    }
    const seq = entry?.seq ?? 0;
    if (record.seqBefore !== seq) {
      return `record ${record.position} of ${record.instance} starts after event ${record.seqBefore}, not ${seq}`;
    }
    const hash = entry?.stateHash ?? emptyHash;
    return record.hashes[0] === hash
      ? undefined
      : `record ${record.position} of ${record.instance} starts from state ${record.hashes[0]}, not ${hash}`;
  }

  /** Notes a durable record of an instance. O(1). */
  follow(record: Followed, position: number, nextTimer: NextTimer): DirectoryEntry {
    const { instance, machine, machineVersion, keysHash, hashes } = record;
    const seq = record.seqBefore + hashes.length - 1;
    const stateHash = hashes[hashes.length - 1] ?? '';
    const entry = this.#entries.get(instance);
    if (entry === undefined) {
      const made: Entry = {
        instance,
        machine,
        machineVersion,
        position,
        seq,
        stateHash,
        keysHash,
        nextTimer,
        snapshot: 0,
        snapshotBefore: 0,
        tail: 1,
        stage: 'changed',
      };
      this.#entries.set(instance, made);
      this.#changed.push(made);
      return made;
    }
    this.#touch(entry);
    entry.machine = machine;
    entry.machineVersion = machineVersion;
    entry.position = position;
    entry.seq = seq;
    entry.stateHash = stateHash;
    entry.keysHash = keysHash;
    entry.nextTimer = nextTimer;
    entry.tail += 1;
    return entry;
  }

  /**
   * Notes which snapshot is the newest good one: the state at `position`, after which the instance has `tail` records. It
   * is an older one than before, or 0 for none, if a newer one turned out to be damaged.
   */
  snapshotted(instance: string, position: number, tail: number): void {
    const entry = this.#entries.get(instance);
    if (entry === undefined || (position === entry.snapshot && tail === entry.tail)) return;
    this.#touch(entry);
    if (position !== entry.snapshot) entry.snapshotBefore = position > entry.snapshot ? entry.snapshot : 0;
    entry.snapshot = position;
    entry.tail = tail;
  }

  /** Notes what a hydration found out. */
  timerKnown(instance: string, nextTimer: NextTimer): void {
    const entry = this.#entries.get(instance);
    if (entry === undefined || entry.nextTimer === nextTimer) return;
    this.#touch(entry);
    entry.nextTimer = nextTimer;
  }

  /** Entries that changed since the last checkpoint. */
  get changed(): number {
    return this.#changed.length;
  }

  /** After a directory was read that is not the stored one: each entry must be written. */
  changeAll(): void {
    for (const entry of this.#entries.values()) this.#touch(entry);
  }

  /**
   * Begins a checkpoint of what the directory says now. O(1): entries are written out as they are taken, or when they
   * change before that. One at a time: whatever a checkpoint before did not take is part of this one.
   */
  checkpoint(): DirectoryCheckpoint {
    const captured = this.#changed;
    this.#changed = [];
    this.#kept = [];
    for (const entry of captured) entry.stage = 'captured';
    let next = 0;
    return {
      take: (count) => {
        const texts = this.#kept;
        this.#kept = [];
        while (texts.length < count) {
          const entry = captured[next++];
          if (entry === undefined) break;
          if (entry.stage !== 'captured') continue;
          entry.stage = 'written';
          texts.push([entry.instance, encodeEntry(entry)]);
        }
        return texts;
      },
    };
  }

  #touch(entry: Entry): void {
    if (entry.stage === 'changed') return;
    if (entry.stage === 'captured') this.#kept.push([entry.instance, encodeEntry(entry)]);
    entry.stage = 'changed';
    this.#changed.push(entry);
  }
}
