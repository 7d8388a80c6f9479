/**
 * Which instances stay in memory, which states are written out, and when the directory is: bounds and rules. Times
 * play no part: everything is counted in records and in units of state, so that a run can be repeated.
 */

/** Bounds of what is in memory and of what a restart or a hydration has to read. */
export interface ResidencyBounds {
  /** State of all resident instances together, in approximate bytes. Above it the least recently used leave. */
  readonly residentBytesMax: number;
  /** Records after the last checkpoint: what a start reads and proves. At it the next checkpoint begins. */
  readonly checkpointRecords: number;
  /** Records of one instance after its newest snapshot: above this, or its rows and keys, the next snapshot is made. */
  readonly snapshotRecordsMin: number;
  /** Instances that are hydrated at once. */
  readonly hydrationsMax: number;
  /** Requests that wait for hydrations, of all instances; more are refused with `log-busy`. */
  readonly waitingMax: number;
  /** The same of one instance. */
  readonly waitingPerInstanceMax: number;
}

export const residencyBounds: ResidencyBounds = {
  residentBytesMax: 256 * 1024 * 1024,
  checkpointRecords: 16_384,
  snapshotRecordsMin: 512,
  hydrationsMax: 4,
  waitingMax: 16_384,
  waitingPerInstanceMax: 1_024,
};

/** How large an instance is, as far as it is counted. */
export interface InstanceSize {
  readonly rows: number;
  readonly keys: number;
  /** Rows and remembered answers, in 16-bit units. */
  readonly units: number;
}

/** What an instance without rows takes: its tables, their views, its order of keys. Measured, rounded up. */
const instanceBytes = 4_096;
/** What a row takes beside its texts: object, properties, places in the table and in the order of keys. Measured. */
const rowBytes = 200;
const keyBytes = 200;

/** Bytes of memory that an instance takes, within a factor of about two: strings are one or two bytes a unit. */
export function approximateBytes({ rows, keys, units }: InstanceSize): number {
  return instanceBytes + rows * rowBytes + keys * keyBytes + units;
}

/** What eviction has to know of a resident instance. */
export interface Resident {
  readonly bytes: number;
  /** Grows with each use. */
  readonly usedAt: number;
  /** Something of it is under way: a record that is not durable yet, or a request that it has not answered. */
  readonly busy: boolean;
}

/** Down to which part of the limit eviction goes, so that it has to choose rarely. */
const evictTo = 0.9;

/**
 * Which residents leave: the least recently used that are idle, until the rest is within nine tenths of the limit. The
 * most recently used one stays, or an instance larger than the limit could never be used. O(n log n), once for each
 * tenth of the limit that was hydrated.
 */
export function toEvict<R extends Resident>(
  residents: Iterable<R>,
  { residentBytesMax }: ResidencyBounds,
): readonly R[] {
  const all = [...residents].sort((a, b) => a.usedAt - b.usedAt);
  let bytes = all.reduce((sum, resident) => sum + resident.bytes, 0);
  const leave: R[] = [];
  if (bytes <= residentBytesMax) return leave;
  for (const resident of all.slice(0, -1)) {
    if (bytes <= residentBytesMax * evictTo) break;
    if (resident.busy) continue;
    leave.push(resident);
    bytes -= resident.bytes;
  }
  return leave;
}

/**
 * Whether a state should be written out. A snapshot costs O(items), which are rows and remembered keys, and comes after as
 * many records, so each record pays for one item, and a hydration replays no more than it loads.
 */
export function snapshotDue(tail: number, items: number, { snapshotRecordsMin }: ResidencyBounds): boolean {
  return tail > Math.max(snapshotRecordsMin, items);
}

/** Whether a directory should be written out, so many records after the last time. */
export function checkpointDue(recordsSince: number, { checkpointRecords }: ResidencyBounds): boolean {
  return recordsSince >= checkpointRecords;
}

/** Whether one more request may wait for a hydration. */
export function mayWait(
  waiting: { readonly all: number; readonly ofInstance: number },
  { waitingMax, waitingPerInstanceMax }: ResidencyBounds,
): boolean {
  return waiting.all < waitingMax && waiting.ofInstance < waitingPerInstanceMax;
}
