import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { backoffMs, backoffMsMax, backoffMsMin } from './backoff.ts';

test('the pause doubles from its least to its most, and never leaves them', () => {
  assert.equal(backoffMs(1, 0), backoffMsMin / 2);
  assert.equal(backoffMs(2, 0), backoffMsMin);
  assert.equal(backoffMs(1_000_000, 0), backoffMsMax / 2);
  fc.assert(
    fc.property(
      fc.integer({ min: 1 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (failures, random) => {
        const pauseMs = backoffMs(failures, random);
        assert.ok(pauseMs >= backoffMsMin / 2 && pauseMs <= backoffMsMax);
      },
    ),
  );
});
