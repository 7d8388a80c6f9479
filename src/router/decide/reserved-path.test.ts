import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { isReservedPath } from './reserved-path.ts';

test('what is ours is found however it is written', () => {
  for (const path of [
    '/.cellwright',
    '/.cellwright/',
    '/.cellwright/frames',
    '/.cellwright?x',
    '/.Cellwright/frames',
    '/%2ecellwright/frames',
    '/%2E%63ellwright%2fframes',
    '//.cellwright//frames',
    '/./.cellwright/frames',
    '/a/../.cellwright/frames',
    '/a/%2e%2e/.cellwright/frames',
    '/../.cellwright/frames',
    '/a\\..\\.cellwright\\frames',
  ]) {
    assert.equal(isReservedPath(path), true, path);
  }
});

test("what only looks like it is the application's", () => {
  for (const path of [
    '/',
    '*',
    '/cellwright/frames',
    '/.cellwrighted/frames',
    '/a/.cellwright/frames',
    '/.cellwright/../frames',
    '/%252ecellwright/frames',
    '/?path=/.cellwright/frames',
    '/100%',
    '/%zz.cellwright',
  ]) {
    assert.equal(isReservedPath(path), false, path);
  }
});

test('any single encoding of its letters leads to the same place', () => {
  const encoded = fc.array(fc.boolean(), { minLength: 18, maxLength: 18 }).map((chosen) =>
    '/.cellwright/frames'
      .split('')
      .map((letter, at) => (at > 0 && chosen[at - 1] ? `%${letter.charCodeAt(0).toString(16)}` : letter))
      .join(''),
  );
  fc.assert(fc.property(encoded, (path) => isReservedPath(path)));
});
