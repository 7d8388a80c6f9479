import { unwatched } from './handling.ts';
import { assert } from '../../../kernel/assert.ts';
import { hashInto } from '../../../kernel/hash.ts';
import type { CommandContext, Random, Refusal } from '../definition/define.ts';

/** How many ids one command may make: above it, ids of one command would no longer be in order. */
export const idsPerCommandMax = 131_072;

/**
 * Random numbers in 32-bit integer arithmetic, the same on every machine: xoshiro128** 1.1 by David Blackman and
 * Sebastiano Vigna (public domain, prng.di.unimi.it/xoshiro128starstar.c). Period 2^128 − 1. Not for secrets.
 */
export class Xoshiro128 {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  /** Four words of state, of which one at least is not zero. */
  constructor(state: Int32Array) {
    this.#a = state[0] ?? 0;
    this.#b = state[1] ?? 0;
    this.#c = state[2] ?? 0;
    this.#d = state[3] ?? 0;
    assert((this.#a | this.#b | this.#c | this.#d) !== 0, 'from all zeros there come only zeros');
  }

  /** The next 32 bits, from 0 to 2^32 − 1. */
  next(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** The next 53 bits as a whole number. */
  next53(): number {
    const high = this.next() >>> 5;
    return high * 0x4000000 + (this.next() >>> 6);
  }
}

/** The generator that a seed, which may be any text, begins. */
export function generatorFrom(seed: string): Xoshiro128 {
  const state = new Int32Array(4);
  hashInto(seed, state);
  if (state.every((word) => word === 0)) state[0] = 1;
  return new Xoshiro128(state);
}

/** What one command is given besides state and input. It ends with its command: nothing of it works afterwards. */
export class CommandRun implements CommandContext {
  readonly now: number;
  readonly instance: string;
  readonly #entropy: () => string;
  #generator: Xoshiro128 | undefined;
  #seed: string | undefined;
  #random: Random | undefined;
  #id: (() => string) | undefined;
  #ended = false;
  /** Invariants in shadow mode that the command broke, each once. */
  shadow: string[] | undefined;

  constructor(instance: string, nowMs: number, entropy: () => string) {
    this.instance = instance;
    this.now = nowMs;
    this.#entropy = entropy;
  }

  /** Where the random numbers began; undefined if none was drawn. */
  get seed(): string | undefined {
    return this.#seed;
  }

  get random(): Random {
    if (this.#random !== undefined) return this.#random;
    const random = (): number => this.#draw().next53() / 2 ** 53;
    const integer = (min: number, max: number): number => integerFrom(this.#draw(), min, max);
    return (this.#random = Object.freeze(Object.assign(random, { integer })));
  }

  get id(): () => string {
    if (this.#id !== undefined) return this.#id;
    let count = 0;
    let first = 0;
    return (this.#id = (): string => {
      const generator = this.#draw();
      // A random beginning with room above it: RFC 9562, section 6.2, method 1.
      if (count === 0) first = generator.next() >>> 15;
      if (count === idsPerCommandMax) throw new RangeError(`a command may make ${idsPerCommandMax} ids, and no more`);
      count += 1;
      return uuid(this.now, first + count - 1, generator);
    });
  }

  refuse(code: string, message: string, field?: string): Refusal {
    return { refused: field === undefined ? { code, message } : { code, message, field } };
  }

  /** Notes that an invariant in shadow mode does not hold. */
  reports(invariant: string): void {
    this.shadow ??= [];
    if (!this.shadow.includes(invariant)) this.shadow.push(invariant);
  }

  end(): void {
    this.#ended = true;
  }

  #draw(): Xoshiro128 {
    if (this.#ended) {
      throw new TypeError('ctx was used after its command ended; draw random numbers and ids within the command');
    }
    if (this.#generator === undefined) {
      this.#seed = unwatched(this.#entropy);
      this.#generator = generatorFrom(this.#seed);
    }
    return this.#generator;
  }
}

/** Rejects the numbers above the last whole multiple of the range, so that none is likelier than another. */
function integerFrom(generator: Xoshiro128, min: number, max: number): number {
  const range = max - min + 1;
  if (!Number.isSafeInteger(min) || !Number.isSafeInteger(max) || !Number.isSafeInteger(range) || range < 1) {
    throw new RangeError(`ctx.random.integer takes two safe integers, the lesser one first, not ${min} and ${max}`);
  }
  const end = 2 ** 53 - (2 ** 53 % range);
  let drawn = generator.next53();
  while (drawn >= end) drawn = generator.next53();
  return min + (drawn % range);
}

const timeMsMax = 2 ** 48;

/** UUID version 7: 48 bits of time, 18 of a counter that grows within a command, 56 random ones. */
function uuid(nowMs: number, counter: number, generator: Xoshiro128): string {
  if (nowMs >= timeMsMax) throw new RangeError(`an id holds times below ${timeMsMax}, not ${nowMs}`);
  const time = nowMs.toString(16).padStart(12, '0');
  const high = (0x7000 | (counter >>> 6)).toString(16);
  const low = (0x80 | (counter & 0x3f)).toString(16) + (generator.next() >>> 24).toString(16).padStart(2, '0');
  const tail = generator.next().toString(16).padStart(8, '0') + (generator.next() >>> 16).toString(16).padStart(4, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-${high}-${low}-${tail}`;
}
