import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { Value } from 'typebox/value';
import { CellNameSchema, FleetIdSchema, TenantNameSchema } from '../../protocol/names.ts';
import { RoutingFrameSchema, type RoutedCell, type RoutedTenant, type RoutingFrame } from '../../protocol/routing.ts';
import { hashTable, TableHash } from '../../protocol/table-hash.ts';
import { RoutingTable, type FrameRefusal } from './table.ts';

const fleet = Value.Parse(FleetIdSchema, 'fleet-of-the-test');
const tenantName = (text: string) => Value.Parse(TenantNameSchema, text);
const cellName = (text: string) => Value.Parse(CellNameSchema, text);

const tokyo = { name: 'tokyo-1', address: 'http://127.0.0.1:4001' };
const osaka = { name: 'osaka-1', address: 'http://127.0.0.1:4002' };
const acme = { tenant: 'acme', cell: 'tokyo-1', epoch: 3 };
const bolt = { tenant: 'bolt', cell: 'osaka-1', epoch: 1 };

function frame(parts: object): RoutingFrame {
  return Value.Parse(RoutingFrameSchema, {
    fleet,
    generation: 2,
    version: 10,
    cells: [],
    tenants: [],
    hash: '',
    ...parts,
  });
}
/** A snapshot with the hash that it must have. */
function snapshot(cells: object[], tenants: object[], parts: object = {}): RoutingFrame {
  const draft = frame({ kind: 'snapshot', cells, tenants, ...parts });
  return { ...draft, hash: hashTable(draft) };
}
/** A change to the table of `before`, with the hash that it must have. */
function change(before: RoutingFrame, cells: object[], tenants: object[], parts: object = {}): RoutingFrame {
  const draft = frame({
    kind: 'change',
    previous: before.version,
    version: before.version + 1,
    cells,
    tenants,
    ...parts,
  });
  const hash = new TableHash();
  hash.apply(before);
  hash.apply(draft);
  return { ...draft, hash: hash.text };
}
const first = snapshot([tokyo, osaka], [acme, bolt]);

function loaded(): RoutingTable {
  const table = new RoutingTable(fleet);
  assert.equal(table.apply(first).kind, 'applied');
  return table;
}
function refusedFor(table: RoutingTable, refusedFrame: RoutingFrame): FrameRefusal | undefined {
  const before = JSON.stringify([table.position, table.hash, table.lookup(tenantName('acme'))]);
  const applied = table.apply(refusedFrame);
  assert.equal(JSON.stringify([table.position, table.hash, table.lookup(tenantName('acme'))]), before);
  return applied.kind === 'refused' ? applied.reason : undefined;
}

test('T1 a table that is not loaded has no position and knows nobody', () => {
  const table = new RoutingTable(fleet);
  assert.equal(table.position, undefined);
  assert.deepEqual(table.lookup(tenantName('acme')), { kind: 'unknown' });
});

test('T2 a snapshot makes the table, a look-up gives cell, epoch and address', () => {
  const table = loaded();
  const route = { kind: 'assigned', cell: 'tokyo-1', epoch: 3, address: tokyo.address };
  assert.deepEqual(table.lookup(tenantName('acme')), route);
  assert.deepEqual([table.tenantCount, table.cellCount, table.hash], [2, 2, first.hash]);
});

test('T3 a frame of another fleet, or of a part of the table, is refused', () => {
  assert.equal(
    refusedFor(loaded(), { ...first, fleet: Value.Parse(FleetIdSchema, 'other-fleet'), version: 11 }),
    'other-fleet',
  );
  assert.equal(refusedFor(loaded(), { ...first, scope: { cell: cellName('tokyo-1') }, version: 11 }), 'scoped');
});

test('T4 an older snapshot is refused, generation before version', () => {
  assert.equal(refusedFor(loaded(), snapshot([tokyo, osaka], [acme, bolt], { version: 9 })), 'older');
  assert.equal(refusedFor(loaded(), snapshot([tokyo, osaka], [acme, bolt], { generation: 1, version: 99 })), 'older');
  assert.equal(loaded().apply(snapshot([tokyo, osaka], [acme, bolt], { generation: 3, version: 1 })).kind, 'applied');
});

test('T5 what the table already holds changes nothing and is no refusal', () => {
  const table = loaded();
  assert.equal(table.apply(first).kind, 'unchanged');
  assert.equal(table.apply(change(first, [], [], { previous: 8, version: 9 })).kind, 'unchanged');
});

test('T6 a change that does not follow on what the table holds is a gap', () => {
  assert.equal(refusedFor(new RoutingTable(fleet), change(first, [], [])), 'gap');
  assert.equal(refusedFor(loaded(), change(first, [], [], { previous: 11, version: 12 })), 'gap');
  assert.equal(refusedFor(loaded(), change(first, [], [], { generation: 3 })), 'gap');
});

