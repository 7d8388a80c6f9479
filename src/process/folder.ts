import { chmod, open, mkdir, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Type, type Static, type TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { fault } from '../protocol/errors.ts';

/** A folder that this process alone may write. The lock is the kernel's (SQLite's on `lock.db`): it ends with the process, however that dies. */
export interface DataFolder {
  readonly path: string;
  release(): void;
}

/** Format of the folders that this version writes. It opens older ones and refuses newer ones. */
export const folderFormatVersion = 1;

const formatFile = 'format.json';
const lockFile = 'lock.db';
/** What may stand in a folder before its format does: a lock and, in the folder of a child, what the host writes for it. */
const beforeFormat: readonly string[] = [lockFile];
const beforeFormatOfChild: readonly string[] = [...beforeFormat, 'boot.json', 'token'];

/** Tenants' data, tokens and the variables of workloads stand in these: nobody but their user may read them. */
const privateFolderMode = 0o700;
const privateFileMode = 0o600;
/** For what others create in this process, such as the database of a log. */
export const privateUmask = 0o077;
const FormatSchema = Type.Object({
  format: Type.Literal('cellwright'),
  purpose: Type.String(),
  version: Type.Integer({ minimum: 1 }),
});
/** Of our own making: `.NAME.PID.COUNT.tmp`. */
const temporary = /^\..+\.\d+\.\d+\.tmp$/;
const sqliteBusy = 5;

/** Locks that this process holds. A lock whose object is collected would be closed, and so given up. */
const held = new Set<DatabaseSync>();

/**
 * Creates or opens a folder, checks that it can be written and that its format is known, locks it, and
 * makes it readable by its user alone.
 * `purpose` (`fleet`, `control`, `router`, `cell`) keeps one kind of folder from being opened as another.
 * Nothing is changed in a folder that is refused.
 * Faults: folder-unwritable, folder-newer, folder-foreign (not empty and not ours), folder-in-use.
 */
export async function openDataFolder(path: string, purpose: string): Promise<DataFolder> {
  const folder = resolve(path);
  const known = await checkFormat(folder, purpose);
  await probeWritable(folder);
  const lock = takeLock(folder);
  try {
    if (!known) {
      const format: Static<typeof FormatSchema> = { format: 'cellwright', purpose, version: folderFormatVersion };
      await writeFileAtomically(join(folder, formatFile), `${JSON.stringify(format)}\n`);
    }
    await makePrivate(folder);
    for (const name of await readdir(folder)) if (temporary.test(name)) await rm(join(folder, name), { force: true });
  } catch (cause) {
    letGo(lock);
    throw unwritable(folder, cause);
  }
  return { path: folder, release: () => letGo(lock) };
}

/**
 * Whether no process holds the folder, asked without waiting; a folder that does not exist is free.
 * The answer may be old when it arrives: it is for waiting until a process is gone, not for safety.
 */
export function isFolderFree(path: string): boolean {
  try {
    letGo(takeLock(resolve(path), true));
    return true;
  } catch (thrown) {
    return !isSqliteError(thrown, sqliteBusy);
  }
}

/** Removes everything in a folder that this process holds, except its format and its lock. */
export async function emptyDataFolder(folder: DataFolder): Promise<void> {
  for (const name of await readdir(folder.path)) {
    if (name !== formatFile && name !== lockFile) await rm(join(folder.path, name), { recursive: true, force: true });
  }
}

/** Whether the folder has our format already; throws if it is newer, of another purpose, or foreign. */
async function checkFormat(folder: string, purpose: string): Promise<boolean> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (cause) {
    if (isSystemError(cause, 'ENOENT')) return false;
    throw unwritable(folder, cause);
  }
  if (!names.includes(formatFile)) {
    const tolerated = purpose === 'fleet' ? beforeFormat : beforeFormatOfChild;
    const stranger = names.find((name) => !tolerated.includes(name) && !temporary.test(name));
    if (stranger === undefined) return false;
    throw fault(
      'folder-foreign',
      `${folder} is not empty (it holds ${stranger}) and has no ${formatFile}, so it is not Cellwright data. Choose an empty or new folder.`,
      { field: folder },
    );
  }
  const format = await readJsonFile(join(folder, formatFile), Type.Unknown());
  if (!Value.Check(FormatSchema, format)) {
    throw fault(
      'folder-foreign',
      `${join(folder, formatFile)} is not Cellwright's. Choose an empty or new folder, or restore the file.`,
      { field: folder },
    );
  }
  if (format.version > folderFormatVersion) {
    throw fault(
      'folder-newer',
      `${folder} has format ${format.version}; this version of Cellwright knows up to ${folderFormatVersion}. Use the newer version, or another folder. Nothing was changed.`,
      { field: folder },
    );
  }
  if (format.purpose !== purpose) {
    throw fault(
      'folder-foreign',
      `${folder} holds the data of a ${format.purpose}, not of a ${purpose}. Choose another folder.`,
      { field: folder },
    );
  }
  return true;
}

