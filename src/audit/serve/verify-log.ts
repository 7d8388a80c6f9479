import type { Machine } from '../../machine/decide/definition/machine.ts';
import { Replays } from '../decide/replays.ts';
import type { Finding } from '../decide/finding.ts';
import { CacheProof, type CacheReport } from './cache-proof.ts';
import { readLog, type LogProgress } from './log-source.ts';

export interface VerifyOptions {
  readonly folder: string;
  readonly owner?: string | undefined;
  /** The machine that wrote records under a name; without it their state hashes are compared with each other only. */
  readonly machineNamed: (name: string) => Machine | undefined;
  readonly onProgress?: (progress: LogProgress) => void;
}

/** What was proven of a log, and what was not. */
export interface LogReport {
  readonly folder: string;
  readonly owner: string;
  readonly proven: boolean;
  /** Positions of the first and the last record; 0 if the log is empty. */
  readonly first: number;
  readonly last: number;
  /** Up to where the mark says that answers left; absent if there is no mark. */
  readonly acknowledged?: number;
  readonly records: number;
  readonly instances: number;
  /** Payloads that were erased: their digests are proven, what they said is gone. */
  readonly erased: number;
  /** Files of the archive that were proven with it. */
  readonly segments: number;
  /** Records up to this one were removed from the archive on purpose; 0 if none was. */
  readonly removed: number;
  /** Instances and records that were replayed with every state hash checked, and instances that could not be, by reason. */
  readonly replayed: { readonly instances: number; readonly records: number };
  readonly notReplayed: { readonly erased: number; readonly damaged: number; readonly machines: readonly string[] };
  /** Of `state.db`. Nothing in it is damage: what is wrong there is made anew from the log. */
  readonly cache: CacheReport;
  readonly findings: readonly Finding[];
  /** All of them; more than listed if there are very many. */
  readonly findingsTotal: number;
}

/**
 * Proves a log without its process: owner, pages, digests, chain, mark, how the records of each instance follow each
 * other and, where the machine is known, every state hash by replay. O(log); with replay, memory as a cell that holds
 * all its tenants. Throws only if there is nothing to verify (`file-unreadable`, `folder-foreign`, `folder-newer`,
 * `folder-older`, `log-busy`, `machine-unloadable`); damage is in the report.
 */
export function verifyLog(options: VerifyOptions): LogReport {
  const replays = new Replays(options.machineNamed);
  const cache = new CacheProof(options.machineNamed);
  const { owner, counts, marked, segments, removed, findings } = readLog(
    options,
    (row, file, found) => {
      cache.take(row.head);
      const drift = replays.take(row);
      if (drift === undefined) return;
      if (drift.fault.code === 'machine-unloadable') throw drift.fault;
      const { position, instance } = row.head;
      const message = `Record ${position}: ${drift.fault.message}`;
      found.add({ kind: 'state-differs', file, position, instance, message });
    },
    (folder, whose) => cache.open(folder, whose),
  );
  const { first, last, records, instances, erased } = counts;
  return {
    folder: options.folder,
    owner,
    proven: findings.total === 0,
    first,
    last,
    ...(marked === undefined ? {} : { acknowledged: marked }),
    records,
    instances,
    erased,
    segments,
    removed,
    replayed: replays.done,
    notReplayed: replays.left,
    cache: cache.end(last),
    findings: findings.listed,
    findingsTotal: findings.total,
  };
}
