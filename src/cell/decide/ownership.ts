import { Type, type Static } from 'typebox';
import { assert } from '../../kernel/assert.ts';
import { CellNameSchema, EpochSchema, TenantNameSchema, type CellName } from '../../protocol/names.ts';
import { RoutedTenantSchema, type RoutedTenant } from '../../protocol/routing.ts';
import { machine, type Machine } from '../../machine/decide/definition/machine.ts';

/**
 * Who a cell serves: a machine that lives as one instance in the cell's own log, also when the
 * cell runs a workload. `docs/cells.md` numbers the rules (O1 to O7); the tests are named after them.
 */
export const ownershipInstance = '$ownership';

/** Entries that one command takes. A snapshot of more tenants is taken in several commands. */
export const ownershipBatchMax = 1_000;

export const OwnershipRowSchema = Type.Object({
  tenant: TenantNameSchema,
  state: Type.Union([Type.Literal('owned'), Type.Literal('released')]),
  /** The highest epoch ever seen; an owner's own epoch, because owning needs an entry above all others. */
  epoch: EpochSchema,
  /** Where the tenant went; absent if it is owned here, or was removed. */
  cell: Type.Optional(CellNameSchema),
});
export type OwnershipRow = Static<typeof OwnershipRowSchema>;

const AssignmentTakenSchema = Type.Object({ tenant: TenantNameSchema, epoch: EpochSchema });
const AssignedElsewhereSchema = Type.Object({ tenant: TenantNameSchema, epoch: EpochSchema, cell: CellNameSchema });
const TenantRemovedSchema = Type.Object({ tenant: TenantNameSchema, epoch: EpochSchema });

export const OwnershipEventSchema = Type.Union([
  Type.Object({ type: Type.Literal('assignmentTaken'), data: AssignmentTakenSchema }),
  Type.Object({ type: Type.Literal('assignedElsewhere'), data: AssignedElsewhereSchema }),
  Type.Object({ type: Type.Literal('tenantRemoved'), data: TenantRemovedSchema }),
]);
export type OwnershipEvent = Static<typeof OwnershipEventSchema>;

export const ownershipMachine: Machine = machine({
  name: 'cellwright-ownership',
  version: 1,
  tables: { tenants: { schema: OwnershipRowSchema, key: 'tenant' } },
  events: {
    assignmentTaken: {
      data: AssignmentTakenSchema,
      evolve: (state, { tenant, epoch }) => {
        assertRises(state.tenants.get(tenant), epoch);
        state.tenants.upsert({ tenant, state: 'owned', epoch });
      },
    },
    assignedElsewhere: {
      data: AssignedElsewhereSchema,
      evolve: (state, { tenant, epoch, cell }) => {
        assertRises(state.tenants.get(tenant), epoch);
        state.tenants.upsert({ tenant, state: 'released', epoch, cell });
      },
    },
    tenantRemoved: {
      data: TenantRemovedSchema,
      evolve: (state, { tenant, epoch }) => {
        assertRises(state.tenants.get(tenant), epoch);
        state.tenants.upsert({ tenant, state: 'released', epoch });
      },
    },
  },
  commands: {
    /** Takes what a verified frame says, in its order. What the cell knows already makes no event. */
    takeAssignments: {
      input: Type.Object({
        cell: CellNameSchema,
        entries: Type.Array(RoutedTenantSchema, { maxItems: ownershipBatchMax }),
      }),
      decide: (state, { cell, entries }) => news((tenant) => state.tenants.get(tenant)?.epoch, cell, entries),
    },
  },
  queries: {
    tenants: {
      input: Type.Object({ after: Type.Optional(Type.String()), limit: Type.Integer({ minimum: 1 }) }),
      answer: (state, range) => [...state.tenants.scan(range)],
    },
  },
});

/**
 * The events that entries come to: one for each that is above the highest epoch seen, be it in the
 * log or earlier in the same entries. O(entries).
 */
export function news(
  highestSeen: (tenant: OwnershipRow['tenant']) => number | undefined,
  cell: CellName,
  entries: readonly RoutedTenant[],
): readonly OwnershipEvent[] {
  const seenHere = new Map<string, number>();
  const events: OwnershipEvent[] = [];
  for (const entry of entries) {
    const { tenant, epoch } = entry;
    if (epoch <= (seenHere.get(tenant) ?? highestSeen(tenant) ?? 0)) continue;
    seenHere.set(tenant, epoch);
    if ('removed' in entry) events.push({ type: 'tenantRemoved', data: { tenant, epoch } });
    else if (entry.cell === cell) events.push({ type: 'assignmentTaken', data: { tenant, epoch } });
    else events.push({ type: 'assignedElsewhere', data: { tenant, epoch, cell: entry.cell } });
  }
  return events;
}

/**
 * The entries of a frame that concern a cell: all of a frame of its own scope; of the whole table
 * only those that give it a tenant, or speak of a tenant that it has seen. The rest would fill the
 * cell's log with the tenants of the whole fleet. O(entries).
 */
export function concerning(
  cell: CellName,
  scope: CellName | undefined,
  entries: readonly RoutedTenant[],
  hasSeen: (tenant: OwnershipRow['tenant']) => boolean,
): readonly RoutedTenant[] {
  if (scope === cell) return entries;
  return entries.filter((entry) => hasSeen(entry.tenant) || (!('removed' in entry) && entry.cell === cell));
}

function assertRises(row: OwnershipRow | undefined, epoch: number): void {
  assert(epoch > (row?.epoch ?? 0), 'an epoch that does not rise would make a second owner of a repeated old message');
}
