import type { CellStatus, HostStatus, MachineStatus, RouterStatus, Status } from '../../protocol/status.ts';
import type { Condition } from '../../protocol/resources.ts';
import { limits } from '../../protocol/limits.ts';
import type { BlueprintView, CellView, FleetModel, TenantView } from './model.ts';

/**
 * What processes said of themselves, and what follows from it (rules S1 to S5 of
 * `docs/control-plane.md`). In memory only: after a restart everything is unknown until the
 * next status, a second later.
 */

/** Routers and hosts that are remembered; beyond it the one that was silent longest is forgotten. */
export const reportersMax = 1_000;

interface Heard<S> {
  readonly status: S;
  readonly atMs: number;
}
type HostCell = HostStatus['cells'][number];

export class Reported {
  readonly #routers = new Map<string, Heard<RouterStatus>>();
  readonly #cells = new Map<string, Heard<CellStatus>>();
  readonly #hostCells = new Map<string, Heard<HostCell>>();
  readonly #hosts = new Map<string, Heard<HostStatus>>();

  /** Takes a status. Statuses of cells are as many as the fleet has cells; who calls checks that the cell exists. */
  note(status: Status, nowMs: number): void {
    if (status.kind === 'cell') this.#cells.set(status.name, { status, atMs: nowMs });
    else if (status.kind === 'router') remember(this.#routers, status, nowMs);
    else {
      remember(this.#hosts, status, nowMs);
      for (const cell of status.cells) this.#hostCells.set(cell.name, { status: cell, atMs: nowMs });
    }
  }

  forgetCell(name: string): void {
    this.#cells.delete(name);
    this.#hostCells.delete(name);
  }

  /** The last status of a cell, unless it is so old that it says nothing. */
  cell(name: string, nowMs: number): CellStatus | undefined {
    return fresh(this.#cells.get(name), nowMs);
  }
  hostCell(name: string, nowMs: number): HostCell | undefined {
    return fresh(this.#hostCells.get(name), nowMs);
  }
  liveRouters(nowMs: number): readonly RouterStatus[] {
    return [...this.#routers.values()].map((heard) => fresh(heard, nowMs)).filter((status) => status !== undefined);
  }
}

function fresh<S>(heard: Heard<S> | undefined, nowMs: number): S | undefined {
  return heard !== undefined && nowMs - heard.atMs <= limits.statusStaleMs ? heard.status : undefined;
}

/** Kept in the order in which they were last heard, so the first is the one to forget. */
function remember<S extends { readonly name: string }>(map: Map<string, Heard<S>>, status: S, atMs: number): void {
  map.delete(status.name);
  map.set(status.name, { status, atMs });
  const first = map.keys().next();
  if (map.size > reportersMax && first.done !== true) map.delete(first.value);
}

/** Whether requests of a tenant reach it, and if not, for whom it waits. */
export type Served =
  | { readonly served: true }
  | { readonly served: false; readonly waitingFor: string; readonly quarantined?: true };

/** A tenant can be served once its cell and every live router know its assignment, and there is a router. */
export function servedNow(model: FleetModel, tenant: TenantView, reported: Reported, nowMs: number): Served {
  const knows = (applied: { readonly generation: number; readonly version: number }): boolean =>
    applied.generation === model.generation && applied.version >= tenant.assignedVersion;
  const cell = reported.cell(tenant.cell, nowMs);
  if (cell === undefined) return { served: false, waitingFor: `cell ${tenant.cell}, which has not reported` };
  if (cell.state !== 'serving') return { served: false, waitingFor: `cell ${tenant.cell}, which is ${cell.state}` };
  const quarantined = cell.machine?.quarantined.tenants.find((each) => each.tenant === tenant.name);
  if (quarantined !== undefined) {
    const { since, reason, evidence } = quarantined;
    const waitingFor = `an operator, because cell ${tenant.cell} quarantined it at ${since}: ${reason}. The evidence is in ${evidence}`;
    return { served: false, waitingFor, quarantined: true };
  }
  if (!knows(cell.applied))
    return { served: false, waitingFor: `cell ${tenant.cell}, which does not know the tenant yet` };
  const routers = reported.liveRouters(nowMs);
  if (routers.length === 0) return { served: false, waitingFor: 'a router; none has reported' };
  const behind = routers.find(({ applied }) => !knows(applied));
  if (behind !== undefined)
    return { served: false, waitingFor: `router ${behind.name}, which does not know the tenant yet` };
  return { served: true };
}

/**
 * The assignments of a cell that are served: those up to this version; -1 if none is. The same rule as
 * `servedNow`, for all tenants of a cell at once. O(live routers), which the caller looks up once for many cells.
 */
export function servedUpTo(
  model: FleetModel,
  cell: string,
  reported: Reported,
  live: { readonly routers: readonly RouterStatus[]; readonly nowMs: number },
): number {
  const status = reported.cell(cell, live.nowMs);
  if (status?.state !== 'serving' || live.routers.length === 0) return -1;
  const known = [status, ...live.routers].map(({ applied }) =>
    applied.generation === model.generation ? applied.version : -1,
  );
  return Math.min(...known);
}

export interface CellResourceStatus {
  readonly state: 'starting' | 'serving' | 'refusing' | 'unknown';
  readonly address?: string;
  readonly process?: HostCell['process'];
  readonly restarts?: number;
  readonly usage: { readonly tenants: number; readonly users: number };
  readonly machine?: MachineStatus;
  readonly conditions: Condition[];
}

export function cellStatusOf(cell: CellView, reported: Reported, nowMs: number): CellResourceStatus {
  const status = reported.cell(cell.name, nowMs);
  const host = reported.hostCell(cell.name, nowMs);
  return {
    state: status?.state ?? 'unknown',
    ...(cell.address === undefined ? {} : { address: cell.address }),
    ...(host === undefined ? {} : { process: host.process, restarts: host.restarts }),
    usage: { tenants: cell.tenants, users: cell.users },
    ...(status?.machine === undefined ? {} : { machine: status.machine }),
    conditions: [readyCondition(status, host), ...(status?.conditions ?? []).filter(({ type }) => type !== 'Ready')],
  };
}

function readyCondition(status: CellStatus | undefined, host: HostCell | undefined): Condition {
  const type = 'Ready';
  if (host !== undefined && host.process !== 'running' && host.process !== 'starting') {
    const message = {
      held: 'It is held down by an operator; `cellwright start` lets it up again',
      failed: 'Its process ended and a restart would not help; its log says why',
      'backing-off': `Its process ended and is started again (restart ${host.restarts + 1})`,
    }[host.process];
    return { type, status: 'False', reason: pascal(host.process), message };
  }
  if (status === undefined) return { type, status: 'Unknown', reason: 'Silent', message: 'It has not reported lately' };
  switch (status.state) {
    case 'serving':
      return { type, status: 'True', reason: 'Serving', message: `It serves ${tenantsText(status.tenants)}` };
    case 'starting':
      return { type, status: 'False', reason: 'Starting', message: 'It is starting' };
    case 'refusing':
      return {
        type,
        status: 'False',
        reason: pascal(status.problem?.code ?? 'refusing'),
        message: status.problem?.detail ?? 'It refuses its tenants',
      };
  }
}

export interface TenantResourceStatus {
  readonly assignment: { readonly cell: string; readonly epoch: number };
  readonly conditions: Condition[];
}

export function tenantStatusOf(
  model: FleetModel,
  tenant: TenantView,
  reported: Reported,
  nowMs: number,
): TenantResourceStatus {
  const served = servedNow(model, tenant, reported, nowMs);
  const condition: Condition = served.served
    ? { type: 'Served', status: 'True', reason: 'Routed', message: `Cell ${tenant.cell} and every router know it` }
    : {
        type: 'Served',
        status: 'False',
        reason: served.quarantined === true ? 'Quarantined' : 'Waiting',
        message: `It waits for ${served.waitingFor}`,
      };
  return { assignment: { cell: tenant.cell, epoch: tenant.epoch }, conditions: [condition] };
}

export function blueprintStatusOf(blueprint: BlueprintView): {
  readonly cells: number;
  readonly conditions: Condition[];
} {
  return { cells: blueprint.cells, conditions: [] };
}

function tenantsText(count: number): string {
  return count === 1 ? '1 tenant' : `${count} tenants`;
}

function pascal(code: string): string {
  return code
    .split('-')
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join('');
}
