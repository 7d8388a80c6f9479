import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { openInMemory, type MemoryInstance } from '../../machine/decide/instance/memory.ts';
import type { CellName, FleetId } from '../../protocol/names.ts';
import type { RoutingFrame } from '../../protocol/routing.ts';
import { TableHash } from '../../protocol/table-hash.ts';
import { fleetMachine } from './fleet.ts';
import { FleetModel } from './model.ts';
import { readRecord } from './record.ts';
import { applyItemsMax } from './tables.ts';

const blueprint = { kind: 'Blueprint', name: 'orders', spec: { machine: { module: 'orders.ts' } } };
const cell = (name: string, jurisdiction = 'jp', users = 100) => ({
  kind: 'Cell',
  name,
  spec: { blueprint: 'orders', jurisdiction, capacity: { users } },
});
const tenant = (name: string, jurisdiction = 'jp', users = 10) => ({
  kind: 'Tenant',
  name,
  spec: { jurisdiction, users, tier: 'standard' },
});
const fleetId = 'fleet-of-tests' as FleetId;

/** The machine in memory, and the model that follows its records as the control plane does. */
class Fleet {
  readonly machine: MemoryInstance = openInMemory(fleetMachine, { instance: '$fleet' });
  readonly model = new FleetModel(fleetId);
  readonly frames: RoutingFrame[] = [];
  readonly scoped = new Map<string, RoutingFrame[]>();

  run(
    command: string,
    input: unknown,
  ): { readonly refused?: string; readonly field?: string | undefined; readonly text: string } {
    const answer = this.machine.execute(command, input);
    if (answer.kind === 'rejected') {
      return { refused: answer.reason ?? answer.fault.code, field: answer.fault.field, text: answer.fault.message };
    }
    if (answer.events.length > 0) {
      const { routing } = this.model.apply(readRecord({ now: 0, events: answer.events }));
      if (routing !== undefined) {
        this.frames.push(routing.whole);
        for (const [name, change] of routing.scoped) this.scoped.set(name, [...(this.scoped.get(name) ?? []), change]);
      }
    }
    return { text: answer.events.map(({ type }) => type).join(' ') };
  }
  apply(...items: unknown[]) {
    return this.run('apply', { items });
  }
  remove(kind: string, name: string) {
    return this.run('remove', { kind, name });
  }
  where(name: string): readonly [string, number] {
    const found = this.model.tenants.get(name);
    assert.ok(found);
    return [found.cell, found.epoch];
  }
}

function fleetOf(...items: unknown[]): Fleet {
  const fleet = new Fleet();
  assert.equal(fleet.apply(blueprint, ...items).refused, undefined);
  return fleet;
}

