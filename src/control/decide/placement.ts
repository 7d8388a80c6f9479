import sortedBtree from 'sorted-btree';
import { Type, type Static } from 'typebox';
import { CellNameSchema, type CellName, type Jurisdiction } from '../../protocol/names.ts';

/**
 * Where a tenant may live, and why (rules P1 to P5 of `docs/control-plane.md`). Hard rules first:
 * jurisdiction, room, not removed. Among what they leave, the cell with the largest free share of
 * its capacity; names decide a tie, so that the same fleet gives the same answer everywhere.
 */

const OrderedMap = sortedBtree.default;

/** Rejected cells that a refusal names one by one; the rest are counted. */
export const rejectedDetailMax = 20;
/** The same for a tenant that found a cell. Recorded for each tenant, so an apply of thousands stays a small record. */
export const passedOverDetailMax = 5;

const reasons = ['no-room', 'less-free', 'other-jurisdiction', 'removed'] as const;
export type RejectedReason = (typeof reasons)[number] | 'later-name';

const RejectedSchema = Type.Object({
  cell: CellNameSchema,
  reason: Type.Union([
    /** Permitted, but the tenant's users do not fit. */
    Type.Literal('no-room'),
    /** Permitted, but the chosen cell has a larger free share. */
    Type.Literal('less-free'),
    /** Permitted, and as much of it is free as of the chosen cell, which comes first by name. Counted as `less-free`. */
    Type.Literal('later-name'),
    Type.Literal('other-jurisdiction'),
    Type.Literal('removed'),
  ]),
  detail: Type.String(),
});

export const PlacementSchema = Type.Object({
  because: Type.String(),
  /** At most `rejectedDetailMax` (`passedOverDetailMax` if a cell was found); those of the tenant's jurisdiction come first. */
  rejected: Type.Array(RejectedSchema, { maxItems: rejectedDetailMax }),
  rejectedCounts: Type.Object({
    'no-room': Type.Integer({ minimum: 0 }),
    'less-free': Type.Integer({ minimum: 0 }),
    'other-jurisdiction': Type.Integer({ minimum: 0 }),
    removed: Type.Integer({ minimum: 0 }),
  }),
});
export type Rejected = Static<typeof RejectedSchema>;
export type Placement = Static<typeof PlacementSchema>;
type Counts = Placement['rejectedCounts'];

/** What placement looks at in a cell. */
export interface CandidateCell {
  readonly name: CellName;
  readonly jurisdiction: Jurisdiction;
  readonly capacityUsers: number;
  readonly usedUsers: number;
  readonly removed: boolean;
}

/** What placement looks at in a tenant. */
export interface Demand {
  readonly jurisdiction: Jurisdiction;
  readonly users: number;
}

export interface PlacementOutcome {
  /** Undefined if no cell may host the tenant. */
  readonly chosen: CellName | undefined;
  readonly placement: Placement;
}

