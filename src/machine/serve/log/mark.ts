import { hash } from 'node:crypto';
import { closeSync, constants, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { fault } from '../../../protocol/errors.ts';

/**
 * The last position that may have been acknowledged, kept beside the log, because SQLite drops
 * everything after a damaged frame of its write-ahead log without a word. Two slots are written in
 * turn, each with a checksum and each through to the disk, so that a torn write loses at most the
 * newer one. `docs/log-format.md` has the bytes.
 */
export interface Mark {
  readonly position: number;
  /** Chain of the record at `position`, in hexadecimal. */
  readonly chain: string;
}

export const slotBytes = 512;
const slots = 2;
const tag = 'cellwright-mark 1';

function encodeSlot(counter: number, { position, chain }: Mark): string {
  const body = `${tag} ${counter} ${position} ${chain} `;
  const sum = hash('sha256', body);
  return `${(body + sum).padEnd(slotBytes - 1)}\n`;
}

function decodeSlot(text: string): { readonly counter: number; readonly mark: Mark } | undefined {
  const match = /^cellwright-mark 1 (\d+) (\d+) ([0-9a-f]{64}) /.exec(text);
  if (match === null) return undefined;
  const counter = Number(match[1]);
  const mark = { position: Number(match[2]), chain: match[3] ?? '' };
  return encodeSlot(counter, mark) === text ? { counter, mark } : undefined;
}

/** Reads the newest whole slot; undefined if there is no file. Fault `log-damaged` if no slot is whole. */
export function readMark(file: string): { readonly counter: number; readonly mark: Mark } | undefined {
  if (!existsSync(file)) return undefined;
  const text = readFileSync(file, 'latin1');
  let newest: { readonly counter: number; readonly mark: Mark } | undefined;
  for (let i = 0; i < slots; i++) {
    const slot = decodeSlot(text.slice(i * slotBytes, (i + 1) * slotBytes));
    if (slot !== undefined && (newest === undefined || slot.counter > newest.counter)) newest = slot;
  }
  if (newest !== undefined) return newest;
  const newer = /^cellwright-mark (\d+) /.exec(text);
  if (newer !== null && Number(newer[1]) > 1) {
    const message = `${file} has format ${newer[1]}, which is newer than this version of Cellwright; run a newer one`;
    throw fault('folder-newer', message, { field: file });
  }
  throw fault(
    'log-damaged',
    `${file} has no whole slot, so it cannot be proven that the log is complete; restore the folder from a backup`,
    { field: file },
  );
}

/** Creates the mark of an empty log, whole or not at all. */
export function createMark(file: string, mark: Mark): void {
  const temporary = `${file}.new`;
  const handle = openSync(temporary, 'w', 0o600);
  try {
    writeSync(handle, encodeSlot(0, mark) + encodeSlot(1, mark), 0, 'latin1');
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  renameSync(temporary, file);
  syncFolder(dirname(file));
}

/** Makes a rename in `folder` durable. */
export function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** Writes marks, each of them on disk before `write` returns. */
export class MarkWriter {
  readonly #handle: number;
  #counter: number;

  constructor(file: string, counter: number) {
    this.#handle = openSync(file, constants.O_RDWR | constants.O_DSYNC);
    this.#counter = counter;
  }

  write(mark: Mark): void {
    this.#counter += 1;
    const bytes = Buffer.from(encodeSlot(this.#counter, mark), 'latin1');
    const written = writeSync(this.#handle, bytes, 0, slotBytes, (this.#counter % slots) * slotBytes);
    if (written !== slotBytes) throw new Error(`only ${written} of ${slotBytes} bytes of the mark were written`);
  }

  close(): void {
    closeSync(this.#handle);
  }
}
