import { setTimeout as delay } from 'node:timers/promises';
import { Type, type Static, type TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { Agent, request } from 'undici';
import { Fault } from '../../kernel/fault.ts';
import { errorTable, fault, type ErrorCode } from '../../protocol/errors.ts';
import { ProblemSchema } from '../../protocol/problem.ts';
import type { Resource } from '../../protocol/resources.ts';
import { RoutingSnapshotSchema, SignedSchema } from '../../protocol/routing.ts';
import type { Verifier } from '../../trust/signature.ts';

const NamesSchema = Type.Object({ items: Type.Array(Type.Object({ name: Type.String() })) });
/** A router that never had a frame has no version. */
const TableSchema = Type.Object({ version: Type.Union([Type.Integer(), Type.Null()]) });
const RoutingSchema = Type.Object({ signed: SignedSchema });

/** An apply of the largest file takes seconds; anything else answers at once. */
const answerTimeoutMs = 30_000;
const retryEveryMs = 100;

/** The routing table as the control plane has it: its version, and the cells to which it has an address. */
export interface RoutingView {
  readonly version: number;
  readonly addressed: ReadonlySet<string>;
}

/** Speaks to the control plane and the router as the administrator, while a fleet starts. */
export class FleetClient {
  readonly #options: { readonly controlUrl: string; readonly token: string; readonly verifier: Verifier };
  readonly #agent = new Agent();

  constructor(options: { readonly controlUrl: string; readonly token: string; readonly verifier: Verifier }) {
    this.#options = options;
  }

  /**
   * Applies resources. A control plane that cannot be reached is asked again until `signal` aborts,
   * because applying twice is applying once. Throws the fault with which it refuses.
   */
  async apply(items: readonly Resource[], signal: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await this.#ask('/v1/apply', Type.Unknown(), { method: 'POST', body: JSON.stringify({ items }), signal });
        return;
      } catch (thrown) {
        if (thrown instanceof Fault && thrown.kind.reaction !== 'retry') throw thrown;
        if (signal.aborted) {
          throw fault('control-unreachable', 'The control plane did not take the fleet file in time. Start again.', {
            cause: thrown,
          });
        }
        await delay(retryEveryMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** Names of the cells of the fleet. */
  async cells(signal: AbortSignal): Promise<readonly string[]> {
    const { items } = await this.#ask('/v1/cells', NamesSchema, { signal });
    return items.map(({ name }) => name);
  }

  /** Asks for the whole table: not to be asked often. */
  async routing(signal: AbortSignal): Promise<RoutingView> {
    const { signed } = await this.#ask('/v1/routing', RoutingSchema, { signal });
    const table = this.#options.verifier.verify(signed, RoutingSnapshotSchema);
    const addressed = table.cells.flatMap((cell) => ('address' in cell ? [cell.name] : []));
    return { version: table.version, addressed: new Set(addressed) };
  }

  /** Version of the table that a router routes by; undefined while it has none. */
  async routedVersion(adminUrl: string, signal: AbortSignal): Promise<number | undefined> {
    const { version } = await this.#ask(new URL('/debug/table', adminUrl).href, TableSchema, { signal });
    return version ?? undefined;
  }

  close(): void {
    void this.#agent.destroy();
  }

  async #ask<S extends TSchema>(
    address: string,
    schema: S,
    options: { readonly method?: 'POST'; readonly body?: string; readonly signal: AbortSignal },
  ): Promise<Static<S>> {
    const url = new URL(address, this.#options.controlUrl);
    const response = await request(url, {
      dispatcher: this.#agent,
      method: options.method ?? 'GET',
      signal: AbortSignal.any([options.signal, AbortSignal.timeout(answerTimeoutMs)]),
      headers: { authorization: `Bearer ${this.#options.token}`, 'content-type': 'application/json' },
      ...(options.body === undefined ? {} : { body: options.body }),
    });
    const text = await response.body.text();
    if (response.statusCode >= 300) throw refusal(url.href, response.statusCode, text);
    const value: unknown = JSON.parse(text);
    if (Value.Check(schema, value)) return value;
    throw fault('internal', `${url.href} answered something that is not in its contract.`);
  }
}

/** The fault that another process answered with, as if it had been thrown here. */
function refusal(url: string, status: number, text: string): Fault {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (Value.Check(ProblemSchema, value) && isErrorCode(value.code)) {
    return fault(value.code, value.detail, { field: value.field, retryAfterMs: value.retryAfterMs });
  }
  return fault(status >= 500 ? 'control-unreachable' : 'internal', `${url} answered ${status}: ${text.slice(0, 500)}`);
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}