describe('the fleet machine', () => {
  test('F1: epochs only grow, also across removal and return, and a tenant returns to its data', () => {
    const fleet = fleetOf(cell('a'), tenant('acme'));
    assert.deepEqual(fleet.where('acme'), ['a', 1]);
    fleet.remove('Tenant', 'acme');
    fleet.apply(cell('b', 'jp', 1000));
    fleet.apply(tenant('acme'));
    assert.deepEqual(fleet.where('acme'), ['a', 3]);
  });

  test('F2: a tenant whose data rests where it may not return is refused with the explanation', () => {
    const fleet = fleetOf(cell('a'), tenant('acme'));
    fleet.remove('Tenant', 'acme');
    fleet.remove('Cell', 'a');
    fleet.apply(cell('b'));
    const gone = fleet.apply(tenant('acme'));
    assert.equal(gone.refused, 'no-permitted-cell');
    assert.match(gone.text, /its data rests in cell a.*removed.*Apply cell a again/);
    const elsewhere = fleet.apply(cell('a'), tenant('acme', 'np'));
    assert.equal(elsewhere.refused, 'no-permitted-cell');
    assert.equal(elsewhere.field, 'items[1].spec.jurisdiction');
    assert.equal(fleet.apply(cell('a'), tenant('acme')).text, 'cellPut tenantPlaced');
  });

  test('F3: a cell that comes back keeps what rests in it, and forgets its address', () => {
    const fleet = fleetOf(cell('a'), tenant('acme'));
    fleet.run('noteCellAddress', { cell: 'a', address: 'http://127.0.0.1:1' });
    fleet.remove('Tenant', 'acme');
    fleet.remove('Cell', 'a');
    assert.equal(fleet.run('noteCellAddress', { cell: 'a', address: 'http://127.0.0.1:2' }).text, '');
    assert.equal(fleet.apply(cell('a', 'np')).refused, 'field-immutable');
    fleet.apply(cell('a'));
    assert.equal(fleet.model.cells.get('a')?.address, undefined);
  });

  test('A4: what gives comes before what takes, so the order of items never matters', () => {
    const fleet = fleetOf(cell('a', 'jp', 100), tenant('big', 'jp', 90));
    const items = [tenant('new', 'jp', 30), cell('a', 'jp', 60), tenant('big', 'jp', 30)];
    assert.equal(fleet.apply(...items).text, 'tenantChanged cellPut tenantPlaced');
  });

  test('A5: a cell with data keeps its jurisdiction and blueprint, and holds what it serves', () => {
    const fleet = fleetOf(cell('a'), tenant('acme', 'jp', 40));
    const jurisdiction = fleet.apply(cell('a', 'np'));
    assert.deepEqual([jurisdiction.refused, jurisdiction.field], ['field-immutable', 'items[0].spec.jurisdiction']);
    const capacity = fleet.apply(cell('a', 'jp', 39));
    assert.deepEqual([capacity.refused, capacity.field], ['capacity-exceeded', 'items[0].spec.capacity.users']);
    assert.equal(fleet.apply(cell('a', 'jp', 40)).text, 'cellPut');
  });

  test('A6: a tenant that would have to leave its cell needs a move', () => {
    const fleet = fleetOf(cell('a', 'jp', 50), cell('n', 'np'), tenant('acme', 'jp', 40));
    const jurisdiction = fleet.apply(tenant('acme', 'np', 40));
    assert.deepEqual([jurisdiction.refused, jurisdiction.field], ['needs-move', 'items[0].spec.jurisdiction']);
    const growth = fleet.apply(tenant('acme', 'jp', 51));
    assert.deepEqual([growth.refused, growth.field], ['needs-move', 'items[0].spec.users']);
    assert.match(growth.text, /Raise the capacity of a to 51/);
    assert.equal(fleet.apply(tenant('acme', 'jp', 50)).text, 'tenantChanged');
  });

  test('A7: a blueprint with cells does not turn from a machine into a workload', () => {
    const fleet = fleetOf(cell('a'));
    const workload = { ...blueprint, spec: { workload: { command: ['node', 'server.js'] } } };
    assert.equal(fleet.apply(workload).refused, 'field-immutable');
  });

  test('A7: a removed cell in which data rests does not come back under a blueprint that could not read it', () => {
    const fleet = fleetOf(cell('a'), cell('empty'), tenant('acme'));
    const workload = { ...blueprint, spec: { workload: { command: ['node', 'server.js'] } } };
    fleet.remove('Tenant', 'acme');
    fleet.remove('Cell', fleet.where('acme')[0]);
    fleet.remove('Cell', 'empty');
    fleet.remove('Blueprint', 'orders');
    const together = fleet.apply(workload, cell('a'));
    assert.deepEqual([together.refused, together.field], ['field-immutable', 'items[1].spec.blueprint']);
    assert.match(together.text, /holds the data of 1 removed tenant that a machine wrote/);
    assert.equal(fleet.apply(workload, cell('empty')).refused, undefined);
    assert.equal(fleet.apply(cell('a')).refused, 'field-immutable');
    fleet.remove('Cell', 'empty');
    assert.equal(fleet.apply(blueprint, cell('a'), tenant('acme')).refused, undefined);
    assert.deepEqual(fleet.where('acme'), ['a', 3]);
  });

  test('A8: an apply takes as many items as its bound, and not one more', () => {
    const items = Array.from({ length: applyItemsMax + 1 }, (_, index) => tenant(`t${index}`, 'jp', 1));
    const fleet = fleetOf(cell('a', 'jp', applyItemsMax));
    assert.equal(fleet.apply(...items).refused, 'input-invalid');
    assert.equal(fleet.apply(...items.slice(1)).refused, undefined);
    assert.equal(fleet.model.cells.get('a')?.users, applyItemsMax);
  });

  test('P5: a tenant that nobody may host is refused with what was rejected and why', () => {
    const fleet = fleetOf(cell('full', 'jp', 5), cell('nepal', 'np', 1000));
    const room = fleet.apply(tenant('acme', 'jp', 6));
    assert.deepEqual([room.refused, room.field], ['no-permitted-cell', 'items[0].spec.users']);
    assert.match(room.text, /full: no-room \(5 of 5 users free\); nepal: other-jurisdiction/);
    assert.equal(fleet.apply(tenant('acme', 'jp', 5)).refused, undefined);
  });

  test('R2: removing what does not exist, or no more, is refused', () => {
    const fleet = fleetOf(cell('a'), tenant('acme'));
    assert.equal(fleet.remove('Tenant', 'nobody').refused, 'resource-unknown');
    assert.equal(fleet.remove('Tenant', 'acme').refused, undefined);
    assert.equal(fleet.remove('Tenant', 'acme').refused, 'resource-unknown');
  });
});

