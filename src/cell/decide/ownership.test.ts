import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { Value } from 'typebox/value';
import { CellNameSchema, TenantNameSchema, type CellName, type TenantName } from '../../protocol/names.ts';
import type { RoutedTenant } from '../../protocol/routing.ts';
import { Standings } from './gate.ts';
import { concerning, news } from './ownership.ts';

const cell = (name: string): CellName => Value.Parse(CellNameSchema, name);
const tenant = (name: string): TenantName => Value.Parse(TenantNameSchema, name);
const here = cell('here');
const there = cell('there');
const acme = tenant('acme');
const assigned = (to: CellName, epoch: number, of: TenantName = acme): RoutedTenant => ({
  tenant: of,
  cell: to,
  epoch,
});
const removed = (epoch: number, of: TenantName = acme): RoutedTenant => ({ tenant: of, epoch, removed: true });

/** What a cell knows after it took messages one after the other, as its log would be replayed. */
function after(...messages: readonly (readonly RoutedTenant[])[]): Standings {
  const standings = new Standings();
  for (const entries of messages) take(standings, entries);
  return standings;
}

function take(standings: Standings, entries: readonly RoutedTenant[]): number {
  const events = news((name) => standings.get(name)?.epoch, here, entries);
  for (const event of events) standings.apply(event);
  return events.length;
}

describe('ownership', () => {
  test('O1: an assignment is taken only above the highest epoch ever seen', () => {
    assert.deepEqual(after([assigned(here, 3)]).get(acme), { state: 'owned', epoch: 3, closing: false });
    assert.deepEqual(after([removed(3)], [assigned(here, 3)]).get(acme)?.state, 'released');
    assert.deepEqual(after([removed(3)], [assigned(here, 4)]).get(acme), { state: 'owned', epoch: 4, closing: false });
    assert.equal(after([assigned(here, 3)], [assigned(here, 2)]).get(acme)?.epoch, 3);
    assert.equal(after([assigned(here, 3)], [assigned(here, 5)]).get(acme)?.epoch, 5);
  });

  test('O2: a removal at a higher epoch ends ownership', () => {
    assert.deepEqual(after([assigned(here, 1)], [removed(2)]).get(acme), {
      state: 'released',
      epoch: 2,
      cell: undefined,
    });
    assert.equal(after([assigned(here, 2)], [removed(2)]).get(acme)?.state, 'owned');
  });

  test('O3: an assignment to another cell at a higher epoch ends ownership, and is remembered', () => {
    assert.deepEqual(after([assigned(here, 1)], [assigned(there, 2)]).get(acme), {
      state: 'released',
      epoch: 2,
      cell: there,
    });
    assert.equal(after([assigned(here, 2)], [assigned(there, 2)]).get(acme)?.state, 'owned');
  });

  test('O4: repeated and older messages change nothing, so nothing is written', () => {
    const standings = after([assigned(here, 5)]);
    assert.equal(take(standings, [assigned(here, 5), assigned(here, 4), removed(5), assigned(there, 3)]), 0);
    assert.equal(take(standings, [assigned(here, 6), assigned(here, 6), removed(4)]), 1);
  });

  test('O5: absence never removes', () => {
    const standings = after([assigned(here, 1)], [], [assigned(here, 1, tenant('other'))]);
    assert.equal(standings.get(acme)?.state, 'owned');
    assert.equal(standings.owned, 2);
  });

  test('O6: in any order and repetition of messages, nobody owns below an epoch seen released', () => {
    const entry = fc.oneof(
      fc.record({
        tenant: fc.constantFrom('a', 'b').map(tenant),
        cell: fc.constantFrom(here, there),
        epoch: fc.integer({ min: 1, max: 8 }),
      }),
      fc.record({
        tenant: fc.constantFrom('a', 'b').map(tenant),
        epoch: fc.integer({ min: 1, max: 8 }),
        removed: fc.constant(true as const),
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.array(entry, { maxLength: 6 }), { maxLength: 12 }), (messages) => {
        const standings = new Standings();
        const released = new Map<TenantName, number>();
        let owned = 0;
        for (const entries of messages) {
          const before = new Map([...released.keys()].map((name) => [name, standings.get(name)?.epoch ?? 0]));
          take(standings, entries);
          for (const each of entries) {
            const gone = 'removed' in each || each.cell !== here;
            const highest = Math.max(released.get(each.tenant) ?? 0, gone ? each.epoch : 0);
            released.set(each.tenant, highest);
          }
          for (const [name, epoch] of before)
            assert.ok((standings.get(name)?.epoch ?? 0) >= epoch, 'epochs never fall');
          for (const [name, epoch] of released) {
            const standing = standings.get(name);
            if (standing?.state === 'owned') assert.ok(standing.epoch >= epoch);
          }
          owned = ['a', 'b'].filter((name) => standings.get(tenant(name))?.state === 'owned').length;
        }
        assert.equal(standings.owned, owned);
      }),
    );
  });

  test('O7: a frame of the whole table concerns a cell only by what it is given and what it has seen', () => {
    const entries = [assigned(here, 1), assigned(there, 2, tenant('seen')), assigned(there, 1, tenant('strange'))];
    const hasSeen = (name: TenantName) => name === tenant('seen');
    assert.deepEqual(concerning(here, undefined, entries, hasSeen), entries.slice(0, 2));
    assert.deepEqual(concerning(here, there, entries, hasSeen), entries.slice(0, 2));
    assert.deepEqual(concerning(here, here, entries, hasSeen), entries);
    assert.deepEqual(concerning(here, undefined, [removed(9, tenant('strange'))], hasSeen), []);
  });

  test('O8: what ends an ownership closes the tenant before it is durable; what begins one has no effect before', () => {
    const standings = after([assigned(here, 1)]);
    const end = { type: 'tenantRemoved', data: { tenant: acme, epoch: 2 } } as const;
    standings.announce(end);
    standings.retract(end);
    assert.deepEqual(standings.get(acme), { state: 'owned', epoch: 1, closing: false });
    standings.announce(end);
    standings.announce({ type: 'assignmentTaken', data: { tenant: tenant('next'), epoch: 2 } });
    assert.deepEqual(standings.get(acme), { state: 'owned', epoch: 1, closing: true });
    assert.equal(standings.get(tenant('next')), undefined);
  });
});
