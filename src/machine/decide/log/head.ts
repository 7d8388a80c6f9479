import { fault } from '../../../protocol/errors.ts';
import type { PlacedRecord } from './record.ts';

/**
 * The head of a record as text, read back. In a module of its own and checked by hand, because the thread of the log
 * reads nothing else of records, and a schema library would make each start wait for it.
 */

/** What the head of a record says: all that is left of one whose payload was erased. */
export type RecordHead = Omit<PlacedRecord, 'command' | 'input' | 'key' | 'outcome' | 'context' | 'payload'>;

export const headTag = 'h2 ';
const headParts = 10;

/** Reads the head of a record alone. Fault `log-damaged` if it is not one that `encodeRecord` writes. */
export function decodeHead(position: number, text: string): RecordHead {
  const value = parseTagged(position, 'head', headTag, text);
  if (!Array.isArray(value) || value.length !== headParts) throw misshapen(position, 'head');
  const parts: readonly unknown[] = value;
  const [at, previous, instance, machine, machineVersion, now, seqBefore, hashes, keysForgotten, keysHash] = parts;
  if (
    !isCount(at) ||
    !isCount(previous) ||
    typeof instance !== 'string' ||
    typeof machine !== 'string' ||
    !isCount(machineVersion) ||
    machineVersion === 0 ||
    !isCount(now) ||
    !isCount(seqBefore) ||
    !isTexts(hashes) ||
    !isCount(keysForgotten) ||
    typeof keysHash !== 'string'
  ) {
    throw misshapen(position, 'head');
  }
  if (at !== position) throw damagedRecord(position, `its head says that it is record ${at}`);
  if (previous >= position) throw damagedRecord(position, `its head says that record ${previous} came before it`);
  return { position, previous, instance, machine, machineVersion, now, seqBefore, hashes, keysForgotten, keysHash };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === 'string');
}

/** The JSON behind a tag. Fault `log-damaged` if there is none. */
export function parseTagged(position: number, part: string, tag: string, text: string): unknown {
  if (!text.startsWith(tag)) throw damagedRecord(position, `its ${part} does not start with "${tag.trim()}"`);
  try {
    const value: unknown = JSON.parse(text.slice(tag.length));
    return value;
  } catch (error) {
    throw damagedRecord(position, `its ${part} is not JSON`, error);
  }
}

export function misshapen(position: number, part: string): Error {
  return damagedRecord(position, `its ${part} does not have the shape of a record`);
}

function damagedRecord(position: number, what: string, cause?: unknown): Error {
  return fault('log-damaged', `Record ${position} of the log cannot be proven: ${what}`, {
    field: `record ${position}`,
    cause,
  });
}
