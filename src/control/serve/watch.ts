import type { Kind } from '../../protocol/resources.ts';
import { kinds } from '../../protocol/resources.ts';
import type { ResourceChange } from '../decide/model.ts';
import { servedUpTo } from '../decide/reported.ts';
import { itemOf, itemsOf, lastChanges, type Item } from './items.ts';
import type { Plane } from './plane.ts';
import { sseEvent, type Stream } from './sse.ts';

/** Resources whose status may still change, as they were last told; beyond it their status is read, not watched. */
export const unsettledMax = 10_000;
/** Statuses that one beat tells because a cell or a router came or went: less than a stream buffers. The rest follow. */
export const statusesPerBeatMax = 5_000;

/**
 * Watches of resources: `put` and `delete` with the version as id, `synced` once everything is
 * told, `reset` when a watcher must forget what it has (rules W1 to W5). A status has no version,
 * so its changes are told with the next beats, as a `put` without id.
 */
export class Watches {
  readonly #plane: Plane;
  readonly #streams: Record<Kind, Set<Stream>> = { Blueprint: new Set(), Cell: new Set(), Tenant: new Set() };
  /** Status last told, of cells and of those tenants that could not be served yet. */
  readonly #told = { Cell: new Map<string, string>(), Tenant: new Map<string, string>() };
  /** Up to which assignment each cell's tenants were served at the last beat. */
  #servedUpTo: ReadonlyMap<string, number> | undefined;
  /** Tenants whose service began or ended, not yet told. */
  readonly #turned = new Set<string>();
  readonly #unsubscribe: () => void;

  constructor(plane: Plane) {
    this.#plane = plane;
    this.#unsubscribe = plane.onStep((step) => {
      for (const kind of kinds) {
        const changes = this.#streams[kind].size === 0 ? [] : lastChanges(step.resources, kind);
        if (changes.length > 0) this.#tell(kind, changes.map((change) => this.#eventOf(change)).join(''));
      }
    });
  }

  close(): void {
    this.#unsubscribe();
  }

  /** What a watcher at a version lacks; all of it, after a `reset`, if that is not known any more. */
  since(kind: Kind, lastEventId: string | undefined): readonly string[] {
    const { model } = this.#plane;
    const position = /^\d{1,15}$/.test(lastEventId ?? '') ? Number(lastEventId) : undefined;
    const changes = position === undefined ? undefined : model.changesAfter(position);
    const synced = sseEvent('synced', JSON.stringify({ version: model.version }), String(model.version));
    if (changes !== undefined) return [...lastChanges(changes, kind).map((change) => this.#eventOf(change)), synced];
    const reset = lastEventId === undefined ? [] : [sseEvent('reset', '{}')];
    return [...reset, ...itemsOf(this.#plane, kind).map((item) => this.#put(item, undefined)), synced];
  }

  follow(kind: Kind, stream: Stream): () => void {
    this.#streams[kind].add(stream);
    // What it just read is what later beats are compared with.
    if (kind === 'Tenant') this.#servedUpTo ??= this.#lookAtCells();
    return () => {
      this.#streams[kind].delete(stream);
      if (this.#streams[kind].size > 0 || kind === 'Blueprint') return;
      this.#told[kind].clear();
      if (kind === 'Cell') return;
      this.#servedUpTo = undefined;
      this.#turned.clear();
    };
  }

  /** Tells the statuses that changed since they were last told. O(cells + unsettled tenants), and O(tenants) when a cell or a router came or went; only while somebody watches. */
  tellStatuses(): void {
    if (this.#streams.Tenant.size > 0) this.#findTurned();
    for (const kind of ['Cell', 'Tenant'] as const) {
      if (this.#streams[kind].size === 0) continue;
      const changed: string[] = [];
      for (const [name, status] of this.#told[kind]) {
        const item = itemOf(this.#plane, kind, name);
        if (item === undefined) this.#told[kind].delete(name);
        else if (JSON.stringify(item.status) !== status) {
          changed.push(this.#put(item, undefined));
          if (kind === 'Tenant') this.#turned.delete(name);
        }
      }
      if (kind === 'Tenant') changed.push(...this.#tellTurned());
      if (changed.length > 0) this.#tell(kind, changed.join(''));
    }
  }

  #lookAtCells(): ReadonlyMap<string, number> {
    const { model, reported } = this.#plane;
    const nowMs = this.#plane.nowMs();
    const live = { routers: reported.liveRouters(nowMs), nowMs };
    return new Map([...model.cells.keys()].map((name) => [name, servedUpTo(model, name, reported, live)]));
  }

  /** A tenant's service turned if the version of its assignment lies between what was served and what is. */
  #findTurned(): void {
    const before = this.#servedUpTo;
    const now = this.#lookAtCells();
    this.#servedUpTo = now;
    const turned = new Map<string, { readonly from: number; readonly to: number }>();
    for (const [cell, version] of now) {
      const past = before?.get(cell) ?? -1;
      if (past !== version) turned.set(cell, { from: Math.min(past, version), to: Math.max(past, version) });
    }
    if (turned.size === 0) return;
    for (const { name, cell, assignedVersion, removed } of this.#plane.model.tenants.values()) {
      const span = turned.get(cell);
      if (span !== undefined && !removed && assignedVersion > span.from && assignedVersion <= span.to)
        this.#turned.add(name);
    }
  }

  #tellTurned(): readonly string[] {
    const told: string[] = [];
    for (const name of this.#turned) {
      if (told.length === statusesPerBeatMax) break;
      this.#turned.delete(name);
      const item = itemOf(this.#plane, 'Tenant', name);
      if (item !== undefined) told.push(this.#put(item, undefined));
    }
    return told;
  }

  #eventOf({ kind, name, version }: ResourceChange): string {
    const item = itemOf(this.#plane, kind, name);
    if (item === undefined) return sseEvent('delete', JSON.stringify({ kind, name, version }), String(version));
    return this.#put(item, String(version));
  }

  #put(item: Item, id: string | undefined): string {
    if (item.kind !== 'Blueprint') this.#remember(item.kind, item);
    return sseEvent('put', JSON.stringify(item), id);
  }

  #remember(kind: 'Cell' | 'Tenant', item: Item): void {
    const status = JSON.stringify(item.status);
    const told = this.#told[kind];
    const settled = kind === 'Tenant' && status.includes('"status":"True"');
    if (settled) told.delete(item.name);
    else if (told.size < unsettledMax || told.has(item.name)) told.set(item.name, status);
  }

  #tell(kind: Kind, events: string): void {
    for (const stream of this.#streams[kind]) stream.send(events);
  }
}
