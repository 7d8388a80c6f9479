import { test } from 'node:test';
import { deepStrictEqual, notDeepStrictEqual, throws } from 'node:assert/strict';
import * as fc from 'fast-check';
import { copyPlain, NotPlain } from './value.ts';
import { hashValueInto } from './value-hash.ts';

function hashOf(value: unknown): readonly number[] {
  const lanes = new Int32Array(4);
  hashValueInto('t', copyPlain(value, true), lanes);
  return [...lanes];
}

test('-0 is 0, wherever it stands', () => {
  deepStrictEqual(hashOf(-0), hashOf(0));
  deepStrictEqual(hashOf({ a: [-0, { b: -0 }] }), hashOf({ a: [0, { b: 0 }] }));
});

test('NaN and infinities never reach a hash', () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    throws(() => hashOf(value), NotPlain);
    throws(() => hashOf({ a: [value] }), NotPlain);
  }
});

test('numbers that differ in one bit differ in hash; the same number has one', () => {
  notDeepStrictEqual(hashOf(0.1 + 0.2), hashOf(0.3));
  notDeepStrictEqual(hashOf(Number.MIN_VALUE), hashOf(0));
  const float = fc.double({ noNaN: true, noDefaultInfinity: true });
  fc.assert(
    fc.property(float, float, (a, b) => {
      const same = a === b;
      deepStrictEqual(JSON.stringify(hashOf(a)) === JSON.stringify(hashOf(b)), same);
      deepStrictEqual(hashOf(JSON.parse(JSON.stringify(a)) as number), hashOf(a));
    }),
  );
});

test('the order in which properties were written does not matter, that of a list does', () => {
  deepStrictEqual(hashOf({ a: 1, b: { d: 2, c: 3 } }), hashOf({ b: { c: 3, d: 2 }, a: 1 }));
  notDeepStrictEqual(hashOf([1, 2]), hashOf([2, 1]));
});

test('these values have these hashes in every engine', () => {
  deepStrictEqual(
    hashOf([0, 0.1, -1.5, 1e21, 5e-324, 2 ** 53, 1.7976931348623157e308]),
    [-31528682, 647704405, -2057219552, -866880344],
  );
  deepStrictEqual(
    hashOf({ ı: 'İ', é: 'e\u0301', 東: [true, false, null, '\ud83d\ude42'] }),
    [763242921, 1040677366, -427325675, -2073786501],
  );
});
