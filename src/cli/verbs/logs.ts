import { watch } from 'node:fs';
import { open, readdir, stat, type FileHandle } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { fault } from '../../protocol/errors.ts';
import { exitCodes } from '../failure.ts';
import { nearest } from '../../protocol/nearest.ts';
import { aborted, type Terminal } from '../terminal.ts';

/** How much is read at a time, and the most that is searched for the last lines: 64 MiB. */
const blockBytes = 64 * 1024;
const searchedBlocksMax = 1024;
/** A file system that tells nothing about changes is looked at this often. */
const lookIntervalMs = 500;

/** `logs`: the last lines of DATA/logs/NAME.log; with `follow` also what is appended, across a rotation. */
export async function runLogs(
  terminal: Terminal,
  name: string,
  options: { readonly data: string; readonly follow: boolean; readonly lines: number },
): Promise<number> {
  const folder = join(resolve(terminal.cwd, options.data), 'logs');
  const path = join(folder, `${name}.log`);
  if (name !== basename(name)) throw fault('usage', `"${name}" is not the name of a process.`);
  const file = await open(path).catch(async () => {
    throw await noSuchLog(folder, name);
  });
  const { size } = await file.stat();
  const start = await tailStart(file, size, options.lines);
  const position = await copy(file, start, terminal);
  if (!options.follow) {
    await file.close();
    return exitCodes.done;
  }
  await followFile(terminal, path, file, position);
  return exitCodes.done;
}

async function noSuchLog(folder: string, name: string) {
  const names = (await readdir(folder).catch(() => []))
    .filter((file) => file.endsWith('.log'))
    .map((file) => file.slice(0, -'.log'.length))
    .sort();
  if (names.length === 0) {
    return fault('file-unreadable', `There are no logs in ${folder}. Name the fleet's folder with --data.`, {
      field: '--data',
    });
  }
  const meant = nearest(name, names);
  const hint = meant === undefined ? '' : ` Did you mean ${meant}?`;
  return fault('file-unreadable', `There is no log of "${name}".${hint} There are logs of ${names.join(', ')}.`);
}

/** Where the last `lines` lines begin, read from the end in blocks. */
async function tailStart(file: FileHandle, sizeBytes: number, lines: number): Promise<number> {
  if (lines === 0) return sizeBytes;
  let found = 0;
  let end = sizeBytes;
  for (let blocks = 0; end > 0 && blocks < searchedBlocksMax; blocks++) {
    const start = Math.max(0, end - blockBytes);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(end - start), 0, end - start, start);
    for (let index = bytesRead - 1; index >= 0; index--) {
      if (buffer[index] !== newline || start + index === sizeBytes - 1) continue;
      found += 1;
      if (found === lines) return start + index + 1;
    }
    end = start;
  }
  return end;
}

const newline = 10;

/** Prints from a position to the end; returns where that was. Split characters are kept for the next time. */
async function copy(file: FileHandle, from: number, terminal: Terminal): Promise<number> {
  const decoder = new TextDecoder();
  let position = from;
  for (;;) {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(blockBytes), 0, blockBytes, position);
    if (bytesRead === 0) break;
    position += bytesRead;
    terminal.out.write(decoder.decode(buffer.subarray(0, bytesRead), { stream: true }));
  }
  terminal.out.write(decoder.decode());
  return position;
}

async function followFile(terminal: Terminal, path: string, first: FileHandle, from: number): Promise<void> {
  const interrupted = terminal.interrupted();
  let file = first;
  let position = from;
  let looking: Promise<void> = Promise.resolve();
  const look = async (): Promise<void> => {
    const now = await stat(path).catch(() => undefined);
    if (now === undefined) return;
    position = await copy(file, position, terminal);
    if (now.ino !== (await file.stat()).ino) {
      await file.close();
      file = await open(path);
      position = await copy(file, 0, terminal);
    } else if (now.size < position) position = await copy(file, 0, terminal);
  };
  const again = (): void => {
    looking = looking.then(look, look);
  };
  const watcher = watch(path, again);
  watcher.on('error', () => undefined);
  const timer = setInterval(again, lookIntervalMs);
  await aborted(interrupted);
  clearInterval(timer);
  watcher.close();
  await looking.catch(() => undefined);
  await file.close();
}
