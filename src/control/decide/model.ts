import { assert, unreachable } from '../../kernel/assert.ts';
import type { CellDesired, HostDesired } from '../../protocol/desired.ts';
import type { BlueprintName, CellName, FleetId, TenantName } from '../../protocol/names.ts';
import type { BlueprintSpec, CellSpec, Kind, TenantSpec } from '../../protocol/resources.ts';
import type { FleetRecord, NumberedFleetEvent } from './record.ts';
import { RoutingProjection, type RoutingStep } from './routing.ts';
import { firstGeneration } from './tables.ts';

/**
 * What the API and the streams read: everything that follows from the committed records, and
 * nothing else (rules T1 and W1). It holds only what is durable, so whatever it shows may leave.
 */

export interface BlueprintView {
  readonly name: BlueprintName;
  readonly spec: BlueprintSpec;
  readonly version: number;
  readonly cells: number;
}
export interface CellView {
  readonly name: CellName;
  readonly spec: CellSpec;
  readonly version: number;
  /** Version at which the spec was last put; `version` also grows with the address. */
  readonly specVersion: number;
  readonly removed: boolean;
  readonly address: string | undefined;
  readonly users: number;
  readonly tenants: number;
}
export interface TenantView {
  readonly name: TenantName;
  readonly spec: TenantSpec;
  readonly version: number;
  readonly removed: boolean;
  readonly cell: CellName;
  readonly epoch: number;
  /** Version at which it was assigned or removed: a table of this version or later knows of it. */
  readonly assignedVersion: number;
  /** Version of the event that holds the explanation. */
  readonly placedVersion: number;
  /** When it was placed there, in milliseconds since 1970. */
  readonly placedMs: number;
}

export interface ResourceChange {
  readonly version: number;
  readonly kind: Kind;
  readonly name: string;
  readonly removed: boolean;
}

/** What one record changed. */
export interface ModelStep {
  readonly version: number;
  readonly resources: readonly ResourceChange[];
  readonly routing: RoutingStep | undefined;
  /** Cells whose desired state changed. */
  readonly desiredCells: ReadonlySet<CellName>;
  /** Whether the set of cells changed, which is what hosts want to know. */
  readonly cellSet: boolean;
  /** Cells with other tenants or users than before. */
  readonly usage: ReadonlySet<CellName>;
}

/** Changes of resources that are kept for watchers that resume. */
export const recentChangesMax = 10_000;

interface Pending {
  readonly resources: ResourceChange[];
  readonly desiredCells: Set<CellName>;
  readonly blueprints: Set<BlueprintName>;
  readonly usage: Set<CellName>;
  cellSet: boolean;
}

export class FleetModel {
  readonly routing: RoutingProjection;
  readonly blueprints = new Map<string, BlueprintView>();
  /** Tombstones included. */
  readonly cells = new Map<string, CellView>();
  /** Tombstones included. */
  readonly tenants = new Map<string, TenantView>();
  readonly #fleet: FleetId;
  #version = 0;
  #cellSetVersion = 0;
  /** In the order of versions; the first `#recentStart` are forgotten. */
  #recent: ResourceChange[] = [];
  /** Version up to which changes are forgotten. */
  #forgotten = 0;

  constructor(fleet: FleetId) {
    this.#fleet = fleet;
    this.routing = new RoutingProjection(fleet, firstGeneration);
  }

  get version(): number {
    return this.#version;
  }

  get generation(): number {
    return this.routing.generation;
  }

