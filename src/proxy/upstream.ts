import { Agent, request, type ClientRequest, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { proxyBounds } from './bounds.ts';
import { valuesOf, type RawHeaders } from './headers.ts';

/** What is sent to an address, but for its body. Headers are end-to-end ones, Host included. */
export interface UpstreamHead {
  readonly address: string;
  readonly method: string;
  readonly path: string;
  readonly headers: RawHeaders;
  /** Token of an Upgrade that is asked for; the connection then is one of its own. */
  readonly upgrade: string | undefined;
  /** Opens a connection that was never used. */
  readonly fresh: boolean;
}

/** What became of one request to an address, up to the head of its answer. */
export type Attempt =
  | { readonly kind: 'answered'; readonly answer: IncomingMessage; readonly sent: ClientRequest }
  | { readonly kind: 'upgraded'; readonly answer: IncomingMessage; readonly socket: Socket; readonly head: Buffer }
  /** Not a byte was sent. */
  | { readonly kind: 'never-connected'; readonly cause: Error }
  /** The connection ended after the request was or may have been sent. */
  | { readonly kind: 'lost'; readonly cause: Error }
  | { readonly kind: 'timed-out' }
  /** The address has as many exchanges as it may have at once; nothing was sent. */
  | { readonly kind: 'at-limit' }
  /** Whoever asked went away. */
  | { readonly kind: 'abandoned' };

/** What happens to a request while it is under way. */
export interface AttemptEvents {
  /**
   * Sends the body, once. Called when the connection stands or, with `expectsConsent`, at the consent.
   * Calls `onPiece` for each piece, or an upload that takes long would look like an answer that does.
   */
  readonly sendBody: (sent: ClientRequest, onPiece: () => void) => void;
  readonly expectsConsent: boolean;
  readonly onInformation: (status: number, headers: RawHeaders) => void;
  /** Aborted when whoever asked goes away. */
  readonly abandoned: AbortSignal;
}

/** Connections to other processes: kept alive, bounded for each address. */
export class Upstreams {
  readonly #agent = new Agent({
    keepAlive: true,
    maxSockets: proxyBounds.exchangesPerAddressMax,
    maxFreeSockets: proxyBounds.freeSocketsPerAddressMax,
    timeout: proxyBounds.freeSocketTimeoutMs,
    scheduling: 'lifo',
  });
  readonly #underWay = new Map<string, number>();
  readonly #exchangesMax: number;

  constructor(options: { readonly exchangesPerAddressMax?: number } = {}) {
    this.#exchangesMax = options.exchangesPerAddressMax ?? proxyBounds.exchangesPerAddressMax;
  }

  /** Sends one request. Resolves with the head of the answer or with what prevented it; never rejects. */
  attempt(head: UpstreamHead, events: AttemptEvents): Promise<Attempt> {
    if (events.abandoned.aborted) return Promise.resolve({ kind: 'abandoned' });
    const underWay = this.#underWay.get(head.address) ?? 0;
    if (underWay >= this.#exchangesMax) return Promise.resolve({ kind: 'at-limit' });
    this.#underWay.set(head.address, underWay + 1);
    return new Promise((resolve) => {
      try {
        this.#send(head, events, resolve);
      } catch (cause) {
        // What cannot be written as HTTP is thrown before anything is sent.
        this.#leave(head.address);
        resolve({ kind: 'never-connected', cause: cause instanceof Error ? cause : new Error(String(cause)) });
      }
    });
  }

  /** Closes every connection. */
  close(): void {
    this.#agent.destroy();
  }

  #leave(address: string): void {
    const left = (this.#underWay.get(address) ?? 1) - 1;
    if (left === 0) this.#underWay.delete(address);
    else this.#underWay.set(address, left);
  }

  #send(head: UpstreamHead, events: AttemptEvents, resolve: (attempt: Attempt) => void): void {
    const url = new URL(head.address);
    const port = Number(url.port || '80');
    const sent = request({
      host: url.hostname,
      port,
      method: head.method,
      path: head.path,
      headers: framed(head, url.host, events.expectsConsent),
      setHost: false,
      ...(head.upgrade === undefined && !head.fresh
        ? { agent: this.#agent }
        : // A tunnel needs half-open sockets, which must never get into the pool.
          {
            createConnection: () => connect({ host: url.hostname, port, allowHalfOpen: head.upgrade !== undefined }),
          }),
    });
    this.#watch(sent, head.address, events, resolve);
  }

  #watch(sent: ClientRequest, address: string, events: AttemptEvents, resolve: (attempt: Attempt) => void): void {
    let connected = false;
    let bodySent = false;
    let settled = false;
    let isTunnel = false;
    let timer: NodeJS.Timeout | undefined;
    const settle = (attempt: Attempt): void => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      resolve(attempt);
    };
    const expire = (): void => {
      settle(
        connected ? { kind: 'timed-out' } : { kind: 'never-connected', cause: new Error('connecting took too long') },
      );
      sent.destroy();
    };
    const sendBody = (): void => {
      if (bodySent || settled) return;
      bodySent = true;
      events.sendBody(sent, goesOn);
    };
    /** The time counts from the last byte that was passed on. */
    const goesOn = (): void => {
      if (!settled) timer?.refresh();
    };
    const onConnected = (): void => {
      connected = true;
      clearTimeout(timer);
      timer = setTimeout(expire, proxyBounds.firstByteTimeoutMs);
      if (!events.expectsConsent) sendBody();
    };
    const onAbandoned = (): void => {
      settle({ kind: 'abandoned' });
      sent.destroy();
    };
    events.abandoned.addEventListener('abort', onAbandoned, { once: true });

    if (events.expectsConsent) sent.flushHeaders();
    sent.on('socket', (socket) => {
      if (!socket.connecting) {
        onConnected();
        return;
      }
      timer = setTimeout(expire, proxyBounds.connectTimeoutMs);
      socket.once('connect', () => {
        keepAlive(socket);
        onConnected();
      });
    });
    sent.on('drain', goesOn);
    sent.on('finish', goesOn);
    sent.on('continue', sendBody);
    sent.on('information', (info) => {
      if (info.statusCode !== 100) events.onInformation(info.statusCode, info.rawHeaders);
    });
    sent.on('upgrade', (answer, socket, head) => {
      // The request is over, but not what it began: the tunnel counts until its connection ends.
      isTunnel = true;
      socket.once('close', () => this.#leave(address));
      settle({ kind: 'upgraded', answer, socket, head });
    });
    sent.on('response', (answer) => settle({ kind: 'answered', answer, sent }));
    sent.on('error', (cause) => settle(connected ? { kind: 'lost', cause } : { kind: 'never-connected', cause }));
    sent.on('close', () => {
      settle({ kind: 'lost', cause: new Error('the connection was closed') });
      events.abandoned.removeEventListener('abort', onAbandoned);
      if (!isTunnel) this.#leave(address);
    });
  }
}

function framed(head: UpstreamHead, host: string, expectsConsent: boolean): string[] {
  const headers = [...head.headers];
  // HTTP/1.0 knows requests without Host; what goes on is HTTP/1.1, which does not.
  if (valuesOf(headers, 'host').length === 0) headers.push('Host', host);
  if (head.upgrade !== undefined) headers.push('Connection', 'Upgrade', 'Upgrade', head.upgrade);
  else headers.push('Connection', head.fresh ? 'close' : 'keep-alive');
  if (expectsConsent) headers.push('Expect', '100-continue');
  return headers;
}

/** Lets the kernel notice a peer that is gone without a word. */
export function keepAlive(socket: Socket): void {
  socket.setKeepAlive(true, proxyBounds.tcpKeepAliveMs, proxyBounds.tcpKeepAliveMs, proxyBounds.tcpKeepAliveProbes);
  socket.setNoDelay(true);
}
