import { Type } from 'typebox';
import { assert } from '../../kernel/assert.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import type { CellName } from '../../protocol/names.ts';
import type { Refusal, WriterOf } from '../../machine/decide/definition/define.ts';
import { machine } from '../../machine/decide/definition/machine.ts';
import { cellAfterPut, decideApply, versionConflict, versionOf } from './apply.ts';
import {
  ApplyInputSchema,
  dataKindOf,
  eventSchemas,
  firstGeneration,
  fleetTables,
  NoteCellAddressInputSchema,
  RemoveInputSchema,
  type CellRow,
  type FleetEvent,
  type FleetState,
  type RemoveInput,
} from './tables.ts';

type Writer = WriterOf<typeof fleetTables>;

/**
 * The fleet machine: blueprints, cells, tenants and where each tenant lives. What is removed stays
 * as a tombstone wherever data may rest, so that epochs only grow (rules F1 to F7).
 */
export const fleetMachine = machine({
  name: 'cellwright-fleet',
  version: 1,
  tables: fleetTables,
  events: {
    blueprintPut: {
      data: eventSchemas.blueprintPut,
      evolve: (state, { name, spec }) => {
        const version = nextVersion(state, false);
        state.blueprints.upsert({ name, spec, version, cells: state.blueprints.get(name)?.cells ?? 0 });
      },
    },
    blueprintRemoved: {
      data: eventSchemas.blueprintRemoved,
      evolve: (state, { name }) => {
        nextVersion(state, false);
        state.blueprints.delete(name);
      },
    },
    cellPut: {
      data: eventSchemas.cellPut,
      evolve: (state, { name, spec }) => {
        const version = nextVersion(state, false);
        const before = state.cells.get(name);
        if (before !== undefined && !before.removed) countCell(state, before, -1);
        const after = cellAfterPut(before, { name, spec }, version);
        state.cells.upsert(after);
        countCell(state, after, 1);
      },
    },
    cellAddressed: {
      data: eventSchemas.cellAddressed,
      evolve: (state, { name, address }) => {
        const version = nextVersion(state, true);
        state.cells.update(name, { address, version });
      },
    },
    cellRemoved: {
      data: eventSchemas.cellRemoved,
      evolve: (state, { name }) => {
        const version = nextVersion(state, true);
        const { address: _forgotten, ...before } = cellRow(state, name);
        countCell(state, before, -1);
        state.cells.upsert({ ...before, removed: true, version });
      },
    },
    tenantPlaced: {
      data: eventSchemas.tenantPlaced,
      evolve: (state, { name, spec, cell, epoch }) => {
        const version = nextVersion(state, true);
        const former = state.assignments.get(name);
        assert(epoch > (former?.epoch ?? 0), 'an epoch that does not grow would let two cells own a tenant');
        assert(former === undefined || former.cell === cell, 'a tenant that comes back returns to its data');
        const row = cellRow(state, cell);
        const blueprint = state.blueprints.get(row.spec.blueprint);
        assert(blueprint !== undefined, 'a cell is stamped from a blueprint that exists');
        state.cells.update(cell, {
          users: row.users + spec.users,
          tenants: row.tenants + 1,
          resting: row.resting + (former === undefined ? 1 : 0),
          dataJurisdiction: row.dataJurisdiction ?? spec.jurisdiction,
          dataKind: row.dataKind ?? dataKindOf(blueprint.spec),
        });
        state.tenants.upsert({ name, spec, version, removed: false });
        state.assignments.upsert({ tenant: name, cell, epoch, version, placedVersion: version });
      },
    },
    tenantChanged: {
      data: eventSchemas.tenantChanged,
      evolve: (state, { name, spec }) => {
        const version = nextVersion(state, false);
        const before = state.tenants.get(name);
        const cell = state.assignments.get(name)?.cell;
        assert(before !== undefined && cell !== undefined, 'only a tenant that was placed can change');
        const row = cellRow(state, cell);
        state.cells.update(cell, { users: row.users + spec.users - before.spec.users });
        state.tenants.upsert({ name, spec, version, removed: false });
      },
    },
    tenantRemoved: {
      data: eventSchemas.tenantRemoved,
      evolve: (state, { name, epoch }) => {
        const version = nextVersion(state, true);
        const before = state.tenants.get(name);
        const assignment = state.assignments.get(name);
        assert(before !== undefined && assignment !== undefined, 'only a tenant that was placed can be removed');
        assert(epoch > assignment.epoch, 'an epoch that does not grow would let a removed tenant be served');
        const row = cellRow(state, assignment.cell);
        state.cells.update(assignment.cell, { users: row.users - before.spec.users, tenants: row.tenants - 1 });
        state.tenants.upsert({ ...before, version, removed: true });
        state.assignments.upsert({ ...assignment, epoch, version });
      },
    },
  },
  commands: {
    apply: { input: ApplyInputSchema, decide: (state, input) => decideApply(state, input) },
    remove: { input: RemoveInputSchema, decide: (state, input) => decideRemove(state, input) },
    noteCellAddress: {
      input: NoteCellAddressInputSchema,
      decide: (state, { cell, address }) => {
        const row = state.cells.get(cell);
        if (row === undefined || row.removed || row.address === address) return [];
        return [{ type: 'cellAddressed', data: { name: cell, address } }];
      },
    },
  },
  queries: {
    /** What `apply` would come to now: its events, or its refusal. Nothing is recorded. */
    preview: { input: ApplyInputSchema, answer: (state, input) => decideApply(state, input) },
    facts: {
      input: Type.Object({}),
      answer: (state) =>
        state.facts.get('fleet') ?? { key: 'fleet', generation: firstGeneration, version: 0, routingVersion: 0 },
    },
  },
  invariants: {
    capacityIsHeld: (state, changed) =>
      changed.every(({ table, key }) => {
        const cell = table === 'cells' ? state.cells.get(key) : undefined;
        return cell === undefined || (cell.users <= cell.spec.capacity.users && (!cell.removed || cell.tenants === 0));
      }),
    dataRestsInItsJurisdiction: (state, changed) =>
      changed.every(({ table, key }) => {
        const cell = table === 'cells' ? state.cells.get(key) : undefined;
        return (
          cell?.dataJurisdiction === undefined || cell.resting === 0 || cell.dataJurisdiction === cell.spec.jurisdiction
        );
      }),
    tenantsLiveWherePermitted: (state, changed) =>
      changed.every(({ table, key }) => {
        const tenant = table === 'tenants' || table === 'assignments' ? state.tenants.get(key) : undefined;
        if (tenant === undefined || tenant.removed) return true;
        const cell = state.cells.get(state.assignments.get(key)?.cell ?? '');
        return cell !== undefined && !cell.removed && cell.spec.jurisdiction === tenant.spec.jurisdiction;
      }),
  },
});