/** Writes and removes a file, because permission bits say nothing to root or on a read-only disk. */
async function probeWritable(folder: string): Promise<void> {
  try {
    await makeFolder(folder);
    const probe = join(folder, `.probe.${process.pid}.0.tmp`);
    const file = await open(probe, 'w', privateFileMode);
    await file.close();
    await rm(probe);
  } catch (cause) {
    throw unwritable(folder, cause);
  }
}

/**
 * SQLite locks the file with fcntl, which ends with the process. No other code may open and close
 * `lock.db` in this process: POSIX drops a process's locks on a file at its first close.
 */
function takeLock(folder: string, readOnly = false): DatabaseSync {
  let lock: DatabaseSync | undefined;
  try {
    lock = new DatabaseSync(join(folder, lockFile), { timeout: 0, readOnly });
    lock.exec(readOnly ? 'BEGIN; SELECT count(*) FROM sqlite_schema' : 'PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    held.add(lock);
    return lock;
  } catch (cause) {
    lock?.close();
    if (readOnly) throw cause;
    if (isSqliteError(cause, sqliteBusy)) {
      throw fault(
        'folder-in-use',
        `${folder} is in use by another process. Stop that one first, or choose another folder.`,
        { field: folder, cause },
      );
    }
    throw unwritable(folder, cause);
  }
}

function letGo(lock: DatabaseSync): void {
  if (held.delete(lock)) lock.close();
}

function isSqliteError(thrown: unknown, code: number): boolean {
  return thrown instanceof Error && 'errcode' in thrown && thrown.errcode === code;
}

function isSystemError(thrown: unknown, code: string): boolean {
  return thrown instanceof Error && 'code' in thrown && thrown.code === code;
}

function unwritable(folder: string, cause: unknown) {
  const why = cause instanceof Error ? cause.message : String(cause);
  return fault('folder-unwritable', `${folder} cannot be written: ${why}. Choose a folder that can be.`, {
    field: folder,
    cause,
  });
}

/** A folder of somebody else that this user may write stays as it is: its files are private all the same. */
async function makePrivate(folder: string): Promise<void> {
  const { mode } = await stat(folder);
  if ((mode & privateUmask) !== 0) await chmod(folder, privateFolderMode).catch(() => undefined);
}

/**
 * Makes a folder and those above it, for this user alone. Not `mkdir` with `recursive`: where the parent exists and the
 * system still says ENOENT (below /proc), that one tries for ever.
 */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, privateFolderMode);
  } catch (cause) {
    if (isSystemError(cause, 'EEXIST') && (await stat(path)).isDirectory()) return;
    const above = dirname(path);
    if (!isSystemError(cause, 'ENOENT') || above === path) throw cause;
    await makeFolder(above);
    await mkdir(path, privateFolderMode).catch((again: unknown) => {
      if (!isSystemError(again, 'EEXIST')) throw again;
    });
  }
}

let temporaryFiles = 0;

/**
 * Temporary file, sync, rename, sync of the folder: after a crash the file is the old one or the new
 * one, whole. Only its user may read it. Fault `folder-unwritable` names the file.
 */
export async function writeFileAtomically(path: string, text: string): Promise<void> {
  try {
    await replaceFile(path, text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw fault('folder-unwritable', `${path} cannot be written: ${why}. Make room, or let this user write there.`, {
      field: path,
      cause,
    });
  }
}

/** Makes sure that a file holds a text and is private; one that does already is not written, so a full disk does not matter. */
export async function ensureFile(path: string, text: string): Promise<void> {
  if (!(await isKept(path, text))) await writeFileAtomically(path, text);
}

async function isKept(path: string, text: string): Promise<boolean> {
  try {
    return ((await stat(path)).mode & 0o777) === privateFileMode && (await readFile(path, 'utf8')) === text;
  } catch {
    return false;
  }
}

async function replaceFile(path: string, text: string): Promise<void> {
  const folder = dirname(path);
  temporaryFiles += 1;
  const temporaryPath = join(folder, `.${basename(path)}.${process.pid}.${temporaryFiles}.tmp`);
  await makeFolder(folder);
  try {
    const file = await open(temporaryPath, 'w', privateFileMode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporaryPath, path);
  } catch (cause) {
    await rm(temporaryPath, { force: true });
    throw cause;
  }
  const directory = await open(folder, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** A JSON file parsed with its schema; undefined if it does not exist. Fault `file-unreadable` names file and field. */
export async function readJsonFile<S extends TSchema>(path: string, schema: S): Promise<Static<S> | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (isSystemError(cause, 'ENOENT')) return undefined;
    throw unreadable(path, cause instanceof Error ? cause.message : String(cause), cause);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw unreadable(path, cause instanceof Error ? cause.message : String(cause), cause);
  }
  if (!Value.Check(schema, value)) {
    const error = Value.Errors(schema, value)[0];
    throw unreadable(path, `field "${error?.instancePath ?? ''}" ${error?.message ?? 'does not fit'}`);
  }
  return value;
}

function unreadable(path: string, why: string, cause?: unknown) {
  return fault('file-unreadable', `${path} cannot be read: ${why}. Restore it, or remove it if it is not needed.`, {
    field: path,
    cause,
  });
}
