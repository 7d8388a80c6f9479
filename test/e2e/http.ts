import { Type, type Static, type TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { request, type Dispatcher } from 'undici';

/** The whole answer to one request. `json` is undefined if the body is none. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly json: unknown;
}

export interface Asking {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly json?: unknown;
  readonly body?: string | Buffer;
  readonly timeoutMs?: number;
  readonly dispatcher?: Dispatcher;
}

const answerTimeoutMs = 15_000;

/** Sends one request and reads the whole answer. Rejects only if there is none. */
export async function ask(url: string, asking: Asking = {}): Promise<Answer> {
  const body = asking.json === undefined ? asking.body : JSON.stringify(asking.json);
  const answer = await request(url, {
    method: asking.method ?? (body === undefined ? 'GET' : 'POST'),
    headers: { ...(asking.json === undefined ? {} : { 'content-type': 'application/json' }), ...asking.headers },
    body: body ?? null,
    signal: AbortSignal.timeout(asking.timeoutMs ?? answerTimeoutMs),
    ...(asking.dispatcher === undefined ? {} : { dispatcher: asking.dispatcher }),
  });
  const text = await answer.body.text();
  return { status: answer.statusCode, headers: flatten(answer.headers), body: text, json: parse(text) };
}

function flatten(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : (value ?? '')]),
  );
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Reads what an answer must look like by INTERFACE.md; the message shows what came instead. */
export function expectShape<S extends TSchema>(schema: S, value: unknown, what: string): Static<S> {
  if (Value.Check(schema, value)) return value;
  const [first] = Value.Errors(schema, value);
  throw new Error(`${what}: ${first?.instancePath ?? ''} ${first?.message ?? ''} in ${JSON.stringify(value)}`);
}

export const ProblemSchema = Type.Object({
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String(),
  detail: Type.String(),
});
export const AcceptedSchema = Type.Object({
  seq: Type.Integer({ minimum: 1 }),
  events: Type.Array(Type.Unknown()),
  stateHash: Type.String({ minLength: 8 }),
});
export const StateSchema = Type.Object({
  tenant: Type.String(),
  seq: Type.Integer({ minimum: 0 }),
  epoch: Type.Integer({ minimum: 1 }),
  stateHash: Type.String({ minLength: 8 }),
});
export const ListSchema = Type.Object({
  items: Type.Array(Type.Object({ name: Type.String() })),
  version: Type.Unknown(),
});

/** Asserts that an answer is a problem document (RFC 9457) with this status and, if given, this code. */
export function expectProblem(answer: Answer, status: number, code?: string): Static<typeof ProblemSchema> {
  const shown = `${answer.status} ${answer.body.slice(0, 300)}`;
  if (answer.status !== status) throw new Error(`expected ${status} ${code ?? ''}, got ${shown}`);
  const type = answer.headers['content-type'] ?? '';
  if (!type.startsWith('application/problem+json')) throw new Error(`content-type ${type} of ${shown}`);
  const problem = expectShape(ProblemSchema, answer.json, 'problem');
  if (problem.status !== status) throw new Error(`status in the body differs: ${shown}`);
  if (code !== undefined && problem.code !== code) throw new Error(`expected code ${code}, got ${shown}`);
  return problem;
}
