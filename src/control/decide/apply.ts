import type { Refusal } from '../../machine/decide/definition/define.ts';
import { canonical } from '../../machine/decide/state/value.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import type { BlueprintName, CellName } from '../../protocol/names.ts';
import type { BlueprintResource, CellResource, Kind, Resource, TenantResource } from '../../protocol/resources.ts';
import { CandidatePool, rejectedText, type CandidateCell } from './placement.ts';
import {
  cellsMax,
  dataKindOf,
  tenantsMax,
  type ApplyInput,
  type CellRow,
  type FleetEvent,
  type FleetState,
} from './tables.ts';

/**
 * What applying resources comes to: all their events, or one refusal that names the item (rules A1
 * to A9 of `docs/control-plane.md`). Items may come in any order; each is judged against the state
 * with the items before it, in an order in which a file that is right as a whole is never refused
 * for the order of its parts.
 *
 * O(cells + items · log cells): tenants are looked up, never visited.
 */
export function decideApply(state: FleetState, input: ApplyInput): readonly FleetEvent[] | Refusal {
  try {
    return new Draft(state).apply(input);
  } catch (thrown) {
    if (thrown instanceof Refused) return thrown.refusal;
    throw thrown;
  }
}

/** A no, from wherever in the batch it is found. */
class Refused extends Error {
  readonly refusal: Refusal;
  constructor(code: ErrorCode, message: string, field: string) {
    super(message);
    this.refusal = { refused: { code, message, field } };
  }
}

/** Version of a resource as the outside sees it: 0 if there is none. */
export function versionOf(state: FleetState, kind: Kind, name: string): number {
  if (kind === 'Blueprint') return state.blueprints.get(name)?.version ?? 0;
  const row = kind === 'Cell' ? state.cells.get(name) : state.tenants.get(name);
  return row === undefined || row.removed ? 0 : row.version;
}

export function versionConflict(kind: Kind, name: string, wanted: number, found: number): string {
  const is = found === 0 ? 'it does not exist' : `its version is ${found}`;
  const should = wanted === 0 ? 'it was expected not to exist' : `version ${wanted} was expected`;
  return `${kind} ${name}: ${should}, but ${is}. Read it again and repeat the change on what you find.`;
}

interface Placed {
  readonly resource: Resource;
  readonly path: string;
  readonly phase: number;
}

/**
 * What gives comes before what takes: blueprints, cells that appear or grow, tenants that shrink,
 * cells that shrink, tenants that grow or come back, new tenants (large ones first, because they are
 * the hardest to place).
 */
const phases = { blueprint: 0, cellGrows: 1, tenantShrinks: 2, cellShrinks: 3, tenantGrows: 4, tenantNew: 5 } as const;

/** The state with the changes so far of one apply. */
class Draft {
  readonly #state: FleetState;
  readonly #events: FleetEvent[] = [];
  readonly #newBlueprints = new Map<BlueprintName, BlueprintResource['spec']>();
  readonly #cells = new Map<CellName, CellRow>();
  #pool: CandidatePool | undefined;
  #newCells = 0;
  #newTenants = 0;

  constructor(state: FleetState) {
    this.#state = state;
  }

