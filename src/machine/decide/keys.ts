import { hashText, SetHash } from '../../kernel/hash.ts';
import { limits } from '../../protocol/limits.ts';
import type { Outcome } from './record.ts';
import { canonical } from './value.ts';

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

/** The first answer to a command that came with a key. */
export interface RememberedAnswer {
  /** Of command and input: the same key with another fingerprint is refused. */
  readonly fingerprint: string;
  readonly atMs: number;
  /** Events of the instance before the command. */
  readonly seqBefore: number;
  readonly stateHash: string;
  readonly outcome: Outcome;
  /** What it counts for in the bound of what is remembered. */
  readonly units: number;
}

/** What makes two requests with one key the same request. */
export function fingerprintOf(command: string, input: unknown): string {
  return hashText(command + canonical([input]));
}

/**
 * The idempotency keys of one instance, the oldest first. Part of its durable state with a hash of its
 * own, because a refusal is remembered and yet must not change the state hash. Time comes from
 * records only, so that replay forgets what was forgotten. All operations are O(1) a key.
 */
export class IdempotencyKeys {
  readonly #keys = new Map<string, RememberedAnswer>();
  readonly #hash = new SetHash();
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

  /** What the key was used for, unless its life has ended by `nowMs`. */
  find(key: string, nowMs: number): RememberedAnswer | undefined {
    const found = this.#keys.get(key);
    return found === undefined || this.#ended(found, nowMs) ? undefined : found;
  }

  remember(key: string, answer: RememberedAnswer): void {
    const before = this.#keys.get(key);
    if (before !== undefined) {
      this.#hash.remove(entryOf(key, before));
      this.#keys.delete(key);
      this.#units -= before.units;
    }
    this.#keys.set(key, answer);
    this.#hash.add(entryOf(key, answer));
    this.#units += answer.units;
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
      units -= answer.units;
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
      this.#hash.remove(entryOf(key, answer));
      this.#units -= answer.units;
      this.#text = undefined;
    }
  }

  #ended(answer: RememberedAnswer, nowMs: number): boolean {
    return answer.atMs + this.#limits.lifeMs <= nowMs;
  }
}

function entryOf(key: string, answer: RememberedAnswer): string {
  return `${key.length}:${key}${answer.fingerprint}${answer.atMs};${answer.seqBefore};${answer.stateHash}${answer.outcome.kind}`;
}
