import { createServer, ServerResponse, type IncomingMessage, type Server } from 'node:http';
import { Socket } from 'node:net';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import { carriedBytesMax, carriedFramesMax, framesPath } from '../../protocol/carry.ts';
import { fault } from '../../protocol/errors.ts';
import { headers } from '../../protocol/headers.ts';
import type { TenantName } from '../../protocol/names.ts';
import { asFault } from '../../protocol/problem.ts';
import { SignedSchema, type Signed } from '../../protocol/routing.ts';
import { proxyBounds } from '../../proxy/bounds.ts';
import { membersOf } from '../../proxy/headers.ts';
import { checkHead, type CheckedHead } from '../../proxy/strict.ts';
import { admit, type Admission, type GateView } from '../decide/gate.ts';
import { targetOf } from '../decide/target.ts';
import { BodyBytes, parseJson, readBody, refuse, sendProblem, sendRefusal } from './answer.ts';

/** How long the frames that somebody carries here may take to arrive: only one such request is taken at a time. */
const carriedTimeMsMax = 1_000;
/** Unbounded (0): uploads may take long, and `proxyBounds.idleTimeoutMs` ends the silent ones. */
const bodyTimeMsMax = 0;

const CarriedFramesSchema = Type.Object({
  frames: Type.Array(SignedSchema, { minItems: 1, maxItems: carriedFramesMax }),
});

/** A request that was admitted. */
export interface Admitted {
  readonly tenant: TenantName;
  readonly epoch: number;
  readonly head: CheckedHead;
  /** The connection, if the client asks to upgrade it and the application knows upgrades. */
  readonly upgraded: { readonly socket: Socket; readonly head: Buffer } | undefined;
  /** Asks the gate again, because time has passed: what it answers holds for this tick only. */
  readonly again: () => Admission;
}

/** What stands behind the gate. */
export interface Application {
  /** Whether connections may be upgraded (WebSocket). Where not, a request to do so is an ordinary one. */
  readonly upgrades: boolean;
  handle(request: IncomingMessage, response: ServerResponse, admitted: Admitted): void;
  close(): void;
}

export interface DoorOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** The view as of now; asked for each request. */
  readonly view: () => GateView;
  /** Undefined while the view is closed. */
  readonly application: () => Application | undefined;
  readonly takeFrames: (frames: readonly Signed[]) => Promise<void>;
}

export interface Door {
  readonly url: string;
  /** Stops listening, lets requests in flight finish for `proxyBounds.drainMs`, and ends what is left. */
  close(): Promise<void>;
}

