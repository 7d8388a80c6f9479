import { Type, type Static, type TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { Fault } from '../kernel/fault.ts';
import { fault } from '../protocol/errors.ts';
import { idempotencyKeyHeader, tenantHeader } from '../protocol/headers.ts';
import { isTenantName } from '../protocol/names.ts';
import { faultOf, ProblemSchema } from '../protocol/problem.ts';

/**
 * The client library for applications that use machine cells: commands that are safe to repeat, by
 * construction. Each command carries an idempotency key, so that whatever happens on the way, it is
 * applied once and the caller gets its first answer.
 */

/** Bounds of one call, retries included. */
export const clientBounds = {
  /** How long a call may take in all. */
  deadlineMs: 15_000,
  /** How long one attempt may take. */
  attemptMs: 5_000,
  attemptsMax: 20,
  pauseMsMin: 50,
  pauseMsMax: 2_000,
} as const;

export interface ClientOptions {
  /** Address of the router, for example http://localhost:8080. */
  readonly router: string;
  readonly deadlineMs?: number;
}

const CommandResultSchema = Type.Object({
  /** Events of the tenant so far. */
  seq: Type.Integer(),
  events: Type.Array(Type.Object({ seq: Type.Integer(), type: Type.String(), data: Type.Unknown() })),
  /** Hash of the tenant's state after the last of the events. */
  stateHash: Type.String(),
});
const StateSchema = Type.Object({
  tenant: Type.String(),
  seq: Type.Integer(),
  epoch: Type.Integer(),
  stateHash: Type.String(),
});
export type CommandResult = Static<typeof CommandResultSchema>;

/** One tenant, as its application sees it. Every method throws a Fault with a code of docs/errors.md. */
export interface TenantClient {
  /** Runs a command exactly once. Give a key of your own to make a repeat after a crash of yours safe too. */
  command(name: string, input: unknown, options?: { readonly idempotencyKey?: string }): Promise<CommandResult>;
  /** Asks a query; `input` becomes the query string. */
  query(name: string, input?: Readonly<Record<string, string | number | boolean>>): Promise<unknown>;
  state(): Promise<Static<typeof StateSchema>>;
}

export interface Client {
  /** Fault `tenant-malformed` if this can be no tenant's name. */
  tenant(name: string): TenantClient;
}

/** A client of one fleet. Opens nothing: connections are made, kept and closed by the runtime's `fetch`. */
export function connect(options: ClientOptions): Client {
  if (!URL.canParse(options.router)) {
    throw fault('usage', `"${options.router}" is not an address; write http://localhost:8080 for example.`, {
      field: 'router',
    });
  }
  const deadlineMs = options.deadlineMs ?? clientBounds.deadlineMs;
  return {
    tenant(name) {
      if (!isTenantName(name)) throw fault('tenant-malformed', `"${name}" cannot be the name of a tenant.`);
      const call = <S extends TSchema>(path: string, schema: S, sent: Sent): Promise<Static<S>> => {
        const headers = { ...sent.headers, [tenantHeader]: name, accept: 'application/json' };
        return untilAnswered(new URL(path, options.router), schema, { ...sent, headers }, deadlineMs);
      };
      return {
        command(command, input, { idempotencyKey = crypto.randomUUID() } = {}) {
          return call(`/commands/${encodeURIComponent(command)}`, CommandResultSchema, {
            method: 'POST',
            headers: { 'content-type': 'application/json', [idempotencyKeyHeader]: idempotencyKey },
            body: JSON.stringify(input),
          });
        },
        query(query, input = {}) {
          const text = new URLSearchParams(Object.entries(input).map(([key, value]) => [key, String(value)]));
          return call(`/queries/${encodeURIComponent(query)}?${text.toString()}`, Type.Unknown(), {});
        },
        state: () => call('/state', StateSchema, {}),
      };
    },
  };
}

/** A request without what every request has. */
interface Sent {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Repeats until there is an answer that a repeat would not change, or time or attempts are over. */
async function untilAnswered<S extends TSchema>(
  url: URL,
  schema: S,
  init: Sent,
  deadlineMs: number,
): Promise<Static<S>> {
  const endsAtMs = performance.now() + deadlineMs;
  for (let attempt = 1; ; attempt++) {
    const leftMs = endsAtMs - performance.now();
    try {
      return await once(url, schema, init, Math.min(clientBounds.attemptMs, Math.max(1, leftMs)));
    } catch (thrown) {
      if (!(thrown instanceof Fault) || !mayRepeat(thrown)) throw thrown;
      const pauseMs = pauseAfter(attempt, thrown.retryAfterMs);
      if (attempt >= clientBounds.attemptsMax || performance.now() + pauseMs >= endsAtMs) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}

/** Everything here is safe to repeat: a command has its key, the rest only reads. */
function mayRepeat({ kind }: Fault): boolean {
  return kind.reaction === 'retry' || kind.reaction === 'repeat-with-key';
}

/** Exponential backoff with full jitter, and never sooner than the server asks. */
function pauseAfter(attempt: number, retryAfterMs: number | undefined): number {
  const topMs = Math.min(clientBounds.pauseMsMax, clientBounds.pauseMsMin * 2 ** attempt);
  return Math.max(retryAfterMs ?? 0, clientBounds.pauseMsMin + Math.random() * topMs);
}

async function once<S extends TSchema>(url: URL, schema: S, init: Sent, attemptMs: number): Promise<Static<S>> {
  let status: number;
  let text: string;
  try {
    const response = await fetch(url, {
      ...init,
      redirect: 'error',
      signal: AbortSignal.timeout(Math.ceil(attemptMs)),
    });
    status = response.status;
    text = await response.text();
  } catch (cause) {
    throw fault('outcome-unknown', `${url.origin} did not answer: ${messageOf(cause)}.`, { cause });
  }
  const value = parsedJson(text);
  if (status >= 400) {
    if (Value.Check(ProblemSchema, value)) throw faultOf(value);
    throw fault('internal', `${url.href} answered ${status} without a reason.`);
  }
  if (Value.Check(schema, value)) return value;
  throw fault('internal', `${url.href} answered something else than expected. Is ${url.pathname} served by a machine?`);
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function messageOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return thrown.cause instanceof Error ? thrown.cause.message : thrown.message;
}
