import { BoundedQueue } from '../../../kernel/queue.ts';
import { unreachable } from '../../../kernel/assert.ts';

/**
 * What a verifying replica is told, and when. It gets durable records in log order, one batch at a time, and
 * never holds up whoever serves: what does not fit is left out, and its instances start again from a capture of
 * their state. `State` is such a capture; only whoever makes and reads it knows what it is.
 */

/** Bounds of what is fed. Text is counted in UTF-16 code units. */
export const feedBounds = {
  /** Records that wait for the replica, and their text. At either all of them are left out. */
  queuedRecordsMax: 16_384,
  queuedUnitsMax: 16 * 1024 * 1024,
  batchRecordsMax: 512,
  /** Instances that the replica holds, and the text that it was given for them. Beyond, the least recently used is forgotten. */
  instancesMax: 10_000,
  instanceUnitsMax: 64 * 1024 * 1024,
  /** Instances that wait for a capture; the others ask again with their next record. */
  wantedMax: 1_000,
  /**
   * Text of captures ahead of the text of records: each record that is published pays for as much captured state, so
   * that captures cost the serving thread no more than its records do.
   */
  captureCreditMax: 4 * 1024 * 1024,
} as const;

export type FeedBounds = { readonly [Name in keyof typeof feedBounds]: number };

/** A durable record. */
export interface FeedRecord {
  readonly instance: string;
  readonly position: number;
  /** Position of the record of the same instance before it; 0 for its first. */
  readonly previous: number;
  readonly head: string;
  readonly payload: string;
}

export interface FeedCapture<State> {
  /**
   * The state is the one after this record, which may not be durable yet: should the disk be full it may never be, and
   * another record may come to its position.
   */
  readonly position: number;
  /** How long it is, about. */
  readonly units: number;
  readonly state: State;
}

export type FeedEntry<State> =
  | { readonly type: 'record'; readonly record: FeedRecord }
  /** The instance as it is after its record at `position`. */
  | { readonly type: 'state'; readonly instance: string; readonly position: number; readonly state: State }
  /** It drifted; this is how the serving side has it after its record at `position`. Then it is forgotten. */
  | { readonly type: 'compare'; readonly instance: string; readonly position: number; readonly state: State }
  | { readonly type: 'forget'; readonly instance: string };

export type FeedInput<State> =
  | { readonly type: 'publish'; readonly records: readonly FeedRecord[] }
  /** Answers `capture`. */
  | { readonly type: 'captured'; readonly instance: string; readonly captured: FeedCapture<State> }
  | { readonly type: 'uncapturable'; readonly instance: string }
  /** The replica can take its first batch. */
  | { readonly type: 'ready' }
  /** It has done the batch. */
  | { readonly type: 'done' }
  /** It ended; until `ready` comes again nothing is kept for it. */
  | { readonly type: 'lost' }
  /** The replica found drift; the instance is refused now and stays as it is after its record at `position`. */
  | { readonly type: 'drifted'; readonly instance: string; readonly position: number; readonly state: State }
  /** The replica does not hold it, or is not to. */
  | { readonly type: 'forget'; readonly instance: string };

export type FeedEffect<State> =
  | { readonly type: 'send'; readonly entries: readonly FeedEntry<State>[] }
  | { readonly type: 'capture'; readonly instance: string };

interface Followed {
  /** Records up to here are in what the replica was given. */
  position: number;
  units: number;
}

export class Feed<State> {
  /** Durable records that no replica has seen, since the start. */
  skipped = 0;
  /** How often everything that waited was left out. */
  fellBehind = 0;
  captures = 0;
  readonly #isAfter: (state: State, record: FeedRecord) => boolean;
  readonly #bounds: FeedBounds;
  #queue: BoundedQueue<FeedEntry<State>>;
  /** Records and states in the queue; what else is in it is small, and bounded by what the replica holds. */
  #waiting = 0;
  /** Instances that the replica was sent something of, and nothing yet that ends it. */
  readonly #sent = new Set<string>();
  /** The least recently used first. */
  readonly #followed = new Map<string, Followed>();
  #followedUnits = 0;
  readonly #wanted = new Set<string>();
  readonly #drifted = new Map<string, { readonly position: number; readonly state: State }>();
  #credit: number;
  #ready = false;
  #busy = false;
  #capturing = false;
  /** The last record that was published. */
  #published = 0;
  /** Captured ahead of what is durable: given to the replica once its record is. */
  #early: { readonly instance: string; readonly captured: FeedCapture<State> } | undefined;

