import { Counter, Gauge, Histogram, Registry } from '@prometheus-io/client';

/** What a client saw: classes of answers, so that the number of series stays small. */
export type AnswerClass = '1xx' | '2xx' | '3xx' | '4xx' | '5xx' | 'cut' | 'client-gone';

/**
 * Metrics of one router. Labels are cells and classes, never tenants: a tenant's name may not rest
 * where its jurisdiction does not allow, and would make a series each.
 */
export class RouterMetrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<'cell' | 'class'>;
  readonly #refusals: Counter<'code'>;
  readonly #durations: Histogram<'cell'>;

  constructor(read: { readonly version: () => number; readonly tenants: () => number; readonly live: () => boolean }) {
    const registers = [this.#registry];
    this.#requests = new Counter({
      name: 'cellwright_router_requests_total',
      help: 'Requests by the cell that they were sent to and the class of their answer',
      labelNames: ['cell', 'class'],
      registers,
    });
    this.#refusals = new Counter({
      name: 'cellwright_router_refusals_total',
      help: 'Answers that the router itself gave, by code',
      labelNames: ['code'],
      registers,
    });
    this.#durations = new Histogram({
      name: 'cellwright_router_request_seconds',
      help: 'Time from the head of a request to the end of its answer',
      labelNames: ['cell'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
      registers,
    });
    const gauge = (name: string, help: string, value: () => number): Gauge =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(value());
        },
      });
    gauge('cellwright_router_table_version', 'Version of the routing table', read.version);
    gauge('cellwright_router_table_tenants', 'Tenants in the routing table', read.tenants);
    gauge('cellwright_router_table_live', '1 while the stream of the routing table is live', () =>
      read.live() ? 1 : 0,
    );
  }

  answered(cell: string, answer: AnswerClass, durationMs: number): void {
    this.#requests.inc({ cell, class: answer });
    this.#durations.observe({ cell }, durationMs / 1000);
  }

  refused(code: string): void {
    this.#refusals.inc({ code });
  }

  /** The text format of Prometheus. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  get mediaType(): string {
    return this.#registry.contentType;
  }
}

/** The class of a status. */
export function classOf(status: number): AnswerClass {
  if (status < 200) return '1xx';
  if (status < 300) return '2xx';
  if (status < 400) return '3xx';
  return status < 500 ? '4xx' : '5xx';
}