test('T7 a frame whose hash is not that of the table after it is refused', () => {
  assert.equal(
    refusedFor(loaded(), { ...change(first, [], [{ ...acme, epoch: 4 }]), hash: first.hash }),
    'hash-mismatch',
  );
  assert.equal(refusedFor(loaded(), { ...first, hash: 'c1:00' }), 'hash-mismatch');
});

test('T8 a snapshot that leaves out what is known is refused: absence never removes', () => {
  assert.equal(refusedFor(loaded(), snapshot([tokyo, osaka], [acme], { version: 11 })), 'lost-entries');
  assert.equal(refusedFor(loaded(), snapshot([tokyo], [acme, bolt], { version: 11 })), 'lost-entries');
  assert.equal(refusedFor(loaded(), snapshot([], [], { generation: 9 })), 'lost-entries');
  const dead = [{ name: 'osaka-1', removed: true }, tokyo];
  const table = loaded();
  assert.equal(
    table.apply(snapshot(dead, [acme, { tenant: 'bolt', epoch: 2, removed: true }], { version: 11 })).kind,
    'applied',
  );
  assert.deepEqual(table.lookup(tenantName('bolt')), { kind: 'removed', epoch: 2 });
  assert.deepEqual([table.tenantCount, table.cellCount, table.addressOf(cellName('osaka-1'))], [1, 1, undefined]);
});

test('T9 an epoch never goes back, and one epoch means one cell', () => {
  for (const wrong of [
    { ...acme, epoch: 2 },
    { ...acme, cell: 'osaka-1' },
    { tenant: 'acme', epoch: 3, removed: true },
  ]) {
    assert.equal(refusedFor(loaded(), change(first, [], [wrong])), 'epoch-back');
  }
  assert.equal(loaded().apply(change(first, [], [{ ...acme, cell: 'osaka-1', epoch: 5 }])).kind, 'applied');
});

test('T10 a frame that names somebody twice is refused', () => {
  assert.equal(
    refusedFor(
      loaded(),
      change(
        first,
        [],
        [
          { ...acme, epoch: 4 },
          { ...acme, epoch: 5 },
        ],
      ),
    ),
    'repeated-name',
  );
  assert.equal(refusedFor(loaded(), change(first, [tokyo, tokyo], [])), 'repeated-name');
});

test('T11 frames in order make the same table, with the same hash, as one snapshot', () => {
  const names = ['a', 'b', 'c', 'd'];
  const step = fc.record({
    cells: fc.uniqueArray(fc.record({ at: fc.nat(3), port: fc.option(fc.integer({ min: 1, max: 9 })) }), {
      selector: (c) => c.at,
    }),
    tenants: fc.uniqueArray(
      fc.record({ at: fc.nat(3), cell: fc.option(fc.nat(3)), grows: fc.integer({ min: 1, max: 3 }) }),
      { selector: (t) => t.at },
    ),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 8 }), (steps) => {
      const cells = new Map<string, RoutedCell>();
      const tenants = new Map<string, RoutedTenant>();
      const hash = new TableHash();
      const stepped = new RoutingTable(fleet);
      let version = 0;
      for (const { cells: cellSteps, tenants: tenantSteps } of steps) {
        const draft = frame({
          kind: version === 0 ? 'snapshot' : 'change',
          previous: version,
          version: version + 1,
          cells: cellSteps.map(({ at, port }) =>
            port === null ? { name: `cell-${at}`, removed: true } : { name: `cell-${at}`, address: `http://h:${port}` },
          ),
          tenants: tenantSteps.map(({ at, cell, grows }) => {
            const tenant = names[at] ?? '';
            const epoch = (tenants.get(tenant)?.epoch ?? 0) + grows;
            return cell === null ? { tenant, epoch, removed: true } : { tenant, epoch, cell: `cell-${cell}` };
          }),
        });
        hash.apply(draft);
        for (const cell of draft.cells) cells.set(cell.name, cell);
        for (const tenant of draft.tenants) tenants.set(tenant.tenant, tenant);
        version += 1;
        assert.equal(stepped.apply({ ...draft, hash: hash.text }).kind, 'applied');
      }
      const whole = new RoutingTable(fleet);
      const all = snapshot([...cells.values()], [...tenants.values()], { version });
      assert.equal(whole.apply(all).kind, 'applied');
      assert.equal(whole.hash, stepped.hash);
      assert.deepEqual([whole.tenantCount, whole.cellCount], [stepped.tenantCount, stepped.cellCount]);
      for (const name of names) assert.deepEqual(whole.lookup(tenantName(name)), stepped.lookup(tenantName(name)));
      assert.equal(stepped.apply(all).kind, 'unchanged');
    }),
    { numRuns: 200 },
  );
});
