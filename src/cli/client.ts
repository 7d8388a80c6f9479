import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Type, type Static, type TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { Fault } from '../kernel/fault.ts';
import { fault } from '../protocol/errors.ts';
import { faultOf, ProblemSchema } from '../protocol/problem.ts';
import type { Terminal } from './terminal.ts';

/** Where the processes of a fleet listen, as `up` writes it to DATA/endpoints.json. */
export const EndpointsSchema = Type.Object({
  host: Type.Optional(Type.String()),
  router: Type.Optional(Type.String()),
  routerAdmin: Type.Optional(Type.String()),
  control: Type.Optional(Type.String()),
});
export type Endpoints = Static<typeof EndpointsSchema>;

/** How long an answer may take; a tenant waits up to two seconds to be served, an apply may be large. */
const requestTimeoutMs = 30_000;
/** Answers above this are refused: ten times the largest apply. */
const answerBytesMax = 160 * 1024 * 1024;

/** How to reach a fleet from the command line. */
export interface Connection {
  /** The data folder, absolute. */
  readonly data: string;
  readonly endpoints: Endpoints | undefined;
  readonly env: Terminal['env'];
}

/** Reads DATA/endpoints.json if it is there. */
export async function connectionTo(terminal: Terminal, data: string): Promise<Connection> {
  const folder = resolve(terminal.cwd, data);
  const file = join(folder, 'endpoints.json');
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return { data: folder, endpoints: undefined, env: terminal.env };
  const value = parsedJson(text);
  if (!Value.Check(EndpointsSchema, value)) {
    throw fault('file-unreadable', `${file} does not hold addresses; start the fleet again with cellwright up.`, {
      field: file,
    });
  }
  return { data: folder, endpoints: value, env: terminal.env };
}

/** A request to one of the two local APIs. */
export interface Request {
  readonly method?: 'GET' | 'PUT' | 'POST' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
}

/** Where the control plane is and with which token; throws with the next step if either is not known. */
export async function controlAccess(connection: Connection): Promise<{ readonly url: string; readonly token: string }> {
  const url = connection.env['CELLWRIGHT_CONTROL'] ?? connection.endpoints?.control;
  if (url === undefined) throw notRunning(connection);
  if (!URL.canParse(url)) {
    throw fault('usage', `"${url}" is not an address; write http://127.0.0.1:7070 for example.`, {
      field: 'CELLWRIGHT_CONTROL',
    });
  }
  return { url: url.replace(/\/+$/, ''), token: await tokenOf(connection) };
}

/** Asks the control plane. Faults: what it answers, `control-unreachable`, `fleet-not-running`. */
export async function askControl<S extends TSchema>(
  connection: Connection,
  request: Request,
  schema: S,
): Promise<Static<S>> {
  const { url, token } = await controlAccess(connection);
  const answer = await send(`${url}${request.path}`, token, request);
  if (answer === undefined) throw await whyUnreachable(connection, url);
  return parsed(answer, schema, `${url}${request.path}`);
}

/** Asks the host, which answers without the control plane. */
export async function askHost<S extends TSchema>(
  connection: Connection,
  request: Request,
  schema: S,
): Promise<Static<S>> {
  const url = connection.endpoints?.host;
  if (url === undefined) throw notRunning(connection);
  const answer = await send(`${url}${request.path}`, await tokenOf(connection), request);
  if (answer === undefined) throw notRunning(connection);
  return parsed(answer, schema, `${url}${request.path}`);
}

/** A process as the host lists it. */
export const ProcessSchema = Type.Object({
  name: Type.String(),
  state: Type.String(),
  pid: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
  url: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  restarts: Type.Optional(Type.Integer()),
  problem: Type.Optional(Type.Union([ProblemSchema, Type.Null()])),
});
export const ProcessListSchema = Type.Object({ items: Type.Array(ProcessSchema) });
export type ProcessItem = Static<typeof ProcessSchema>;

interface Answer {
  readonly status: number;
  readonly mediaType: string;
  readonly text: string;
}

/** Undefined if nobody listens there. */
async function send(url: string, token: string, request: Request): Promise<Answer | undefined> {
  const { method = 'GET', body } = request;
  try {
    const response = await fetch(url, {
      method,
      headers: {
        accept: 'application/json',
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      redirect: 'error',
      signal: AbortSignal.timeout(requestTimeoutMs),
    });
    const mediaType = (response.headers.get('content-type') ?? '').split(';')[0] ?? '';
    return { status: response.status, mediaType, text: await boundedText(response) };
  } catch (thrown) {
    if (thrown instanceof Fault) throw thrown;
    if (thrown instanceof Error && thrown.name === 'TimeoutError') {
      throw fault(
        'control-unreachable',
        `${new URL(url).origin} took the request but did not answer within ${requestTimeoutMs / 1000} s. Look at cellwright logs control, then repeat.`,
        { cause: thrown },
      );
    }
    return undefined;
  }
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let sizeBytes = 0;
  const chunks: AsyncIterable<Uint8Array> | undefined = response.body ?? undefined;
  if (chunks === undefined) return '';
  for await (const chunk of chunks) {
    sizeBytes += chunk.length;
    if (sizeBytes > answerBytesMax) throw fault('body-too-large', 'The answer is too large; ask for single names.');
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

function parsed<S extends TSchema>(answer: Answer, schema: S, url: string): Static<S> {
  const value = answer.text === '' ? null : parsedJson(answer.text);
  if (answer.status >= 400) {
    throw Value.Check(ProblemSchema, value)
      ? faultOf(value)
      : fault('internal', `${url} answered ${answer.status} without a reason (${answer.mediaType || 'no type'}).`);
  }
  if (Value.Check(schema, value)) return value;
  const error = Value.Errors(schema, value)[0];
  throw fault(
    'internal',
    `${url} answered something that this version does not know (${error?.instancePath ?? ''} ${error?.message ?? ''}). Use the version of cellwright that runs the fleet.`,
  );
}

/** Why nobody listens where the control plane should, and what to do: the host knows if it is held. */
async function whyUnreachable(connection: Connection, url: string): Promise<Fault> {
  const said = `The control plane does not answer at ${url}`;
  const host = connection.endpoints?.host;
  const processes =
    host === undefined
      ? undefined
      : await askHost(connection, { path: '/v1/processes' }, ProcessListSchema).catch(() => undefined);
  if (processes === undefined) {
    return fault(
      'control-unreachable',
      `${said}, and no fleet is running on ${connection.data}. Start one: cellwright up FLEET.yaml --data ${connection.data}`,
    );
  }
  const control = processes.items.find(({ name }) => name === 'control');
  const problem = control?.problem?.detail;
  if (control?.state === 'held') {
    return fault('control-unreachable', `${said}: it is held down. Let it up again: cellwright start control`);
  }
  return fault(
    'control-unreachable',
    `${said}: it is ${control?.state ?? 'not there'}${problem === undefined ? '' : ` (${problem})`}. Look at: cellwright logs control`,
  );
}

function notRunning({ data }: Connection): Fault {
  return fault(
    'fleet-not-running',
    `No fleet is running on ${data}. Start one with cellwright up FLEET.yaml, or name its folder with --data.`,
  );
}

async function tokenOf({ data, env }: Connection): Promise<string> {
  const given = env['CELLWRIGHT_TOKEN'];
  if (given !== undefined && given !== '') return given.trim();
  const file = join(data, 'token');
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (cause) {
    throw fault(
      'unauthenticated',
      `There is no token: ${file} cannot be read. Name the fleet's folder with --data, or set CELLWRIGHT_TOKEN.`,
      { cause },
    );
  }
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
