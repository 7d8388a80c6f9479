import { fault } from '../../protocol/errors.ts';
import type { Fault } from '../../kernel/fault.ts';
import { unreachable } from '../../kernel/assert.ts';
import type { CellName, Epoch, FleetId, TenantName } from '../../protocol/names.ts';
import type { RoutedCell, RoutedTenant, RoutingFrame } from '../../protocol/routing.ts';
import { TableSum } from '../../protocol/table-hash.ts';

/** Where a table stands. Order: generation first, then version. */
export interface TablePosition {
  readonly generation: number;
  readonly version: number;
}

/** What the table says of a tenant. `address` is undefined if its cell has none (yet, or any more). */
export type Route =
  | { readonly kind: 'assigned'; readonly cell: CellName; readonly epoch: Epoch; readonly address: string | undefined }
  | { readonly kind: 'removed'; readonly epoch: Epoch }
  | { readonly kind: 'unknown' };

/** The narrow side of the table, for the path of a request: plain calls, O(1). */
export interface RouteLookup {
  lookup(tenant: TenantName): Route;
  addressOf(cell: CellName): string | undefined;
}

/** Why a frame was refused. A refused frame changes nothing. */
export type FrameRefusal =
  | 'other-fleet'
  | 'scoped'
  | 'older'
  | 'gap'
  | 'repeated-name'
  | 'lost-entries'
  | 'epoch-back'
  | 'hash-mismatch';

export type Applied =
  | { readonly kind: 'applied' }
  /** The table already holds what the frame says. */
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'refused'; readonly reason: FrameRefusal; readonly fault: Fault };

/** How many names a refusal lists before it only counts. */
const namedMax = 3;

/** The routing table of one fleet, built from frames and from nothing else. `docs/routing.md` numbers its rules. */
export class RoutingTable implements RouteLookup {
  readonly #fleet: FleetId;
  readonly #cells = new Map<CellName, RoutedCell>();
  readonly #tenants = new Map<TenantName, RoutedTenant>();
  readonly #sum = new TableSum();
  #position: TablePosition | undefined;
  #tenantCount = 0;
  #cellCount = 0;

  constructor(fleet: FleetId) {
    this.#fleet = fleet;
  }

  /** Undefined until the first frame: a table that is not loaded is not an empty one. */
  get position(): TablePosition | undefined {
    return this.#position;
  }
  get hash(): string {
    return this.#sum.text;
  }
  /** Tenants and cells that are there, without tombstones. */
  get tenantCount(): number {
    return this.#tenantCount;
  }
  get cellCount(): number {
    return this.#cellCount;
  }

  lookup(tenant: TenantName): Route {
    const entry = this.#tenants.get(tenant);
    if (entry === undefined) return { kind: 'unknown' };
    if ('removed' in entry) return { kind: 'removed', epoch: entry.epoch };
    return { kind: 'assigned', cell: entry.cell, epoch: entry.epoch, address: this.addressOf(entry.cell) };
  }

  addressOf(cell: CellName): string | undefined {
    const entry = this.#cells.get(cell);
    return entry === undefined || 'removed' in entry ? undefined : entry.address;
  }

  /** Applies a whole frame or nothing of it. O(entries of the frame); a snapshot also costs O(table). */
  apply(frame: RoutingFrame): Applied {
    if (frame.fleet !== this.#fleet) {
      return refused('other-fleet', `it belongs to fleet ${frame.fleet}, this router to ${this.#fleet}`);
    }
    if (frame.scope !== undefined) {
      return refused('scoped', `it holds the tenants of cell ${frame.scope.cell} only, a router needs the whole table`);
    }
    const order = this.#checkOrder(frame);
    if (order !== undefined) return order;
    const names = this.#checkNames(frame) ?? this.#checkEpochs(frame);
    if (names !== undefined) return names;

    this.#addToSum(frame);
    if (this.#sum.text !== frame.hash) {
      const computed = this.#sum.text;
      this.#takeFromSum(frame);
      return refused(
        'hash-mismatch',
        `after it the table would have hash ${computed}, but the frame says ${frame.hash}`,
      );
    }
    for (const cell of frame.cells) {
      this.#cellCount += presence(cell) - presence(this.#cells.get(cell.name));
      this.#cells.set(cell.name, cell);
    }
    for (const tenant of frame.tenants) {
      this.#tenantCount += presence(tenant) - presence(this.#tenants.get(tenant.tenant));
      this.#tenants.set(tenant.tenant, tenant);
    }
    this.#position = { generation: frame.generation, version: frame.version };
    return { kind: 'applied' };
  }

