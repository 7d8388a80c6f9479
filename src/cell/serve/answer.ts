import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Fault } from '../../kernel/fault.ts';
import { errorTable, fault } from '../../protocol/errors.ts';
import { headers } from '../../protocol/headers.ts';
import { limits } from '../../protocol/limits.ts';
import { asFault, problemMediaType, problemOf } from '../../protocol/problem.ts';
import type { Admission, RefusalCode } from '../decide/gate.ts';

/** When a repeat makes sense, by what a gate refused with; the others depend on the router alone. */
const retryAfterMsOf: Partial<Record<RefusalCode, number>> = {
  'cell-not-ready': 500,
  'cell-behind': 200,
  'cell-damaged': 30_000,
  'cell-refusing': 30_000,
  'workload-down': 1_000,
  draining: 1_000,
};

export interface ProblemExtras {
  /** Code of the application's own reason for refusing a command. */
  readonly reason?: string | undefined;
  /** Methods that the address knows, for 405. */
  readonly allow?: string;
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  send(response, status, 'application/json', value, {});
}

/** An error that is an answer of the application, after admission. */
export function sendProblem(response: ServerResponse, error: Fault, extras: ProblemExtras = {}): void {
  const problem = { ...problemOf(error), ...(extras.reason === undefined ? {} : { reason: extras.reason }) };
  const fields: Record<string, string> = {};
  if (error.retryAfterMs !== undefined) fields['retry-after'] = seconds(error.retryAfterMs);
  if (extras.allow !== undefined) fields['allow'] = extras.allow;
  send(response, error.kind.status, problemMediaType, problem, fields);
}

/**
 * An error of the gate itself: the application did not see a byte of the request. The body is not
 * read; where one may still be on its way, the connection ends with the answer.
 */
export function sendRefusal(
  request: IncomingMessage,
  response: ServerResponse,
  error: Fault,
  assignment?: string,
): void {
  response.setHeader(headers.refusal, error.code);
  if (assignment !== undefined) response.setHeader(headers.assignment, assignment);
  if (request.headers.expect !== undefined || request.headers['transfer-encoding'] !== undefined) {
    response.setHeader('connection', 'close');
  }
  sendProblem(response, error);
}

export function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  refusal: Extract<Admission, { kind: 'refused' }>,
): void {
  const { code, why, assignment } = refusal;
  const error = fault(code, why, { retryAfterMs: retryAfterMsOf[code] });
  sendRefusal(request, response, error, assignment && `${assignment.cell} ${assignment.epoch}`);
}

function send(
  response: ServerResponse,
  status: number,
  mediaType: string,
  value: unknown,
  fields: Readonly<Record<string, string>>,
): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response.writeHead(status, { ...fields, 'content-type': mediaType, 'content-length': body.length });
  response.end(body);
}

function seconds(durationMs: number): string {
  return String(Math.ceil(durationMs / 1000));
}

/** Bytes of the bodies that a cell is reading at once, of all tenants together; more is answered with `log-busy`. */
export const bodyBytesReadingMax = 64 * limits.machineInputBytesMax;

/** Counts what is held of bodies that have not arrived whole, across the requests of a cell. */
export class BodyBytes {
  readonly #max: number;
  #held = 0;

  constructor(max: number = bodyBytesReadingMax) {
    this.#max = max;
  }

  /** Bytes held now. */
  get held(): number {
    return this.#held;
  }
  /** Counts bytes that arrived. Fault `log-busy` if there are more than may be; they are not counted then. */
  take(sizeBytes: number): void {
    if (this.#held + sizeBytes > this.#max) {
      const message = `This cell is reading ${this.#max} bytes of requests already. Try again soon.`;
      throw fault('log-busy', message, { retryAfterMs: 1_000 });
    }
    this.#held += sizeBytes;
  }
  giveBack(sizeBytes: number): void {
    this.#held -= sizeBytes;
  }
}

export interface ReadBodyOptions {
  readonly bytesMax: number;
  /** From now to the end of the body: who is slower would keep its place among `bodies` from others. */
  readonly timeMsMax: number;
  readonly expectsContinue: boolean;
  readonly bodies: BodyBytes;
}

/**
 * Reads a body. Faults: body-too-large; request-too-slow; log-busy; request-malformed if the client
 * cut it. After the first three the connection ends with the answer.
 */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  options: ReadBodyOptions,
): Promise<string> {
  const { bytesMax, timeMsMax, bodies } = options;
  const tooLarge = () => {
    response.setHeader('connection', 'close');
    return fault('body-too-large', `${errorTable['body-too-large'].title}: ${bytesMax} bytes. Send less at once.`);
  };
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge();
  if (options.expectsContinue) response.writeContinue();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  const stop = (reason: Fault): void => {
    request.off('data', onData).pause();
    response.setHeader('connection', 'close');
    reject(reason);
  };
  const onData = (chunk: Buffer): void => {
    if (sizeBytes + chunk.length > bytesMax) return stop(tooLarge());
    try {
      bodies.take(chunk.length);
    } catch (thrown) {
      return stop(asFault(thrown));
    }
    sizeBytes += chunk.length;
    chunks.push(chunk);
  };
  const timer = setTimeout(() => {
    stop(fault('request-too-slow', `The body did not arrive within ${timeMsMax} ms.`));
  }, timeMsMax);
  const onCut = (cause?: Error): void => {
    reject(fault('request-malformed', 'The body ended before its length was reached.', { cause }));
  };
  request.on('data', onData).once('end', resolve).once('error', onCut).once('close', onCut);
  try {
    await promise;
    return Buffer.concat(chunks).toString('utf8');
  } finally {
    clearTimeout(timer);
    bodies.giveBack(sizeBytes);
  }
}

/** JSON in a body. Fault `input-invalid` says where it stops being JSON. */
export function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw fault('input-invalid', `The body is not JSON: ${why}.`, { field: 'body', cause });
  }
}
