/** DRAFT of the seam: the machine room replaces this file; its exported names and shapes stay. */
import type { Fault } from '../../kernel/fault.ts';
import type { Machine } from '../decide/machine.ts';

/** Names one instance of a machine in a log: a tenant, or `$name` for the process's own. */
export type InstanceName = string;

export interface RecordedEvent {
  readonly seq: number;
  readonly type: string;
  readonly data: unknown;
}

/** What a command came to. Every kind leaves the runtime only when what it observed is durable. */
export type CommandAnswer =
  | {
      readonly kind: 'accepted';
      readonly seq: number;
      readonly events: readonly RecordedEvent[];
      readonly stateHash: string;
      readonly repeated: boolean;
    }
  /** Anything else, as a row of the error table: command-refused (409), invariant-violated and idempotency-key-reused (422), input-invalid (400), … `reason` is the application's own code of a refusal. */
  | { readonly kind: 'rejected'; readonly fault: Fault; readonly reason?: string; readonly repeated: boolean };

export type QueryAnswer =
  | { readonly kind: 'answered'; readonly value: unknown; readonly seq: number }
  | { readonly kind: 'rejected'; readonly fault: Fault };

export interface InstanceSummary {
  readonly instance: InstanceName;
  readonly seq: number;
  readonly stateHash: string;
}

/** One durable record with events, as subscribers and history see it. */
export interface Committed {
  readonly instance: InstanceName;
  readonly command: string;
  readonly input: unknown;
  /** Milliseconds since 1970, as the command saw it. */
  readonly now: number;
  readonly events: readonly RecordedEvent[];
  /** State hash after the last of the events. */
  readonly stateHash: string;
}

export interface RuntimeOptions {
  /** Holds the log and its mark; created if missing. */
  readonly folder: string;
  /** The machine of an instance, or undefined if no such instance may exist. */
  readonly machineFor: (instance: InstanceName) => Machine | undefined;
  readonly nowMs: () => number;
  /** The log stopped (write or sync error): the process must end and be restarted. Called once. */
  readonly onStopped: (reason: Fault) => void;
}

export interface Runtime {
  /** Runs a command; resolves when the answer may leave. Never rejects but for defects. */
  execute(request: {
    readonly instance: InstanceName;
    readonly command: string;
    readonly input: unknown;
    readonly idempotencyKey?: string;
  }): Promise<CommandAnswer>;
  query(request: {
    readonly instance: InstanceName;
    readonly query: string;
    readonly input: unknown;
  }): Promise<QueryAnswer>;
  state(instance: InstanceName): Promise<InstanceSummary>;
  /** Instances that have at least one record. */
  instances(): readonly InstanceName[];
  /** Durable records of an instance with events after `afterSeq`, oldest first, at most `limit`. */
  history(
    instance: InstanceName,
    options: { readonly afterSeq: number; readonly limit: number },
  ): Promise<readonly Committed[]>;
  /** Called for each record with events once it is durable, in log order. Returns how to stop. */
  subscribe(instance: InstanceName, listener: (record: Committed) => void): () => void;
  readonly recovered: { readonly records: number; readonly events: number; readonly durationMs: number };
  close(): Promise<void>;
}

/**
 * Opens or creates a log and replays it, checking hashes and chain.
 * Faults: `log-damaged` (cannot be proven; nothing is changed), `folder-newer` (format of a newer version).
 */
export declare function openRuntime(options: RuntimeOptions): Promise<Runtime>;
