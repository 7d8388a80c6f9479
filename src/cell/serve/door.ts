import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import { fault } from '../../protocol/errors.ts';
import type { TenantName } from '../../protocol/names.ts';
import { asFault } from '../../protocol/problem.ts';
import { SignedSchema, type Signed } from '../../protocol/routing.ts';
import { admit, type Admission, type GateView } from '../decide/gate.ts';
import { targetOf } from '../decide/target.ts';
import { parseJson, readBody, refuse, sendProblem, sendRefusal } from './answer.ts';

/** Connections of one cell; the kernel queues what comes beyond. */
export const connectionsMax = 10_000;
/** How long a client may take for its head. Bodies may take as long as their application allows. */
const headTimeoutMs = 10_000;
/** Longer than routers keep an idle connection, so that it is they who close it. */
const keepAliveTimeoutMs = 75_000;
/** Signed frames that somebody carries here, in one request. */
export const carriedFramesBytesMax = 16 * 1024 * 1024;
/** What requests in flight get when the cell stops. */
const drainMsMax = 1_000;

export const framesPath = '/.cellwright/frames';
const CarriedFramesSchema = Type.Object({ frames: Type.Array(SignedSchema, { minItems: 1, maxItems: 10_000 }) });

/** A request that was admitted. */
export interface Admitted {
  readonly tenant: TenantName;
  readonly epoch: number;
  /** Whether the client waits for consent (100 Continue) before it sends the body. */
  readonly expectsContinue: boolean;
  /** Asks the gate again, because time has passed: what it answers holds for this tick only. */
  readonly again: () => Admission;
}

/** What stands behind the gate. */
export interface Application {
  handle(request: IncomingMessage, response: ServerResponse, admitted: Admitted): void;
  /** Takes over the connection of an admitted request to upgrade. Absent if it knows none. */
  upgrade?(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

export interface DoorOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** The view as of now; asked for each request. */
  readonly view: () => GateView;
  /** Undefined exactly while the view is closed. */
  readonly application: () => Application | undefined;
  readonly takeFrames: (frames: readonly Signed[]) => Promise<void>;
}

export interface Door {
  readonly url: string;
  /** Stops listening, lets requests in flight finish for a bounded time, and ends what is left. */
  close(): Promise<void>;
}

/** Opens the listener of a cell: every request passes the gate before anything else sees it. */
export async function openDoor(options: DoorOptions): Promise<Door> {
  const server = createServer({
    keepAliveTimeout: keepAliveTimeoutMs,
    headersTimeout: headTimeoutMs,
    requestTimeout: 0,
    // What is refused, or not to be upgraded at all, is answered as any other request.
    shouldUpgradeCallback: (request) =>
      options.application()?.upgrade !== undefined && ask(options, request)?.kind === 'admitted',
  });
  server.maxConnections = connectionsMax;
  server.on('request', (request, response) => enter(options, request, response, false));
  server.on('checkContinue', (request, response) => enter(options, request, response, true));
  server.on('upgrade', (request, socket, head) => {
    const application = options.application();
    if (application?.upgrade === undefined) socket.destroy();
    else application.upgrade(request, socket, head);
  });
  const { host } = options.listen;
  const port = await listen(server, host, options.listen.port);
  return { url: `http://${host}:${port}`, close: () => close(server) };
}

function enter(options: DoorOptions, request: IncomingMessage, response: ServerResponse, expectsContinue: boolean) {
  if (request.url === framesPath) {
    void takeFrames(options, request, response, expectsContinue);
    return;
  }
  try {
    const target = targetOf(request.headersDistinct);
    const again = () => admit(options.view(), target);
    const admission = again();
    if (admission.kind === 'refused') {
      refuse(request, response, admission);
      return;
    }
    const application = options.application();
    if (application === undefined) throw fault('cell-not-ready', 'The cell is starting.', { retryAfterMs: 500 });
    application.handle(request, response, { tenant: target.tenant, epoch: admission.epoch, expectsContinue, again });
  } catch (thrown) {
    sendRefusal(request, response, asFault(thrown));
  }
}

function ask(options: DoorOptions, request: IncomingMessage): Admission | undefined {
  try {
    return admit(options.view(), targetOf(request.headersDistinct));
  } catch {
    return undefined;
  }
}

async function takeFrames(
  options: DoorOptions,
  request: IncomingMessage,
  response: ServerResponse,
  expectsContinue: boolean,
): Promise<void> {
  try {
    if (request.method !== 'POST') {
      sendProblem(response, fault('method-not-allowed', `${framesPath} takes POST only.`), { allow: 'POST' });
      return;
    }
    const body = parseJson(await readBody(request, response, carriedFramesBytesMax, expectsContinue));
    if (!Value.Check(CarriedFramesSchema, body)) {
      throw fault('input-invalid', 'Send {"frames": […]} with signed frames.', { field: 'frames' });
    }
    await options.takeFrames(body.frames);
    response.writeHead(204).end();
  } catch (thrown) {
    sendProblem(response, asFault(thrown));
  }
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const inUse = 'code' in cause && cause.code === 'EADDRINUSE';
      if (!inUse) return reject(cause);
      const message = `Port ${port} on ${host} is in use by another process. Stop that one, or let the host choose again.`;
      reject(fault('port-in-use', message, { field: 'listen.port', cause }));
    });
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : port);
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const end = setTimeout(() => server.closeAllConnections(), drainMsMax);
    server.close(() => {
      clearTimeout(end);
      resolve();
    });
    server.closeIdleConnections();
  });
}
