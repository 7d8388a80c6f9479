import { assert } from '../../../kernel/assert.ts';
import { Fault } from '../../../kernel/fault.ts';
import { SetHash } from '../../../kernel/hash.ts';
import { fault } from '../../../protocol/errors.ts';
import { asFault } from '../../../protocol/problem.ts';
import { Directory, type NextTimer } from '../../decide/residency/directory.ts';
import type { DriftEvidence, Quarantine } from '../../decide/replica/drift.ts';
import { isErasure } from '../../decide/log/erasure.ts';
import { Instance } from '../../decide/instance/instance.ts';
import type { Machine } from '../../decide/definition/machine.ts';
import { mismatchOf } from '../../decide/replica/mismatch.ts';
import type { LogRecord, PlacedRecord } from '../../decide/log/record.ts';
import { mayWait, snapshotDue, toEvict, type ResidencyBounds } from '../../decide/residency/residency.ts';
import { messageOf } from '../../decide/state/value.ts';
import { valueHashTag } from '../../decide/state/value-hash.ts';
import { Hosted, type InstanceName } from './hosted.ts';
import { evidenceOf, hydrate, standing } from './hydrate.ts';
import type { Log } from '../log/log.ts';
import type { StateStore } from '../state/store.ts';

const emptyHash = new SetHash(valueHashTag).text;

/** The stored directory does not fit the log, whatever is wrong with either: the whole log is read instead. */
export class DirectoryMisfit extends Error {
  override readonly name = 'DirectoryMisfit';
}

export interface ResidentsOptions {
  readonly machineFor: (instance: InstanceName) => Machine | undefined;
  readonly bounds: ResidencyBounds;
  readonly quarantine: Quarantine;
  readonly store: StateStore;
  /** Something was found damaged and made good, or an instance is refused from now on. */
  readonly onNotice: (message: string, instance: InstanceName) => void;
  /** An instance is in memory again: records what must come first, or says why it cannot be used now. */
  readonly onHydrated: (hosted: Hosted) => Fault | undefined;
  readonly onSnapshotDue: (instance: InstanceName) => void;
}

type Waiter = (found: Hosted | Fault) => void;

/**
 * Which instances are in memory. An instance that is not is made again when somebody asks for it, and whoever asks
 * meanwhile waits in order; above a limit of memory the least recently used leave.
 */
export class Residents {
  readonly #options: ResidentsOptions;
  #directory = new Directory();
  readonly #resident = new Map<InstanceName, Hosted>();
  /** Thrown out while records of theirs were on their way to the disk: until those are there, nobody can make them again. */
  readonly #leaving = new Map<InstanceName, Hosted>();
  readonly #waiting = new Map<InstanceName, Waiter[]>();
  /** Of those, the ones whose hydration has not begun, in order. */
  readonly #queued = new Set<InstanceName>();
  #hydrating = 0;
  #waitingCount = 0;
  #log: Log | undefined;
  #uses = 0;
  #bytes = 0;
  #evictAbove: number;
  /** What it did so far. */
  readonly figures = { hydrations: 0, evictions: 0 };

  constructor(options: ResidentsOptions) {
    this.#options = options;
    this.#evictAbove = options.bounds.residentBytesMax;
  }

  get directory(): Directory {
    return this.#directory;
  }

  get size(): number {
    return this.#resident.size;
  }

  /** Approximate bytes of all that are in memory. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Begins to load: with what was stored, or with nothing. Fault `machine-unloadable` if a machine is missing. */
  load(directory: Directory): void {
    for (const { instance, machine, machineVersion, position } of directory.entries()) {
      this.#machineOf(instance, machine, machineVersion, position);
    }
    this.#directory = directory;
    this.#resident.clear();
    this.#bytes = 0;
  }

  /** Takes a record that comes after a stored directory. Throws DirectoryMisfit if it does not fit. */
  followTail(record: PlacedRecord): void {
    this.#machineOf(record.instance, record.machine, record.machineVersion, record.position);
    const misfit = this.#directory.misfit(record, emptyHash);
    // What an instance's records said before its erasure is not there any more, so nothing leads up to it.
    if (misfit !== undefined && !isErasure(record.payload)) throw new DirectoryMisfit(misfit);
    this.#directory.follow(record, record.position, isErasure(record.payload) ? 'none' : 'unknown');
  }

