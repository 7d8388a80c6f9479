import { assert, unreachable } from '../../kernel/assert.ts';
import type { CellName, FleetId, TenantName } from '../../protocol/names.ts';
import type { RoutedCell, RoutedTenant, RoutingChange, RoutingFrame, RoutingSnapshot } from '../../protocol/routing.ts';
import { TableSum } from '../../protocol/table-hash.ts';
import type { FleetRecord, NumberedFleetEvent } from './record.ts';

/**
 * The routing table and its frames, derived from the records of the fleet machine (rules T1 to T6
 * of `docs/control-plane.md`). The same records give the same frames, so a restarted control plane
 * goes on where it was, and a follower resumes as if nothing had happened.
 */

/** Records whose changes are kept for followers that resume; an older position gets a snapshot. */
export const recentRecordsMax = 1_024;
/** Entries in those changes: a few large batches push out many small ones. */
export const recentEntriesMax = 100_000;

/** Where a follower stands. */
export interface Position {
  readonly generation: number;
  readonly version: number;
}

/** What one record changed: for the whole table, and for each cell that it concerns. */
export interface RoutingStep {
  readonly whole: RoutingChange;
  readonly scoped: ReadonlyMap<CellName, RoutingChange>;
}

interface Delta {
  readonly cells: Map<CellName, RoutedCell>;
  readonly tenants: Map<TenantName, RoutedTenant>;
}

export class RoutingProjection {
  readonly #whole: Table;
  readonly #scopes = new Map<CellName, Table>();
  /** Where each tenant lives, or its data rests. */
  readonly #homes = new Map<TenantName, CellName>();
  readonly #recent: RoutingStep[] = [];
  #recentEntries = 0;
  readonly #fleet: FleetId;
  readonly generation: number;

  constructor(fleet: FleetId, generation: number) {
    this.#fleet = fleet;
    this.generation = generation;
    this.#whole = new Table(fleet, generation, undefined);
  }

  /** Version of the last event that changed a route. */
  get version(): number {
    return this.#whole.version;
  }

