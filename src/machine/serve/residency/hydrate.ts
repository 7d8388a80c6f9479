import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import type { DirectoryEntry } from '../../decide/residency/directory.ts';
import type { DriftEvidence, Standing } from '../../decide/replica/drift.ts';
import { isErasure } from '../../decide/log/erasure.ts';
import type { Instance } from '../../decide/instance/instance.ts';
import { Instance as EmptyInstance } from '../../decide/instance/instance.ts';
import type { Machine } from '../../decide/definition/machine.ts';
import { mismatchOf } from '../../decide/replica/mismatch.ts';
import { decodeRecord, type PlacedRecord } from '../../decide/log/record.ts';
import { StateMismatch, StateReader } from '../../decide/state/state.ts';
import { messageOf } from '../../decide/state/value.ts';
import type { Log } from '../log/log.ts';
import type { StoredSnapshot } from '../state/file.ts';
import type { StateStore } from '../state/store.ts';

/** Positions that are asked for at once while walking back, and records while replaying: a few milliseconds each. */
const walkRecords = 256;
const replayRecords = 32;

export interface HydrationSources {
  readonly entry: DirectoryEntry;
  readonly machine: Machine;
  readonly log: Pick<Log, 'read' | 'walk'>;
  readonly store: Pick<StateStore, 'snapshots' | 'part' | 'drop'>;
  /** Only snapshots before this position are used: those after it hold what is to be proven again. */
  readonly snapshotsBefore: number | undefined;
  /** A snapshot was of no use; an older one, or the log alone, serves instead. */
  readonly onDamaged: (message: string) => void;
}

export type Hydrated =
  | { readonly kind: 'ready'; readonly instance: Instance; readonly snapshot: number; readonly tail: number }
  | { readonly kind: 'drift'; readonly evidence: DriftEvidence };

/** Why an instance could not be made from a snapshot, or from nothing, and its records. */
class Parted extends Error {
  override readonly name = 'Parted';
  readonly evidence: DriftEvidence;

  constructor(evidence: DriftEvidence, cause?: unknown) {
    super(evidence.reason, { cause });
    this.evidence = evidence;
  }
}

/**
 * Makes an instance again: from its newest good snapshot, else from nothing, and its own records after that, every hash
 * checked; at the end it must be what the directory says. Gives way between parts and pages, because each is asked for.
 * Rejects with the fault of a log that can do nothing any more.
 */
export async function hydrate(sources: HydrationSources): Promise<Hydrated> {
  const { entry, machine, store, onDamaged } = sources;
  const name = entry.instance;
  // Forgotten once something else led to the right state: else the records may be at fault, and not the snapshots.
  const useless: number[] = [];
  const forget = async (): Promise<void> => {
    for (const position of useless) await store.drop(name, position).catch(() => {});
  };
  for (const snapshot of await snapshotsOf(sources)) {
    const of = `The snapshot of ${name} at record ${snapshot.position}`;
    try {
      const instance = await restore(sources, snapshot);
      if (instance === undefined) continue;
      const tail = await replayAfter(sources, instance, snapshot.position);
      await forget();
      return { kind: 'ready', instance, snapshot: snapshot.position, tail };
    } catch (thrown) {
      if (!(thrown instanceof StateMismatch || thrown instanceof Parted)) throw thrown;
      onDamaged(`${of} cannot be used: ${thrown.message}`);
      useless.push(snapshot.position);
    }
  }
  try {
    const instance = new EmptyInstance(name, machine);
    const tail = await replayAfter(sources, instance, 0);
    await forget();
    return { kind: 'ready', instance, snapshot: 0, tail };
  } catch (thrown) {
    if (!(thrown instanceof Parted)) throw thrown;
    return { kind: 'drift', evidence: thrown.evidence };
  }
}

/** What there is, the newest first; nothing if the store can do nothing any more: the log has everything. */
async function snapshotsOf({
  entry,
  store,
  snapshotsBefore = Number.POSITIVE_INFINITY,
}: HydrationSources): Promise<readonly StoredSnapshot[]> {
  try {
    const snapshots = await store.snapshots(entry.instance);
    return snapshots.filter(({ position }) => position <= entry.position && position < snapshotsBefore);
  } catch {
    return [];
  }
}

