import { Type } from 'typebox';
import { Value } from 'typebox/value';
import type { Fault } from '../../kernel/fault.ts';
import { assert } from '../../kernel/assert.ts';
import { errorTable, fault, type ErrorCode } from '../../protocol/errors.ts';
import type { FleetId } from '../../protocol/names.ts';
import type { Kind, Resource } from '../../protocol/resources.ts';
import type { Status } from '../../protocol/status.ts';
import type { Committed, Runtime } from '../../machine/serve/runtime.ts';
import { FleetModel, type ModelStep, type TenantView } from '../decide/model.ts';
import { readRecord, type NumberedFleetEvent } from '../decide/record.ts';
import { Reported, servedNow } from '../decide/reported.ts';
import { fleetInstance, type ApplyInput } from '../decide/tables.ts';

/** Records that are read at once while the model is built from the log. */
const historyPage = 256;

/** What one item of an apply came to. */
export interface Outcome {
  readonly kind: Kind;
  readonly name: string;
  readonly action: 'created' | 'changed' | 'unchanged';
  readonly assignment?: { readonly cell: string; readonly epoch: number };
}

/** An event of the audit log. */
export interface AuditEvent {
  readonly version: number;
  readonly at: string;
  readonly command: string;
  readonly type: string;
  readonly data: unknown;
}

const ChangesSchema = Type.Array(
  Type.Object({
    type: Type.String(),
    data: Type.Object({
      name: Type.String(),
      cell: Type.Optional(Type.String()),
      epoch: Type.Optional(Type.Integer()),
    }),
  }),
);
const RefusalSchema = Type.Object({
  refused: Type.Object({ code: Type.String(), message: Type.String(), field: Type.Optional(Type.String()) }),
});

/**
 * The fleet machine in its log, with all that follows from its records and from statuses. The
 * model takes a record before the record's answer leaves, so whoever was answered reads what it wrote.
 */
export class Plane {
  readonly model: FleetModel;
  readonly reported = new Reported();
  readonly nowMs: () => number;
  readonly #runtime: Runtime;
  readonly #stepListeners = new Set<(step: ModelStep) => void>();
  readonly #servedWaiters = new Set<() => void>();
  readonly #addressesInFlight = new Map<string, string>();
  #unsubscribe: () => void = () => undefined;

  private constructor(options: { readonly runtime: Runtime; readonly fleet: FleetId; readonly nowMs: () => number }) {
    this.#runtime = options.runtime;
    this.nowMs = options.nowMs;
    this.model = new FleetModel(options.fleet);
  }

  /** Builds the model from the log, which nobody else writes meanwhile. O(events ever recorded). */
  static async open(options: {
    readonly runtime: Runtime;
    readonly fleet: FleetId;
    readonly nowMs: () => number;
  }): Promise<Plane> {
    const plane = new Plane(options);
    for (;;) {
      const page = await plane.#history(plane.model.version, historyPage);
      for (const record of page) plane.model.apply(readRecord(record));
      if (page.length === 0) break;
    }
    plane.#unsubscribe = options.runtime.subscribe(fleetInstance, (record) => plane.#take(record));
    return plane;
  }

  close(): void {
    this.#unsubscribe();
  }

  /** Called after each record that was committed, in order. Returns how to stop. */
  onStep(listener: (step: ModelStep) => void): () => void {
    this.#stepListeners.add(listener);
    return () => this.#stepListeners.delete(listener);
  }

  /** Applies all items or none; throws the fault of the refusal, which names the item. */
  async apply(input: ApplyInput): Promise<readonly Outcome[]> {
    const before = this.#versions(input.items);
    const answer = await this.#execute('apply', input);
    return outcomesOf(input.items, before, answer);
  }

