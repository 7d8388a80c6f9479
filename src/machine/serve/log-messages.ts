import type { StoredRecord } from './log-file.ts';

/** What the serving thread asks of the log's thread. Each message gets one answer, in order. */
export type ToWorker =
  | { readonly type: 'next'; readonly count: number }
  | { readonly type: 'serve' }
  | { readonly type: 'write'; readonly heads: readonly string[]; readonly payloads: readonly string[] }
  | { readonly type: 'read'; readonly id: number; readonly positions: readonly number[] }
  | { readonly type: 'close' };

export type FromWorker =
  | { readonly type: 'page'; readonly records: readonly StoredRecord[]; readonly done: boolean }
  | { readonly type: 'serving' }
  | { readonly type: 'durable'; readonly position: number }
  | { readonly type: 'read'; readonly id: number; readonly records: readonly StoredRecord[] }
  | { readonly type: 'closed' }
  /** The last message: the log's thread does nothing more. */
  | {
      readonly type: 'failed';
      /** A code of the error table. */
      readonly code: string;
      readonly message: string;
      readonly field: string | undefined;
    };
