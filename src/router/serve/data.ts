import { setTimeout as delay } from 'node:timers/promises';
import { request as httpRequest } from 'node:http';
import { carriedBytesMax, framesPath, reservedRoot } from '../../protocol/carry.ts';
import { fault, type ErrorCode } from '../../protocol/errors.ts';
import { headerPrefix, headers } from '../../protocol/headers.ts';
import { limits } from '../../protocol/limits.ts';
import type { CellName, TenantName } from '../../protocol/names.ts';
import type { Signed } from '../../protocol/routing.ts';
import type { Exchange, ExchangeAttempt } from '../../proxy/exchange.ts';
import { readsAs, valuesOf, type HeaderFilter, type RawHeaders } from '../../proxy/headers.ts';
import { listen, type ProxyServer } from '../../proxy/server.ts';
import { Upstreams } from '../../proxy/upstream.ts';
import { PartitionKeyReader, type PartitionKeySources } from '../decide/partition-key.ts';
import { isReservedPath } from '../decide/reserved-path.ts';
import { nextStep, parseAssignment, retryAfterMs, type KnownOwner, type Outcome } from '../decide/retry.ts';
import type { Route } from '../decide/table.ts';
import { classOf, type RouterMetrics } from './metrics.ts';
import type { Routing } from './routing.ts';

/** How long a cell may take to accept frames that are offered to it. */
const offerTimeoutMs = 500;

/** Neither may a client set our headers, nor may it see what gate and router say to each other. */
function isForeign(name: string): boolean {
  return !readsAs(name).startsWith(headerPrefix);
}

/** What goes on of a request: no second spelling of the partition key stands beside the one that was read. */
function goesToCell(partitionHeader: string): HeaderFilter {
  const header = partitionHeader.toLowerCase();
  const spelling = readsAs(header);
  return (name) => isForeign(name) && (name === header || readsAs(name) !== spelling);
}

export interface DataOptions {
  readonly host: string;
  readonly port: number;
  readonly partitionKey: PartitionKeySources;
  readonly routing: Routing;
  readonly metrics: RouterMetrics;
  readonly upstreams?: Upstreams;
}

/** The listener for the clients of applications. */
export async function listenData(options: DataOptions): Promise<ProxyServer> {
  const upstreams = options.upstreams ?? new Upstreams();
  const router = new DataRouter(options, upstreams);
  const server = await listen({
    host: options.host,
    port: options.port,
    isTrusted: isForeign,
    serve: (exchange) => router.serve(exchange),
    onMalformed: (reason) => options.metrics.refused(reason.code),
  });
  return {
    url: server.url,
    async stop() {
      await server.stop();
      upstreams.close();
    },
  };
}

/** Sends each request to the cell of its tenant, and goes on until there is an answer to give. */
class DataRouter {
  readonly #routing: Routing;
  readonly #metrics: RouterMetrics;
  readonly #upstreams: Upstreams;
  readonly #partitionKey: PartitionKeyReader;
  readonly #goesToCell: HeaderFilter;
  /** Frames on their way, by cell: one offer at a time, which is also all that a gate takes. */
  readonly #offering = new Map<CellName, Promise<void>>();

  constructor(options: DataOptions, upstreams: Upstreams) {
    this.#routing = options.routing;
    this.#metrics = options.metrics;
    this.#upstreams = upstreams;
    this.#partitionKey = new PartitionKeyReader(options.partitionKey);
    this.#goesToCell = goesToCell(options.partitionKey.header);
  }

