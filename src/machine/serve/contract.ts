import type { Fault } from '../../kernel/fault.ts';
import type { Machine } from '../decide/definition/machine.ts';
import type { CommandAnswer, CommandRequest } from '../decide/instance/instance.ts';
import type { InvariantCounts } from '../decide/instance/invariants.ts';
import type { DriftEvidence, Quarantine } from '../decide/replica/drift.ts';
import type { FeedRecord } from '../decide/replica/feed.ts';
import type { ArchiveBounds } from '../decide/residency/archiving.ts';
import type { ResidencyBounds } from '../decide/residency/residency.ts';
import type { Message } from '../decide/state/effects.ts';
import type { CapturedState } from '../decide/state/state.ts';
import type { InstanceName } from './residency/hosted.ts';
import type { Recovered } from './residency/opening.ts';
import type { Committed } from './subscribers.ts';

/** What whoever opens a runtime gives it, and what it promises. `runtime.ts` keeps it. */

export type QueryAnswer =
  | { readonly kind: 'answered'; readonly value: unknown; readonly seq: number }
  | { readonly kind: 'rejected'; readonly fault: Fault };

export interface InstanceSummary {
  readonly instance: InstanceName;
  readonly seq: number;
  readonly stateHash: string;
}

export interface RuntimeOptions {
  /** Holds the log and its mark; created if missing. */
  readonly folder: string;
  /** What the log belongs to, e.g. `FLEET/CELL`: written into a new log; a log of another owner is refused. */
  readonly owner: string;
  /** There was a log before: a missing one is then `log-damaged`, and none is made. */
  readonly mustExist: boolean;
  /** The machine of an instance, or undefined if no such instance may exist. */
  readonly machineFor: (instance: InstanceName) => Machine | undefined;
  readonly nowMs: () => number;
  /** The log stopped (write or sync error): the process must end and be restarted. Called once. */
  readonly onStopped: (reason: Fault) => void;
  /** What is in memory, and what a restart or a hydration reads; the rest as in `residencyBounds`. */
  readonly bounds?: Partial<ResidencyBounds>;
  /** When old records leave the log for its archive; `archiveBounds` unless given. Without retention all are kept. */
  readonly archive?: ArchiveBounds;
  /** Read and prove the whole log, also if a checkpoint says that only its tail is new. */
  readonly proveWhole?: boolean;
  /** Instances that are refused; forgotten with the process unless given. */
  readonly quarantine?: Quarantine;
  /** Something was damaged and made good, or an instance was quarantined: for the operator. */
  readonly onNotice?: (message: string, instance: InstanceName | undefined) => void;
  /** Durable records in log order, before any answer of theirs leaves. Must not throw. */
  readonly onDurable?: (records: readonly FeedRecord[]) => void;
  /** A text that nobody can guess twice, for `ctx.random` and `ctx.id`. */
  readonly entropy?: () => string;
}

/** A resident instance as it is now. */
export interface CapturedInstance {
  /** The state is the one after this record. */
  readonly position: number;
  /** How long its rows and remembered answers are, about, in UTF-16 code units. */
  readonly units: number;
  readonly state: CapturedState;
}

/** How much is in memory, and how often instances came and went. */
export interface ResidencyFigures {
  readonly instances: number;
  readonly resident: number;
  /** Approximate bytes of the resident ones. */
  readonly residentBytes: number;
  readonly hydrations: number;
  readonly evictions: number;
  readonly snapshots: number;
  readonly checkpoints: number;
  /** The last record that this process moved into the archive; 0 if none. */
  readonly archivedUpTo: number;
}

export interface Runtime {
  /** Runs a command; resolves when the answer may leave. Never rejects but for defects. */
  execute(request: CommandRequest & { readonly instance: InstanceName }): Promise<CommandAnswer>;
  query(request: {
    readonly instance: InstanceName;
    readonly query: string;
    readonly input: unknown;
  }): Promise<QueryAnswer>;
  /** Where an instance stands; resolves when that is durable. Rejects with a fault if there can be no such instance. */
  state(instance: InstanceName): Promise<InstanceSummary>;
  /** Messages that were not delivered yet, in the order of sending, at most `limit`. Rejects as `state` does. */
  messages(
    instance: InstanceName,
    options: { readonly after?: string; readonly limit: number },
  ): Promise<readonly Message[]>;
  /** Takes a message out of the outbox; a message that is not there was taken out before. */
  messageDelivered(instance: InstanceName, id: string): Promise<CommandAnswer>;
  /**
   * Erases an instance: its last record says so, what all before it said leaves log and snapshots, and whoever asks for
   * it gets `history-erased`, until a record begins an explicit new life of the name, which nothing writes yet.
   * Resolves when no byte of it is left; after a crash meanwhile, call it again.
   */
  erase(instance: InstanceName): Promise<void>;
  /** Instances that have at least one durable record. */
  instances(): readonly InstanceName[];
  /** Durable records of an instance with events after `afterSeq`, oldest first, at most `limit`. */
  history(
    instance: InstanceName,
    options: { readonly afterSeq: number; readonly limit: number },
  ): Promise<readonly Committed[]>;
  /** Called for each record with events once it is durable, in log order, before its answer leaves. Returns how to stop. */
  subscribe(instance: InstanceName, listener: (record: Committed) => void): () => void;
  /** The state of an instance that is in memory; undefined if it is not. O(rows) pointers. */
  capture(instance: InstanceName): CapturedInstance | undefined;
  /** How many rows an instance in memory has; 0 if it is not. */
  rowsOf(instance: InstanceName): number;
  /** Refuses an instance from now on, with evidence. */
  quarantineInstance(instance: InstanceName, evidence: DriftEvidence): void;
  readonly recovered: Recovered;
  readonly residency: ResidencyFigures;
  /** Invariants that were broken since the start. */
  readonly invariants: Pick<InvariantCounts, 'entries'>;
  /** Waits until everything decided is durable, and closes the log; the next start then has nothing to read. */
  close(): Promise<void>;
}
