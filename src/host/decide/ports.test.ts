import assert from 'node:assert/strict';
import { it } from 'node:test';
import * as fc from 'fast-check';
import { nextPort, portMax, portMin } from './ports.ts';

it('a port is below the ephemeral range, promised to nobody else, and not tried before', () => {
  const port = fc.integer({ min: portMin, max: portMax });
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), port, { maxKeys: 20 }),
      fc.uniqueArray(port, { maxLength: 20 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (book, tried, random) => {
        const chosen = nextPort(book, new Set(tried), random);
        assert.ok(chosen !== undefined && chosen >= portMin && chosen <= portMax && chosen < 32_768);
        assert.ok(!Object.values(book).includes(chosen) && !tried.includes(chosen));
      },
    ),
  );
});

it('every port of a range is found before there is none left', () => {
  const range = { min: 10_000, max: 10_004 };
  const tried = new Set<number>();
  for (let count = 0; count < 5; count += 1) {
    const port = nextPort({}, tried, 0.7, range);
    assert.ok(port !== undefined);
    tried.add(port);
  }
  assert.deepEqual(
    [...tried].toSorted((a, b) => a - b),
    [10_000, 10_001, 10_002, 10_003, 10_004],
  );
  assert.equal(nextPort({}, tried, 0.7, range), undefined);
  assert.equal(nextPort({ a: 10_000 }, new Set(), 0, { min: 10_000, max: 10_000 }), undefined);
});
