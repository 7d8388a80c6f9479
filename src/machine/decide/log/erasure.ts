import type { LogRecord } from './record.ts';

/**
 * The record that takes back an instance: what all its records before it said is erased from the log. Their heads and
 * digests stay, so the chain is proven as before; that a payload may be missing is proven by this record.
 */

/** No command of a machine has this name, because names of commands begin with a letter. */
export const erasureCommand = '$erased';

/** What `encodePayload` makes of it, written out: the thread of the log needs it, and no schema library for it. */
const payload = `p2 ["${erasureCommand}",null,null,[]]`;

/** Whether a payload is that of an erasure. */
export function isErasure(text: string): boolean {
  return text === payload;
}

/** The erasure of an instance that stands where its last record, if any, left it. */
export function erasureRecord(
  of: Pick<LogRecord, 'instance' | 'machine' | 'machineVersion' | 'now' | 'keysHash'> & {
    readonly seq: number;
    readonly stateHash: string;
  },
): LogRecord {
  const { instance, machine, machineVersion, now, keysHash, seq, stateHash } = of;
  return {
    instance,
    machine,
    machineVersion,
    now,
    seqBefore: seq,
    hashes: [stateHash],
    keysForgotten: 0,
    keysHash,
    command: erasureCommand,
    input: null,
    key: undefined,
    outcome: { kind: 'accepted', events: [] },
    context: {},
    payload,
  };
}
