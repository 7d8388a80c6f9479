import { fault } from '../../protocol/errors.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import { decodePayload } from '../../machine/decide/log/record.ts';
import {
  InstanceReplay,
  undeclared,
  type DifferenceTotals,
  type InstanceComparison,
  type ReplayMode,
} from '../decide/against.ts';
import { readLog, type LogSourceOptions } from './log-source.ts';

export interface CompareOptions extends LogSourceOptions {
  /** The other version. */
  readonly machine: Machine;
  readonly mode: ReplayMode;
  /** Only this instance; all of the machine's if absent. */
  readonly instance?: string | undefined;
  /** Differences that are listed for one instance, and instances that are listed with any; more are counted. */
  readonly differencesMax?: number;
  readonly instancesMax?: number;
}

export const compareDefaults = { differencesMax: 20, instancesMax: 100 } as const;

/** What running recorded inputs against another version came to. */
export interface VersionComparison {
  readonly owner: string;
  readonly machine: string;
  /** Versions that wrote the records, ascending, and the one that they were run against. */
  readonly recordedVersions: readonly number[];
  readonly version: number;
  readonly mode: ReplayMode;
  /** What the version declares to evolve differently, with the reasons. */
  readonly changes: Machine['versions']['changes'];
  /** Instances of the machine that were compared, those with any difference, and those with one that nobody declared. */
  readonly instances: number;
  readonly differing: number;
  readonly undeclared: number;
  readonly records: number;
  readonly refusals: number;
  readonly skipped: number;
  /** Instances that could not be compared to their end, because payloads were erased. */
  readonly erased: number;
  readonly totals: DifferenceTotals;
  /** Those with differences, by name; at most `instancesMax`. */
  readonly list: readonly InstanceComparison[];
}

/**
 * Runs what a log recorded against another version of its machine and says what would come out otherwise: the gate of a
 * rollout. A version passes if `undeclared` is 0. The log is copied, so its process may go on. O(log); memory as a cell that holds all its tenants.
 * Faults: as `readLog`; `log-damaged` (what cannot be proven proves nothing); `machine-unloadable` (no record is of this
 * machine, or one is of a newer version); `tenant-unknown`.
 */
export function compareVersions(options: CompareOptions): VersionComparison {
  const { machine, mode } = options;
  const differencesMax = options.differencesMax ?? compareDefaults.differencesMax;
  const instancesMax = options.instancesMax ?? compareDefaults.instancesMax;
  const replays = new Map<string, InstanceReplay>();
  const versions = new Set<number>();
  const others = new Set<string>();
  const read = readLog(options, ({ head, payload }) => {
    if (options.instance !== undefined && head.instance !== options.instance) return;
    if (head.machine !== machine.name) {
      // A process keeps records of its own beside its tenants'; they say nothing about the tenants' machine.
      if (!head.instance.startsWith('$')) others.add(head.machine);
      return;
    }
    if (head.machineVersion > machine.version) {
      const message = `Record ${head.position} was written by version ${head.machineVersion} of ${machine.name}, which is newer than version ${machine.version}`;
      throw fault('machine-unloadable', message, { field: '--against' });
    }
    versions.add(head.machineVersion);
    const known = replays.get(head.instance);
    const replay = known ?? new InstanceReplay(head.instance, machine, mode, differencesMax);
    replays.set(head.instance, replay);
    // Without its beginning, because the archive let it go, there is no state to decide on.
    if (payload === undefined || (known === undefined && head.previous > 0)) replay.endErased();
    else replay.take({ ...head, ...decodePayload(head.position, payload), payload });
  });
  const { findings } = read;
  const damage = findings.listed[0];
  if (damage !== undefined) {
    const message = `${damage.file}: ${damage.message} (${findings.total} in all). Look at: cellwright log verify`;
    throw fault('log-damaged', message, { field: damage.file });
  }
  if (replays.size === 0 && (others.size > 0 || options.instance !== undefined)) {
    throw nothingToCompare(options, others, read.owner);
  }
  const all = [...replays.values()].map(({ comparison }) => comparison);
  const differing = all.filter(({ totals }) => undeclared(totals) + totals.statesDeclared > 0);
  return {
    owner: read.owner,
    machine: machine.name,
    recordedVersions: [...versions].sort((a, b) => a - b),
    version: machine.version,
    mode,
    changes: machine.versions.changes,
    instances: all.length,
    differing: differing.length,
    undeclared: all.filter(({ totals }) => undeclared(totals) > 0).length,
    records: sum(all, ({ records }) => records),
    refusals: sum(all, ({ refusals }) => refusals),
    skipped: sum(all, ({ skipped }) => skipped),
    erased: all.filter(({ ended }) => ended === 'erased').length,
    totals: {
      refusedNow: sum(all, ({ totals }) => totals.refusedNow),
      acceptedNow: sum(all, ({ totals }) => totals.acceptedNow),
      refusedOtherwise: sum(all, ({ totals }) => totals.refusedOtherwise),
      events: sum(all, ({ totals }) => totals.events),
      states: sum(all, ({ totals }) => totals.states),
      statesDeclared: sum(all, ({ totals }) => totals.statesDeclared),
      history: sum(all, ({ totals }) => totals.history),
    },
    list: differing.sort((a, b) => (a.instance < b.instance ? -1 : 1)).slice(0, instancesMax),
  };
}

function sum(all: readonly InstanceComparison[], of: (each: InstanceComparison) => number): number {
  return all.reduce((total, each) => total + of(each), 0);
}

function nothingToCompare(options: CompareOptions, others: ReadonlySet<string>, owner: string) {
  const { instance, machine } = options;
  if (instance === undefined || others.size > 0) {
    const names = [...others].sort().join(', ');
    const message = `No record is of machine ${machine.name}; the log holds records of ${names}`;
    return fault('machine-unloadable', message, { field: '--against' });
  }
  return fault('tenant-unknown', `The log of ${owner} has no record of ${instance}`, { field: instance });
}