  #checkOrder(frame: RoutingFrame): Applied | undefined {
    const held = this.#position;
    const { generation, version } = frame;
    if (held === undefined) {
      if (frame.kind === 'snapshot') return undefined;
      return refused('gap', `it changes version ${frame.previous}, but no snapshot came before it`);
    }
    const order = generation - held.generation || version - held.version;
    const standing = `the table is at ${textOfPosition(held)}`;
    if (order === 0) {
      if (frame.hash === this.hash) return { kind: 'unchanged' };
      return refused('hash-mismatch', `${standing} too, but with hash ${this.hash}, and the frame says ${frame.hash}`);
    }
    switch (frame.kind) {
      case 'snapshot':
        return order < 0 ? refused('older', `it is of ${textOfPosition(frame)}, and ${standing}`) : undefined;
      case 'change':
        if (order < 0) {
          // What a resumed stream repeats has been applied; of another generation nothing is known.
          if (generation === held.generation) return { kind: 'unchanged' };
          return refused('older', `it is of ${textOfPosition(frame)}, and ${standing}`);
        }
        if (generation !== held.generation || frame.previous !== held.version) {
          return refused('gap', `it changes ${generation}.${frame.previous}, but ${standing}`);
        }
        return undefined;
      default:
        return unreachable(frame, 'a frame is a snapshot or a change');
    }
  }

  #checkNames(frame: RoutingFrame): Applied | undefined {
    const cells = new Set(frame.cells.map((cell) => cell.name));
    const tenants = new Set(frame.tenants.map((tenant) => tenant.tenant));
    if (cells.size < frame.cells.length || tenants.size < frame.tenants.length) {
      return refused('repeated-name', 'it names a cell or a tenant twice');
    }
    if (frame.kind === 'change') return undefined;
    const lost: string[] = [];
    for (const name of this.#cells.keys()) if (!cells.has(name)) lost.push(`cell ${name}`);
    for (const name of this.#tenants.keys()) if (!tenants.has(name)) lost.push(`tenant ${name}`);
    if (lost.length === 0) return undefined;
    const more = lost.length > namedMax ? ` and ${lost.length - namedMax} more` : '';
    return refused(
      'lost-entries',
      `it leaves out ${lost.slice(0, namedMax).join(', ')}${more}; only a tombstone removes`,
    );
  }

  #checkEpochs(frame: RoutingFrame): Applied | undefined {
    for (const next of frame.tenants) {
      const held = this.#tenants.get(next.tenant);
      if (held === undefined || next.epoch > held.epoch) continue;
      if (next.epoch === held.epoch && cellOf(next) === cellOf(held)) continue;
      return refused(
        'epoch-back',
        `tenant ${next.tenant} would go from epoch ${held.epoch} (${cellOf(held) ?? 'removed'}) to epoch ${next.epoch} (${cellOf(next) ?? 'removed'})`,
      );
    }
    return undefined;
  }

  #addToSum(frame: RoutingFrame): void {
    for (const cell of frame.cells) this.#sum.replaceCell(this.#cells.get(cell.name), cell);
    for (const tenant of frame.tenants) this.#sum.replaceTenant(this.#tenants.get(tenant.tenant), tenant);
  }

  #takeFromSum(frame: RoutingFrame): void {
    for (const cell of frame.cells) this.#sum.replaceCell(cell, this.#cells.get(cell.name));
    for (const tenant of frame.tenants) this.#sum.replaceTenant(tenant, this.#tenants.get(tenant.tenant));
  }
}

/** `GENERATION.VERSION`: the identifier of a frame in a stream. */
export function textOfPosition(position: TablePosition): string {
  return `${position.generation}.${position.version}`;
}

function presence(entry: RoutedCell | RoutedTenant | undefined): 0 | 1 {
  return entry === undefined || 'removed' in entry ? 0 : 1;
}

function cellOf(entry: RoutedTenant): CellName | undefined {
  return 'removed' in entry ? undefined : entry.cell;
}

function refused(reason: FrameRefusal, why: string): Applied {
  return { kind: 'refused', reason, fault: fault('frame-refused', `A routing frame was refused: ${why}.`) };
}
