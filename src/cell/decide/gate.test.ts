import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { Value } from 'typebox/value';
import { CellNameSchema, TenantNameSchema } from '../../protocol/names.ts';
import { admit, type Admission, type GateView, type Standing } from './gate.ts';

const here = Value.Parse(CellNameSchema, 'here');
const there = Value.Parse(CellNameSchema, 'there');
const acme = Value.Parse(TenantNameSchema, 'acme');
const owned = (epoch: number, closing = false): Standing => ({ state: 'owned', epoch, closing });

function view(standing: Standing | undefined, change: Partial<GateView> = {}): GateView {
  return { cell: here, closed: undefined, workloadDown: undefined, standing: () => standing, ...change };
}
function code(admission: Admission): string {
  return admission.kind === 'admitted' ? 'admitted' : admission.code;
}

describe('gate', () => {
  test('G1: a request that was meant for another cell is refused, whatever else holds', () => {
    const closed = { code: 'cell-damaged', why: '' } as const;
    assert.equal(code(admit(view(owned(1), { closed }), { tenant: acme, cell: there })), 'wrong-cell');
    assert.equal(code(admit(view(owned(1)), { tenant: acme, cell: here })), 'admitted');
  });

  test('G2: a cell that is starting, damaged or stopping refuses everybody, and says why', () => {
    for (const name of ['cell-not-ready', 'cell-damaged', 'cell-refusing', 'draining'] as const) {
      const refusal = admit(view(owned(1), { closed: { code: name, why: 'log.db, byte 17' } }), { tenant: acme });
      assert.ok(refusal.kind === 'refused' && refusal.code === name && refusal.why.includes('log.db, byte 17'));
    }
  });

  test('G3: an owner admits what was routed by its epoch, by an older one, or by none', () => {
    assert.deepEqual(admit(view(owned(5)), { tenant: acme, epoch: 5 }), { kind: 'admitted', epoch: 5 });
    assert.equal(code(admit(view(owned(5)), { tenant: acme, epoch: 4 })), 'admitted');
    assert.equal(code(admit(view(owned(5)), { tenant: acme })), 'admitted');
  });

  test('G4: an epoch above the highest seen means that the cell is behind', () => {
    assert.equal(code(admit(view(owned(5)), { tenant: acme, epoch: 6 })), 'cell-behind');
    const released: Standing = { state: 'released', epoch: 5, cell: there };
    assert.equal(code(admit(view(released), { tenant: acme, epoch: 6 })), 'cell-behind');
  });

  test('G5: a tenant never heard of: behind if a router stamped an epoch, else not its owner', () => {
    assert.equal(code(admit(view(undefined), { tenant: acme, epoch: 1 })), 'cell-behind');
    assert.equal(code(admit(view(undefined), { tenant: acme })), 'not-owner');
  });

  test('G6: who gave a tenant away says where it went', () => {
    const refusal = admit(view({ state: 'released', epoch: 5, cell: there }), { tenant: acme, epoch: 4 });
    assert.ok(refusal.kind === 'refused' && refusal.code === 'not-owner');
    assert.deepEqual(refusal.assignment, { cell: there, epoch: 5 });
    const removed = admit(view({ state: 'released', epoch: 5, cell: undefined }), { tenant: acme });
    assert.ok(removed.kind === 'refused' && removed.code === 'not-owner' && removed.assignment === undefined);
  });

  test('G7: while the end of an ownership is being recorded, nothing is admitted', () => {
    assert.equal(code(admit(view(owned(5, true)), { tenant: acme, epoch: 5 })), 'cell-behind');
  });

  test('G8: a workload that is down is said to owners only', () => {
    const workloadDown = 'It is starting.';
    assert.equal(code(admit(view(owned(1), { workloadDown }), { tenant: acme })), 'workload-down');
    assert.equal(code(admit(view(undefined, { workloadDown }), { tenant: acme })), 'not-owner');
  });

  test('G9: only an open owner at or above the epoch of the request admits', () => {
    const standing = fc.option(
      fc.oneof(
        fc.record({
          state: fc.constant('owned' as const),
          epoch: fc.integer({ min: 1, max: 4 }),
          closing: fc.boolean(),
        }),
        fc.record({
          state: fc.constant('released' as const),
          epoch: fc.integer({ min: 1, max: 4 }),
          cell: fc.constantFrom(there, undefined),
        }),
      ),
      { nil: undefined },
    );
    const epoch = fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined });
    fc.assert(
      fc.property(standing, epoch, fc.constantFrom(here, there, undefined), (known, asked, cell) => {
        const admission = admit(view(known), { tenant: acme, epoch: asked, cell });
        const may = known?.state === 'owned' && !known.closing && (asked ?? 0) <= known.epoch && cell !== there;
        assert.equal(admission.kind === 'admitted', may);
      }),
    );
  });
});
