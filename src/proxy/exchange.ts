import {
  STATUS_CODES,
  type ClientRequest,
  type IncomingMessage,
  type OutgoingMessage,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import type { Fault } from '../kernel/fault.ts';
import { fault } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import { problemMediaType, problemOf } from '../protocol/problem.ts';
import { proxyBounds } from './bounds.ts';
import { endToEnd, endToEndTrailers, membersOf, valuesOf, type HeaderFilter, type RawHeaders } from './headers.ts';
import type { CheckedHead } from './strict.ts';
import { tunnel } from './tunnel.ts';
import type { Attempt, Upstreams } from './upstream.ts';

/** An answer that arrived and was not yet passed on: relay it or discard it. */
export interface Answer {
  readonly status: number;
  readonly headers: RawHeaders;
}

/** What became of one attempt, as the caller may act on it. */
export type ExchangeAttempt =
  | { readonly kind: 'answered'; readonly answer: Answer }
  | Extract<Attempt, { readonly kind: 'never-connected' | 'lost' | 'timed-out' | 'at-limit' | 'abandoned' }>;

export interface AttemptOptions {
  readonly address: string;
  /** Which headers of the request, named in lower case, go on. */
  readonly goesOn: HeaderFilter;
  /** Names and values in turn, added after those. */
  readonly stamps: RawHeaders;
  /** Waits for a 100 before a streamed body is sent: until then the attempt can be made elsewhere. */
  readonly awaitsConsent: boolean;
  readonly fresh?: boolean;
}

/** How the relaying of an answer ended. */
export type Relayed = 'complete' | 'client-gone' | 'upstream-cut';

/**
 * One request of a client, from its checked head to the last byte of its answer. Deciding where it
 * goes is the caller's; moving bytes is done here. Nothing is sent to the client before `relay` or
 * `refuse`, of which exactly one is called, once.
 */
export class Exchange {
  readonly head: CheckedHead;
  readonly request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #upgraded: { readonly socket: Socket; readonly head: Buffer } | undefined;
  readonly #gone = new AbortController();
  readonly #isTrusted: HeaderFilter;
  #held: Buffer | undefined;
  #bodyTaken = false;
  /** The address's end of a tunnel. */
  #tunnelled: Socket | undefined;
  #latest: Extract<Attempt, { readonly kind: 'answered' | 'upgraded' }> | undefined;

  constructor(options: {
    readonly head: CheckedHead;
    readonly request: IncomingMessage;
    readonly response: ServerResponse;
    readonly upgraded?: { readonly socket: Socket; readonly head: Buffer };
    /** Which headers of 1xx answers and trailers go on. */
    readonly isTrusted: HeaderFilter;
  }) {
    this.head = options.head;
    this.request = options.request;
    this.#response = options.response;
    this.#upgraded = options.upgraded;
    this.#isTrusted = options.isTrusted;
    options.response.on('close', () => {
      if (!options.response.writableFinished) this.#gone.abort();
    });
    options.request.on('error', () => this.#gone.abort());
  }

  /** Aborted when the client goes away. */
  get clientGone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Gives the request up: nothing more is sent to the client, and what is under way is cancelled. */
  abandon(): void {
    this.#gone.abort();
  }

  /**
   * Ends the exchange wherever it stands: cancels what is under way at the address, ends a tunnel on both
   * sides, and resets the client's connection, so that nothing sent so far looks complete.
   */
  end(): void {
    this.#gone.abort();
    this.#tunnelled?.destroy();
    this.discard();
    if (this.#upgraded === undefined) cut(this.#response);
    else this.#upgraded.socket.resetAndDestroy();
  }

  /** Whether everything that was sent of the body is still at hand. */
  get replayable(): boolean {
    return this.#held !== undefined || !this.#bodyTaken;
  }

  /**
   * Reads a body of a stated length up to `limits.heldBodyBytesMax` into memory, so that it can be
   * sent again. Larger ones, and those of unknown length, are left to be streamed.
   * Faults: request-too-slow, request-malformed (the client went away within the body).
   */
  async holdSmallBody(): Promise<void> {
    const { framing } = this.head;
    if (framing.kind !== 'sized' || framing.bytes > limits.heldBodyBytesMax || this.#bodyTaken) return;
    this.#bodyTaken = true;
    this.#consent();
    const { request } = this;
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const pieces: Buffer[] = [];
    const onData = (piece: Buffer): void => void pieces.push(piece);
    const timer = setTimeout(() => {
      request.off('data', onData).pause();
      reject(fault('request-too-slow', `The body did not arrive within ${proxyBounds.heldBodyTimeoutMs} ms.`));
    }, proxyBounds.heldBodyTimeoutMs);
    request.on('data', onData);
    request.on('end', () => resolve(Buffer.concat(pieces)));
    request.on('error', (cause) => reject(fault('request-malformed', 'The body of the request was cut.', { cause })));
    try {
      this.#held = await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends the request to an address. Resolves with the head of the answer, or why there is none. */
  async attempt(upstreams: Upstreams, options: AttemptOptions): Promise<ExchangeAttempt> {
    this.discard();
    const streams = this.#held === undefined && this.head.framing.kind !== 'none';
    const attempt = await upstreams.attempt(
      {
        address: options.address,
        method: this.request.method ?? 'GET',
        path: this.head.path,
        headers: this.#headersFor(options),
        upgrade: this.#upgraded === undefined ? undefined : this.request.headers.upgrade,
        fresh: options.fresh ?? false,
      },
      {
        sendBody: (sent, onPiece) => this.#sendBody(sent, onPiece),
        expectsConsent: streams && options.awaitsConsent,
        onInformation: (status, headers) => this.#passInformation(status, headers),
        abandoned: this.#gone.signal,
      },
    );
    if (attempt.kind !== 'answered' && attempt.kind !== 'upgraded') return attempt;
    // The stream may end before anybody listens: whoever relays looks at `errored` and `complete`.
    attempt.answer.on('error', () => undefined);
    this.#latest = attempt;
    return {
      kind: 'answered',
      answer: { status: attempt.answer.statusCode ?? 502, headers: attempt.answer.rawHeaders },
    };
  }

  /** Gives up the latest answer. */
  discard(): void {
    const latest = this.#latest;
    this.#latest = undefined;
    if (latest === undefined) return;
    if (latest.kind === 'upgraded') latest.socket.destroy();
    // A short refusal is read to its end, so that its connection can be used again.
    else if (Number(valuesOf(latest.answer.rawHeaders, 'content-length')[0]) <= limits.heldBodyBytesMax) {
      latest.answer.resume();
      // A body that was never consented to will never be sent on this connection.
      if (!latest.sent.writableEnded) latest.sent.destroy();
    } else latest.sent.destroy();
  }

  /**
   * Passes the latest answer on to the client, as it comes. An answer that is cut on its way is cut
   * for the client too: it never looks complete.
   */
  async relay(options: { readonly goesOn: HeaderFilter; readonly stamps: RawHeaders }): Promise<Relayed> {
    const latest = this.#latest;
    this.#latest = undefined;
    if (latest === undefined) {
      await this.refuse(fault('internal', 'There is no answer to pass on.'));
      return 'upstream-cut';
    }
    if (latest.kind === 'upgraded') return this.#relayTunnel(latest, options);
    const { answer } = latest;
    const response = this.#response;
    if (this.#gone.signal.aborted || response.destroyed) {
      latest.sent.destroy();
      return 'client-gone';
    }
    const status = answer.statusCode ?? 502;
    const kept = endToEnd(
      answer.rawHeaders,
      (name) => options.goesOn(name) && (status !== 204 || name !== 'content-length'),
    );
    const lingers = this.#leavesBody();
    try {
      response.writeHead(status, answer.statusMessage ?? STATUS_CODES[status] ?? '', [
        ...kept,
        ...options.stamps,
        ...(lingers || this.#upgraded !== undefined ? ['Connection', 'close'] : []),
      ]);
    } catch (cause) {
      // The parser takes heads that may not be written, as a status of 99 or a control character in its reason.
      latest.sent.destroy();
      await this.refuse(this.#unusable(cause), options.stamps);
      return 'upstream-cut';
    }
    const { promise, resolve } = Promise.withResolvers<Relayed>();
    let relayed: Relayed | undefined;
    const finish = (result: Relayed): void => {
      if (relayed !== undefined) return;
      relayed = result;
      if (result !== 'complete') cut(response);
      // With a body that is not sent to its end, the connection cannot be used again.
      if (result !== 'complete' || !latest.sent.writableEnded) latest.sent.destroy();
      resolve(result);
    };
    answer.on('aborted', () => finish('upstream-cut'));
    answer.on('error', () => finish('upstream-cut'));
    answer.on('close', () => {
      if (!answer.complete) finish('upstream-cut');
    });
    answer.on('end', () => {
      if (!answer.complete) return finish('upstream-cut');
      const trailers = endToEndTrailers(answer.rawTrailers, this.#isTrusted);
      addTrailers(response, trailers);
      void this.#end(lingers);
    });
    response.on('finish', () => finish('complete'));
    response.on('close', () => finish(response.writableFinished ? 'complete' : 'client-gone'));
    if (answer.errored !== null || (answer.closed && !answer.complete)) finish('upstream-cut');
    else {
      response.flushHeaders();
      answer.pipe(response, { end: false });
    }
    return promise;
  }

  /** Answers with a problem document in place of any answer of an address. */
  async refuse(reason: Fault, stamps: RawHeaders = []): Promise<void> {
    this.discard();
    const response = this.#response;
    if (this.#gone.signal.aborted || response.destroyed || response.headersSent) return;
    const lingers = this.#leavesBody();
    const body = JSON.stringify(problemOf(reason));
    // Its own reason phrase: one that was refused before would stand there still.
    response.writeHead(reason.kind.status, STATUS_CODES[reason.kind.status] ?? '', [
      'Content-Type',
      problemMediaType,
      'Content-Length',
      String(Buffer.byteLength(body)),
      ...retryAfter(reason),
      ...stamps,
      ...(lingers || this.#upgraded !== undefined ? ['Connection', 'close'] : []),
    ]);
    if (this.request.method !== 'HEAD') response.write(body);
    await this.#end(lingers);
  }

  #unusable(cause: unknown): Fault {
    const message = 'The answer has a head that cannot be passed on';
    const isRead = this.request.method === 'GET' || this.request.method === 'HEAD';
    if (isRead) return fault('answer-cut', `${message}.`, { cause });
    return fault('outcome-unknown', `${message}; the request may have been acted on.`, { cause });
  }

  #headersFor(options: AttemptOptions): string[] {
    const raw = this.request.rawHeaders;
    const headers = endToEnd(raw, (name) => name !== 'expect' && options.goesOn(name));
    headers.push(...options.stamps);
    if (membersOf(raw, 'te').includes('trailers')) headers.push('TE', 'trailers');
    if (this.head.framing.kind === 'chunked') headers.push('Transfer-Encoding', 'chunked');
    return headers;
  }

  #sendBody(sent: ClientRequest, onPiece: () => void): void {
    if (this.head.framing.kind === 'none') return void sent.end();
    if (this.#held !== undefined) return void sent.end(this.#held);
    this.#bodyTaken = true;
    this.#consent();
    const { request } = this;
    request.pipe(sent, { end: false });
    request.on('data', onPiece);
    request.on('end', () => {
      const trailers = endToEndTrailers(request.rawTrailers, this.#isTrusted);
      addTrailers(sent, trailers);
      sent.end();
    });
    // What the address no longer takes stays unread until the answer is relayed, which then reads it away.
    sent.on('close', () => request.off('data', onPiece).unpipe(sent));
  }

  #consent(): void {
    if (this.head.expectsConsent && !this.#response.headersSent) this.#response.writeContinue();
  }

  #passInformation(status: number, raw: RawHeaders): void {
    const response = this.#response;
    if (this.request.httpVersion === '1.0' || response.headersSent || response.destroyed) return;
    const headers: Record<string, string[]> = {};
    const kept = endToEnd(raw, this.#isTrusted);
    for (let i = 0; i < kept.length; i += 2) (headers[kept[i] ?? ''] ??= []).push(kept[i + 1] ?? '');
    try {
      response.writeInformation(status, headers);
    } catch {
      // It cannot be written, and nothing depends on it: the answer follows.
    }
  }

  /** Whether the client may still be sending a body that nobody will read. */
  #leavesBody(): boolean {
    return this.head.framing.kind !== 'none' && !this.request.complete;
  }

  /** Ends the answer; first reads away, within bounds, what the client still sends, or it would not see the answer. */
  async #end(lingers: boolean): Promise<void> {
    const response = this.#response;
    if (lingers && !this.request.complete && !response.destroyed) {
      let left: number = proxyBounds.lingerBytesMax;
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, proxyBounds.lingerMs);
      this.request.on('data', (piece: Buffer) => {
        left -= piece.length;
        if (left < 0) resolve();
      });
      this.request.on('close', resolve);
      this.request.on('end', resolve);
      this.request.resume();
      await promise;
      clearTimeout(timer);
    }
    response.end();
  }

  async #relayTunnel(
    latest: Extract<Attempt, { readonly kind: 'upgraded' }>,
    options: { readonly goesOn: HeaderFilter; readonly stamps: RawHeaders },
  ): Promise<Relayed> {
    const client = this.#upgraded;
    if (client === undefined || client.socket.destroyed) {
      latest.socket.destroy();
      return 'client-gone';
    }
    const { answer } = latest;
    const headers = [
      ...endToEnd(answer.rawHeaders, options.goesOn),
      ...options.stamps,
      'Connection',
      'Upgrade',
      'Upgrade',
      valuesOf(answer.rawHeaders, 'upgrade')[0] ?? '',
    ];
    let text = `HTTP/1.1 101 ${answer.statusMessage ?? STATUS_CODES[101] ?? ''}\r\n`;
    for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
    this.#response.detachSocket(client.socket);
    client.socket.write(`${text}\r\n`, 'latin1');
    if (latest.head.length > 0) client.socket.write(latest.head);
    if (client.head.length > 0) latest.socket.write(client.head);
    this.#tunnelled = latest.socket;
    await tunnel(client.socket, latest.socket);
    return 'complete';
  }
}

/** Retry-After in whole seconds, as RFC 9110, 10.2.3 has it, rounded up. */
function retryAfter(reason: Fault): string[] {
  return reason.retryAfterMs === undefined ? [] : ['Retry-After', String(Math.ceil(reason.retryAfterMs / 1000))];
}

/** Ends a connection so that nothing sent on it can be taken for complete, not even by HTTP/1.0. */
function cut(response: ServerResponse): void {
  const { socket } = response;
  // It waits behind other answers on its connection, which ends when its turn comes.
  if (socket === null) response.destroy();
  else if (!socket.destroyed) socket.resetAndDestroy();
}

function addTrailers(message: OutgoingMessage, trailers: readonly [string, string][]): void {
  if (trailers.length === 0) return;
  try {
    message.addTrailers(trailers);
  } catch {
    // They cannot be written, and the message is complete without them.
  }
}