/** Undefined if the machine evolves differently since it was made, which is no damage. */
async function restore(
  { entry, machine, store }: HydrationSources,
  { position, parts }: StoredSnapshot,
): Promise<Instance | undefined> {
  const reader = new StateReader(entry.instance, machine);
  for (let number = 0; number < parts; number++) {
    let text: string | undefined;
    try {
      text = await store.part(entry.instance, position, number);
    } catch (thrown) {
      throw new StateMismatch(messageOf(thrown), { cause: thrown });
    }
    if (text === undefined) throw new StateMismatch(`its part ${number} is missing or was changed`);
    reader.take(text);
    const version = reader.head?.machineVersion ?? 0;
    if (version > machine.version || !machine.versions.agreesWith(version)) return undefined;
  }
  return reader.finish();
}

/** Replays the records after `base`; returns how many there were. */
async function replayAfter(sources: HydrationSources, instance: Instance, base: number): Promise<number> {
  const { entry } = sources;
  const positions = await positionsAfter(sources, base);
  let previous = base;
  for (let i = 0; i < positions.length; i += replayRecords) {
    for (const record of await readRecords(sources, positions.slice(i, i + replayRecords))) {
      if (isErasure(record.payload)) {
        throw fault('history-erased', `What the log said of ${entry.instance} was erased`, { field: entry.instance });
      }
      if (record.instance !== entry.instance || record.previous !== previous) {
        const reason = `Record ${record.position} of ${record.instance} does not follow record ${previous} of ${entry.instance}`;
        throw new Parted(evidenceOf(record, standing(instance), reason));
      }
      try {
        instance.replay(record);
      } catch (thrown) {
        // Of another machine, or of a newer version of it: no drift, and nothing to be found out.
        if (thrown instanceof Fault && thrown.code === 'machine-unloadable') throw thrown;
        const mismatch = mismatchOf(thrown);
        const evidence = evidenceOf(record, standing(instance), messageOf(thrown));
        throw new Parted(mismatch === undefined ? evidence : { ...evidence, mismatch }, thrown);
      }
      previous = record.position;
    }
  }
  const { seq, stateHash, keysHash } = entry;
  const found = standing(instance);
  const same = instance.needsUpgrade || found.stateHash === stateHash;
  if (found.seq !== seq || !same || found.keysHash !== keysHash) {
    const recorded = { seq, stateHash, keysHash };
    const reason = `The records of ${entry.instance} lead to another state than the log was seen to`;
    throw new Parted({ foundBy: 'hydration', position: entry.position, recorded, found, reason });
  }
  return positions.length;
}

/** Positions of an instance's records after `base`, the oldest first, found by their back pointers. 8 bytes a record. */
async function positionsAfter({ entry, log }: HydrationSources, base: number): Promise<readonly number[]> {
  const positions: number[] = [];
  let at = entry.position;
  while (at > base) {
    for (const { position, previous } of await unlessDamaged(entry, log.walk(at, walkRecords))) {
      if (position <= base) break;
      positions.push(position);
      at = previous;
    }
  }
  if (at !== base) {
    const reason = `No record of ${entry.instance} says that record ${base} came before it`;
    throw new Parted({ foundBy: 'hydration', position: entry.position, recorded: entry, found: undefined, reason });
  }
  return positions.reverse();
}

async function readRecords({ entry, log }: HydrationSources, positions: readonly number[]): Promise<PlacedRecord[]> {
  const stored = await unlessDamaged(entry, log.read(positions));
  try {
    return stored.map(({ position, ...text }) => decodeRecord(position, text));
  } catch (thrown) {
    throw unreadable(entry, thrown);
  }
}

/** A record that cannot be proven concerns its instance; a log that stopped concerns everybody. */
async function unlessDamaged<Value>(entry: DirectoryEntry, read: Promise<Value>): Promise<Value> {
  try {
    return await read;
  } catch (thrown) {
    throw thrown instanceof Fault && thrown.code === 'log-damaged' ? unreadable(entry, thrown) : thrown;
  }
}

function unreadable(entry: DirectoryEntry, thrown: unknown): Parted {
  const { position, seq, stateHash, keysHash } = entry;
  const recorded = { seq, stateHash, keysHash };
  return new Parted({ foundBy: 'hydration', position, recorded, found: undefined, reason: messageOf(thrown) }, thrown);
}

export function evidenceOf(record: PlacedRecord, found: Standing | undefined, reason: string): DriftEvidence {
  const { hashes, seqBefore, keysHash, position } = record;
  const recorded = { seq: seqBefore + hashes.length - 1, stateHash: hashes.at(-1) ?? '', keysHash };
  return { foundBy: 'hydration', position, recorded, found, reason };
}

export function standing({ seq, stateHash, keysHash }: Instance): Standing {
  return { seq, stateHash, keysHash };
}