  /** `isAfter`: whether a state is the one after a record, as far as hashes say. */
  constructor(isAfter: (state: State, record: FeedRecord) => boolean, bounds: FeedBounds = feedBounds) {
    this.#isAfter = isAfter;
    this.#bounds = bounds;
    this.#credit = bounds.captureCreditMax;
    this.#queue = this.#newQueue();
  }

  /** Instances that the replica holds. */
  get following(): number {
    return this.#followed.size;
  }

  /** Records and states that wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** One step; says what is to be done. O(1) a record, amortised. */
  step(input: FeedInput<State>): readonly FeedEffect<State>[] {
    switch (input.type) {
      case 'publish':
        for (const record of input.records) this.#publish(record);
        break;
      case 'captured':
        this.#captured(input.instance, input.captured);
        break;
      case 'uncapturable':
        this.#capturing = false;
        break;
      case 'ready':
        this.#ready = true;
        this.#busy = false;
        break;
      case 'done':
        this.#busy = false;
        break;
      case 'lost':
        this.#lose();
        break;
      case 'drifted':
        this.#drift(input.instance, input.position, input.state);
        break;
      case 'forget':
        this.#forget(input.instance);
        break;
      default:
        unreachable(input, 'unknown input of the feed');
    }
    return this.#effects();
  }

