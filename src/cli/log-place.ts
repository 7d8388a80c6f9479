import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Value } from 'typebox/value';
import { CellBootSchema, ControlBootSchema } from '../protocol/boot.ts';
import { CellDesiredSchema } from '../protocol/desired.ts';
import { fault } from '../protocol/errors.ts';
import { nearest } from '../protocol/nearest.ts';
import type { MachineSource } from '../protocol/resources.ts';
import { SignedSchema } from '../protocol/routing.ts';
import { readJsonFile } from '../process/folder.ts';
import type { Terminal } from './terminal.ts';

/** A log that the command line looks at without its process. */
export interface LogPlace {
  /** Name of the process, or the folder as it was written. */
  readonly name: string;
  readonly folder: string;
  /** Whose log it must be; unknown of a folder that no host made. */
  readonly owner: string | undefined;
  /** The machine of its blueprint, if it is a cell that has one. */
  readonly source: MachineSource | undefined;
}

export interface LogChoice {
  readonly data: string;
  /** A cell by its name, or `control`. */
  readonly process?: string | undefined;
  readonly folder?: string | undefined;
}

const controlName = 'control';

/** The logs that are meant: that of a folder, of a process of the fleet, or all of the fleet. */
export async function logPlaces(terminal: Terminal, choice: LogChoice): Promise<readonly LogPlace[]> {
  const { process: name, folder } = choice;
  if (name !== undefined && folder !== undefined) {
    throw fault('usage', 'Name a cell or a folder, not both.', { field: '--folder' });
  }
  if (folder !== undefined) return [await placeOf(folder, resolve(terminal.cwd, folder))];
  const data = resolve(terminal.cwd, choice.data);
  const cells: readonly string[] = await readdir(join(data, 'cells')).catch(() => []);
  const names = [...cells, ...((await hasFolder(data, controlName)) ? [controlName] : [])].sort();
  if (name === undefined) {
    if (names.length > 0) return Promise.all(names.map((each) => placeOf(each, folderOf(data, each))));
    throw fault('file-unreadable', `There are no logs in ${data}. Name the fleet's folder with --data.`, {
      field: '--data',
    });
  }
  if (names.includes(name)) return [await placeOf(name, folderOf(data, name))];
  const meant = nearest(name, names);
  const hint = meant === undefined ? '' : ` Did you mean ${meant}?`;
  const known = names.length === 0 ? 'It has none.' : `It has ${names.join(', ')}.`;
  throw fault('file-unreadable', `The fleet in ${data} has no log of "${name}".${hint} ${known}`, { field: name });
}

/** The one log that is meant. */
export async function logPlace(terminal: Terminal, choice: LogChoice): Promise<LogPlace> {
  if (choice.process === undefined && choice.folder === undefined) {
    throw fault('usage', 'Say whose log: --cell NAME, or --folder DIR.', { field: '--cell' });
  }
  const [place] = await logPlaces(terminal, choice);
  if (place === undefined) throw fault('usage', 'Say whose log: --cell NAME, or --folder DIR.', { field: '--cell' });
  return place;
}

function folderOf(data: string, name: string): string {
  return name === controlName ? join(data, name) : join(data, 'cells', name);
}

async function hasFolder(data: string, name: string): Promise<boolean> {
  const names: readonly string[] = await readdir(data).catch(() => []);
  return names.includes(name);
}

async function placeOf(name: string, folder: string): Promise<LogPlace> {
  return { name, folder, owner: await ownerOf(folder), source: await sourceOf(folder) };
}

/** Whose log the host says that it is. */
async function ownerOf(folder: string): Promise<string | undefined> {
  const file = join(folder, 'boot.json');
  const cell = await readJsonFile(file, CellBootSchema).catch(() => undefined);
  if (cell !== undefined) return `${cell.fleet}/${cell.name}`;
  const control = await readJsonFile(file, ControlBootSchema).catch(() => undefined);
  return control === undefined ? undefined : `${control.fleet}/${controlName}`;
}

/**
 * The machine that the cell was last told to run. Its signature is not checked here: whoever can write the folder of
 * the cell can also write the machine.
 */
async function sourceOf(folder: string): Promise<MachineSource | undefined> {
  const signed = await readJsonFile(join(folder, 'desired.json'), SignedSchema).catch(() => undefined);
  if (signed === undefined) return undefined;
  const desired = parsedJson(signed.payload);
  if (!Value.Check(CellDesiredSchema, desired)) return undefined;
  const { spec } = desired.blueprint;
  return 'machine' in spec ? spec.machine : undefined;
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