/** The rules say largest free share first. One division of integers is exact enough, and the same on every machine. */
function compareCandidates(a: CandidateCell, b: CandidateCell): number {
  const byShare = freeShare(b) - freeShare(a);
  if (byShare !== 0) return byShare;
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

function freeUsers(cell: CandidateCell): number {
  return cell.capacityUsers - cell.usedUsers;
}

function freeShare(cell: CandidateCell): number {
  return freeUsers(cell) / cell.capacityUsers;
}

/**
 * The cells among which tenants are placed, in the order in which they would be chosen. A change or a
 * choice costs O(log cells), plus the cells that rank higher but have no room; tenants are never visited.
 */
export class CandidatePool {
  readonly #byName = new Map<CellName, CandidateCell>();
  readonly #ranked = new Map<Jurisdiction, sortedBtree.default<CandidateCell, undefined>>();
  readonly #removed = new OrderedMap<CellName, undefined>();

  constructor(cells: Iterable<CandidateCell> = []) {
    for (const cell of cells) this.set(cell);
  }

  /** Adds a cell or replaces what is known of it. */
  set(cell: CandidateCell): void {
    const before = this.#byName.get(cell.name);
    if (before !== undefined && !before.removed) this.#ranked.get(before.jurisdiction)?.delete(before);
    this.#byName.set(cell.name, cell);
    if (cell.removed) {
      this.#removed.set(cell.name, undefined);
      return;
    }
    this.#removed.delete(cell.name);
    let ranked = this.#ranked.get(cell.jurisdiction);
    if (ranked === undefined) {
      ranked = new OrderedMap<CandidateCell, undefined>(undefined, compareCandidates);
      this.#ranked.set(cell.jurisdiction, ranked);
    }
    ranked.set(cell, undefined);
  }

  /** The cell for a tenant, with the explanation; nothing is changed. */
  place(demand: Demand): PlacementOutcome {
    const rejected = new RejectedList();
    const ranked = this.#ranked.get(demand.jurisdiction);
    let chosen: CandidateCell | undefined;
    let full = 0;
    for (const cell of ranked?.keys() ?? []) {
      if (chosen === undefined && demand.users <= freeUsers(cell)) {
        chosen = cell;
        rejected.limit(passedOverDetailMax);
      } else if (chosen === undefined) {
        full += 1;
        rejected.add(cell.name, 'no-room', `${freeUsers(cell)} of ${cell.capacityUsers} users free`);
      } else if (rejected.wantsMore) {
        rejected.add(cell.name, freeShare(cell) === freeShare(chosen) ? 'later-name' : 'less-free', freeText(cell));
      } else break;
    }
    const permitted = ranked?.size ?? 0;
    this.#addElsewhere(demand.jurisdiction, rejected);
    const counts: Counts = {
      'no-room': full,
      'less-free': chosen === undefined ? 0 : permitted - full - 1,
      'other-jurisdiction': this.#byName.size - this.#removed.size - permitted,
      removed: this.#removed.size,
    };
    const because =
      chosen === undefined
        ? noneText(demand, counts)
        : `${chosen.name} is in jurisdiction ${demand.jurisdiction}, has room for ${demand.users} users (${freeText(chosen)}), ` +
          'and no permitted cell with room has a larger free share';
    return {
      chosen: chosen?.name,
      placement: { because, rejected: rejected.items, rejectedCounts: counts },
    };
  }

  #addElsewhere(jurisdiction: Jurisdiction, rejected: RejectedList): void {
    for (const [other, cells] of this.#ranked) {
      if (other === jurisdiction) continue;
      for (const cell of cells.keys()) {
        if (!rejected.wantsMore) return;
        rejected.add(cell.name, 'other-jurisdiction', `its jurisdiction is ${other}`);
      }
    }
    for (const name of this.#removed.keys()) {
      if (!rejected.wantsMore) return;
      rejected.add(name, 'removed', 'it was removed from the fleet');
    }
  }
}

class RejectedList {
  readonly items: Rejected[] = [];
  #max = rejectedDetailMax;

  get wantsMore(): boolean {
    return this.items.length < this.#max;
  }
  limit(max: number): void {
    this.#max = max;
    this.items.splice(max);
  }
  add(cell: CellName, reason: RejectedReason, detail: string): void {
    if (this.wantsMore) this.items.push({ cell, reason, detail });
  }
}

function freeText(cell: CandidateCell): string {
  return `${freeUsers(cell)} of ${cell.capacityUsers} users free, ${Math.floor(freeShare(cell) * 100)} %`;
}

function noneText(demand: Demand, counts: Counts): string {
  const total = reasons.reduce((sum, reason) => sum + counts[reason], 0);
  if (total === 0) return 'the fleet has no cell';
  const parts = [
    counts['no-room'] === 0
      ? ''
      : `${counts['no-room']} in ${demand.jurisdiction} without room for ${demand.users} users`,
    counts['other-jurisdiction'] === 0 ? '' : `${counts['other-jurisdiction']} of another jurisdiction`,
    counts.removed === 0 ? '' : `${counts.removed} removed`,
  ].filter((part) => part !== '');
  return `none of ${total} cells may host it: ${parts.join(', ')}`;
}

/** The rejected cells in words, for a refusal; a longer list ends with how many more there are. */
export function rejectedText(placement: Placement, namedMax = 5): string {
  const named = placement.rejected
    .filter(({ reason }) => reason !== 'less-free' && reason !== 'later-name')
    .slice(0, namedMax)
    .map(({ cell, reason, detail }) => `${cell}: ${reason} (${detail})`);
  const total = reasons.reduce((sum, reason) => sum + placement.rejectedCounts[reason], 0);
  if (total > named.length) named.push(`and ${total - named.length} more`);
  return named.join('; ');
}
