import { erasureRecord } from '../../src/machine/decide/log/erasure.ts';
import { decodeHead, encodePayload, encodeRecord, type RecordText } from '../../src/machine/decide/log/record.ts';

/** Instances of the records below. */
export const instances = 5;

/** A record that its position alone determines, of a size between 200 units and 12,000, as `recordAt` of no other position. */
export function recordAt(position: number): RecordText {
  const instance = `tenant-${position % instances}`;
  const text = `${position} `.repeat(1 + ((position * 7_919) % 97 === 0 ? 2_000 : position % 40));
  const seqBefore = Math.floor((position - 1) / instances);
  const payload = encodePayload({
    command: 'note',
    input: { text },
    key: undefined,
    outcome: { kind: 'accepted', events: [{ type: 'noted', data: { text } }] },
    context: {},
  });
  return encodeRecord(position, Math.max(0, position - instances), {
    instance,
    machine: 'notes',
    machineVersion: 1,
    now: 1_000 + position,
    seqBefore,
    hashes: [hashAfter(instance, seqBefore), hashAfter(instance, seqBefore + 1)],
    keysForgotten: 0,
    keysHash: 'c2:00000000000000000000000000000000',
    command: 'note',
    input: { text },
    key: undefined,
    outcome: { kind: 'accepted', events: [{ type: 'noted', data: { text } }] },
    context: {},
    payload,
  });
}

function hashAfter(instance: string, seq: number): string {
  return `c2:${instance.slice(-1).repeat(24)}${seq.toString(16).padStart(8, '0')}`;
}

/** The record at `position` that erases the instance of the record at `last`, its last one. */
export function erasureAt(position: number, last: number): RecordText {
  const { instance, machine, machineVersion, now, keysHash, seqBefore, hashes } = decodeHead(last, recordAt(last).head);
  const at = { instance, machine, machineVersion, now: now + 1_000, keysHash };
  return encodeRecord(position, last, erasureRecord({ ...at, seq: seqBefore + 1, stateHash: hashes[1] ?? '' }));
}
