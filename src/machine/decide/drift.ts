/**
 * One instance whose state does not follow from its records, or whose records cannot be read: it is refused by itself,
 * and the rest of its log serves on.
 */

/** Where an instance stands, by its hashes. */
export interface Standing {
  readonly seq: number;
  readonly stateHash: string;
  readonly keysHash: string;
}

/** What was found wrong with an instance, for whoever has to find out why. */
export interface DriftEvidence {
  readonly foundBy: 'hydration' | 'replica';
  /** Position of the record at which states part; of the instance's last record if that is not known. */
  readonly position: number;
  /** What the log says of the instance after that record. */
  readonly recorded: Standing;
  /** What came out instead, as far as it came. */
  readonly found: Standing | undefined;
  /** In words, for a person. */
  readonly reason: string;
}

/** Instances that are refused with `tenant-quarantined`. Survives restarts if its maker lets it. */
export interface Quarantine {
  has(instance: string): boolean;
  /** Must not throw. Whoever adds stops serving the instance at once. */
  add(instance: string, evidence: DriftEvidence): void;
}

/** A quarantine that is forgotten with the process: the next hydration finds the same again. */
export class MemoryQuarantine implements Quarantine {
  readonly #instances = new Map<string, DriftEvidence>();

  has(instance: string): boolean {
    return this.#instances.has(instance);
  }

  add(instance: string, evidence: DriftEvidence): void {
    if (!this.#instances.has(instance)) this.#instances.set(instance, evidence);
  }
}
