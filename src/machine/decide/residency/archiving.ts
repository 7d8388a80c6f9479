import type { DirectoryEntry } from './directory.ts';

/** When old records leave the log, and how much of them is kept. */
export interface ArchiveBounds {
  /** Records before a checkpoint: so many of them are moved at once. */
  readonly afterRecords: number;
  /** What of the archive is removed for good: nothing, unless one of these is given. */
  readonly retention: {
    /** Bytes of the whole archive. */
    readonly bytesMax?: number;
    /** How long before the last record's time, in recorded milliseconds. */
    readonly keptForMs?: number;
  };
}

export const archiveBounds: ArchiveBounds = { afterRecords: 262_144, retention: {} };

/**
 * Up to which record nothing but history is in the archive, so that retention may remove it: the checkpoint and both
 * snapshots of every instance are later. An instance without a second snapshot needs its records from the first, and keeps
 * all later ones with them. O(instances).
 */
export function removable(
  entries: Iterable<Pick<DirectoryEntry, 'instance' | 'snapshotBefore'>>,
  checkpoint: number,
  isErased: (instance: string) => boolean,
): number {
  let upTo = checkpoint;
  for (const { instance, snapshotBefore } of entries) {
    if (snapshotBefore < upTo && !isErased(instance)) upTo = snapshotBefore;
  }
  return upTo;
}
