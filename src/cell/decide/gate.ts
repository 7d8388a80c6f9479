import { errorTable } from '../../protocol/errors.ts';
import type { CellName, TenantName } from '../../protocol/names.ts';
import type { OwnershipEvent, OwnershipRow } from './ownership.ts';

/**
 * What a cell knows about one tenant. `closing`: a record that ends the ownership is being written;
 * nothing more is admitted, so that no write stands in the log after it.
 */
export type Standing =
  | { readonly state: 'owned'; readonly epoch: number; readonly closing: boolean }
  | { readonly state: 'released'; readonly epoch: number; readonly cell: CellName | undefined };

/** Codes with which a whole cell refuses, whoever asks for whichever tenant. */
export type ClosedCode = 'cell-not-ready' | 'cell-damaged' | 'cell-refusing' | 'draining';

export interface Closed {
  readonly code: ClosedCode;
  /** What happened, with file and remedy where there is one. */
  readonly why: string;
}

export interface GateView {
  readonly cell: CellName;
  /** Why the cell answers nobody; undefined once its log is proven and its application loaded. */
  readonly closed: Closed | undefined;
  /** Why its workload does not answer; undefined while it is healthy, and for a machine. */
  readonly workloadDown: string | undefined;
  readonly standing: (tenant: TenantName) => Standing | undefined;
}

/** Who is meant, as the router stamped it, or as a client said that speaks to the cell directly. */
export interface GateRequest {
  readonly tenant: TenantName;
  readonly epoch?: number | undefined;
  readonly cell?: CellName | undefined;
}

export interface KnownAssignment {
  readonly cell: CellName;
  readonly epoch: number;
}

export type RefusalCode = ClosedCode | 'not-owner' | 'wrong-cell' | 'cell-behind' | 'workload-down';

export type Admission =
  | { readonly kind: 'admitted'; readonly epoch: number }
  | {
      readonly kind: 'refused';
      readonly code: RefusalCode;
      readonly why: string;
      readonly assignment: KnownAssignment | undefined;
    };

/**
 * Whether a request may reach the application: only if this cell is meant, owns the tenant, and has
 * seen the epoch by which the request was routed. A request with an older epoch is served: the
 * cell is the owner now. O(1).
 */
export function admit(view: GateView, request: GateRequest): Admission {
  const { tenant } = request;
  if (request.cell !== undefined && request.cell !== view.cell) {
    return refused('wrong-cell', `This is cell ${view.cell}; the request was meant for ${request.cell}.`);
  }
  if (view.closed !== undefined) return refused(view.closed.code, view.closed.why);

  const standing = view.standing(tenant);
  if (standing === undefined) {
    if (request.epoch !== undefined) {
      return refused('cell-behind', `Cell ${view.cell} has never heard of ${tenant}, which was routed here.`);
    }
    return refused('not-owner', `Cell ${view.cell} has never heard of ${tenant}; ask the router.`);
  }
  const known = assignmentOf(view.cell, standing);
  if (request.epoch !== undefined && request.epoch > standing.epoch) {
    const why = `The request was routed by epoch ${request.epoch} of ${tenant}; cell ${view.cell} has seen ${standing.epoch}.`;
    return refused('cell-behind', why, known);
  }
  if (standing.state === 'released') {
    const where = standing.cell === undefined ? 'it was removed' : `it lives in ${standing.cell}`;
    const why = `Cell ${view.cell} does not own ${tenant}; as of epoch ${standing.epoch}, ${where}.`;
    return refused('not-owner', why, known);
  }
  if (standing.closing) return refused('cell-behind', `Cell ${view.cell} is giving ${tenant} away.`, known);
  if (view.workloadDown !== undefined) return refused('workload-down', view.workloadDown, known);
  return { kind: 'admitted', epoch: standing.epoch };
}

function refused(code: RefusalCode, why: string, assignment?: KnownAssignment): Admission {
  return { kind: 'refused', code, why: `${errorTable[code].title}. ${why}`, assignment };
}

function assignmentOf(cell: CellName, standing: Standing): KnownAssignment | undefined {
  if (standing.state === 'owned') return { cell, epoch: standing.epoch };
  return standing.cell === undefined ? undefined : { cell: standing.cell, epoch: standing.epoch };
}

/** Every tenant's standing, as far as the ownership log is durable. Memory: one entry a tenant ever seen. */
export class Standings {
  readonly #standings = new Map<TenantName, Standing>();
  #owned = 0;

  /** Tenants that the cell owns. */
  get owned(): number {
    return this.#owned;
  }
  get(tenant: TenantName): Standing | undefined {
    return this.#standings.get(tenant);
  }
  /** A row of the ownership machine, as it stood when the log was opened. */
  load(row: OwnershipRow): void {
    const { epoch } = row;
    if (row.state === 'owned') this.#set(row.tenant, { state: 'owned', epoch, closing: false });
    else this.#set(row.tenant, { state: 'released', epoch, cell: row.cell });
  }
  /** An event that is about to be recorded. Only what ends an ownership has an effect before it is durable. */
  announce(event: OwnershipEvent): void {
    const standing = this.#standings.get(event.data.tenant);
    if (event.type === 'assignmentTaken' || standing?.state !== 'owned') return;
    this.#set(event.data.tenant, { ...standing, closing: true });
  }
  /** An announced event that was not recorded after all: everything is as it was. */
  retract(event: OwnershipEvent): void {
    const standing = this.#standings.get(event.data.tenant);
    if (standing?.state === 'owned') this.#set(event.data.tenant, { ...standing, closing: false });
  }
  /** An event that is durable. */
  apply(event: OwnershipEvent): void {
    const { tenant, epoch } = event.data;
    switch (event.type) {
      case 'assignmentTaken':
        this.#set(tenant, { state: 'owned', epoch, closing: false });
        break;
      case 'assignedElsewhere':
        this.#set(tenant, { state: 'released', epoch, cell: event.data.cell });
        break;
      case 'tenantRemoved':
        this.#set(tenant, { state: 'released', epoch, cell: undefined });
        break;
    }
  }
  #set(tenant: TenantName, standing: Standing): void {
    if (this.#standings.get(tenant)?.state === 'owned') this.#owned -= 1;
    if (standing.state === 'owned') this.#owned += 1;
    this.#standings.set(tenant, standing);
  }
}
