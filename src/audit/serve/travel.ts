import { fault } from '../../protocol/errors.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import { decodePayload } from '../../machine/decide/log/record.ts';
import type { Finding } from '../decide/finding.ts';
import { recordLine, type RecordLine } from '../decide/record-line.ts';
import { Timeline, type Moment, type StatesDiffer, type StateThen } from '../decide/timeline.ts';
import { readLog, type LogRead, type LogSourceOptions } from './log-source.ts';

/** What a look into the past came to, and what is wrong with the log after the part that it needed. */
export interface Looked<Result> {
  readonly owner: string;
  readonly result: Result;
  /** Damage that does not touch the result. */
  readonly warnings: readonly Finding[];
}

export interface InstanceLine {
  readonly instance: string;
  readonly machine: string;
  readonly machineVersion: number;
  readonly records: number;
  readonly seq: number;
  /** Time of its last record, in milliseconds since 1970. */
  readonly now: number;
  readonly position: number;
}

export interface InstanceRecords {
  readonly instance: string;
  readonly records: readonly RecordLine[];
  /** All of them; the listed ones are the newest. */
  readonly total: number;
}

/** Every instance of a log. Faults as `readLog`, and `log-damaged`. */
export function listInstances(options: LogSourceOptions): Looked<readonly InstanceLine[]> {
  const found = new Map<string, InstanceLine>();
  const read = readLog(options, ({ head }) => {
    const { instance, machine, machineVersion, position, seqBefore, hashes, now } = head;
    const records = (found.get(instance)?.records ?? 0) + 1;
    const seq = seqBefore + hashes.length - 1;
    found.set(instance, { instance, machine, machineVersion, records, seq, now, position });
  });
  return looked(read, read.counts.last, undefined, [...found.values()].sort(byName));
}

/** The newest records of one instance, the oldest first. Faults as `readLog`; `tenant-unknown`; `log-damaged`. */
export function listRecords(
  options: LogSourceOptions & { readonly instance: string; readonly limit: number },
): Looked<InstanceRecords> {
  const { instance, limit } = options;
  const records: RecordLine[] = [];
  let total = 0;
  const read = readLog(options, (row) => {
    if (row.head.instance !== instance) return;
    total += 1;
    records.push(recordLine(row));
    if (records.length > limit) records.shift();
  });
  if (total === 0) throw unknownInstance(read, instance);
  return looked(read, read.counts.last, instance, { instance, records, total });
}

export interface TravelOptions extends LogSourceOptions {
  readonly instance: string;
  readonly machine: Machine;
}

/**
 * The state of an instance at a moment. Faults as `readLog`; `tenant-unknown`; `usage` (there are fewer events);
 * `history-erased`; `machine-unloadable`; `log-damaged` (the part of the log that it needs, or the machine evolves
 * differently). O(log).
 */
export function stateAt(options: TravelOptions & { readonly at: Moment }): Looked<StateThen> {
  const { timeline, read, used } = travel(options, options.at);
  return looked(read, used, options.instance, timeline.state);
}

/** What differs between two moments of an instance, and which commands did it. Faults as `stateAt`. */
export function differenceBetween(
  options: TravelOptions & { readonly from: Moment; readonly to: Moment },
): Looked<StatesDiffer> {
  const { timeline, read, used } = travel(options, options.to, options.from);
  return looked(read, used, options.instance, timeline.difference);
}

function travel(
  options: TravelOptions,
  to: Moment,
  from?: Moment,
): { readonly timeline: Timeline; readonly read: LogRead; readonly used: number } {
  const { instance, machine } = options;
  const timeline = new Timeline(machine, instance, to, from);
  let used = 0;
  let known = 0;
  const read = readLog(options, ({ head, payload, erased }, file) => {
    if (head.instance !== instance) return;
    known += head.hashes.length - 1;
    if ('seq' in to ? head.seqBefore >= to.seq : head.now > to.timeMs) return;
    if (used === 0 && head.previous > 0) {
      const message = `The records of ${instance} before record ${head.position} were removed from the archive, so its state is not known`;
      throw fault('history-erased', message, { field: instance });
    }
    if (payload === undefined) {
      if (!erased) {
        const message = `The payload of record ${head.position} was changed. Look at: cellwright log verify`;
        throw fault('log-damaged', `${file}: ${message}`, { field: file });
      }
      throw fault(
        'history-erased',
        `What record ${head.position} of ${instance} said was erased, so its state from event ${head.seqBefore + 1} on is not known`,
        { field: instance },
      );
    }
    used = head.position;
    timeline.take({ ...head, ...decodePayload(head.position, payload), payload });
  });
  if (used === 0 && known === 0) throw unknownInstance(read, instance);
  for (const moment of [from, to]) {
    if (moment === undefined || !('seq' in moment) || moment.seq <= known) continue;
    const message = `${instance} has ${known} events, so there is no event ${moment.seq}; write a number of 0 to ${known}`;
    throw fault('usage', message, { field: '--at' });
  }
  return { timeline, read, used };
}

/** Damage before the last record that was needed makes the result worthless; damage after it is told. */
function looked<Result>(read: LogRead, used: number, instance: string | undefined, result: Result): Looked<Result> {
  const { findings, owner } = read;
  const fatal = findings.listed.find(
    (finding) =>
      (finding.position === undefined || finding.position <= used) &&
      (finding.instance === undefined || instance === undefined || finding.instance === instance) &&
      finding.kind !== 'mark-missing' &&
      finding.kind !== 'mark-unreadable',
  );
  if (fatal !== undefined) {
    const more = findings.total > 1 ? ` (and ${findings.total - 1} more)` : '';
    const message = `${fatal.file}: ${fatal.message}${more}. Look at: cellwright log verify`;
    throw fault('log-damaged', message, { field: fatal.file });
  }
  return { owner, result, warnings: findings.listed };
}

function unknownInstance(read: LogRead, instance: string) {
  const message = `The log of ${read.owner || 'this folder'} has no record of ${instance}; it has ${read.counts.instances} tenants`;
  return fault('tenant-unknown', message, { field: instance });
}

function byName(a: InstanceLine, b: InstanceLine): number {
  return a.instance < b.instance ? -1 : a.instance > b.instance ? 1 : 0;
}
