import { Type } from 'typebox';
import { Value } from 'typebox/value';
import { assert } from '../../kernel/assert.ts';
import type { CellName, TenantName } from '../../protocol/names.ts';
import type { RoutedTenant } from '../../protocol/routing.ts';
import type { Runtime } from '../../machine/serve/runtime.ts';
import { Standings } from '../decide/gate.ts';
import {
  concerning,
  news,
  ownershipBatchMax,
  ownershipInstance,
  OwnershipEventSchema,
  OwnershipRowSchema,
} from '../decide/ownership.ts';

/** Rows read at a time while the view is built. */
const pageRows = 10_000;

/** What ownership needs of the cell's log. */
export type OwnershipLog = Pick<Runtime, 'execute' | 'query'>;

/** The cell's ownership, and the view of it that the gate asks: behind the log, never ahead of it. */
export class Ownership {
  readonly standings: Standings = new Standings();
  readonly #runtime: OwnershipLog;
  readonly #cell: CellName;
  /** A tenant is not admitted any more: what was admitted for it before must end. */
  readonly #onClosed: (tenant: TenantName) => void;
  /** Frames are taken one after the other, so that each is compared with what the one before left. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(runtime: OwnershipLog, cell: CellName, onClosed: (tenant: TenantName) => void) {
    this.#onClosed = onClosed;
    this.#runtime = runtime;
    this.#cell = cell;
  }

  /** Builds the view from the log. `onClosed` is called when the gate closes for a tenant. O(tenants ever seen). */
  static async open(runtime: OwnershipLog, cell: CellName, onClosed: (tenant: TenantName) => void): Promise<Ownership> {
    const ownership = new Ownership(runtime, cell, onClosed);
    for (let after: string | undefined; ;) {
      const input = after === undefined ? { limit: pageRows } : { after, limit: pageRows };
      const answer = await runtime.query({ instance: ownershipInstance, query: 'tenants', input });
      if (answer.kind === 'rejected') throw answer.fault;
      assert(Value.Check(Type.Array(OwnershipRowSchema), answer.value), 'rows come from this machine alone');
      for (const row of answer.value) ownership.standings.load(row);
      after = answer.value.at(-1)?.tenant;
      if (answer.value.length < pageRows) return ownership;
    }
  }

  /** Takes the entries of a verified frame; resolves when they are durable and the gate sees them. */
  take(scope: CellName | undefined, entries: readonly RoutedTenant[]): Promise<void> {
    const taken = this.#last.then(() => this.#take(scope, entries));
    this.#last = taken.catch(() => undefined);
    return taken;
  }

  async #take(scope: CellName | undefined, entries: readonly RoutedTenant[]): Promise<void> {
    const { standings } = this;
    const relevant = concerning(this.#cell, scope, entries, (tenant) => standings.get(tenant) !== undefined);
    for (let from = 0; from < relevant.length; from += ownershipBatchMax) {
      const batch = relevant.slice(from, from + ownershipBatchMax);
      const expected = news((tenant) => standings.get(tenant)?.epoch, this.#cell, batch);
      if (expected.length === 0) continue;
      for (const event of expected) {
        standings.announce(event);
        const standing = standings.get(event.data.tenant);
        if (standing?.state === 'owned' && standing.closing) this.#onClosed(event.data.tenant);
      }
      const answer = await this.#runtime.execute({
        instance: ownershipInstance,
        command: 'takeAssignments',
        input: { cell: this.#cell, entries: batch },
      });
      if (answer.kind === 'rejected') {
        for (const event of expected) standings.retract(event);
        throw answer.fault;
      }
      for (const { type, data } of answer.events) {
        const event = { type, data };
        assert(Value.Check(OwnershipEventSchema, event), 'events come from this machine alone');
        standings.apply(event);
      }
    }
  }
}
