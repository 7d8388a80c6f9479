import type { Fault } from '../../kernel/fault.ts';
import type { Following, StreamEvent } from '../../follow/follow.ts';
import { limits } from '../../protocol/limits.ts';
import { asFault } from '../../protocol/problem.ts';
import type { FleetId, TenantName } from '../../protocol/names.ts';
import type { Signed } from '../../protocol/routing.ts';
import type { Verifier } from '../../trust/signature.ts';
import { RoutingTable, textOfPosition } from '../decide/table.ts';
import { KeptFrames, prove } from './kept-frames.ts';

export interface RoutingOptions {
  readonly fleet: FleetId;
  readonly folder: string;
  readonly verifier: Verifier;
  readonly onProblem: (problem: Fault) => void;
  /** The table or `live` changed. */
  readonly onChanged: () => void;
}

/** The router's table with what keeps it up to date: frames from disk, then from the control plane's stream. */
export class Routing {
  readonly table: RoutingTable;
  readonly #options: RoutingOptions;
  readonly #kept: KeptFrames;
  #following: Following | undefined;
  /** Frames refused since the last one that fitted: while there is one, the table is not what the stream says. */
  #refusedInTurn = 0;
  #resyncTimer: NodeJS.Timeout | undefined;
  #snapshotAsked = false;
  readonly #startedMs = Date.now();

  private constructor(options: RoutingOptions, table: RoutingTable, kept: KeptFrames) {
    this.#options = options;
    this.table = table;
    this.#kept = kept;
  }

  /** Loads what is on disk. Damage there is reported, and never keeps a router from starting. */
  static async load(options: RoutingOptions): Promise<Routing> {
    const table = new RoutingTable(options.fleet);
    const kept = await KeptFrames.open({
      folder: options.folder,
      verifier: options.verifier,
      onProblem: options.onProblem,
      apply: (frame) => {
        const applied = table.apply(frame);
        return applied.kind === 'refused' ? applied.fault : undefined;
      },
    });
    return new Routing(options, table, kept);
  }

  /** Whether a tenant that is not in the table does not exist. */
  get live(): boolean {
    return this.table.position !== undefined && this.#refusedInTurn === 0 && this.#following?.live === true;
  }

  /** When `live` last changed, or this router started, in milliseconds since 1970. */
  get sinceMs(): number {
    return this.#following?.sinceMs ?? this.#startedMs;
  }

  /** Signed frames with which a cell can prove a tenant's assignment. */
  framesConcerning(tenant: TenantName): readonly Signed[] {
    return this.#kept.concerning(tenant);
  }

  /** Loads what following needs only now: a router that starts again listens first. */
  async follow(stream: { readonly controlUrl: string; readonly token: string }): Promise<void> {
    const { follow } = await import('../../follow/follow.ts');
    this.#following = follow({
      url: new URL('/v1/routing?watch=true', stream.controlUrl).href,
      token: stream.token,
      position: () => {
        const { position } = this.table;
        return position === undefined ? undefined : textOfPosition(position);
      },
      onEvent: (event) => this.take(event),
      onLive: () => this.#options.onChanged(),
    });
  }

  /** Takes an event of the stream. A frame that is refused changes nothing; everything is then asked for again. */
  take(event: StreamEvent): void {
    if (event.type !== 'frame') return;
    try {
      const proven = prove(JSON.parse(event.data), this.#options.verifier);
      const applied = this.table.apply(proven.frame);
      if (applied.kind === 'refused') throw applied.fault;
      if (applied.kind === 'applied' || proven.frame.kind === 'snapshot') this.#kept.add(proven);
      if (proven.frame.kind === 'snapshot') this.#snapshotAsked = false;
      this.#refusedInTurn = 0;
    } catch (thrown) {
      this.#refuse(asFault(thrown));
    }
    if (this.#kept.isFull && !this.#snapshotAsked) {
      this.#snapshotAsked = true;
      this.#following?.resync();
    }
    this.#options.onChanged();
  }

  /** Resolves when everything taken so far is on disk, or could not be written. */
  flushed(): Promise<void> {
    return this.#kept.flushed();
  }

  async stop(): Promise<void> {
    clearTimeout(this.#resyncTimer);
    this.#following?.stop();
    await this.#kept.close();
  }

  #refuse(problem: Fault): void {
    this.#options.onProblem(problem);
    this.#refusedInTurn += 1;
    if (this.#resyncTimer !== undefined) return;
    // At once the first time, because a gap is ordinary; later slower, because a refused snapshot will come again.
    const delayMs = this.#refusedInTurn === 1 ? 0 : limits.reconnectDelayMsMax;
    this.#resyncTimer = setTimeout(() => {
      this.#resyncTimer = undefined;
      this.#following?.resync();
    }, delayMs);
  }
}
