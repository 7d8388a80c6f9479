import type { TenantName } from '../../protocol/names.ts';

/** What a workload is doing for each tenant: requests and tunnels that were admitted and have not ended. */
export class InFlight {
  readonly #endings = new Map<TenantName, Set<() => void>>();

  /** Remembers how to end something of a tenant. Returns what to call when it ended by itself. */
  begin(tenant: TenantName, end: () => void): () => void {
    const endings = this.#endings.get(tenant) ?? new Set();
    // Each has an identity of its own, also if the same function ends several.
    const ending = (): void => end();
    this.#endings.set(tenant, endings.add(ending));
    return () => {
      if (endings.delete(ending) && endings.size === 0 && this.#endings.get(tenant) === endings) {
        this.#endings.delete(tenant);
      }
    };
  }

  /** Ends everything of a tenant. O(what is under way for it). */
  end(tenant: TenantName): void {
    const endings = this.#endings.get(tenant);
    this.#endings.delete(tenant);
    for (const end of endings ?? []) end();
  }
}