/** Opens the listener of a cell: every request passes the gate before anything else sees it. Fault `port-in-use`. */
export async function openDoor(options: DoorOptions): Promise<Door> {
  const server = createServer({
    maxHeaderSize: proxyBounds.gateHeadBytesMax,
    headersTimeout: proxyBounds.headTimeoutMs,
    requestTimeout: bodyTimeMsMax,
    keepAliveTimeout: proxyBounds.keepAliveTimeoutMs,
    connectionsCheckingInterval: proxyBounds.connectionsCheckingIntervalMs,
    requireHostHeader: false,
    // What would be refused is not upgraded, but answered like every other request.
    shouldUpgradeCallback: (request) => isTunnel(request) && wouldUpgrade(options, request),
  });
  server.maxHeadersCount = 0;
  server.maxConnections = proxyBounds.connectionsMax;
  server.timeout = proxyBounds.idleTimeoutMs;
  const sockets = new Set<Socket>();
  const carried = new CarriedFrames(options.takeFrames);
  server.on('connection', (socket) => {
    socket.setNoDelay(true);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  // Consent to a body (100) is given by the application that reads it, which is after admission.
  for (const event of ['request', 'checkContinue', 'checkExpectation'] as const) {
    server.on(event, (request: IncomingMessage, response: ServerResponse) =>
      enter(options, carried, request, response),
    );
  }
  server.on('upgrade', (request, socket, head) => {
    if (!(socket instanceof Socket)) {
      socket.destroy();
      return;
    }
    socket.on('error', () => undefined);
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    try {
      response.assignSocket(socket);
    } catch {
      // Sent ahead of the answer to another request: the connection is not free to be upgraded.
      socket.destroy();
      return;
    }
    response.once('finish', () => socket.end());
    enter(options, carried, request, response, { socket, head });
  });
  const { host } = options.listen;
  const port = await listen(server, host, options.listen.port);
  return { url: `http://${host}:${port}`, close: () => close(server, sockets) };
}

/** Passes a request to the application, or answers it here. */
function enter(
  options: DoorOptions,
  carried: CarriedFrames,
  request: IncomingMessage,
  response: ServerResponse,
  upgraded?: { readonly socket: Socket; readonly head: Buffer },
): void {
  response.on('error', () => undefined);
  request.on('error', () => undefined);
  try {
    const head = checkedHead(request);
    if (request.url === framesPath && !wasRouted(request)) {
      void carried.take(request, response, head);
      return;
    }
    const target = targetOf(request.headersDistinct);
    const again = () => admit(options.view(), target);
    const admission = again();
    const application = options.application();
    if (admission.kind === 'refused') refuse(request, response, admission);
    else if (application === undefined) throw fault('cell-not-ready', 'The cell is starting.', { retryAfterMs: 500 });
    else {
      const { tenant } = target;
      application.handle(request, response, { tenant, epoch: admission.epoch, head, upgraded, again });
    }
  } catch (thrown) {
    sendRefusal(request, response, asFault(thrown));
  }
}

function wouldUpgrade(options: DoorOptions, request: IncomingMessage): boolean {
  try {
    checkedHead(request);
    const upgrades = options.application()?.upgrades === true;
    return upgrades && admit(options.view(), targetOf(request.headersDistinct)).kind === 'admitted';
  } catch {
    return false;
  }
}

/** HTTP/2 in a tunnel would carry requests past the gate, so only other protocols may be upgraded to. */
function isTunnel({ method, rawHeaders, headers }: IncomingMessage): boolean {
  const [protocol, ...more] = membersOf(rawHeaders, 'upgrade');
  const framed = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined;
  return method === 'GET' && !framed && protocol !== undefined && more.length === 0 && !/^(h2|http\/)/i.test(protocol);
}

function checkedHead(request: IncomingMessage): CheckedHead {
  const { method = '', url: target = '', httpVersion, rawHeaders } = request;
  return checkHead({ method, target, httpVersion, rawHeaders }, proxyBounds.gateHeadersMax);
}

/** Whether a router forwards a client's request: what comes so is for the application, whatever its path. */
function wasRouted({ headers: values }: IncomingMessage): boolean {
  return [headers.tenant, headers.epoch, headers.cell].some((name) => values[name] !== undefined);
}

/**
 * Takes signed frames that somebody carries here. They prove themselves, so anybody may bring them;
 * what that can cost the cell is bounded by taking one request at a time.
 */
class CarriedFrames {
  readonly #take: DoorOptions['takeFrames'];
  readonly #bodies = new BodyBytes(carriedBytesMax);
  #busy = false;

  constructor(take: DoorOptions['takeFrames']) {
    this.#take = take;
  }

  async take(request: IncomingMessage, response: ServerResponse, head: CheckedHead): Promise<void> {
    if (request.method !== 'POST') {
      sendProblem(response, fault('method-not-allowed', `${framesPath} takes POST only.`), { allow: 'POST' });
      return;
    }
    if (this.#busy) {
      response.setHeader('connection', 'close');
      const message = 'This cell is taking frames from somebody else. Try again soon.';
      sendProblem(response, fault('limit-exceeded', message, { retryAfterMs: 1_000 }));
      return;
    }
    this.#busy = true;
    try {
      const text = await readBody(request, response, {
        bytesMax: carriedBytesMax,
        timeMsMax: carriedTimeMsMax,
        expectsContinue: head.expectsConsent,
        bodies: this.#bodies,
      });
      const body = parseJson(text);
      if (!Value.Check(CarriedFramesSchema, body)) {
        const message = `Send {"frames": […]} with 1 to ${carriedFramesMax} signed frames.`;
        throw fault('input-invalid', message, { field: 'frames' });
      }
      await this.#take(body.frames);
      response.writeHead(204).end();
    } catch (thrown) {
      sendProblem(response, asFault(thrown));
    } finally {
      this.#busy = false;
    }
  }
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      if (!('code' in cause && cause.code === 'EADDRINUSE')) return reject(cause);
      const message = `Port ${port} on ${host} is in use by another process. Stop that one, or let the host choose again.`;
      reject(fault('port-in-use', message, { field: 'listen.port', cause }));
    });
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : port);
    });
  });
}

function close(server: Server, sockets: ReadonlySet<Socket>): Promise<void> {
  return new Promise((resolve) => {
    const end = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, proxyBounds.drainMs);
    server.close(() => {
      clearTimeout(end);
      for (const socket of sockets) socket.destroy();
      resolve();
    });
    server.closeIdleConnections();
  });
}