  /** Takes a record of a log that is read from its first: replays it as long as its instance is in memory. */
  replay(record: PlacedRecord): void {
    const { instance: name, position } = record;
    const machine = this.#machineOf(name, record.machine, record.machineVersion, position);
    const misfit = this.#directory.misfit(record, emptyHash);
    const isFirst = this.#directory.get(name) === undefined;
    const erased = isErasure(record.payload);
    this.#directory.follow(record, record.position, erased ? 'none' : 'unknown');
    if (erased) {
      this.discard(name);
      return;
    }
    if (this.#options.quarantine.has(name)) return;
    if (misfit !== undefined) {
      this.quarantine(name, evidenceOf(record, undefined, misfit));
      return;
    }
    const hosted = isFirst ? this.#host(new Instance(name, machine), 0) : this.#resident.get(name);
    if (hosted === undefined) return;
    hosted.usedAt = ++this.#uses;
    try {
      hosted.instance.replay(record);
      hosted.position = position;
    } catch (thrown) {
      if (thrown instanceof Fault && thrown.code === 'machine-unloadable') throw thrown;
      const evidence = evidenceOf(record, standing(hosted.instance), messageOf(thrown));
      const mismatch = mismatchOf(thrown);
      this.quarantine(name, mismatch === undefined ? evidence : { ...evidence, mismatch });
      return;
    }
    this.#grow(hosted.measure());
  }

  /** Everything was loaded: from here on instances are hydrated from the log. */
  serve(log: Log): void {
    this.#log = log;
    for (const hosted of this.#resident.values()) {
      if (hosted.instance.needsUpgrade) this.discard(hosted.name);
      else this.#directory.timerKnown(hosted.name, nextTimerOf(hosted.instance));
      this.#checkTail(hosted.name);
    }
  }

  /** The instance if it is in memory or has no history; `absent` if it must be waited for; or why nobody may use it. */
  find(name: InstanceName): Hosted | Fault | 'absent' {
    const { quarantine, machineFor } = this.#options;
    const quarantined = quarantine.has(name);
    // Made again to end a quarantine, which then could not be ended.
    if (quarantined) this.discard(name);
    const known = this.#resident.get(name);
    if (known !== undefined) {
      known.usedAt = ++this.#uses;
      return known;
    }
    if (quarantined) return quarantine.refusal?.(name) ?? quarantinedFault(name);
    if (this.#directory.get(name) !== undefined || this.#leaving.has(name)) return 'absent';
    const machine = machineFor(name);
    if (machine === undefined) return fault('tenant-unknown', `There is no instance ${name} here`, { field: name });
    return this.#host(new Instance(name, machine), 0);
  }

  /** The instance if it is in memory; does not count as use. */
  peek(name: InstanceName): Hosted | undefined {
    return this.#resident.get(name);
  }

  /** Calls `use` when the instance is in memory, after everybody who asked before; or with why it cannot be. */
  wait(name: InstanceName, use: Waiter): void {
    const waiters = this.#waiting.get(name) ?? [];
    if (!mayWait({ all: this.#waitingCount, ofInstance: waiters.length }, this.#options.bounds)) {
      const message = `Too many requests wait for the state of ${name} to be loaded; repeat the request later`;
      use(fault('log-busy', message, { field: name, retryAfterMs: 100 }));
      return;
    }
    this.#waitingCount += 1;
    waiters.push(use);
    if (waiters.length > 1) return;
    this.#waiting.set(name, waiters);
    this.#queued.add(name);
    this.#hydrateNext();
  }

  /** A record of an instance in memory was decided. */
  appended(hosted: Hosted, position: number): void {
    assert(this.#resident.get(hosted.name) === hosted, 'a state that was thrown out decides nothing any more');
    hosted.position = position;
    hosted.pending += 1;
  }

  /** That record is durable. */
  followed(hosted: Hosted, record: LogRecord, position: number, nextTimer: NextTimer): void {
    const { tail } = this.#directory.follow(record, position, nextTimer);
    hosted.pending -= 1;
    if (this.#resident.get(hosted.name) === hosted) {
      this.#grow(hosted.measure());
      if (tail > this.#options.bounds.snapshotRecordsMin) this.#checkTail(hosted.name, hosted);
    } else if (hosted.pending === 0 && this.#leaving.get(hosted.name) === hosted) {
      this.#leaving.delete(hosted.name);
      this.#hydrateNext();
    }
  }

  /** That record was taken back, and with it everything in memory that followed from it. */
  takenBack(hosted: Hosted): void {
    hosted.pending = 0;
    this.discard(hosted.name);
    if (this.#leaving.delete(hosted.name)) this.#hydrateNext();
  }

  /** Refuses an instance from now on. */
  quarantine(name: InstanceName, evidence: DriftEvidence): void {
    this.#options.quarantine.add(name, evidence);
    this.discard(name);
    this.#options.onNotice(`${name} is quarantined: ${evidence.reason}`, name);
  }

  /** Forgets what is in memory of an instance. */
  discard(name: InstanceName): void {
    const hosted = this.#resident.get(name);
    if (hosted === undefined) return;
    this.#resident.delete(name);
    this.#bytes -= hosted.bytes;
    if (hosted.pending > 0) this.#leaving.set(name, hosted);
  }

  /** Everybody who waits is told `why`. */
  refuseAll(why: Fault): void {
    this.#queued.clear();
    for (const name of this.#waiting.keys()) this.#settle(name, why);
  }

  #host(instance: Instance, position: number): Hosted {
    const hosted = new Hosted(instance, position);
    hosted.usedAt = ++this.#uses;
    this.#resident.set(instance.name, hosted);
    this.#grow(hosted.bytes);
    return hosted;
  }

  #grow(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > this.#evictAbove) this.#evict();
  }

  #evict(): void {
    const { bounds } = this.#options;
    for (const { name } of toEvict(this.#resident.values(), bounds)) {
      this.discard(name);
      this.figures.evictions += 1;
    }
    // What is left above the limit is in use; it is looked at again once it has grown noticeably.
    this.#evictAbove = Math.max(bounds.residentBytesMax, this.#bytes * 1.05);
  }

  #checkTail(name: InstanceName, hosted = this.#resident.get(name)): void {
    const tail = this.#directory.get(name)?.tail ?? 0;
    const { bounds, onSnapshotDue } = this.#options;
    if (tail <= bounds.snapshotRecordsMin || hosted === undefined) return;
    if (snapshotDue(tail, hosted.items, bounds)) onSnapshotDue(name);
  }

  #machineOf(name: InstanceName, machine: string, version: number, position: number): Machine {
    const found = this.#options.machineFor(name);
    const what = `Record ${position} belongs to instance ${name} of machine ${machine}`;
    if (found === undefined) {
      throw fault('machine-unloadable', `${what}, which is not served here`, { field: name });
    }
    if (found.name !== machine) {
      throw fault('machine-unloadable', `${what}, and ${found.name} is what is served here`, { field: name });
    }
    if (found.version < version) {
      const message = `${what} at version ${version}, and this is version ${found.version}; run version ${version} or a newer one`;
      throw fault('machine-unloadable', message, { field: name });
    }
    return found;
  }

  #hydrateNext(): void {
    for (const name of this.#queued) {
      if (this.#hydrating >= this.#options.bounds.hydrationsMax) return;
      if (this.#leaving.has(name)) continue;
      this.#queued.delete(name);
      this.#hydrating += 1;
      void this.#hydrate(name).then(() => {
        this.#hydrating -= 1;
        this.#hydrateNext();
      });
    }
  }

  async #hydrate(name: InstanceName): Promise<void> {
    const made = await this.#make(name);
    // At once, without giving way between: nobody may come first, and nothing may evict it before those who waited.
    let found: Hosted | Fault;
    try {
      found = typeof made === 'function' ? made() : made;
    } catch (thrown) {
      // A defect at its last step is that instance's trouble: whoever asks next has it made anew.
      this.discard(name);
      found = asFault(thrown);
    }
    this.#settle(name, found);
  }

  /** Makes the instance anew, and says how it comes into memory; or why it cannot. */
  async #make(name: InstanceName): Promise<(() => Hosted | Fault) | Fault> {
    const log = this.#log;
    const entry = this.#directory.get(name);
    const { store, onNotice, onHydrated, machineFor } = this.#options;
    try {
      const machine = machineFor(name);
      assert(log !== undefined, 'instances are hydrated only while their log is served');
      if (machine === undefined) return fault('tenant-unknown', `There is no instance ${name} here`, { field: name });
      // Its only records were taken back while it was waited for.
      if (entry === undefined) return () => this.#host(new Instance(name, machine), 0);
      const { position } = entry;
      const onDamaged = (message: string): void => onNotice(message, name);
      const snapshotsBefore = this.#options.quarantine.trustedBefore?.(name);
      const hydrated = await hydrate({ entry: { ...entry }, machine, log, store, onDamaged, snapshotsBefore });
      if (hydrated.kind === 'drift') {
        this.quarantine(name, hydrated.evidence);
        return this.#options.quarantine.refusal?.(name) ?? quarantinedFault(name);
      }
      this.figures.hydrations += 1;
      assert(entry.position === position, 'nothing is recorded of an instance that is not in memory');
      return () => {
        // Meanwhile somebody else may have found that it is not to be served.
        const { quarantine } = this.#options;
        if (quarantine.has(name)) return quarantine.refusal?.(name) ?? quarantinedFault(name);
        this.#directory.snapshotted(name, hydrated.snapshot, hydrated.tail);
        const hosted = this.#host(hydrated.instance, position);
        const why = onHydrated(hosted);
        if (why !== undefined) {
          this.discard(name);
          return why;
        }
        this.#directory.timerKnown(name, nextTimerOf(hydrated.instance));
        this.#checkTail(name, hosted);
        return hosted;
      };
    } catch (thrown) {
      return asFault(thrown);
    }
  }

  #settle(name: InstanceName, found: Hosted | Fault): void {
    const waiters = this.#waiting.get(name) ?? [];
    this.#waiting.delete(name);
    this.#waitingCount -= waiters.length;
    for (const use of waiters) {
      // Whoever came first may have erased it: what was found is then nobody's any more, and the others wait anew.
      if (found instanceof Hosted && this.#resident.get(name) !== found) this.wait(name, use);
      else use(found);
    }
  }
}

export function nextTimerOf(instance: Instance): NextTimer {
  return instance.nextTimerMs ?? 'none';
}

function quarantinedFault(name: InstanceName): Fault {
  const message = `The state of ${name} does not follow from its records, so nothing of it is served or changed until an operator decides`;
  return fault('tenant-quarantined', message, { field: name });
}
