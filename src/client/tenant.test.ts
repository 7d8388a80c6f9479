import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { Fault } from '../kernel/fault.ts';
import { fault, type ErrorCode } from '../protocol/errors.ts';
import { problemOf } from '../protocol/problem.ts';
import { connect } from './tenant.ts';

type Handler = (request: IncomingMessage, response: ServerResponse, attempt: number) => void;

interface Server {
  readonly url: string;
  readonly requests: {
    readonly url: string | undefined;
    readonly key: string | undefined;
    readonly tenant: string | undefined;
  }[];
}

async function serve(t: TestContext, handler: Handler): Promise<Server> {
  const requests: Server['requests'] = [];
  const server = createServer((request, response) => {
    const { 'idempotency-key': key, 'x-tenant': tenant } = request.headers;
    requests.push({ url: request.url, key: key?.toString(), tenant: tenant?.toString() });
    request.resume().on('end', () => handler(request, response, requests.length));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

function refuse(response: ServerResponse, code: ErrorCode, retryAfterMs?: number): void {
  const problem = problemOf(fault(code, 'for the test', { retryAfterMs }));
  response.writeHead(problem.status, { 'content-type': 'application/problem+json' }).end(JSON.stringify(problem));
}

const accepted = { seq: 1, events: [{ seq: 1, type: 'stockAdded', data: {} }], stateHash: 'c1:0' };

test('a command whose outcome is not known is repeated with the same key until it is answered', async (t) => {
  const { url, requests } = await serve(t, (_, response, attempt) => {
    if (attempt === 1) refuse(response, 'outcome-unknown');
    else if (attempt === 2) response.destroy();
    else response.end(JSON.stringify(accepted));
  });
  const result = await connect({ router: url }).tenant('acme').command('addStock', { item: 'tea', quantity: 1 });
  assert.deepEqual(result, accepted);
  assert.equal(requests.length, 3);
  assert.equal(new Set(requests.map(({ key }) => key)).size, 1);
  assert.notEqual(requests[0]?.key, undefined);
  assert.deepEqual([...new Set(requests.map(({ tenant }) => tenant))], ['acme']);
});

test('two commands never share a key, unless the caller gives it', async (t) => {
  const { url, requests } = await serve(t, (_, response) => response.end(JSON.stringify(accepted)));
  const acme = connect({ router: url }).tenant('acme');
  await acme.command('addStock', {});
  await acme.command('addStock', {});
  await acme.command('addStock', {}, { idempotencyKey: 'mine' });
  assert.equal(new Set(requests.map(({ key }) => key)).size, 3);
  assert.equal(requests[2]?.key, 'mine');
});

test('an answer that a repeat would not change is thrown at once, with its code', async (t) => {
  const { url, requests } = await serve(t, (_, response) => refuse(response, 'invariant-violated'));
  await assert.rejects(
    connect({ router: url }).tenant('acme').command('placeOrder', {}),
    (thrown: unknown) => thrown instanceof Fault && thrown.code === 'invariant-violated',
  );
  assert.equal(requests.length, 1);
});

test('a call gives up at its deadline with the last reason', async (t) => {
  const { url } = await serve(t, (_, response) => refuse(response, 'cell-unreachable', 60_000));
  await assert.rejects(
    connect({ router: url, deadlineMs: 5_000 }).tenant('acme').query('stock'),
    (thrown: unknown) => thrown instanceof Fault && thrown.code === 'cell-unreachable',
  );
});

test('a query puts its input into the address, a state is checked for its shape', async (t) => {
  const { url, requests } = await serve(t, (request, response) => {
    response.end(request.url === '/state' ? '{"surprise":true}' : '[]');
  });
  const acme = connect({ router: url }).tenant('acme');
  assert.deepEqual(await acme.query('orders', { item: 'tea & milk', limit: 5 }), []);
  assert.equal(requests[0]?.url, '/queries/orders?item=tea+%26+milk&limit=5');
  await assert.rejects(acme.state(), /served by a machine/);
});

test('names that no tenant can have and addresses that are none are refused before anything is sent', () => {
  assert.throws(() => connect({ router: 'nonsense' }), /not an address/);
  assert.throws(() => connect({ router: 'http://localhost' }).tenant('Acme\r\nx: y'), /cannot be the name/);
});
