import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CellName, Jurisdiction } from '../../protocol/names.ts';
import { CandidatePool, passedOverDetailMax, rejectedDetailMax, type CandidateCell } from './placement.ts';

const jp = 'jp' as Jurisdiction;
const np = 'np' as Jurisdiction;
const candidate = (name: string, more: Partial<CandidateCell> = {}): CandidateCell => ({
  name: name as CellName,
  jurisdiction: jp,
  capacityUsers: 100,
  usedUsers: 0,
  removed: false,
  ...more,
});

test('P1: a cell of another jurisdiction, without room or removed is never chosen', () => {
  const pool = new CandidatePool([
    candidate('elsewhere', { jurisdiction: np }),
    candidate('full', { usedUsers: 91 }),
    candidate('gone', { removed: true }),
  ]);
  const { chosen, placement } = pool.place({ jurisdiction: jp, users: 10 });
  assert.equal(chosen, undefined);
  assert.deepEqual(
    placement.rejected.map(({ cell, reason }) => [cell, reason]),
    [
      ['full', 'no-room'],
      ['elsewhere', 'other-jurisdiction'],
      ['gone', 'removed'],
    ],
  );
  assert.equal(pool.place({ jurisdiction: jp, users: 9 }).chosen, 'full');
});

test('P2: the largest free share wins, and the first by name if they are equal', () => {
  const pool = new CandidatePool([candidate('c', { usedUsers: 50 }), candidate('b'), candidate('a', { usedUsers: 1 })]);
  assert.equal(pool.place({ jurisdiction: jp, users: 1 }).chosen, 'b');
  pool.set(candidate('a'));
  const tie = pool.place({ jurisdiction: jp, users: 1 });
  assert.equal(tie.chosen, 'a');
  assert.deepEqual(
    tie.placement.rejected.map(({ cell, reason }) => [cell, reason]),
    [
      ['b', 'later-name'],
      ['c', 'less-free'],
    ],
  );
  pool.set(candidate('large', { capacityUsers: 1000, usedUsers: 500 }));
  assert.equal(pool.place({ jurisdiction: jp, users: 101 }).chosen, 'large');
});

test('P3: an explanation counts every rejected cell and names a bounded number of them', () => {
  for (const cells of [passedOverDetailMax, passedOverDetailMax + 1, passedOverDetailMax + 2]) {
    const pool = new CandidatePool(Array.from({ length: cells }, (_, index) => candidate(`c${index}`)));
    const { placement } = pool.place({ jurisdiction: jp, users: 1 });
    assert.equal(placement.rejected.length, Math.min(cells - 1, passedOverDetailMax));
    assert.equal(placement.rejectedCounts['less-free'], cells - 1);
  }
  for (const cells of [rejectedDetailMax - 1, rejectedDetailMax, rejectedDetailMax + 1]) {
    const pool = new CandidatePool(Array.from({ length: cells }, (_, index) => candidate(`c${index}`)));
    const { placement } = pool.place({ jurisdiction: jp, users: 101 });
    assert.equal(placement.rejected.length, Math.min(cells, rejectedDetailMax));
    assert.equal(placement.rejectedCounts['no-room'], cells);
  }
});

test('P4: placing a hundred thousand tenants among thousands of cells looks at few cells for each', () => {
  let looks = 0;
  const cells = Array.from({ length: 3_000 }, (_, index) =>
    candidate(`c${index}`, { capacityUsers: 1_000, jurisdiction: index % 2 === 0 ? jp : np }),
  );
  const counted = cells.map((cell) => ({
    ...cell,
    get capacityUsers() {
      looks += 1;
      return cell.capacityUsers;
    },
  }));
  const pool = new CandidatePool(counted);
  looks = 0;
  const rounds = 100;
  for (let round = 0; round < rounds; round += 1) pool.place({ jurisdiction: jp, users: 1 });
  assert.ok(looks / rounds < 100, `${looks / rounds} looks a tenant`);
});