  apply(input: ApplyInput): readonly FleetEvent[] {
    const paths = new Map<string, string>();
    const placed = input.items.map((resource, index): Placed => {
      const path = `items[${index}]`;
      const key = `${resource.kind}/${resource.name}`;
      const first = paths.get(key);
      if (first !== undefined) {
        throw new Refused(
          'resource-invalid',
          `${titleOf(resource)} stands twice, as ${first} and ${path}. Keep one.`,
          path,
        );
      }
      paths.set(key, path);
      return { resource, path, phase: this.#phaseOf(resource) };
    });
    for (const { kind, name, version } of input.ifVersions ?? []) {
      const found = versionOf(this.#state, kind, name);
      if (found === version) continue;
      throw new Refused(
        'version-conflict',
        versionConflict(kind, name, version, found),
        paths.get(`${kind}/${name}`) ?? name,
      );
    }
    for (const { resource, path } of placed.sort(comparePlaced)) {
      if (resource.kind === 'Blueprint') this.#putBlueprint(resource, path);
      else if (resource.kind === 'Cell') this.#putCell(resource, path);
      else this.#putTenant(resource, path);
    }
    return this.#events;
  }

  #phaseOf(resource: Resource): number {
    switch (resource.kind) {
      case 'Blueprint':
        return phases.blueprint;
      case 'Cell': {
        const row = this.#state.cells.get(resource.name);
        const shrinks = row !== undefined && resource.spec.capacity.users < row.spec.capacity.users;
        return shrinks ? phases.cellShrinks : phases.cellGrows;
      }
      case 'Tenant': {
        const row = this.#state.tenants.get(resource.name);
        if (row === undefined) return phases.tenantNew;
        return !row.removed && resource.spec.users <= row.spec.users ? phases.tenantShrinks : phases.tenantGrows;
      }
    }
  }

  #cell(name: CellName): CellRow | undefined {
    return this.#cells.get(name) ?? this.#state.cells.get(name);
  }

  /** Built at the first tenant that needs it: applying cells alone, or a small change, costs no pool. */
  #candidates(): CandidatePool {
    if (this.#pool !== undefined) return this.#pool;
    this.#pool = new CandidatePool();
    for (const row of this.#state.cells.scan()) this.#pool.set(candidateOf(this.#cells.get(row.name) ?? row));
    for (const row of this.#cells.values()) this.#pool.set(candidateOf(row));
    return this.#pool;
  }

  #setCell(row: CellRow): void {
    this.#cells.set(row.name, row);
    this.#pool?.set(candidateOf(row));
  }

  #putBlueprint({ name, spec, kind }: BlueprintResource, path: string): void {
    const row = this.#state.blueprints.get(name);
    if (row !== undefined && canonical(row.spec) === canonical(spec)) return;
    if (row !== undefined && row.cells > 0 && 'machine' in row.spec !== 'machine' in spec) {
      const was = 'machine' in row.spec ? 'a machine' : 'a workload';
      throw new Refused(
        'field-immutable',
        `${kind} ${name} is ${was} and ${row.cells} cells are stamped from it, whose data the other could not read. ` +
          'Apply a blueprint of another name, and cells that refer to it.',
        `${path}.spec`,
      );
    }
    this.#newBlueprints.set(name, spec);
    this.#events.push({ type: 'blueprintPut', data: { name, spec } });
  }

