import type { IncomingMessage, ServerResponse } from 'node:http';
import { fault } from '../../protocol/errors.ts';
import { idempotencyKeyHeader } from '../../protocol/headers.ts';
import { limits } from '../../protocol/limits.ts';
import { asFault } from '../../protocol/problem.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import type { Runtime } from '../../machine/serve/runtime.ts';
import { proxyBounds } from '../../proxy/bounds.ts';
import { BodyBytes, parseJson, readBody, refuse, sendJson, sendProblem } from './answer.ts';
import type { Admitted, Application } from './door.ts';

/** A machine over HTTP: `POST /commands/NAME`, `GET /queries/NAME?…`, `GET /state`. */
export function machineApplication(
  machine: Machine,
  runtime: Runtime,
  bodies: BodyBytes = new BodyBytes(),
): Application {
  const addresses = [
    ...[...machine.commands.keys()].map((name) => `POST /commands/${name}`),
    ...[...machine.queries.keys()].map((name) => `GET /queries/${name}`),
    'GET /state',
  ].join(', ');

  async function answer(request: IncomingMessage, response: ServerResponse, admitted: Admitted): Promise<void> {
    const { path, search } = addressOf(request);
    const [, room, name, ...rest] = path.split('/');
    if (room === 'commands' && name !== undefined && rest.length === 0) {
      if (allows(request, response, ['POST'])) await command(name, request, response, admitted);
    } else if (room === 'queries' && name !== undefined && rest.length === 0) {
      if (allows(request, response, ['GET', 'HEAD'])) await query(name, search, response, admitted);
    } else if (path === '/state') {
      if (allows(request, response, ['GET', 'HEAD'])) await state(response, admitted);
    } else {
      throw fault('not-found', `Nothing is at ${path}. This cell has: ${addresses}.`);
    }
  }

  async function command(name: string, request: IncomingMessage, response: ServerResponse, admitted: Admitted) {
    if (!machine.commands.has(name)) {
      throw fault('command-unknown', `There is no command ${name}. This cell has: ${addresses}.`, { field: name });
    }
    const idempotencyKey = keyOf(request);
    const body = await readBody(request, response, {
      bytesMax: limits.machineInputBytesMax,
      timeMsMax: proxyBounds.heldBodyTimeoutMs,
      expectsContinue: admitted.head.expectsConsent,
      bodies,
    });
    const input = parseJson(body);
    // The body took its time; from here to the log is one tick, so nothing is written after ownership ends.
    const admission = admitted.again();
    if (admission.kind === 'refused') {
      refuse(request, response, admission);
      return;
    }
    const outcome = await runtime.execute({
      instance: admitted.tenant,
      command: name,
      input,
      ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
    });
    if (outcome.kind === 'rejected') sendProblem(response, outcome.fault, { reason: outcome.reason });
    else sendJson(response, 200, { seq: outcome.seq, events: outcome.events, stateHash: outcome.stateHash });
  }

  async function query(name: string, search: string, response: ServerResponse, { tenant }: Admitted) {
    if (!machine.queries.has(name)) {
      throw fault('query-unknown', `There is no query ${name}. This cell has: ${addresses}.`, { field: name });
    }
    const outcome = await runtime.query({ instance: tenant, query: name, input: inputOf(search) });
    if (outcome.kind === 'rejected') sendProblem(response, outcome.fault);
    else sendJson(response, 200, outcome.value);
  }

  async function state(response: ServerResponse, { tenant, epoch }: Admitted) {
    const { seq, stateHash } = await runtime.state(tenant);
    sendJson(response, 200, { tenant, seq, epoch, stateHash });
  }

  return {
    upgrades: false,
    close: () => undefined,
    handle: (request, response, admitted) => {
      answer(request, response, admitted).catch((thrown: unknown) => {
        if (response.headersSent) response.destroy();
        else sendProblem(response, asFault(thrown));
      });
    },
  };
}

function addressOf(request: IncomingMessage): { readonly path: string; readonly search: string } {
  const url = request.url ?? '/';
  const mark = url.indexOf('?');
  return mark < 0 ? { path: url, search: '' } : { path: url.slice(0, mark), search: url.slice(mark + 1) };
}

function allows(request: IncomingMessage, response: ServerResponse, methods: readonly string[]): boolean {
  if (methods.includes(request.method ?? '')) return true;
  const allow = methods.join(', ');
  const error = fault('method-not-allowed', `${addressOf(request).path} takes ${allow}, not ${request.method}.`);
  sendProblem(response, error, { allow });
  return false;
}

/** A query's input as the address carries it: texts, or lists of texts where a name comes again. */
function inputOf(search: string): Readonly<Record<string, string | readonly string[]>> {
  const parameters = new URLSearchParams(search);
  return Object.fromEntries(
    [...new Set(parameters.keys())].map((name) => {
      const values = parameters.getAll(name);
      return [name, values.length === 1 ? (values[0] ?? '') : values];
    }),
  );
}

function keyOf(request: IncomingMessage): string | undefined {
  const values = request.headersDistinct[idempotencyKeyHeader];
  if (values === undefined) return undefined;
  const [key = '', ...more] = values;
  if (more.length === 0 && key.length >= 1 && key.length <= limits.idempotencyKeyLengthMax) return key;
  const message = `Idempotency-Key must come once, with 1 to ${limits.idempotencyKeyLengthMax} characters.`;
  throw fault('input-invalid', message, { field: 'Idempotency-Key' });
}
