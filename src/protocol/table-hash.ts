import { SetHash } from '../kernel/hash.ts';
import type { RoutedCell, RoutedTenant } from './routing.ts';

/** What a frame, or a whole table, says: at most one entry for each name counts, the last. */
export interface TableEntries {
  readonly cells: readonly RoutedCell[];
  readonly tenants: readonly RoutedTenant[];
}

/**
 * The hash of a routing table for whoever already keeps the entries elsewhere: the sum of the
 * hashes of its entries, tombstones included, so it depends on what the table says and never on
 * the way it came about. Each replacement costs O(1).
 *
 * It does not remember entries: `before` must be what was last put in for the same name.
 */
export class TableSum {
  readonly #sum = new SetHash();

  replaceCell(before: RoutedCell | undefined, after: RoutedCell | undefined): void {
    if (before !== undefined) this.#sum.remove(textOfCell(before));
    if (after !== undefined) this.#sum.add(textOfCell(after));
  }

  replaceTenant(before: RoutedTenant | undefined, after: RoutedTenant | undefined): void {
    if (before !== undefined) this.#sum.remove(textOfTenant(before));
    if (after !== undefined) this.#sum.add(textOfTenant(after));
  }

  get text(): string {
    return this.#sum.text;
  }
}

/**
 * The hash of a routing table that control plane, routers and cells compute alike; `hash` of a
 * frame is this after the frame. Remembers the entries, so that frames can be applied in turn;
 * it does not judge them. Memory grows with the number of names ever seen, tombstones included.
 */
export class TableHash {
  readonly #cells = new Map<string, RoutedCell>();
  readonly #tenants = new Map<string, RoutedTenant>();
  readonly #sum = new TableSum();

  /** Puts entries in, each in place of the one with the same name. O(entries). */
  apply(entries: TableEntries): void {
    for (const cell of entries.cells) {
      this.#sum.replaceCell(this.#cells.get(cell.name), cell);
      this.#cells.set(cell.name, cell);
    }
    for (const tenant of entries.tenants) {
      this.#sum.replaceTenant(this.#tenants.get(tenant.tenant), tenant);
      this.#tenants.set(tenant.tenant, tenant);
    }
  }

  /** `c1:` and 32 hexadecimal digits; all zero for the empty table. */
  get text(): string {
    return this.#sum.text;
  }
}

/** The hash of a whole table in one call. O(entries). */
export function hashTable(entries: TableEntries): string {
  const hash = new TableHash();
  hash.apply(entries);
  return hash.text;
}

// Names contain no bar, and an address comes last: no two different entries have the same text.
function textOfCell(cell: RoutedCell): string {
  return 'removed' in cell ? `cell-removed|${cell.name}` : `cell|${cell.name}|${cell.address}`;
}

function textOfTenant(tenant: RoutedTenant): string {
  return 'removed' in tenant
    ? `tenant-removed|${tenant.tenant}|${tenant.epoch}`
    : `tenant|${tenant.tenant}|${tenant.cell}|${tenant.epoch}`;
}
