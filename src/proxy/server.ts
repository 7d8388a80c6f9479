import { createServer, ServerResponse, type IncomingMessage, type Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { AddressInfo } from 'node:net';
import { Socket as NetSocket } from 'node:net';
import type { Fault } from '../kernel/fault.ts';
import { fault } from '../protocol/errors.ts';
import { asFault, problemMediaType, problemOf } from '../protocol/problem.ts';
import { proxyBounds } from './bounds.ts';
import { Exchange } from './exchange.ts';
import { membersOf, type HeaderFilter } from './headers.ts';
import { checkHead } from './strict.ts';
import { keepAlive } from './upstream.ts';

export interface ProxyServer {
  /** `http://host:port`, with the port that was taken. */
  readonly url: string;
  /** Takes no new connections, lets answers in progress end within `drainMs`, closes the rest. */
  stop(): Promise<void>;
}

export interface ProxyServerOptions {
  readonly host: string;
  readonly port: number;
  /** Which headers of trailers and 1xx answers go on, named in lower case. */
  readonly isTrusted: HeaderFilter;
  /** Serves one request whose head was checked. What it throws is answered as a problem. */
  readonly serve: (exchange: Exchange) => Promise<void>;
  /** A request was refused before it came to `serve`. */
  readonly onMalformed?: (reason: Fault) => void;
}

/**
 * Listens for HTTP/1.1 with every bound of `proxyBounds`. Malformed or ambiguous requests are
 * answered with a problem document and their connection is closed.
 * Faults: port-in-use.
 */
export async function listen(options: ProxyServerOptions): Promise<ProxyServer> {
  const server = createServer({
    maxHeaderSize: proxyBounds.headBytesMax,
    headersTimeout: proxyBounds.headTimeoutMs,
    requestTimeout: proxyBounds.requestTimeoutMs,
    keepAliveTimeout: proxyBounds.keepAliveTimeoutMs,
    connectionsCheckingInterval: proxyBounds.connectionsCheckingIntervalMs,
    requireHostHeader: false,
    insecureHTTPParser: false,
    shouldUpgradeCallback: tunnels,
  });
  // The parser would drop headers above its own count without a word; checkHead counts instead.
  server.maxHeadersCount = 0;
  server.maxConnections = proxyBounds.connectionsMax;
  server.timeout = proxyBounds.idleTimeoutMs;
  const front = new Front(options);
  server.on('connection', (socket: Socket) => front.connected(socket));
  server.on('request', (request, response) => front.request(request, response));
  server.on('checkContinue', (request, response) => front.request(request, response));
  server.on('checkExpectation', (request, response) => front.request(request, response));
  server.on('upgrade', (request, socket, head) => front.upgrade(request, socket, head));
  server.on('connect', (request, socket, head) => front.upgrade(request, socket, head));
  server.on('clientError', (error, socket) => front.clientError(error, socket));
  await bind(server, options);
  const address = server.address();
  return {
    url: urlOf(address),
    stop: () => front.stop(server),
  };
}

/**
 * Only these become tunnels; any other Upgrade is ignored, as RFC 9110, 7.8 allows. HTTP/2 in a
 * tunnel would carry requests past the checks of router and gate.
 */
function tunnels(request: IncomingMessage): boolean {
  const asked = membersOf(request.rawHeaders, 'upgrade');
  return (
    request.method === 'GET' &&
    membersOf(request.rawHeaders, 'connection').includes('upgrade') &&
    asked.length === 1 &&
    !asked.some((token) => token.startsWith('h2') || token.startsWith('http/')) &&
    request.headers['content-length'] === undefined &&
    request.headers['transfer-encoding'] === undefined
  );
}

interface Asked {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  exchange: Exchange | undefined;
  isServed: boolean;
}

/** Turns what the HTTP server reports into exchanges, and knows which are in progress. */
class Front {
  readonly #options: ProxyServerOptions;
  readonly #sockets = new Set<Socket>();
  /** Requests of each connection whose answer has not ended. */
  readonly #answering = new Map<Duplex, Set<Asked>>();
  readonly #underWay = new Set<Promise<void>>();
  /** Connections on which something malformed came: nothing behind it is understood, or answered. */
  readonly #distrusted = new WeakSet<Duplex>();
  #stopping = false;

  constructor(options: ProxyServerOptions) {
    this.#options = options;
  }

  connected(socket: Socket): void {
    keepAlive(socket);
    this.#sockets.add(socket);
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#answering.delete(socket);
    });
  }

  request(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    if (this.#distrusted.has(socket)) {
      request.on('error', () => undefined);
      return;
    }
    const asked: Asked = { request, response, exchange: undefined, isServed: false };
    const answering = this.#answering.get(socket) ?? new Set<Asked>();
    this.#answering.set(socket, answering.add(asked));
    response.on('close', () => {
      answering.delete(asked);
      if (answering.size === 0) this.#answering.delete(socket);
      this.#serveNext(socket, answering);
    });
    request.on('error', () => undefined);
    if (answering.size > proxyBounds.pipelinedMax) socket.pause();
    this.#serveNext(socket, answering);
  }

  /**
   * One request of a connection at a time, in order (RFC 9112, 9.3.2): what is sent ahead of an answer waits, so that
   * no write overtakes another and one connection takes one place at a cell.
   */
  #serveNext(socket: Socket, answering: ReadonlySet<Asked>): void {
    const [asked] = answering;
    if (socket.destroyed || this.#distrusted.has(socket)) return;
    if (answering.size <= proxyBounds.pipelinedMax && socket.isPaused()) socket.resume();
    if (asked === undefined || asked.isServed) return;
    asked.isServed = true;
    if (this.#stopping) asked.response.shouldKeepAlive = false;
    this.#run(asked, undefined);
  }

  upgrade(request: IncomingMessage, duplex: Duplex, head: Buffer): void {
    // An upgrade that is sent ahead of an answer has no connection to itself yet.
    if (!(duplex instanceof NetSocket) || this.#answering.has(duplex)) {
      duplex.destroy();
      return;
    }
    duplex.on('error', () => undefined);
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(duplex);
    // Nobody else ends the connection of an upgrade that was answered with something else.
    response.on('finish', () => duplex.end());
    this.#run({ request, response, exchange: undefined, isServed: true }, { socket: duplex, head });
  }

  clientError(error: Error, socket: Duplex): void {
    // The sender still reads the problem that it got; what it goes on to send does not matter.
    if (this.#distrusted.has(socket)) return;
    this.#distrusted.add(socket);
    const reason = faultOfParser(error);
    this.#options.onMalformed?.(reason);
    const [asked, ...others] = this.#answering.get(socket) ?? [];
    // The problem may only stand where an answer to what is malformed would: behind nothing, or in place of
    // the answer to a request whose body is what is malformed. Else it would be taken for another answer.
    const isOfBody = asked !== undefined && !asked.request.complete && !asked.response.headersSent;
    if (!socket.writable || others.length > 0 || (asked !== undefined && !isOfBody)) {
      socket.destroy();
      return;
    }
    asked?.exchange?.abandon();
    const body = JSON.stringify(problemOf(reason));
    socket.end(
      `HTTP/1.1 ${reason.kind.status} ${reason.kind.title}\r\nContent-Type: ${problemMediaType}\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    );
    // Bytes that are still unread at a close reset the connection before the client reads the problem.
    socket.resume();
    setTimeout(() => socket.destroy(), proxyBounds.lingerMs).unref();
  }

  async stop(server: Server): Promise<void> {
    this.#stopping = true;
    const closed = new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
    server.closeIdleConnections();
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, proxyBounds.drainMs);
    });
    await Promise.race([Promise.all(this.#underWay), timeout]);
    clearTimeout(timer);
    server.closeAllConnections();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #run(asked: Asked, upgraded: { readonly socket: Socket; readonly head: Buffer } | undefined): void {
    asked.response.on('error', () => undefined);
    const running = this.#serve(asked, upgraded).finally(() => this.#underWay.delete(running));
    this.#underWay.add(running);
  }

  async #serve(asked: Asked, upgraded: { readonly socket: Socket; readonly head: Buffer } | undefined): Promise<void> {
    const { request, response } = asked;
    const { isTrusted, serve, onMalformed } = this.#options;
    let head;
    try {
      head = checkHead({
        method: request.method ?? '',
        target: request.url ?? '',
        httpVersion: request.httpVersion,
        rawHeaders: request.rawHeaders,
      });
    } catch (thrown) {
      const reason = asFault(thrown);
      onMalformed?.(reason);
      this.#distrusted.add(request.socket);
      request.on('error', () => undefined);
      await refuseAndClose(request, response, reason);
      return;
    }
    const exchange = new Exchange({
      head,
      request,
      response,
      isTrusted,
      ...(upgraded === undefined ? {} : { upgraded }),
    });
    asked.exchange = exchange;
    try {
      await serve(exchange);
    } catch (thrown) {
      if (!response.headersSent) await exchange.refuse(asFault(thrown));
      else response.destroy();
    }
  }
}

async function refuseAndClose(request: IncomingMessage, response: ServerResponse, reason: Fault): Promise<void> {
  const body = JSON.stringify(problemOf(reason));
  response.writeHead(reason.kind.status, [
    'Content-Type',
    problemMediaType,
    'Content-Length',
    String(Buffer.byteLength(body)),
    'Connection',
    'close',
  ]);
  if (request.method !== 'HEAD') response.write(body);
  request.resume();
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, proxyBounds.lingerMs);
  request.on('close', resolve);
  request.on('end', resolve);
  if (!request.complete) await promise;
  clearTimeout(timer);
  response.end();
}

function faultOfParser(error: Error): Fault {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  const why = 'reason' in error && typeof error.reason === 'string' ? error.reason : error.message;
  if (code === 'HPE_HEADER_OVERFLOW' || code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') {
    return fault('head-too-large', `The head of the request is larger than ${proxyBounds.headBytesMax} bytes.`);
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return fault('request-too-slow', `The head of the request did not arrive within ${proxyBounds.headTimeoutMs} ms.`);
  }
  return fault('request-malformed', `The request cannot be parsed: ${why}.`, { cause: error });
}

async function bind(server: Server, options: { readonly host: string; readonly port: number }): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(options.port, options.host, resolve);
  try {
    await promise;
  } catch (cause) {
    const taken = cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE';
    const where = `${options.host}:${options.port}`;
    if (taken) {
      throw fault('port-in-use', `${where} is in use by another process. Choose another port, or stop that process.`, {
        field: where,
        cause,
      });
    }
    throw fault('start-failed', `Listening on ${where} failed: ${cause instanceof Error ? cause.message : ''}.`, {
      cause,
    });
  }
  server.removeListener('error', reject);
}

function urlOf(address: AddressInfo | string | null): string {
  if (address === null || typeof address === 'string') throw fault('internal', 'A listener has no port.');
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `http://${host}:${address.port}`;
}
