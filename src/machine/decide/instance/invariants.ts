import type { BrokenInvariant } from './answers.ts';
import type { RowChange } from '../definition/define.ts';
import { isSystemName } from '../state/effects.ts';
import type { Machine } from '../definition/machine.ts';
import type { CommandRun } from './random.ts';
import { HandlerFailed, settled } from './returned.ts';
import type { RowEffect, TableSet } from '../state/tables.ts';

/**
 * The first invariant that does not hold after the changes from number `changesBefore` on. Those in shadow mode are
 * noted in `run` instead, also when they fail: a new one must harm nobody.
 */
export function brokenInvariant(
  { invariants }: Machine,
  { views, changes }: TableSet,
  changesBefore: number,
  run: CommandRun,
): string | undefined {
  if (invariants.length === 0) return undefined;
  const changed = changesFrom(changes, changesBefore);
  for (const { name, shadow, on, holds } of invariants) {
    const concerned = on === undefined ? changed : changed.filter(({ table }) => on.has(table));
    if (on !== undefined && concerned.length === 0) continue;
    let kept: boolean;
    try {
      kept = settled(holds(views, concerned), 'it') === true;
    } catch (thrown) {
      if (!shadow) throw new HandlerFailed(`invariant ${name}`, thrown);
      kept = false;
    }
    if (kept) continue;
    if (!shadow) return name;
    run.reports(name);
  }
  return undefined;
}

/** Changes of the machine's own tables, as invariants see them. */
function changesFrom(changes: readonly RowEffect[], first: number): readonly RowChange[] {
  const changed: RowChange[] = [];
  for (let i = first; i < changes.length; i++) {
    const change = changes[i];
    if (change === undefined || isSystemName(change.table)) continue;
    changed.push({ table: change.table, key: change.key });
  }
  return changed;
}

/** How many invariants are counted by name. The rest is counted together, as `$others`. */
export const countedInvariantsMax = 1_000;

export interface InvariantCount {
  /** Commands that it refused. */
  readonly violations: number;
  /** Commands that it would have refused, had it not been in shadow mode. */
  readonly reports: number;
}

/** Counts broken invariants by name, in bounded space whatever a machine is replaced with. */
export class InvariantCounts {
  readonly #counts = new Map<string, InvariantCount>();

  add(broken: readonly BrokenInvariant[]): void {
    for (const { name, shadow } of broken) {
      const known = this.#counts.has(name) || this.#counts.size < countedInvariantsMax;
      const { violations, reports } = this.#counts.get(known ? name : '$others') ?? { violations: 0, reports: 0 };
      this.#counts.set(known ? name : '$others', {
        violations: violations + (shadow ? 0 : 1),
        reports: reports + (shadow ? 1 : 0),
      });
    }
  }

  /** By name, in the order in which they were first broken. */
  entries(): IterableIterator<[string, InvariantCount]> {
    return this.#counts.entries();
  }
}