/** What removing a resource comes to (rules R1 to R4). O(1). */
function decideRemove(state: FleetState, { kind, name, ifVersion }: RemoveInput): readonly FleetEvent[] | Refusal {
  const found = versionOf(state, kind, name);
  if (ifVersion !== undefined && ifVersion !== found) {
    return refuse('version-conflict', versionConflict(kind, name, ifVersion, found), 'version');
  }
  if (found === 0)
    return refuse('resource-unknown', `${kind} ${name} does not exist, so it cannot be removed.`, 'name');
  if (kind === 'Blueprint') {
    const row = state.blueprints.get(name);
    assert(row !== undefined, 'what has a version exists');
    if (row.cells > 0) {
      return refuse(
        'still-in-use',
        `Blueprint ${name} is what ${row.cells === 1 ? '1 cell is' : `${row.cells} cells are`} stamped from. Remove ${row.cells === 1 ? 'that cell' : 'those cells'} first.`,
        'name',
      );
    }
    return [{ type: 'blueprintRemoved', data: { name: row.name } }];
  }
  if (kind === 'Cell') {
    const row = state.cells.get(name);
    assert(row !== undefined, 'what has a version exists');
    if (row.tenants > 0) {
      return refuse(
        'still-in-use',
        `Cell ${name} is where ${row.tenants === 1 ? '1 tenant lives' : `${row.tenants} tenants live`}. Remove ${row.tenants === 1 ? 'that tenant' : 'those tenants'} first.`,
        'name',
      );
    }
    return [{ type: 'cellRemoved', data: { name: row.name } }];
  }
  const assignment = state.assignments.get(name);
  assert(assignment !== undefined, 'a tenant that exists is assigned');
  return [{ type: 'tenantRemoved', data: { name: assignment.tenant, epoch: assignment.epoch + 1 } }];
}

function refuse(code: ErrorCode, message: string, field: string): Refusal {
  return { refused: { code, message, field } };
}

/** Counts the event: its number is the version of what it changes. */
function nextVersion(state: Writer, routes: boolean): number {
  const facts = state.facts.get('fleet');
  const version = (facts?.version ?? 0) + 1;
  state.facts.upsert({
    key: 'fleet',
    generation: facts?.generation ?? firstGeneration,
    version,
    routingVersion: routes ? version : (facts?.routingVersion ?? 0),
  });
  return version;
}

function cellRow(state: Writer, name: CellName): CellRow {
  const row = state.cells.get(name);
  assert(row !== undefined, 'an event names a cell that exists');
  return row;
}

function countCell(state: Writer, { spec }: CellRow, by: number): void {
  const blueprint = state.blueprints.get(spec.blueprint);
  assert(blueprint !== undefined, 'a cell is stamped from a blueprint that exists');
  state.blueprints.update(spec.blueprint, { cells: blueprint.cells + by });
}