  async serve(exchange: Exchange): Promise<void> {
    const startedMs = performance.now();
    if (isReservedPath(exchange.head.path)) {
      return this.#refuse(exchange, 'not-found', `Nothing is under ${reservedRoot}/ here.`, undefined, undefined);
    }
    const key = this.#partitionKey.read(exchange.request.rawHeaders, exchange.head.host);
    if (key.kind === 'refused') {
      this.#metrics.refused(key.fault.code);
      return exchange.refuse(key.fault);
    }
    const { tenant } = key;
    const route = this.#routing.table.lookup(tenant);
    if (route.kind !== 'assigned') return this.#refuseUnknown(exchange, tenant, route);
    await exchange.holdSmallBody();
    const heldMs = performance.now();
    let owner: KnownOwner = route;
    let hops = 0;
    let repeats = 0;
    for (;;) {
      const attempt = await this.#attempt(exchange, tenant, owner, repeats > 0);
      if (attempt.kind === 'abandoned') {
        this.#metrics.answered(owner.cell, 'client-gone', performance.now() - startedMs);
        return;
      }
      const next = nextStep(outcomeOf(attempt), {
        method: exchange.request.method ?? 'GET',
        replayable: exchange.replayable,
        followed: owner,
        table: ownerOf(this.#routing.table.lookup(tenant)),
        hops,
        repeats,
        elapsedMs: performance.now() - heldMs,
      });
      switch (next.kind) {
        case 'relay':
          return this.#relay(exchange, owner, attempt, startedMs);
        case 'follow':
          owner = next.owner;
          hops += 1;
          break;
        case 'repeat':
          repeats += 1;
          break;
        case 'wait':
          if (next.offerFrames) await this.#offerFrames(tenant, owner);
          await delay(next.delayMs, undefined, { signal: exchange.clientGone }).catch(() => undefined);
          owner = this.#newest(tenant, owner);
          break;
        case 'answer':
          this.#metrics.answered(owner.cell, '5xx', performance.now() - startedMs);
          return this.#refuse(exchange, next.code, whyOf(next.code, owner, attempt), next.retryAfterMs, owner);
      }
    }
  }

  /** The table may have learned of a newer owner meanwhile; what a gate said may be newer than the table. */
  #newest(tenant: TenantName, followed: KnownOwner): KnownOwner {
    const known = ownerOf(this.#routing.table.lookup(tenant));
    return known !== undefined && known.epoch > followed.epoch ? known : followed;
  }

  #attempt(exchange: Exchange, tenant: TenantName, owner: KnownOwner, fresh: boolean): Promise<ExchangeAttempt> {
    const address = this.#routing.table.addressOf(owner.cell);
    if (address === undefined) {
      return Promise.resolve({ kind: 'never-connected', cause: new Error(`cell ${owner.cell} has no address`) });
    }
    return exchange.attempt(this.#upstreams, {
      address,
      goesOn: this.#goesToCell,
      stamps: [headers.tenant, tenant, headers.epoch, String(owner.epoch), headers.cell, owner.cell],
      awaitsConsent: true,
      fresh,
    });
  }

  async #relay(exchange: Exchange, owner: KnownOwner, attempt: ExchangeAttempt, startedMs: number): Promise<void> {
    const relayed = await exchange.relay({ goesOn: isForeign, stamps: [headers.cell, owner.cell] });
    const status = attempt.kind === 'answered' ? attempt.answer.status : 502;
    const answer = relayed === 'complete' ? classOf(status) : relayed === 'client-gone' ? 'client-gone' : 'cut';
    this.#metrics.answered(owner.cell, answer, performance.now() - startedMs);
  }

  #refuseUnknown(exchange: Exchange, tenant: TenantName, route: Route): Promise<void> {
    if (this.#routing.live) {
      const why = route.kind === 'removed' ? `Tenant ${tenant} was deleted.` : `There is no tenant ${tenant}.`;
      return this.#refuse(exchange, 'tenant-unknown', why, undefined, undefined);
    }
    return this.#refuse(
      exchange,
      'tenant-not-known-yet',
      `Tenant ${tenant} is not in the routing table, which may be behind the control plane. Try again soon.`,
      retryAfterMs,
      undefined,
    );
  }

  #refuse(
    exchange: Exchange,
    code: ErrorCode,
    message: string,
    retryAfterMs: number | undefined,
    owner: KnownOwner | undefined,
  ): Promise<void> {
    this.#metrics.refused(code);
    const stamps: RawHeaders = owner === undefined ? [] : [headers.cell, owner.cell];
    return exchange.refuse(fault(code, message, { retryAfterMs }), stamps);
  }

  /**
   * Brings a cell the signed frames that it lacks. Whether it took them shows at the next attempt.
   * While others are on their way to that cell, it only waits for them: the next attempt shows whether they help.
   */
  #offerFrames(tenant: TenantName, owner: KnownOwner): Promise<void> {
    const { cell } = owner;
    const underWay = this.#offering.get(cell);
    if (underWay !== undefined) return underWay;
    const address = this.#routing.table.addressOf(cell);
    const frames = this.#routing.framesConcerning(tenant);
    if (address === undefined || frames.length === 0) return Promise.resolve();
    const offering = offer(address, frames).finally(() => this.#offering.delete(cell));
    this.#offering.set(cell, offering);
    return offering;
  }
}