  /** Takes the next record; undefined if it changes no route. O(events), whatever the size of the table. */
  apply(record: FleetRecord): RoutingStep | undefined {
    const delta = emptyDelta();
    const scoped = new Map<CellName, Delta>();
    let version = 0;
    for (const event of record.events) {
      if (this.#applyEvent(event, delta, scoped)) version = event.seq;
    }
    if (version === 0) return undefined;
    const step: RoutingStep = {
      whole: this.#whole.change(version, delta),
      scoped: new Map([...scoped].map(([cell, part]) => [cell, this.#scope(cell).change(version, part)])),
    };
    this.#remember(step);
    return step;
  }

  /** The table as it stands: the same object until it changes, so that it is signed once. O(table) when it changed. */
  snapshot(scope?: CellName): RoutingSnapshot {
    return this.#table(scope).snapshot();
  }

  /** What a follower at a position lacks: nothing, the changes since, or a snapshot if they are not kept any more. */
  since(scope: CellName | undefined, position: Position | undefined): readonly RoutingFrame[] {
    const table = this.#table(scope);
    if (position === undefined || position.generation !== this.generation) return [table.snapshot()];
    if (position.version === table.version) return [];
    const changes = this.#recent
      .map((step) => (scope === undefined ? step.whole : step.scoped.get(scope)))
      .filter((change) => change !== undefined);
    const next = changes.findIndex(({ previous }) => previous === position.version);
    return next < 0 ? [table.snapshot()] : changes.slice(next);
  }

  #applyEvent(event: NumberedFleetEvent, delta: Delta, scoped: Map<CellName, Delta>): boolean {
    switch (event.type) {
      case 'cellAddressed': {
        const { name, address } = event.data;
        routeCell({ name, address }, delta, scoped);
        return true;
      }
      case 'cellRemoved':
        routeCell({ name: event.data.name, removed: true }, delta, scoped);
        return true;
      case 'tenantPlaced': {
        const { name, cell, epoch } = event.data;
        const former = this.#homes.get(name);
        this.#homes.set(name, cell);
        routeTenant({ tenant: name, cell, epoch }, [cell, former], delta, scoped);
        return true;
      }
      case 'tenantRemoved': {
        const { name, epoch } = event.data;
        routeTenant({ tenant: name, epoch, removed: true }, [this.#homes.get(name)], delta, scoped);
        return true;
      }
      case 'blueprintPut':
      case 'blueprintRemoved':
      case 'cellPut':
      case 'tenantChanged':
        return false;
      default:
        return unreachable(event, 'every event is one of the fleet machine');
    }
  }

  #table(scope: CellName | undefined): Table {
    return scope === undefined ? this.#whole : this.#scope(scope);
  }

  #scope(cell: CellName): Table {
    let table = this.#scopes.get(cell);
    if (table === undefined) {
      table = new Table(this.#fleet, this.generation, cell);
      this.#scopes.set(cell, table);
    }
    return table;
  }

  #remember(step: RoutingStep): void {
    this.#recent.push(step);
    this.#recentEntries += entriesOf(step);
    while (
      this.#recent.length > recentRecordsMax ||
      (this.#recentEntries > recentEntriesMax && this.#recent.length > 1)
    ) {
      const oldest = this.#recent.shift();
      assert(oldest !== undefined, 'a list that is too long is not empty');
      this.#recentEntries -= entriesOf(oldest);
    }
  }
}

/** One table with its sum: the whole one, or what concerns one cell. */
class Table {
  version = 0;
  readonly #cells = new Map<CellName, RoutedCell>();
  readonly #tenants = new Map<TenantName, RoutedTenant>();
  readonly #sum = new TableSum();
  readonly #head: Pick<RoutingSnapshot, 'fleet' | 'generation' | 'scope'>;
  #snapshot: RoutingSnapshot | undefined;

  constructor(fleet: FleetId, generation: number, scope: CellName | undefined) {
    this.#head = { fleet, generation, ...(scope === undefined ? {} : { scope: { cell: scope } }) };
  }

  change(version: number, delta: Delta): RoutingChange {
    assert(version > this.version, 'records come in the order of the log');
    const previous = this.version;
    this.version = version;
    this.#snapshot = undefined;
    for (const [name, cell] of delta.cells) {
      this.#sum.replaceCell(this.#cells.get(name), cell);
      this.#cells.set(name, cell);
    }
    for (const [name, tenant] of delta.tenants) {
      this.#sum.replaceTenant(this.#tenants.get(name), tenant);
      this.#tenants.set(name, tenant);
    }
    return {
      kind: 'change',
      ...this.#head,
      previous,
      version,
      cells: [...delta.cells.values()],
      tenants: [...delta.tenants.values()],
      hash: this.#sum.text,
    };
  }

  snapshot(): RoutingSnapshot {
    this.#snapshot ??= {
      kind: 'snapshot',
      ...this.#head,
      version: this.version,
      cells: [...this.#cells.values()],
      tenants: [...this.#tenants.values()],
      hash: this.#sum.text,
    };
    return this.#snapshot;
  }
}

function routeCell(cell: RoutedCell, delta: Delta, scoped: Map<CellName, Delta>): void {
  delta.cells.set(cell.name, cell);
  deltaOf(cell.name, scoped).cells.set(cell.name, cell);
}

/** A change of home concerns both: the cell that gets the tenant, and the one that must learn that it lost it. */
function routeTenant(
  entry: RoutedTenant,
  concerned: readonly (CellName | undefined)[],
  delta: Delta,
  scoped: Map<CellName, Delta>,
): void {
  delta.tenants.set(entry.tenant, entry);
  for (const cell of concerned) {
    if (cell !== undefined) deltaOf(cell, scoped).tenants.set(entry.tenant, entry);
  }
}

function deltaOf(cell: CellName, scoped: Map<CellName, Delta>): Delta {
  let delta = scoped.get(cell);
  if (delta === undefined) {
    delta = emptyDelta();
    scoped.set(cell, delta);
  }
  return delta;
}

function emptyDelta(): Delta {
  return { cells: new Map(), tenants: new Map() };
}

function entriesOf({ whole }: RoutingStep): number {
  return whole.cells.length + whole.tenants.length;
}
