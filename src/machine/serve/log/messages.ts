import type { StoredRecord, WalkedRecord } from './files.ts';
import type { Archived, Retention } from './archive.ts';
import type { Erased } from './meta.ts';
import type { Mark } from './mark.ts';

/** What the serving thread asks of the log's thread. Each message gets one answer, in order. */
export type ToWorker =
  | { readonly type: 'next'; readonly count: number }
  | { readonly type: 'serve' }
  /** A batch, each record a head and a payload, as one text: one is copied to another thread faster than thousands. */
  | { readonly type: 'write'; readonly count: number; readonly lines: string }
  | { readonly type: 'read'; readonly id: number; readonly positions: readonly number[] }
  /** From a record of an instance back to those before it. */
  | { readonly type: 'walk'; readonly id: number; readonly position: number; readonly count: number }
  /** Is there room on a disk that was full? */
  | { readonly type: 'probe' }
  /** Work off recorded erasures. Answered when nothing of them is left, while other messages go on. */
  | { readonly type: 'erase'; readonly id: number }
  /** Move records up to a position into the archive, and keep of it what `retention` says; likewise. */
  | { readonly type: 'archive'; readonly id: number; readonly upTo: number; readonly retention: Retention }
  | { readonly type: 'close' };

export type FromWorker =
  /** `start` is after which record the proof began: not the checkpoint that was asked for if the log does not hold it. */
  | {
      readonly type: 'page';
      readonly start: Mark;
      readonly records: readonly StoredRecord[];
      readonly done: boolean;
    }
  | { readonly type: 'serving'; readonly last: Mark; readonly erased: readonly Erased[] }
  | { readonly type: 'durable'; readonly last: Mark }
  | { readonly type: 'read'; readonly id: number; readonly records: readonly StoredRecord[] }
  /** The disk is full; nothing of the batch is there. */
  | { readonly type: 'full' }
  | { readonly type: 'space'; readonly room: boolean }
  | { readonly type: 'walk'; readonly id: number; readonly records: readonly WalkedRecord[] }
  /** What was asked for cannot be read or proven; the log goes on. */
  | {
      readonly type: 'unread';
      readonly id: number;
      readonly code: string;
      readonly message: string;
      readonly field: string | undefined;
    }
  | { readonly type: 'erased'; readonly id: number; readonly erased: readonly Erased[] }
  | { readonly type: 'archived'; readonly id: number; readonly archive: Archived }
  | { readonly type: 'closed' }
  /** The last message: the log's thread does nothing more. */
  | {
      readonly type: 'failed';
      /** A code of the error table. */
      readonly code: string;
      readonly message: string;
      readonly field: string | undefined;
    };
