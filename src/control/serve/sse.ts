import type { FastifyReply, FastifyRequest } from 'fastify';
import { fault } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';

/**
 * Server-sent events (WHATWG HTML, 9.2). A consumer that is too slow is cut off instead of being
 * buffered for: it resumes where it was, and pays for that itself.
 */

/** What may wait unsent on one stream, beyond what it got when it connected, before it is closed. */
export const streamBufferBytesMax = 4 * 1024 * 1024;

export interface Stream {
  send(event: string): void;
}

/** Streams of one sort, at most so many, with a beat on each. */
export class StreamHub {
  readonly #streams = new Set<OpenStream>();
  readonly #max: number;
  readonly #agentMax: number;
  /** Open streams of each agent that has some. */
  readonly #ofAgents = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;
  readonly #onBeat: () => void;

  constructor(options: { readonly max: number; readonly agentMax?: number; readonly onBeat?: () => void }) {
    this.#max = options.max;
    this.#agentMax = options.agentMax ?? options.max;
    this.#onBeat = options.onBeat ?? (() => undefined);
    this.#timer = setInterval(() => this.#beat(), limits.streamBeatMs);
  }

  get size(): number {
    return this.#streams.size;
  }

  /**
   * Answers a request with a stream: first all that `catchUp` gives and a beat, in one write; then whatever is sent.
   * Nothing may happen between what `catchUp` reads and `onOpen`, so both run at once.
   */
  open(
    request: FastifyRequest,
    reply: FastifyReply,
    options: { readonly catchUp: () => readonly string[]; readonly onOpen: (stream: Stream) => () => void },
  ): void {
    if (this.#streams.size >= this.#max) {
      throw fault(
        'limit-exceeded',
        `The control plane keeps at most ${this.#max} streams of this sort open. Close one, or try later.`,
        {
          retryAfterMs: limits.reconnectDelayMsMax,
        },
      );
    }
    const agent = agentOf(request);
    const open = this.#ofAgents.get(agent ?? '') ?? 0;
    if (agent !== undefined && open >= this.#agentMax) {
      throw fault('limit-exceeded', `${agent} has ${open} streams open, and may have ${this.#agentMax}. Close one.`, {
        retryAfterMs: limits.reconnectDelayMsMax,
      });
    }
    const first = options.catchUp();
    reply.hijack();
    const { raw } = reply;
    raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-accel-buffering': 'no' });
    const stream = new OpenStream(raw, request.raw);
    stream.send(first.join('') + beat);
    stream.caughtUp();
    this.#streams.add(stream);
    this.#count(agent, 1);
    const onClose = options.onOpen(stream);
    raw.on('close', () => {
      this.#streams.delete(stream);
      this.#count(agent, -1);
      onClose();
    });
    raw.on('error', () => raw.destroy());
  }

  /** Ends every stream; its followers come back when somebody listens again. */
  close(): void {
    clearInterval(this.#timer);
    for (const stream of this.#streams) stream.end();
  }

  #count(agent: string | undefined, by: number): void {
    if (agent === undefined) return;
    const open = (this.#ofAgents.get(agent) ?? 0) + by;
    if (open === 0) this.#ofAgents.delete(agent);
    else this.#ofAgents.set(agent, open);
  }

  #beat(): void {
    this.#onBeat();
    for (const stream of this.#streams) stream.send(beat);
  }
}

function agentOf({ principal }: FastifyRequest): string | undefined {
  return principal?.role === 'agent' ? `${principal.kind} ${principal.name}` : undefined;
}

class OpenStream implements Stream {
  readonly #raw: FastifyReply['raw'];
  /** What may wait unsent: more as long as it has not read what it got at first. */
  #allowedBytes = Number.POSITIVE_INFINITY;

  constructor(raw: FastifyReply['raw'], incoming: FastifyRequest['raw']) {
    this.#raw = raw;
    incoming.socket.setNoDelay(true);
  }

  caughtUp(): void {
    this.#allowedBytes = this.#raw.writableLength + streamBufferBytesMax;
    if (this.#raw.writableNeedDrain) {
      this.#raw.once('drain', () => {
        this.#allowedBytes = streamBufferBytesMax;
      });
    }
  }

  send(event: string): void {
    if (this.#raw.destroyed || this.#raw.writableEnded) return;
    if (this.#raw.writableLength > this.#allowedBytes) this.#raw.destroy();
    else this.#raw.write(event);
  }

  end(): void {
    this.#raw.end();
  }
}

/** One event as text. Data is JSON, which holds no line breaks. */
export function sseEvent(type: string, data: string, id?: string): string {
  return `event: ${type}\n${id === undefined ? '' : `id: ${id}\n`}data: ${data}\n\n`;
}

const beat = sseEvent('beat', '{}');
