import type { CellName } from '../../protocol/names.ts';
import type { RoutingFrame, Signed } from '../../protocol/routing.ts';
import type { Signer } from '../../trust/signature.ts';
import type { Position } from '../decide/routing.ts';
import type { Plane } from './plane.ts';
import { sseEvent, type Stream } from './sse.ts';

/**
 * Frames and desired state on their way to followers. Each document is serialised and signed once,
 * however many follow: a frame is the same object for all until the table changes.
 */
export class Frames {
  readonly #plane: Plane;
  readonly #signer: Signer;
  readonly #signed = new WeakMap<RoutingFrame, { readonly signed: Signed; readonly event: string }>();
  readonly #whole = new Set<Stream>();
  readonly #cells = new Map<string, Set<Stream>>();
  readonly #hosts = new Map<string, Set<Stream>>();
  readonly #unsubscribe: () => void;

  constructor(plane: Plane, signer: Signer) {
    this.#plane = plane;
    this.#signer = signer;
    this.#unsubscribe = plane.onStep((step) => {
      if (step.routing !== undefined && this.#whole.size > 0) {
        const event = this.#eventOf(step.routing.whole);
        for (const stream of this.#whole) stream.send(event);
      }
      for (const [cell, streams] of this.#cells) {
        const name = plane.model.cells.get(cell)?.name;
        if (name === undefined) continue;
        const events = step.desiredCells.has(name) ? this.#desiredCell(cell) : [];
        const change = step.routing?.scoped.get(name);
        const text = [...events, ...(change === undefined ? [] : [this.#eventOf(change)])].join('');
        if (text === '') continue;
        for (const stream of streams) stream.send(text);
      }
      if (!step.cellSet) return;
      for (const [host, streams] of this.#hosts) {
        const event = this.#desiredHost(host);
        for (const stream of streams) stream.send(event);
      }
    });
  }

  close(): void {
    this.#unsubscribe();
  }

  /** The whole table as it stands, signed. */
  snapshot(): { readonly frame: RoutingFrame; readonly signed: Signed } {
    const frame = this.#plane.model.routing.snapshot();
    return { frame, signed: this.#sign(frame).signed };
  }

  routingSince(position: Position | undefined): readonly string[] {
    return this.#since(undefined, position);
  }

  /** Desired state first, then the cell's frames. Undefined if there is no such cell. */
  cellSince(cell: string, position: Position | undefined): readonly string[] | undefined {
    const desired = this.#desiredCell(cell);
    const name = this.#plane.model.cells.get(cell)?.name;
    if (desired.length === 0 || name === undefined) return undefined;
    return [...desired, ...this.#since(name, position)];
  }

  hostNow(host: string): readonly string[] {
    return [this.#desiredHost(host)];
  }

  followRouting(stream: Stream): () => void {
    this.#whole.add(stream);
    return () => this.#whole.delete(stream);
  }

  followCell(cell: string, stream: Stream): () => void {
    return followKey(this.#cells, cell, stream);
  }

  followHost(host: string, stream: Stream): () => void {
    return followKey(this.#hosts, host, stream);
  }

  #since(scope: CellName | undefined, position: Position | undefined): readonly string[] {
    return this.#plane.model.routing.since(scope, position).map((frame) => this.#eventOf(frame));
  }

  #desiredCell(cell: string): readonly string[] {
    const desired = this.#plane.model.cellDesired(cell);
    return desired === undefined ? [] : [sseEvent('desired', JSON.stringify(this.#signer.sign(desired)))];
  }

  #desiredHost(host: string): string {
    return sseEvent('desired', JSON.stringify(this.#signer.sign(this.#plane.model.hostDesired(host))));
  }

  #eventOf(frame: RoutingFrame): string {
    return this.#sign(frame).event;
  }

  #sign(frame: RoutingFrame): { readonly signed: Signed; readonly event: string } {
    let known = this.#signed.get(frame);
    if (known === undefined) {
      const signed = this.#signer.sign(frame);
      known = { signed, event: sseEvent('frame', JSON.stringify(signed), `${frame.generation}.${frame.version}`) };
      this.#signed.set(frame, known);
    }
    return known;
  }
}

function followKey(map: Map<string, Set<Stream>>, key: string, stream: Stream): () => void {
  const streams = map.get(key) ?? new Set();
  map.set(key, streams);
  streams.add(stream);
  return () => {
    streams.delete(stream);
    if (streams.size === 0 && map.get(key) === streams) map.delete(key);
  };
}

/** A position as in `Last-Event-ID`: GENERATION.VERSION. Anything else asks for everything. */
export function readPosition(id: string | undefined): Position | undefined {
  const match = /^(\d{1,15})\.(\d{1,15})$/.exec(id ?? '');
  return match === null ? undefined : { generation: Number(match[1]), version: Number(match[2]) };
}
