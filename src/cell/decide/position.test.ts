import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Value } from 'typebox/value';
import { RoutingFrameSchema, type RoutingFrame } from '../../protocol/routing.ts';
import { isAhead, isGap } from './position.ts';

const applied = { generation: 2, version: 7 };
function frame(kind: 'snapshot' | 'change', generation: number, version: number, previous = version - 1): RoutingFrame {
  const head = { fleet: 'fleet-of-the-test', generation, version, cells: [], tenants: [], hash: '' };
  return Value.Parse(RoutingFrameSchema, kind === 'change' ? { kind, previous, ...head } : { kind, ...head });
}

test('a change of a version that was never seen is a gap, and so is every change of a newer generation', () => {
  assert.equal(isGap(applied, frame('change', 2, 8)), false);
  assert.equal(isGap(applied, frame('change', 2, 9)), true);
  assert.equal(isGap(applied, frame('change', 2, 7)), false);
  assert.equal(isGap(applied, frame('change', 3, 3)), true);
  assert.equal(isGap(applied, frame('change', 1, 99)), false);
  assert.equal(isGap(applied, frame('snapshot', 3, 99)), false);
});

test('the position never goes back, neither by version nor by generation', () => {
  assert.equal(isAhead(frame('snapshot', 2, 8), applied), true);
  assert.equal(isAhead(frame('snapshot', 2, 7), applied), false);
  assert.equal(isAhead(frame('snapshot', 2, 6), applied), false);
  assert.equal(isAhead(frame('snapshot', 3, 1), applied), true);
  assert.equal(isAhead(frame('snapshot', 1, 9), applied), false);
});
