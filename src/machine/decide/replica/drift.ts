import type { Fault } from '../../../kernel/fault.ts';
import type { Shown, StateDifference } from '../state/compare.ts';
import type { Mismatch } from './mismatch.ts';

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
  /** What did not match, if a record was replayed. */
  readonly mismatch?: Mismatch;
  readonly record?: DriftRecord;
  /** Comes after the rest, and not at all if one of the sides is gone. */
  readonly states?: DriftStates;
}

/** The record that could not be replayed, each part as far as it is short enough. */
export interface DriftRecord {
  readonly position: number;
  readonly seqBefore: number;
  readonly machine: string;
  readonly machineVersion: number;
  /** Milliseconds since 1970, as the command saw it. */
  readonly now: number;
  readonly command: string;
  readonly input: Shown;
  /** The event that drifted. */
  readonly event: { readonly type: string; readonly data: Shown } | undefined;
}

/** Both sides' states beside each other. */
export interface DriftStates {
  /** What the thread that serves had, at the last event before it was refused. */
  readonly served: ComparedSide;
  /** What the replica had, at the same event if that could be reached. */
  readonly replica: ComparedSide;
  /** Whether both are right after the event that drifted; else both went on, and what came later differs as well. */
  readonly atDrift: boolean;
  /** What must be done to the served state to make the replica's. */
  readonly difference: StateDifference;
}

export interface ComparedSide {
  readonly seq: number;
  /** The hash that was kept with each change. */
  readonly kept: string;
  /** The hash made anew from the rows. If it is not the kept one, the memory of this side changed by itself. */
  readonly recomputed: string;
}

/** Instances that are refused with `tenant-quarantined`. Survives restarts if its maker lets it. */
export interface Quarantine {
  has(instance: string): boolean;
  /** What everybody is told who asks something of it; without it, or if it says nothing, a plain fault. */
  refusal?(instance: string): Fault | undefined;
  /** While an operator has it proven again: only what was recorded before this position is beyond doubt. */
  trustedBefore?(instance: string): number | undefined;
  /** Forgets an instance that is erased, and what evidence tells of it. */
  erase?(instance: string): void;
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