const jurisdictions = fc.constantFrom('jp', 'np');
const resource = fc.oneof(
  fc
    .record({
      name: fc.constantFrom('a', 'b', 'c'),
      jurisdiction: jurisdictions,
      users: fc.integer({ min: 1, max: 40 }),
    })
    .map(({ name, jurisdiction, users }) => cell(name, jurisdiction, users)),
  fc
    .record({
      name: fc.constantFrom('t', 'u', 'v', 'w', 'x'),
      jurisdiction: jurisdictions,
      users: fc.integer({ min: 1, max: 20 }),
    })
    .map(({ name, jurisdiction, users }) => tenant(name, jurisdiction, users)),
);
const action = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .array(resource, { minLength: 1, maxLength: 4 })
      .map((items) => ({ command: 'apply', input: { items } })),
  },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(
        ['Tenant', 't'],
        ['Tenant', 'u'],
        ['Tenant', 'v'],
        ['Cell', 'a'],
        ['Cell', 'b'],
        ['Cell', 'c'],
        ['Blueprint', 'orders'],
      )
      .map(([kind, name]) => ({ command: 'remove', input: { kind, name } })),
  },
  {
    weight: 1,
    arbitrary: fc
      .record({ cell: fc.constantFrom('a', 'b', 'c'), port: fc.integer({ min: 1, max: 3 }) })
      .map(({ cell: name, port }) => ({
        command: 'noteCellAddress',
        input: { cell: name, address: `http://127.0.0.1:${port}` },
      })),
  },
);

test('F4: whatever is applied and removed, capacity, jurisdiction and epochs hold, and frames add up to the table', () => {
  fc.assert(
    fc.property(fc.array(action, { minLength: 1, maxLength: 40 }), (actions) => {
      const fleet = fleetOf();
      const epochs = new Map<string, number>();
      for (const { command, input } of actions) {
        const before = fleet.machine.stateHash;
        const { refused } = fleet.run(command, input);
        if (refused !== undefined) {
          assert.equal(fleet.machine.stateHash, before, 'a refusal changes nothing');
          assert.notEqual(refused, 'invariant-violated', 'the decision is right before the invariants look');
          assert.notEqual(refused, 'handler-failed');
        }
        checkLaws(fleet, epochs);
      }
      checkFrames(fleet);
      assert.equal(fleet.machine.replayed().stateHash, fleet.machine.stateHash);
    }),
    { numRuns: 150 },
  );
});

function checkLaws({ model, machine }: Fleet, epochs: Map<string, number>): void {
  assert.equal(model.version, machine.seq, 'the version counts the events');
  const users = new Map<string, number>();
  for (const { name, spec, removed, cell: home, epoch } of model.tenants.values()) {
    const known = epochs.get(name) ?? 0;
    assert.ok(epoch >= known, 'an epoch never falls');
    epochs.set(name, epoch);
    if (removed) continue;
    assert.equal(model.cells.get(home)?.removed, false);
    assert.equal(model.cells.get(home)?.spec.jurisdiction, spec.jurisdiction);
    users.set(home, (users.get(home) ?? 0) + spec.users);
  }
  for (const { name, spec, users: used } of model.cells.values()) {
    assert.equal(used, users.get(name) ?? 0, 'users of a cell are those of its tenants');
    assert.ok(used <= spec.capacity.users);
  }
}

function checkFrames({ model, frames, scoped, machine }: Fleet): void {
  const facts = machine.query('facts');
  assert.ok(typeof facts === 'object' && facts !== null && 'routingVersion' in facts);
  assert.equal(model.routing.version, facts.routingVersion);
  const chains: readonly (readonly [CellName | undefined, readonly RoutingFrame[]])[] = [
    [undefined, frames],
    ...[...scoped].map(([name, changes]) => [model.cells.get(name)?.name, changes] as const),
  ];
  for (const [scope, changes] of chains) {
    const table = new TableHash();
    let version = 0;
    for (const frame of changes) {
      assert.equal(frame.kind === 'change' ? frame.previous : -1, version);
      table.apply(frame);
      assert.equal(table.text, frame.hash, 'a frame says what the table is after it');
      version = frame.version;
      const resumed = new TableHash();
      resumed.apply(table0(changes, version));
      for (const next of model.routing.since(scope, { generation: 1, version })) resumed.apply(next);
      assert.equal(resumed.text, model.routing.snapshot(scope).hash, 'a follower that resumes anywhere has the table');
    }
    const whole = new TableHash();
    whole.apply(model.routing.snapshot(scope));
    assert.equal(whole.text, table.text);
  }
}

function table0(changes: readonly RoutingFrame[], upTo: number) {
  const known = changes.filter(({ version }) => version <= upTo);
  return { cells: known.flatMap(({ cells }) => cells), tenants: known.flatMap(({ tenants }) => tenants) };
}
