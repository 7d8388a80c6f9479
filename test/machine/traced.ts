import { spawn, spawnSync } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { failSync, syncFile, type SimulatedDisk, type SimulatedFile } from './simulated-disk.ts';

/** Runs programs under strace, and feeds what they did to a simulated disk. */

/** Tried on a program, because a container may have it and not let it trace. */
export const straceThere =
  spawnSync('strace', ['-f', '-o', '/dev/null', '-e', 'inject=close:delay_enter=1', 'true']).status === 0;
export const straceMissing = straceThere
  ? false
  : 'strace is not here, or may not trace: apt-get install strace to run this';

const calls = [
  'openat,open,close,pwrite64,write,ftruncate,fsync,fdatasync',
  'rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir',
];

/** Runs a program with its system calls traced into a file, some of them failing as `inject` says; resolves with its exit code. */
export function runTraced(
  command: readonly string[],
  trace: string,
  inject: readonly string[] = [],
): Promise<number | null> {
  const options = ['-f', '-xx', '-s', '1000000', '-e', `trace=${calls.join(',')}`, '-o', trace];
  const child = spawn('strace', [...options, ...inject.flatMap((each) => ['-e', `inject=${each}`]), ...command], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
}

export interface Seen {
  /** Called before each sync that is about to happen, and after it; `what` names the kind. */
  readonly atSync: (what: string) => void;
  /** What the program wrote to its standard output, when it did. */
  readonly output: (text: string) => void;
}

interface Handle {
  readonly path: string;
  readonly file: SimulatedFile | 'folder';
  readonly throughToDisk: boolean;
  position: number;
}

/** Plays a trace on a disk, call by call in the order in which they ended. */
export async function playTrace(trace: string, disk: SimulatedDisk, seen: Seen): Promise<void> {
  const handles = new Map<string, Handle>();
  const begun = new Map<string, string>();
  for await (const line of createInterface({ input: createReadStream(trace) })) {
    const [, thread = '', said = ''] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    if (said.endsWith('<unfinished ...>')) {
      begun.set(thread, said.slice(0, -'<unfinished ...>'.length).trimEnd());
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(said);
    const whole = resumed === null ? said : `${begun.get(thread) ?? ''}${resumed[1]}`;
    const call = /^(\w+)\((.*)\)\s+= (-?\d+)(.*)$/.exec(whole);
    if (call !== null) play(disk, handles, seen, call[1] ?? '', call[2] ?? '', Number(call[3]));
  }
}

function play(
  disk: SimulatedDisk,
  handles: Map<string, Handle>,
  seen: Seen,
  name: string,
  given: string,
  result: number,
): void {
  const texts = [...given.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map((match) =>
    Buffer.from((match[1] ?? '').replaceAll('\\x', ''), 'hex'),
  );
  const paths = texts.map((text) => text.toString());
  const [path = '', other = ''] = paths;
  const [number = ''] = given.split(',', 1);
  const handle = handles.get(number);
  switch (name) {
    case 'open':
    case 'openat': {
      if (result < 0 || !disk.holds(path)) return;
      const options = { create: given.includes('O_CREAT'), truncate: given.includes('O_TRUNC') };
      const file = disk.open(path, options) ?? 'folder';
      handles.set(String(result), { path, file, throughToDisk: /O_D?SYNC/.test(given), position: 0 });
      return;
    }
    case 'close':
      handles.delete(number);
      return;
    case 'write':
    case 'pwrite64': {
      if (number === '1') seen.output(texts[0]?.toString() ?? '');
      if (result < 0 || handle === undefined || handle.file === 'folder') return;
      const at = name === 'write' ? handle.position : Number(/, (\d+)$/.exec(given)?.[1]);
      const bytes = texts[0]?.subarray(0, result) ?? Buffer.alloc(0);
      if (name === 'write') handle.position += result;
      handle.file.writes.push({ at, bytes, state: 'pending' });
      if (handle.throughToDisk) sync(handle, seen, true, 'write');
      return;
    }
    case 'ftruncate':
      if (result === 0 && handle !== undefined && handle.file !== 'folder') {
        const at = Number(/, (\d+)$/.exec(given)?.[1]);
        handle.file.writes.push({ at, bytes: undefined, state: 'pending' });
      }
      return;
    case 'fsync':
    case 'fdatasync':
      if (handle === undefined) return;
      if (handle.file !== 'folder') {
        sync(handle, seen, result === 0, 'sync');
        return;
      }
      seen.atSync('before sync of a folder');
      if (result === 0) disk.syncFolder(handle.path);
      seen.atSync(`after ${result === 0 ? '' : 'a failed '}sync of a folder`);
      return;
    case 'rename':
    case 'renameat':
    case 'renameat2':
      if (result === 0 && disk.holds(path)) disk.rename(path, other);
      return;
    case 'unlink':
    case 'unlinkat':
    case 'rmdir':
      if (result === 0 && disk.holds(path)) disk.remove(path);
      return;
    case 'mkdir':
    case 'mkdirat':
      if (result === 0 && disk.holds(path)) disk.makeFolder(path);
      return;
    default:
  }
}

function sync({ path, file }: Handle, seen: Seen, worked: boolean, what: string): void {
  if (file === 'folder') return;
  const kind = `${what} of ${path.slice(path.lastIndexOf('/') + 1)}`;
  seen.atSync(`before ${kind}`);
  if (worked) syncFile(file);
  else failSync(file);
  seen.atSync(`${worked ? 'after' : 'after a failed'} ${kind}`);
}