  /** What `apply` would come to now; nothing is recorded. */
  async preview(input: ApplyInput): Promise<readonly Outcome[]> {
    const answer = await this.#runtime.query({ instance: fleetInstance, query: 'preview', input });
    if (answer.kind === 'rejected') throw answer.fault;
    const { value } = answer;
    if (Value.Check(RefusalSchema, value)) {
      throw refusalFault(value.refused.code, value.refused.message, value.refused.field);
    }
    return outcomesOf(input.items, this.#versions(input.items), value);
  }

  async remove(kind: Kind, name: string, ifVersion: number | undefined): Promise<void> {
    await this.#execute('remove', { kind, name, ...(ifVersion === undefined ? {} : { ifVersion }) });
    if (kind === 'Cell') this.reported.forgetCell(name);
  }

  /** Takes a status. An address that a host chose anew is recorded; resolves when it is. */
  async note(status: Status): Promise<void> {
    if (status.kind === 'cell' && this.model.cells.get(status.name)?.removed !== false) {
      throw fault('resource-unknown', `Cell ${status.name} is not part of the fleet.`, { field: 'name' });
    }
    const known =
      status.kind === 'host'
        ? { ...status, cells: status.cells.filter(({ name }) => this.model.cells.has(name)) }
        : status;
    this.reported.note(known, this.nowMs());
    this.#wakeWaiters();
    if (known.kind !== 'host') return;
    for (const { name, address } of known.cells) await this.#noteAddress(name, address);
  }

  /** Waits until a tenant can be served, at most so long; whether it can. */
  async served(name: string, waitMsMax: number): Promise<boolean> {
    const isServed = (): boolean => {
      const tenant = this.model.tenants.get(name);
      return (
        tenant !== undefined && !tenant.removed && servedNow(this.model, tenant, this.reported, this.nowMs()).served
      );
    };
    if (isServed()) return true;
    return new Promise((resolve) => {
      const settle = (served: boolean): void => {
        clearTimeout(timer);
        this.#servedWaiters.delete(check);
        resolve(served);
      };
      const check = (): void => {
        if (isServed()) settle(true);
      };
      const timer = setTimeout(() => settle(isServed()), waitMsMax);
      this.#servedWaiters.add(check);
    });
  }

  /** Events after a version, oldest first. */
  async events(after: number, limit: number): Promise<readonly AuditEvent[]> {
    const found: AuditEvent[] = [];
    let position = after;
    while (found.length < limit) {
      const page = await this.#history(position, Math.min(limit - found.length, historyPage));
      if (page.length === 0) break;
      for (const { now, command, events } of page) {
        for (const { seq, type, data } of events) {
          if (seq > after && found.length < limit)
            found.push({ version: seq, at: new Date(now).toISOString(), command, type, data });
          position = seq;
        }
      }
    }
    return found;
  }

  /** The event that placed a tenant where it is, with the explanation of that time. */
  async placementOf(tenant: TenantView): Promise<Extract<NumberedFleetEvent, { type: 'tenantPlaced' }>> {
    const [record] = await this.#history(tenant.placedVersion - 1, 1);
    assert(record !== undefined, 'the log keeps every event');
    const event = readRecord({
      now: record.now,
      events: record.events.filter(({ seq }) => seq === tenant.placedVersion),
    }).events[0];
    assert(event?.type === 'tenantPlaced', 'a tenant remembers the event that placed it');
    return event;
  }

  #take(record: Committed): void {
    const step = this.model.apply(readRecord(record));
    for (const listener of this.#stepListeners) listener(step);
    this.#wakeWaiters();
  }

  #wakeWaiters(): void {
    for (const check of this.#servedWaiters) check();
  }

  /** At most one command for an address is on its way, however often the host says it. */
  async #noteAddress(cell: string, address: string): Promise<void> {
    const view = this.model.cells.get(cell);
    if (view === undefined || view.removed || view.address === address) return;
    if (this.#addressesInFlight.get(cell) === address) return;
    this.#addressesInFlight.set(cell, address);
    try {
      await this.#execute('noteCellAddress', { cell, address });
    } finally {
      this.#addressesInFlight.delete(cell);
    }
  }

  async #execute(command: string, input: unknown): Promise<unknown> {
    const answer = await this.#runtime.execute({ instance: fleetInstance, command, input });
    if (answer.kind === 'accepted') return answer.events;
    throw answer.reason === undefined
      ? answer.fault
      : refusalFault(answer.reason, answer.fault.message, answer.fault.field);
  }

  #history(afterSeq: number, limit: number): Promise<readonly Committed[]> {
    return this.#runtime.history(fleetInstance, { afterSeq, limit });
  }

  #versions(items: readonly Resource[]): ReadonlySet<string> {
    return new Set(
      items.filter(({ kind, name }) => this.exists(kind, name)).map(({ kind, name }) => `${kind}/${name}`),
    );
  }

  exists(kind: Kind, name: string): boolean {
    if (kind === 'Blueprint') return this.model.blueprints.has(name);
    return (kind === 'Cell' ? this.model.cells : this.model.tenants).get(name)?.removed === false;
  }
}

const eventPrefix = { Blueprint: 'blueprint', Cell: 'cell', Tenant: 'tenant' } as const satisfies Record<Kind, string>;

function outcomesOf(items: readonly Resource[], existed: ReadonlySet<string>, events: unknown): readonly Outcome[] {
  assert(Value.Check(ChangesSchema, events), 'an apply comes to events, each of which names a resource');
  const changed = new Map(events.map(({ type, data }) => [`${type.replace(/[A-Z].*$/, '')}/${data.name}`, data]));
  return items.map(({ kind, name }) => {
    const data = changed.get(`${eventPrefix[kind]}/${name}`);
    const action = data === undefined ? 'unchanged' : existed.has(`${kind}/${name}`) ? 'changed' : 'created';
    const { cell, epoch } = data ?? {};
    return {
      kind,
      name,
      action,
      ...(cell === undefined || epoch === undefined ? {} : { assignment: { cell, epoch } }),
    };
  });
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}

function refusalFault(code: string, message: string, field: string | undefined): Fault {
  assert(isErrorCode(code), 'the fleet machine refuses with rows of the error table');
  return fault(code, message, { field });
}