  /**
   * Records and states ask `#admits`. Entries that only end something need no room of their own: since the queue was last
   * left out as a whole there is one for each instance that the replica or the queue held, or that was pushed after it.
   */
  #newQueue(): BoundedQueue<FeedEntry<State>> {
    const { queuedRecordsMax, instancesMax, batchRecordsMax } = this.#bounds;
    const entriesMax = 2 * (queuedRecordsMax + instancesMax + batchRecordsMax + 1);
    return new BoundedQueue({ entriesMax, sizeMax: Number.POSITIVE_INFINITY });
  }

  /** Whether one more record or state fits. Where none waits, one of any size does. */
  get #admits(): boolean {
    const { queuedRecordsMax, queuedUnitsMax } = this.#bounds;
    return this.#waiting === 0 || (this.#waiting < queuedRecordsMax && this.#queue.size < queuedUnitsMax);
  }

  #push(entry: FeedEntry<State>, units: number): void {
    this.#queue.push(entry, units);
    this.#waiting += 1;
  }

  #publish(record: FeedRecord): void {
    const { instance, position, previous, payload } = record;
    const units = payload.length;
    this.#published = position;
    if (this.#early !== undefined && position >= this.#early.captured.position) this.#ripen(record);
    this.#credit = Math.min(this.#bounds.captureCreditMax, this.#credit + units);
    let followed = this.#followed.get(instance);
    if (followed === undefined) {
      if (previous > 0 || !this.#ready) {
        this.skipped += 1;
        if (this.#ready) this.#want(instance);
        return;
      }
      followed = { position: 0, units: 0 };
    }
    // Part of the capture already.
    if (position <= followed.position) return;
    if (!this.#admits) {
      this.skipped += 1;
      this.#skipAll(instance);
      return;
    }
    this.#push({ type: 'record', record }, record.head.length + units);
    followed.position = position;
    this.#use(instance, followed, units);
    this.#compareIfThere(instance, position);
  }

  /** Makes it the most recently used, and forgets others until all are within their bounds. */
  #use(instance: string, followed: Followed, units: number): void {
    followed.units += units;
    this.#followedUnits += units;
    this.#followed.delete(instance);
    this.#followed.set(instance, followed);
    const { instancesMax, instanceUnitsMax } = this.#bounds;
    if (this.#followed.size <= instancesMax && this.#followedUnits <= instanceUnitsMax) return;
    for (const oldest of this.#followed.keys()) {
      if (oldest === instance) return;
      this.#forget(oldest);
      if (this.#followed.size <= instancesMax && this.#followedUnits <= instanceUnitsMax) return;
    }
  }

  #unfollow(instance: string): void {
    const followed = this.#followed.get(instance);
    if (followed === undefined) return;
    this.#followed.delete(instance);
    this.#followedUnits -= followed.units;
  }

  #captured(instance: string, captured: FeedCapture<State>): void {
    if (captured.position <= this.#published) this.#take(instance, captured);
    else this.#early = { instance, captured };
  }

  /** The position of what was captured early is durable: with the record that was meant, or with another one. */
  #ripen(record: FeedRecord): void {
    const { instance, captured } = this.#early ?? {};
    this.#early = undefined;
    const meant = captured?.position === record.position && instance === record.instance;
    if (meant && this.#isAfter(captured.state, record)) this.#take(record.instance, captured);
    else this.#capturing = false;
  }

  #take(instance: string, { position, units, state }: FeedCapture<State>): void {
    this.#capturing = false;
    if (!this.#ready || !this.#admits) return;
    this.captures += 1;
    this.#credit -= units;
    this.#unfollow(instance);
    this.#push({ type: 'state', instance, position, state }, units);
    this.#use(instance, { position, units: 0 }, units);
  }

  #drift(instance: string, position: number, state: State): void {
    if (!this.#ready) return;
    this.#drifted.set(instance, { position, state });
    this.#compareIfThere(instance, this.#followed.get(instance)?.position ?? position);
  }

  /** Compared once the replica has all records that the captured state has, or as many as it will ever get. */
  #compareIfThere(instance: string, reached: number): void {
    if (this.#drifted.size === 0) return;
    const drifted = this.#drifted.get(instance);
    if (drifted === undefined || reached < drifted.position) return;
    this.#end(instance);
  }

  /** The replica is to let go of an instance, and of whatever waits of it. */
  #forget(instance: string): void {
    if (this.#followed.has(instance) || this.#sent.has(instance)) this.#end(instance);
    else this.#drifted.delete(instance);
  }

  /** The last entry of an instance, unless it is taken up again: a comparison if one is wanted. */
  #end(instance: string): void {
    const drifted = this.#drifted.get(instance);
    this.#drifted.delete(instance);
    this.#unfollow(instance);
    this.#queue.push(
      drifted === undefined ? { type: 'forget', instance } : { type: 'compare', instance, ...drifted },
      0,
    );
  }

  /**
   * The replica is too far behind: what waits is left out, and whom it concerns starts again from a capture; so does the
   * instance of the record that did not fit.
   */
  #skipAll(instance: string): void {
    const dropped = this.#queue.take(this.#queue.length);
    this.#queue = this.#newQueue();
    this.#waiting = 0;
    this.fellBehind += 1;
    const forgotten = new Set([instance]);
    for (const entry of dropped) {
      if (entry.type === 'record') this.skipped += 1;
      // Its records are lost, so the replica compares with what it has.
      if (entry.type === 'compare') this.#drifted.set(entry.instance, entry);
      forgotten.add(entry.type === 'record' ? entry.record.instance : entry.instance);
    }
    for (const one of forgotten) {
      // What the replica never heard of it need not let go.
      if (this.#sent.has(one)) this.#end(one);
      this.#unfollow(one);
      this.#drifted.delete(one);
      this.#want(one);
    }
  }

  #want(instance: string): void {
    if (this.#wanted.size < this.#bounds.wantedMax) this.#wanted.add(instance);
  }

  #lose(): void {
    this.#ready = false;
    this.#busy = false;
    this.#capturing = false;
    this.#early = undefined;
    for (const entry of this.#queue.take(this.#queue.length)) if (entry.type === 'record') this.skipped += 1;
    this.#waiting = 0;
    this.#followed.clear();
    this.#followedUnits = 0;
    this.#sent.clear();
    this.#wanted.clear();
    this.#drifted.clear();
  }

  #noteSent(entry: FeedEntry<State>): void {
    switch (entry.type) {
      case 'record':
        this.#waiting -= 1;
        this.#sent.add(entry.record.instance);
        return;
      case 'state':
        this.#waiting -= 1;
        this.#sent.add(entry.instance);
        return;
      default:
        this.#sent.delete(entry.instance);
    }
  }

  #effects(): readonly FeedEffect<State>[] {
    const effects: FeedEffect<State>[] = [];
    if (this.#ready && !this.#busy && this.#queue.length > 0) {
      this.#busy = true;
      const entries = this.#queue.take(this.#bounds.batchRecordsMax);
      for (const entry of entries) this.#noteSent(entry);
      effects.push({ type: 'send', entries });
    }
    const free = this.#waiting < this.#bounds.queuedRecordsMax / 4;
    if (this.#wanted.size > 0 && this.#ready && !this.#capturing && free && this.#credit > 0) {
      for (const instance of this.#wanted) {
        this.#wanted.delete(instance);
        if (this.#followed.has(instance)) continue;
        this.#capturing = true;
        effects.push({ type: 'capture', instance });
        break;
      }
    }
    return effects;
  }
}