function offer(address: string, frames: readonly Signed[]): Promise<void> {
  const body = Buffer.from(JSON.stringify({ frames }));
  // What no gate takes is not sent: a snapshot that large comes to the cell by its own stream alone.
  if (body.length > carriedBytesMax) return Promise.resolve();
  return new Promise((resolve) => {
    const sent = httpRequest(new URL(framesPath, address), {
      method: 'POST',
      agent: false,
      signal: AbortSignal.timeout(offerTimeoutMs),
      headers: { 'content-type': 'application/json', 'content-length': body.length },
    });
    sent.on('response', (answer) => answer.resume().on('close', resolve));
    sent.on('error', () => resolve());
    sent.end(body);
  });
}

function ownerOf(route: Route): KnownOwner | undefined {
  return route.kind === 'assigned' ? { cell: route.cell, epoch: route.epoch } : undefined;
}

/** Only the refusal header makes an answer the gate's own: an application may answer 421 or 503 too. */
function outcomeOf(attempt: Exclude<ExchangeAttempt, { readonly kind: 'abandoned' }>): Outcome {
  switch (attempt.kind) {
    case 'never-connected':
      return { kind: 'never-connected' };
    case 'at-limit':
      return { kind: 'at-limit' };
    case 'lost':
      return { kind: 'ambiguous', timedOut: false };
    case 'timed-out':
      return { kind: 'ambiguous', timedOut: true };
    case 'answered':
      return outcomeOfAnswer(attempt.answer.headers);
    default:
      return attempt satisfies never;
  }
}

function outcomeOfAnswer(raw: RawHeaders): Outcome {
  switch (valuesOf(raw, headers.refusal)[0]) {
    case 'not-owner':
    case 'wrong-cell':
      return { kind: 'not-owner', assignment: parseAssignment(valuesOf(raw, headers.assignment)[0]) };
    case 'cell-behind':
      return { kind: 'cell-behind' };
    case 'cell-not-ready':
      return { kind: 'cell-not-ready' };
    default:
      return { kind: 'answered' };
  }
}

function whyOf(code: ErrorCode, owner: KnownOwner, attempt: ExchangeAttempt): string {
  const because = 'cause' in attempt ? ` (${attempt.cause.message})` : '';
  switch (code) {
    case 'cell-unreachable':
      return `Cell ${owner.cell} cannot be reached${because}; nothing was sent. Try again soon.`;
    case 'outcome-unknown':
      return `Cell ${owner.cell} had been sent the request and did not answer${because}. Repeat it with the same Idempotency-Key.`;
    case 'answer-cut':
      return `Cell ${owner.cell} closed the connection instead of answering${because}. Try again.`;
    case 'cell-timeout':
      return `Cell ${owner.cell} did not answer in time. Try again later.`;
    case 'limit-exceeded':
      return `Cell ${owner.cell} has as many requests as it may have at once. Try again soon.`;
    case 'cell-not-ready':
      return `Cell ${owner.cell} is starting and was not ready within ${limits.settleWaitMsMax} ms. Try again soon.`;
    default:
      return `Router and cell ${owner.cell} did not agree on the tenant's owner within ${limits.settleWaitMsMax} ms. Try again soon.`;
  }
}