  /** Takes the next committed record. O(events), and O(cells) if it changes a blueprint. */
  apply(record: FleetRecord): ModelStep {
    const pending: Pending = {
      resources: [],
      desiredCells: new Set(),
      blueprints: new Set(),
      usage: new Set(),
      cellSet: false,
    };
    for (const event of record.events) {
      assert(event.seq === this.#version + 1, 'records come in the order of the log, and none is missing');
      this.#version = event.seq;
      this.#applyEvent(event, record.now, pending);
    }
    if (pending.blueprints.size > 0) {
      for (const cell of this.cells.values()) {
        if (!cell.removed && pending.blueprints.has(cell.spec.blueprint)) pending.desiredCells.add(cell.name);
      }
    }
    if (pending.cellSet) this.#cellSetVersion = this.#version;
    this.#remember(pending.resources);
    const { resources, desiredCells, usage, cellSet } = pending;
    return { version: this.#version, resources, desiredCells, usage, cellSet, routing: this.routing.apply(record) };
  }

  /** The changes after a version, oldest first; undefined if they are not all kept any more, or it is of the future. */
  changesAfter(version: number): readonly ResourceChange[] | undefined {
    if (version < this.#forgotten || version > this.#version) return undefined;
    return this.#recent.filter((change) => change.version > version);
  }

  /** What a cell is to be; undefined for a cell that does not exist or was removed. */
  cellDesired(name: string): CellDesired | undefined {
    const cell = this.cells.get(name);
    const blueprint = cell === undefined ? undefined : this.blueprints.get(cell.spec.blueprint);
    if (cell === undefined || cell.removed || blueprint === undefined) return undefined;
    return {
      kind: 'cell-desired',
      fleet: this.#fleet,
      generation: this.generation,
      version: Math.max(cell.specVersion, blueprint.version),
      cell: cell.name,
      spec: cell.spec,
      blueprint: { name: blueprint.name, spec: blueprint.spec, version: blueprint.version },
    };
  }

  /** Which cells a host runs: all of them, for as long as a fleet has one host. */
  hostDesired(host: string): HostDesired {
    return {
      kind: 'host-desired',
      fleet: this.#fleet,
      generation: this.generation,
      version: this.#cellSetVersion,
      host,
      cells: [...this.cells.values()].map(({ name, removed }) => ({ name, state: removed ? 'retired' : 'wanted' })),
    };
  }

  #applyEvent(event: NumberedFleetEvent, nowMs: number, pending: Pending): void {
    const { seq } = event;
    switch (event.type) {
      case 'blueprintPut': {
        const { name, spec } = event.data;
        this.blueprints.set(name, { name, spec, version: seq, cells: this.blueprints.get(name)?.cells ?? 0 });
        pending.blueprints.add(name);
        pending.resources.push({ version: seq, kind: 'Blueprint', name, removed: false });
        return;
      }
      case 'blueprintRemoved': {
        const { name } = event.data;
        this.blueprints.delete(name);
        pending.resources.push({ version: seq, kind: 'Blueprint', name, removed: true });
        return;
      }
      case 'cellPut': {
        const { name, spec } = event.data;
        const before = this.cells.get(name);
        if (before !== undefined && !before.removed) this.#countCell(before, -1);
        const after: CellView = {
          name,
          spec,
          version: seq,
          specVersion: seq,
          removed: false,
          address: before?.removed === false ? before.address : undefined,
          users: before?.users ?? 0,
          tenants: before?.tenants ?? 0,
        };
        this.cells.set(name, after);
        this.#countCell(after, 1);
        pending.desiredCells.add(name);
        pending.cellSet ||= before === undefined || before.removed;
        pending.resources.push({ version: seq, kind: 'Cell', name, removed: false });
        return;
      }
      case 'cellAddressed': {
        const { name, address } = event.data;
        this.cells.set(name, { ...this.#cell(name), address, version: seq });
        pending.resources.push({ version: seq, kind: 'Cell', name, removed: false });
        return;
      }
      case 'cellRemoved': {
        const { name } = event.data;
        const before = this.#cell(name);
        this.#countCell(before, -1);
        this.cells.set(name, { ...before, address: undefined, removed: true, version: seq });
        pending.desiredCells.delete(name);
        pending.cellSet = true;
        pending.resources.push({ version: seq, kind: 'Cell', name, removed: true });
        return;
      }
      case 'tenantPlaced': {
        const { name, spec, cell, epoch } = event.data;
        const versions = { version: seq, assignedVersion: seq, placedVersion: seq };
        this.tenants.set(name, { name, spec, removed: false, cell, epoch, placedMs: nowMs, ...versions });
        this.#countTenant(cell, 1, spec.users, pending);
        pending.resources.push({ version: seq, kind: 'Tenant', name, removed: false });
        return;
      }
      case 'tenantChanged': {
        const { name, spec } = event.data;
        const before = this.#tenant(name);
        this.tenants.set(name, { ...before, spec, version: seq });
        this.#countTenant(before.cell, 0, spec.users - before.spec.users, pending);
        pending.resources.push({ version: seq, kind: 'Tenant', name, removed: false });
        return;
      }
      case 'tenantRemoved': {
        const { name, epoch } = event.data;
        const before = this.#tenant(name);
        this.tenants.set(name, { ...before, removed: true, epoch, version: seq, assignedVersion: seq });
        this.#countTenant(before.cell, -1, -before.spec.users, pending);
        pending.resources.push({ version: seq, kind: 'Tenant', name, removed: true });
        return;
      }
      default:
        unreachable(event, 'every event is one of the fleet machine');
    }
  }

  #cell(name: string): CellView {
    const cell = this.cells.get(name);
    assert(cell !== undefined, 'an event names a cell that exists');
    return cell;
  }

  #tenant(name: string): TenantView {
    const tenant = this.tenants.get(name);
    assert(tenant !== undefined, 'an event names a tenant that exists');
    return tenant;
  }

  #countCell({ spec }: CellView, by: number): void {
    const blueprint = this.blueprints.get(spec.blueprint);
    assert(blueprint !== undefined, 'a cell is stamped from a blueprint that exists');
    this.blueprints.set(spec.blueprint, { ...blueprint, cells: blueprint.cells + by });
  }

  #countTenant(name: CellName, tenants: number, users: number, pending: Pending): void {
    const cell = this.#cell(name);
    this.cells.set(name, { ...cell, tenants: cell.tenants + tenants, users: cell.users + users });
    pending.usage.add(name);
  }

  #remember(changes: readonly ResourceChange[]): void {
    for (const change of changes) this.#recent.push(change);
    // Twice the bound before cutting to it, so that forgetting costs O(1) a change.
    if (this.#recent.length <= 2 * recentChangesMax) return;
    const cut = this.#recent.length - recentChangesMax;
    this.#forgotten = this.#recent[cut - 1]?.version ?? this.#forgotten;
    this.#recent = this.#recent.slice(cut);
  }
}
