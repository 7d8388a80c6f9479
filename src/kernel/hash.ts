/**
 * Fast hashes of text that are the same on every machine, runtime and locale: 32-bit integer
 * arithmetic only. They notice drift and mistakes, not an attacker; where somebody may want to
 * deceive, use SHA-256.
 *
 * Algorithm: MurmurHash3_x86_128 by Austin Appleby (public domain, github.com/aappleby/smhasher),
 * seed 0, over the UTF-16 code units of the text, each as two little-endian bytes. Code units and
 * not UTF-8, because a JavaScript string may hold half a surrogate pair, which UTF-8 cannot.
 */

/** Names this algorithm in every text: another algorithm gets another tag, so the two never compare equal. */
export const hashTag = 'c1';

const c1 = 0x239b961b;
const c2 = 0xab0e9789;
const c3 = 0x38b34ae5;
const c4 = 0xa1e38b93;
const unitsPerBlock = 8;

/** Where texts are written out before they are hashed. Grows to the longest one, and no further than a text may. */
let scratch = new Uint16Array(4_096);

/** Writes the hash of `text` as four 32-bit lanes into `lanes`. O(length). */
export function hashInto(text: string, lanes: Int32Array): void {
  const { length } = text;
  if (length > scratch.length) scratch = new Uint16Array(2 * length);
  const units = scratch;
  for (let i = 0; i < length; i++) units[i] = text.charCodeAt(i);
  hashUnits(units, length, lanes);
}

/** Writes the hash of the first `length` of `units` as four 32-bit lanes into `lanes`. O(length). */
export function hashUnits(units: Uint16Array, length: number, lanes: Int32Array): void {
  const blocksEnd = length - (length % unitsPerBlock);
  let h1 = 0;
  let h2 = 0;
  let h3 = 0;
  let h4 = 0;
  for (let i = 0; i < blocksEnd; i += unitsPerBlock) {
    h1 ^= scramble(word(units, i), c1, 15, c2);
    h1 = (Math.imul(rotate(h1, 19) + h2, 5) + 0x561ccd1b) | 0;
    h2 ^= scramble(word(units, i + 2), c2, 16, c3);
    h2 = (Math.imul(rotate(h2, 17) + h3, 5) + 0x0bcaa747) | 0;
    h3 ^= scramble(word(units, i + 4), c3, 17, c4);
    h3 = (Math.imul(rotate(h3, 15) + h4, 5) + 0x96cd1c35) | 0;
    h4 ^= scramble(word(units, i + 6), c4, 18, c1);
    h4 = (Math.imul(rotate(h4, 13) + h1, 5) + 0x32ac3b17) | 0;
  }
  const tail = length - blocksEnd;
  if (tail > 6) h4 ^= scramble(units[blocksEnd + 6] ?? 0, c4, 18, c1);
  if (tail > 4) h3 ^= scramble(pair(units, blocksEnd + 4, length), c3, 17, c4);
  if (tail > 2) h2 ^= scramble(pair(units, blocksEnd + 2, length), c2, 16, c3);
  if (tail > 0) h1 ^= scramble(pair(units, blocksEnd, length), c1, 15, c2);

  const bytes = length * 2;
  h1 ^= bytes;
  h2 ^= bytes;
  h3 ^= bytes;
  h4 ^= bytes;
  h1 = (h1 + h2 + h3 + h4) | 0;
  h2 = (h2 + h1) | 0;
  h3 = (h3 + h1) | 0;
  h4 = (h4 + h1) | 0;
  h1 = finish(h1);
  h2 = finish(h2);
  h3 = finish(h3);
  h4 = finish(h4);
  h1 = (h1 + h2 + h3 + h4) | 0;
  lanes[0] = h1;
  lanes[1] = h2 + h1;
  lanes[2] = h3 + h1;
  lanes[3] = h4 + h1;
}

function word(units: Uint16Array, at: number): number {
  return (units[at] ?? 0) | ((units[at + 1] ?? 0) << 16);
}

function scramble(word: number, first: number, turn: number, second: number): number {
  return Math.imul(rotate(Math.imul(word, first), turn), second);
}

function rotate(word: number, turn: number): number {
  return (word << turn) | (word >>> (32 - turn));
}

function pair(units: Uint16Array, at: number, end: number): number {
  return (units[at] ?? 0) | (at + 1 < end ? (units[at + 1] ?? 0) << 16 : 0);
}

function finish(hash: number): number {
  let h = hash;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

const digits = Uint8Array.from({ length: 16 }, (_, i) => i.toString(16).charCodeAt(0));

function textOf(tag: string, lanes: Int32Array): string {
  return `${tag}:${laneText(lanes[0])}${laneText(lanes[1])}${laneText(lanes[2])}${laneText(lanes[3])}`;
}

/** Eight hexadecimal digits. Written out, because every event has a hash and `toString(16)` takes seven times as long. */
function laneText(lane = 0): string {
  return String.fromCharCode(
    digits[lane >>> 28] ?? 0,
    digits[(lane >>> 24) & 15] ?? 0,
    digits[(lane >>> 20) & 15] ?? 0,
    digits[(lane >>> 16) & 15] ?? 0,
    digits[(lane >>> 12) & 15] ?? 0,
    digits[(lane >>> 8) & 15] ?? 0,
    digits[(lane >>> 4) & 15] ?? 0,
    digits[lane & 15] ?? 0,
  );
}

/** The hash of one text: `c1:` and 32 hexadecimal digits. O(length). */
export function hashText(text: string): string {
  const lanes = new Int32Array(4);
  hashInto(text, lanes);
  return textOf(hashTag, lanes);
}

/**
 * The hash of a set of texts that does not depend on their order: the sum of the entries' hashes,
 * lane by lane modulo 2^32. Adding or removing costs O(length of the entry), whatever the size of the set.
 *
 * It cannot tell whether an entry was there: whoever removes must have added before, or the hash
 * means nothing from then on.
 */
export class SetHash {
  readonly #tag: string;
  readonly #sum = new Int32Array(4);
  readonly #added = new Int32Array(4);
  readonly #removed = new Int32Array(4);

  /** `tag` names how entries are written out and hashed. */
  constructor(tag: string = hashTag) {
    this.#tag = tag;
  }

  add(entry: string): void {
    hashInto(entry, this.#added);
    this.replaceLanes(undefined, this.#added);
  }

  remove(entry: string): void {
    hashInto(entry, this.#removed);
    this.replaceLanes(this.#removed, undefined);
  }

  /** Removes one entry and adds another, both by their hashes. Calls nothing, so it is whole or not at all. */
  replaceLanes(removed: Int32Array | undefined, added: Int32Array | undefined): void {
    const sum = this.#sum;
    for (let i = 0; i < 4; i++) sum[i] = (sum[i] ?? 0) - (removed?.[i] ?? 0) + (added?.[i] ?? 0);
  }

  /** The tag and 32 hexadecimal digits; all zero for the empty set. */
  get text(): string {
    return textOf(this.#tag, this.#sum);
  }
}
