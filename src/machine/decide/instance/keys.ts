import { SetHash } from '../../../kernel/hash.ts';
import { limits } from '../../../protocol/limits.ts';
import { hashValueInto, valueHashTag } from '../state/value-hash.ts';

export interface KeyLimits {
  readonly lifeMs: number;
  readonly countMax: number;
  /** Of all remembered answers together, in UTF-16 code units of their records' payloads. The newest is kept anyway. */
  readonly unitsMax: number;
}

export const keyLimits: KeyLimits = {
  lifeMs: limits.idempotencyKeyLifeMs,
  countMax: limits.idempotencyKeysPerTenantMax,
  unitsMax: 32 * 1024 * 1024,
};

/** The first answer to a command that came with a key, as the log holds it: texts cost the collector of garbage little. */
export interface RememberedAnswer {
  readonly atMs: number;
  /** Events of the instance before the command. */
  readonly seqBefore: number;
  readonly stateHash: string;
  /** Payload of its record: the same key with another command or input is refused. */
  readonly payload: string;
}

/**
 * The idempotency keys of one instance, the oldest first. Part of its durable state with a hash of its
 * own, because a refusal is remembered and yet must not change the state hash. Time comes from
 * records only, so that replay forgets what was forgotten. All operations are O(1) a key.
 */
export class IdempotencyKeys {
  readonly #keys = new Map<string, RememberedAnswer>();
  readonly #hash = new SetHash(valueHashTag);
  readonly #lanes = new Int32Array(4);
  readonly #limits: KeyLimits;
  #units = 0;
  #text: string | undefined;

  constructor(bounds: KeyLimits = keyLimits) {
    this.#limits = bounds;
  }

  get hash(): string {
    return (this.#text ??= this.#hash.text);
  }

  get size(): number {
    return this.#keys.size;
  }

  /** Of all remembered answers together, in UTF-16 code units of their records' payloads. */
  get units(): number {
    return this.#units;
  }

  /** What the key was used for, unless its life has ended by `nowMs`. */
  find(key: string, nowMs: number): RememberedAnswer | undefined {
    const found = this.#keys.get(key);
    return found === undefined || this.#ended(found, nowMs) ? undefined : found;
  }

  remember(key: string, answer: RememberedAnswer): void {
    const before = this.#keys.get(key);
    if (before !== undefined) {
      this.#hash.replaceLanes(this.#hashOf(key, before), undefined);
      this.#keys.delete(key);
      this.#units -= before.payload.length;
    }
    this.#keys.set(key, answer);
    this.#hash.replaceLanes(undefined, this.#hashOf(key, answer));
    this.#units += answer.payload.length;
    this.#text = undefined;
  }

  /** Forgets keys whose life has ended and the oldest above the bounds. Returns how many, for the record. */
  expire(nowMs: number): number {
    const { countMax, unitsMax } = this.#limits;
    let count = 0;
    let units = this.#units;
    for (const answer of this.#keys.values()) {
      const left = this.#keys.size - count;
      const tooMany = left > countMax || (units > unitsMax && left > 1);
      if (!tooMany && !this.#ended(answer, nowMs)) break;
      count += 1;
      units -= answer.payload.length;
    }
    this.forget(count);
    return count;
  }

  /** Forgets the `count` oldest keys. */
  forget(count: number): void {
    let left = count;
    for (const [key, answer] of this.#keys) {
      if (left === 0) return;
      left -= 1;
      this.#keys.delete(key);
      this.#hash.replaceLanes(this.#hashOf(key, answer), undefined);
      this.#units -= answer.payload.length;
      this.#text = undefined;
    }
  }

  /** Every key with its answer, the oldest first. */
  entries(): IterableIterator<[string, RememberedAnswer]> {
    return this.#keys.entries();
  }

  #ended(answer: RememberedAnswer, nowMs: number): boolean {
    return answer.atMs + this.#limits.lifeMs <= nowMs;
  }

  /** Of what replay makes anew; the payload itself is proven by the log. */
  #hashOf(key: string, { atMs, seqBefore, payload }: RememberedAnswer): Int32Array {
    hashValueInto(key, [atMs, seqBefore, payload.length], this.#lanes);
    return this.#lanes;
  }
}
