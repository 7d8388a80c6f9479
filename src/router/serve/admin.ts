import { createServer, type Server, type ServerResponse } from 'node:http';
import { fault } from '../../protocol/errors.ts';
import { problemMediaType, problemOf } from '../../protocol/problem.ts';
import type { RouterMetrics } from './metrics.ts';
import type { Routing } from './routing.ts';

/** A request to the admin listener has no body worth waiting for. */
const requestTimeoutMs = 5_000;

/** Answers on a listener of its own, where no tenant can hide them: health, metrics and the table's summary. */
export async function listenAdmin(options: {
  readonly host: string;
  readonly port: number;
  readonly routing: Routing;
  readonly metrics: RouterMetrics;
}): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const { routing, metrics } = options;
  const server = createServer(
    { requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs },
    (request, response) => {
      request.resume();
      const path = (request.url ?? '').split('?')[0];
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        sendProblem(response, fault('method-not-allowed', 'Only GET and HEAD are offered here.'));
      } else if (path === '/livez') send(response, 200, 'text/plain', 'ok\n');
      else if (path === '/readyz') {
        const ready = routing.table.position !== undefined;
        send(response, ready ? 200 : 503, 'text/plain', ready ? 'ok\n' : 'no routing table is loaded yet\n');
      } else if (path === '/metrics') {
        metrics.text().then(
          (text) => send(response, 200, metrics.mediaType, text),
          (cause: unknown) =>
            sendProblem(response, fault('internal', 'The metrics could not be collected.', { cause })),
        );
      } else if (path === '/debug/table')
        send(response, 200, 'application/json', `${JSON.stringify(summaryOf(routing))}\n`);
      else sendProblem(response, fault('not-found', 'Known here: /livez, /readyz, /metrics, /debug/table.'));
    },
  );
  await bind(server, options.host, options.port);
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : options.port;
  return {
    url: `http://${options.host.includes(':') ? `[${options.host}]` : options.host}:${port}`,
    async stop() {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeAllConnections();
      await closed;
    },
  };
}

function summaryOf(routing: Routing): Readonly<Record<string, unknown>> {
  const { table } = routing;
  return {
    generation: table.position?.generation ?? null,
    version: table.position?.version ?? null,
    hash: table.hash,
    tenants: table.tenantCount,
    cells: table.cellCount,
    live: routing.live,
    sinceMs: routing.sinceMs,
  };
}

function send(response: ServerResponse, status: number, mediaType: string, body: string): void {
  response.writeHead(status, { 'content-type': mediaType, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

function sendProblem(response: ServerResponse, reason: ReturnType<typeof fault>): void {
  send(response, reason.kind.status, problemMediaType, JSON.stringify(problemOf(reason)));
}

async function bind(server: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, host, resolve);
  await promise.catch((cause: unknown) => {
    const where = `${host}:${port}`;
    throw fault('port-in-use', `The admin listener cannot use ${where}. Choose another port.`, { field: where, cause });
  });
  server.removeListener('error', reject);
}
