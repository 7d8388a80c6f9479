import { test } from 'node:test';
import { strictEqual, notStrictEqual } from 'node:assert/strict';
import * as fc from 'fast-check';
import { hashText, SetHash } from './hash.ts';

/** MurmurHash3_x86_128 over bytes, written plainly with BigInt, as the second opinion. */
function murmurOfBytes(bytes: Uint8Array, seed: bigint): bigint[] {
  const mask = 0xffffffffn;
  const multiply = (a: bigint, b: bigint): bigint => (a * b) & mask;
  const rotate = (a: bigint, by: bigint): bigint => ((a << by) | (a >> (32n - by))) & mask;
  const constants = [0x239b961bn, 0xab0e9789n, 0x38b34ae5n, 0xa1e38b93n];
  const constant = (i: number): bigint => constants[i % 4] ?? 0n;
  const turns = [15n, 16n, 17n, 18n];
  const mixes = [
    { turn: 19n, add: 0x561ccd1bn },
    { turn: 17n, add: 0x0bcaa747n },
    { turn: 15n, add: 0x96cd1c35n },
    { turn: 13n, add: 0x32ac3b17n },
  ];
  const h = [seed, seed, seed, seed];
  const at = (i: number): bigint => h[i % 4] ?? 0n;
  const word = (from: number): bigint => {
    let value = 0n;
    for (let i = 3; i >= 0; i--) value = (value << 8n) | BigInt(bytes[from + i] ?? 0);
    return value;
  };
  const scrambled = (from: number, lane: number): bigint =>
    multiply(rotate(multiply(word(from), constant(lane)), turns[lane] ?? 0n), constant(lane + 1));
  const blocks = Math.floor(bytes.length / 16);
  for (let block = 0; block < blocks; block++) {
    for (let lane = 0; lane < 4; lane++) {
      const mix = mixes[lane] ?? { turn: 0n, add: 0n };
      h[lane] = at(lane) ^ scrambled(block * 16 + lane * 4, lane);
      h[lane] = (((rotate(at(lane), mix.turn) + at(lane + 1)) & mask) * 5n + mix.add) & mask;
    }
  }
  for (let lane = 3; lane >= 0; lane--) h[lane] = at(lane) ^ scrambled(blocks * 16 + lane * 4, lane);
  const spread = (): void => {
    h[0] = (at(0) + at(1) + at(2) + at(3)) & mask;
    for (let lane = 1; lane < 4; lane++) h[lane] = (at(lane) + at(0)) & mask;
  };
  for (let lane = 0; lane < 4; lane++) h[lane] = at(lane) ^ BigInt(bytes.length);
  spread();
  for (let lane = 0; lane < 4; lane++) {
    let k = at(lane);
    k = multiply(k ^ (k >> 16n), 0x85ebca6bn);
    k = multiply(k ^ (k >> 13n), 0xc2b2ae35n);
    h[lane] = k ^ (k >> 16n);
  }
  spread();
  return h;
}

test('the second opinion has the verification value that SMHasher publishes for MurmurHash3_x86_128', () => {
  const bytesOf = (lanes: bigint[]): number[] =>
    lanes.flatMap((lane) => [0n, 8n, 16n, 24n].map((by) => Number((lane >> by) & 0xffn)));
  const results: number[] = [];
  for (let length = 0; length < 256; length++) {
    const key = Uint8Array.from({ length }, (_, i) => i);
    results.push(...bytesOf(murmurOfBytes(key, BigInt(256 - length))));
  }
  strictEqual(murmurOfBytes(Uint8Array.from(results), 0n)[0], 0xb3ece62an);
});

test('hashText is MurmurHash3_x86_128 of the UTF-16LE bytes, whatever the text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 70 }), (text) => {
      const hex = murmurOfBytes(Buffer.from(text, 'utf16le'), 0n).map((lane) => lane.toString(16).padStart(8, '0'));
      strictEqual(hashText(text), `c1:${hex.join('')}`);
    }),
    { numRuns: 300 },
  );
});

test('half a surrogate pair is hashed like any other code unit', () => {
  notStrictEqual(hashText('\ud800'), hashText('\ud801'));
  notStrictEqual(hashText('\ud800'), hashText('\ufffd'));
});

test('the texts of hashes never change: they are kept in logs', () => {
  strictEqual(hashText(''), 'c1:00000000000000000000000000000000');
  strictEqual(hashText('cellwright'), 'c1:26fe2718610e3b6b38fbd1d388278274');
  strictEqual(hashText('東京'), 'c1:ca75a7ecea5db86cea5db86cea5db86c');
});

test('a set hash depends on the entries and not on their order', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string(), { maxLength: 12 }), fc.infiniteStream(fc.nat()), (entries, picks) => {
      const one = new SetHash();
      for (const entry of entries) one.add(entry);
      const other = new SetHash();
      const rest = [...entries];
      while (rest.length > 0) {
        const at = (picks.next().value ?? 0) % rest.length;
        other.add(rest.splice(at, 1)[0] ?? '');
      }
      strictEqual(other.text, one.text);
    }),
  );
});

test('removing takes back exactly what adding did', () => {
  const set = new SetHash();
  set.add('a');
  const before = set.text;
  set.add('b');
  notStrictEqual(set.text, before);
  set.remove('b');
  strictEqual(set.text, before);
  set.remove('a');
  strictEqual(set.text, new SetHash().text);
});