  #putCell({ name, spec }: CellResource, path: string): void {
    const row = this.#state.cells.get(name);
    if (row !== undefined && !row.removed && canonical(row.spec) === canonical(spec)) return;
    const blueprint = this.#newBlueprints.get(spec.blueprint) ?? this.#state.blueprints.get(spec.blueprint)?.spec;
    if (blueprint === undefined) {
      throw new Refused(
        'reference-missing',
        `Cell ${name} refers to blueprint ${spec.blueprint}, which does not exist. Apply the blueprint before it or in the same file.`,
        `${path}.spec.blueprint`,
      );
    }
    const current = this.#cell(name);
    if (current === undefined) {
      this.#newCells += 1;
      if (this.#state.cells.size + this.#newCells > cellsMax) {
        throw new Refused(
          'capacity-exceeded',
          `Cell ${name}: a fleet holds at most ${cellsMax} cells, removed ones included.`,
          path,
        );
      }
    } else {
      this.#checkCellChange(current, spec, path);
      this.#checkDataKind(current, blueprint, path);
    }
    this.#setCell(cellAfterPut(current, { name, spec }, 0));
    this.#events.push({ type: 'cellPut', data: { name, spec } });
  }

  #checkCellChange(row: CellRow, spec: CellResource['spec'], path: string): void {
    for (const field of ['jurisdiction', 'blueprint'] as const) {
      if (row.resting === 0 || row.spec[field] === spec[field]) continue;
      throw new Refused(
        'field-immutable',
        `Cell ${row.name} holds the data of ${restingText(row)} under ${field} ${row.spec[field]}, so it cannot change to ${spec[field]}. ` +
          `Apply a cell of another name with ${field} ${spec[field]}.`,
        `${path}.spec.${field}`,
      );
    }
    if (spec.capacity.users < row.users) {
      throw new Refused(
        'capacity-exceeded',
        `Cell ${row.name} serves ${row.users} users, so its capacity cannot be ${spec.capacity.users}. Leave it at ${row.users} or more, or remove tenants first.`,
        `${path}.spec.capacity.users`,
      );
    }
  }

  /** A7 holds for the blueprint of live cells; while a cell was removed, its blueprint may have become another. */
  #checkDataKind(row: CellRow, blueprint: BlueprintResource['spec'], path: string): void {
    const kind = dataKindOf(blueprint);
    if (row.resting === 0 || row.dataKind === undefined || row.dataKind === kind) return;
    throw new Refused(
      'field-immutable',
      `Cell ${row.name} holds the data of ${restingText(row)} that a ${row.dataKind} wrote, and blueprint ${row.spec.blueprint} is now a ${kind}, which could not read it. ` +
        `Make the blueprint a ${row.dataKind} again, or apply a cell of another name.`,
      `${path}.spec.blueprint`,
    );
  }

  #putTenant(resource: TenantResource, path: string): void {
    const row = this.#state.tenants.get(resource.name);
    if (row === undefined) this.#placeTenant(resource, path);
    else if (row.removed) this.#returnTenant(resource, path);
    else if (canonical(row.spec) !== canonical(resource.spec)) this.#changeTenant(resource, row.spec, path);
  }

  #placeTenant({ name, spec }: TenantResource, path: string): void {
    this.#newTenants += 1;
    if (this.#state.tenants.size + this.#newTenants > tenantsMax) {
      throw new Refused(
        'capacity-exceeded',
        `Tenant ${name}: a fleet holds at most ${tenantsMax} tenants, removed ones included.`,
        path,
      );
    }
    const { chosen, placement } = this.#candidates().place(spec);
    if (chosen === undefined) {
      const inJurisdiction = placement.rejectedCounts['no-room'] > 0;
      const list = rejectedText(placement);
      throw new Refused(
        'no-permitted-cell',
        `Tenant ${name} (jurisdiction ${spec.jurisdiction}, ${spec.users} users): ${placement.because}${list === '' ? '' : `. ${list}`}. ` +
          (inJurisdiction
            ? `Raise the capacity of a cell in ${spec.jurisdiction}, or apply another cell there.`
            : `Apply a cell with jurisdiction ${spec.jurisdiction}, or change the tenant's.`),
        inJurisdiction ? `${path}.spec.users` : `${path}.spec.jurisdiction`,
      );
    }
    this.#takeIn(chosen, spec, true);
    this.#events.push({ type: 'tenantPlaced', data: { name, spec, cell: chosen, epoch: 1, placement } });
  }

  /** A removed tenant's data rests in its former cell, so it may live nowhere else. */
  #returnTenant({ name, spec }: TenantResource, path: string): void {
    const former = this.#state.assignments.get(name);
    const cell = former === undefined ? undefined : this.#cell(former.cell);
    if (former === undefined || cell === undefined)
      throw new Error('a removed tenant keeps its assignment and its cell');
    const pool = new CandidatePool([candidateOf(cell)]);
    const { chosen, placement } = pool.place(spec);
    if (chosen === undefined) {
      throw new Refused(
        'no-permitted-cell',
        `Tenant ${name} was removed, and its data rests in cell ${cell.name}, to which alone it may come back; ` +
          `that cell may not host it now: ${rejectedText(placement)}. ` +
          (cell.removed
            ? `Apply cell ${cell.name} again`
            : cell.spec.jurisdiction === spec.jurisdiction
              ? `Raise the capacity of cell ${cell.name}`
              : `Give the tenant jurisdiction ${cell.spec.jurisdiction}`) +
          ', or choose another name for the tenant.',
        cell.spec.jurisdiction === spec.jurisdiction ? `${path}.spec.users` : `${path}.spec.jurisdiction`,
      );
    }
    this.#takeIn(cell.name, spec, false);
    this.#events.push({
      type: 'tenantPlaced',
      data: {
        name,
        spec,
        cell: cell.name,
        epoch: former.epoch + 1,
        placement: {
          ...placement,
          because: `its data rests in ${cell.name} from before it was removed, and ${placement.because}`,
        },
      },
    });
  }

  #changeTenant({ name, spec }: TenantResource, before: TenantResource['spec'], path: string): void {
    const assignment = this.#state.assignments.get(name);
    const cell = assignment === undefined ? undefined : this.#cell(assignment.cell);
    if (cell === undefined) throw new Error('a tenant has an assignment to a cell that exists');
    if (spec.jurisdiction !== cell.spec.jurisdiction) {
      throw new Refused(
        'needs-move',
        `Tenant ${name} lives in cell ${cell.name} of jurisdiction ${cell.spec.jurisdiction}; jurisdiction ${spec.jurisdiction} needs a cell elsewhere. ` +
          `Leave it at ${cell.spec.jurisdiction}: tenants cannot be moved yet.`,
        `${path}.spec.jurisdiction`,
      );
    }
    const growth = spec.users - before.users;
    const free = cell.spec.capacity.users - cell.users;
    if (growth > free) {
      throw new Refused(
        'needs-move',
        `Tenant ${name} grows by ${growth} users to ${spec.users}, but its cell ${cell.name} has room for ${free} more of ${cell.spec.capacity.users}. ` +
          `Raise the capacity of ${cell.name} to ${cell.users + growth} or more.`,
        `${path}.spec.users`,
      );
    }
    this.#setCell({ ...cell, users: cell.users + growth });
    this.#events.push({ type: 'tenantChanged', data: { name, spec } });
  }

  #takeIn(name: CellName, { users, jurisdiction }: TenantResource['spec'], brings: boolean): void {
    const cell = this.#cell(name);
    if (cell === undefined) throw new Error('placement chooses among cells that exist');
    this.#setCell({
      ...cell,
      users: cell.users + users,
      tenants: cell.tenants + 1,
      resting: cell.resting + (brings ? 1 : 0),
      dataJurisdiction: cell.dataJurisdiction ?? jurisdiction,
    });
  }
}

