import type { EntryText } from '../../decide/residency/guard.ts';
import type { Mark } from '../log/mark.ts';
import type { Checkpoint, StoredSnapshot } from './file.ts';

/** What the serving thread asks of the thread of `state.db`. Each message gets one answer, in order. */
export type ToStateWorker =
  | { readonly type: 'load' }
  | { readonly type: 'entries'; readonly count: number }
  | { readonly type: 'serve'; readonly keep: boolean }
  | { readonly type: 'put'; readonly entries: readonly EntryText[] }
  | { readonly type: 'checkpoint'; readonly mark: Mark; readonly nowMs: number }
  | {
      readonly type: 'putPart';
      readonly instance: string;
      readonly position: number;
      readonly number: number;
      readonly text: string;
    }
  | { readonly type: 'snapshot'; readonly instance: string; readonly position: number; readonly parts: number }
  | { readonly type: 'snapshots'; readonly instance: string }
  | { readonly type: 'part'; readonly instance: string; readonly position: number; readonly number: number }
  | { readonly type: 'drop'; readonly instance: string; readonly position: number }
  | { readonly type: 'erase'; readonly instance: string }
  | { readonly type: 'close' };

export type FromStateWorker =
  | { readonly type: 'loaded'; readonly checkpoint: Checkpoint | undefined; readonly why: string | undefined }
  | { readonly type: 'entries'; readonly entries: readonly EntryText[] }
  | { readonly type: 'snapshots'; readonly snapshots: readonly StoredSnapshot[] }
  | { readonly type: 'part'; readonly text: string | undefined }
  | { readonly type: 'done' }
  /** The message was not carried out. */
  | { readonly type: 'failed'; readonly message: string };
