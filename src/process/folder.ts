/** DRAFT of the seam: to be implemented; exported names and shapes stay. */
import type { Static, TSchema } from 'typebox';

/** A folder that this process alone may write. The lock is the kernel's (SQLite's on `lock.db`): it ends with the process, however that dies. */
export interface DataFolder {
  readonly path: string;
  release(): void;
}
/**
 * Creates or opens a folder, checks that it can be written and that its format is known, and locks it.
 * Faults: folder-unwritable, folder-newer, folder-foreign (not empty and not ours), folder-in-use.
 */
export declare function openDataFolder(path: string, purpose: string): Promise<DataFolder>;
/** Temporary file, sync, rename, sync of the folder: after a crash the file is the old one or the new one, whole. */
export declare function writeFileAtomically(
  path: string,
  text: string,
  options?: { readonly mode?: number },
): Promise<void>;
/** A JSON file parsed with its schema; undefined if it does not exist. Fault `file-unreadable` names file and field. */
export declare function readJsonFile<S extends TSchema>(path: string, schema: S): Promise<Static<S> | undefined>;