/** A cell's row after it was put: what it holds stays, and a cell that comes back has no address yet. */
export function cellAfterPut(
  before: CellRow | undefined,
  { name, spec }: Pick<CellRow, 'name' | 'spec'>,
  version: number,
): CellRow {
  if (before === undefined) return { name, spec, version, removed: false, users: 0, tenants: 0, resting: 0 };
  const { address, ...rest } = before;
  return { ...rest, spec, version, removed: false, ...(before.removed || address === undefined ? {} : { address }) };
}

function candidateOf(row: CellRow): CandidateCell {
  return {
    name: row.name,
    jurisdiction: row.spec.jurisdiction,
    capacityUsers: row.spec.capacity.users,
    usedUsers: row.users,
    removed: row.removed,
  };
}

function restingText(row: CellRow): string {
  const removed = row.resting - row.tenants;
  const live = row.tenants === 1 ? '1 tenant' : `${row.tenants} tenants`;
  if (removed === 0) return live;
  return row.tenants === 0
    ? `${removed} removed ${removed === 1 ? 'tenant' : 'tenants'}`
    : `${live} and of ${removed} removed`;
}

function titleOf(resource: Resource): string {
  return `${resource.kind} ${resource.name}`;
}

function comparePlaced(a: Placed, b: Placed): number {
  if (a.phase !== b.phase) return a.phase - b.phase;
  if (a.phase === phases.tenantNew && a.resource.kind === 'Tenant' && b.resource.kind === 'Tenant') {
    const bySize = b.resource.spec.users - a.resource.spec.users;
    if (bySize !== 0) return bySize;
  }
  return a.resource.name < b.resource.name ? -1 : a.resource.name > b.resource.name ? 1 : 0;
}
