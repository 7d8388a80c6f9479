import type { Logger } from 'pino';
import type { Fault } from '../../kernel/fault.ts';
import { errorTable, fault } from '../../protocol/errors.ts';
import { headerPrefix, headers, tenantHeader } from '../../protocol/headers.ts';
import { Exchange } from '../../proxy/exchange.ts';
import { readsAs } from '../../proxy/headers.ts';
import { Upstreams } from '../../proxy/upstream.ts';
import type { TenantName } from '../../protocol/names.ts';
import type { Admitted, Application } from './door.ts';
import type { InFlight } from './in-flight.ts';
import type { IncomingMessage, ServerResponse } from 'node:http';

/** Nothing that begins as our own headers do passes the gate: no application can forge a refusal. */
const passes = (name: string): boolean => !readsAs(name).startsWith(headerPrefix);
/** Nor does a second spelling of the header that may have named the tenant. */
const goesIn = (name: string): boolean => passes(name) && (name === tenantHeader || readsAs(name) !== tenantHeader);
const safeMethods = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);
const retryAfterMs = 1_000;

/** Any HTTP application behind the gate, on a port of this machine. It is told the tenant in `cellwright-tenant`. */
export function workloadApplication(options: {
  readonly port: number;
  readonly log: Logger;
  /** What is under way, by tenant: whoever sees an ownership end, ends it there. */
  readonly inFlight: InFlight;
}): Application {
  const address = `http://127.0.0.1:${options.port}`;
  const upstreams = new Upstreams();

  async function forward(request: IncomingMessage, response: ServerResponse, admitted: Admitted): Promise<void> {
    const { head, tenant, upgraded } = admitted;
    const exchange = new Exchange({
      head,
      request,
      response,
      isTrusted: passes,
      ...(upgraded === undefined ? {} : { upgraded }),
    });
    // Begun in the tick of the admission, so that no end of an ownership falls in between.
    const ended = options.inFlight.begin(tenant, () => exchange.end());
    try {
      await pass(exchange, request, tenant);
    } finally {
      ended();
    }
  }

  async function pass(exchange: Exchange, request: IncomingMessage, tenant: TenantName): Promise<void> {
    const attempt = await exchange.attempt(upstreams, {
      address,
      goesOn: goesIn,
      stamps: [headers.tenant, tenant],
      awaitsConsent: false,
    });
    switch (attempt.kind) {
      case 'answered':
        await exchange.relay({ goesOn: passes, stamps: [] });
        break;
      case 'never-connected': {
        const reason = fault('workload-down', `${errorTable['workload-down'].title}: ${attempt.cause.message}.`, {
          retryAfterMs,
        });
        await exchange.refuse(reason, [headers.refusal, reason.code]);
        break;
      }
      case 'at-limit': {
        const reason = fault('limit-exceeded', 'The application of this cell has as many requests as it may.', {
          retryAfterMs,
        });
        await exchange.refuse(reason);
        break;
      }
      case 'lost':
        await exchange.refuse(lostFault(request, attempt.cause));
        break;
      case 'timed-out':
        await exchange.refuse(timedOutFault(request));
        break;
      case 'abandoned':
        break;
    }
  }

  return {
    upgrades: true,
    handle: (request, response, admitted) => {
      forward(request, response, admitted).catch((thrown: unknown) => {
        options.log.error({ err: thrown }, 'forwarding failed');
        response.destroy();
      });
    },
    close: () => upstreams.close(),
  };
}

function timedOutFault(request: IncomingMessage): Fault {
  const message = 'The application of this cell did not begin to answer in time';
  if (safeMethods.has(request.method ?? '')) return fault('cell-timeout', `${message}.`, { retryAfterMs });
  return fault('outcome-unknown', `${message}; it may act on the request.`);
}

function lostFault(request: IncomingMessage, cause: Error): Fault {
  if (safeMethods.has(request.method ?? '')) {
    return fault('answer-cut', 'The application of this cell closed the connection instead of answering.', { cause });
  }
  const message =
    'The application of this cell closed the connection after the request was sent; it may have acted on it.';
  return fault('outcome-unknown', message, { cause });
}
