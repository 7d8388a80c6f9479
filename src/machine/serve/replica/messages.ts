import type { DriftEvidence, DriftStates } from '../../decide/replica/drift.ts';
import type { FeedRecord } from '../../decide/replica/feed.ts';

/** What the worker of a replica is started with. */
export interface ReplicaSource {
  /** Address of a module, which the replica loads by itself. */
  readonly module: string;
  /** Name of a function that it exports: given `data`, it resolves with `(instance) => Machine | undefined`. */
  readonly loader: string;
  /** What the loader is given; must survive being copied to another thread. */
  readonly data: unknown;
}

/** What the serving thread tells the replica, in order. */
export type ToReplica =
  | { readonly type: 'records'; readonly records: readonly FeedRecord[] }
  | { readonly type: 'forget'; readonly instance: string }
  /** One text of a captured state. Those since the message before belong to the `state` or `compare` that follows. */
  | { readonly type: 'text'; readonly instance: string; readonly text: string }
  | { readonly type: 'state'; readonly instance: string; readonly position: number }
  | { readonly type: 'compare'; readonly instance: string; readonly position: number }
  /** The batch is complete. */
  | { readonly type: 'end' };

export type FromReplica =
  | { readonly type: 'ready' }
  | { readonly type: 'done'; readonly verified: number }
  /** It was not given what it needs to go on with this instance. */
  | { readonly type: 'astray'; readonly instance: string }
  | { readonly type: 'drift'; readonly instance: string; readonly evidence: DriftEvidence }
  | { readonly type: 'compared'; readonly instance: string; readonly states: DriftStates }
  /** The last message: the machines could not be loaded. */
  | { readonly type: 'unloadable'; readonly message: string };
