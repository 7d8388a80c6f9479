import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { Agent, createServer, request, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Value } from 'typebox/value';
import { WebSocket, WebSocketServer } from 'ws';
import { FleetIdSchema, TenantNameSchema } from '../../protocol/names.ts';
import { problemMediaType } from '../../protocol/problem.ts';
import { RoutingFrameSchema, type RoutedCell, type RoutedTenant } from '../../protocol/routing.ts';
import { TableHash } from '../../protocol/table-hash.ts';
import { proxyBounds } from '../../proxy/bounds.ts';
import { Upstreams } from '../../proxy/upstream.ts';
import type { ProxyServer } from '../../proxy/server.ts';
import { ensureKeys, openSigner, openVerifier, type Signer } from '../../trust/signature.ts';
import { listenData } from './data.ts';
import { RouterMetrics } from './metrics.ts';
import { Routing } from './routing.ts';

const fleet = Value.Parse(FleetIdSchema, 'fleet-of-the-test');

/** A control plane's pen: makes signed frames in order. */
class Frames {
  readonly #signer: Signer;
  readonly #hash = new TableHash();
  #version = 0;
  constructor(signer: Signer) {
    this.#signer = signer;
  }
  next(cells: object[], tenants: object[]) {
    const previous = this.#version;
    this.#version += 1;
    this.#hash.apply({ cells: cells as RoutedCell[], tenants: tenants as RoutedTenant[] });
    const head = { fleet, generation: 1, version: this.#version, cells, tenants, hash: this.#hash.text };
    const frame = previous === 0 ? { kind: 'snapshot', ...head } : { kind: 'change', previous, ...head };
    return this.#signer.sign(Value.Parse(RoutingFrameSchema, frame));
  }
}

interface Cell {
  readonly server: Server;
  readonly address: string;
  /** What this cell does with a request; replaced by tests. */
  handle: RequestListener;
  readonly seen: IncomingMessage[];
}

async function startCell(): Promise<Cell> {
  const cell: { handle: RequestListener; seen: IncomingMessage[] } = {
    handle: (_request, response) => response.end('hello'),
    seen: [],
  };
  const handle: RequestListener = (request, response) => {
    cell.seen.push(request);
    cell.handle(request, response);
  };
  const server = createServer(handle);
  server.on('checkContinue', handle);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(cell, { server, address: `http://127.0.0.1:${portOf(server)}` });
}

function portOf(server: Server): number {
  const address = server.address();
  assert(address !== null && typeof address === 'object');
  return address.port;
}

let folder: string;
let routing: Routing;
let metrics: RouterMetrics;
let router: ProxyServer;
let cells: { tokyo: Cell; osaka: Cell };
let frames: Frames;
let port: number;
const upstreams = new Upstreams();
const agent = new Agent({ keepAlive: true });

function apply(cellEntries: object[], tenants: object[]): void {
  routing.take({ type: 'frame', id: undefined, data: JSON.stringify(frames.next(cellEntries, tenants)) });
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cellwright-router-'));
  const keys = { privateKeyFile: join(folder, 'private.pem'), publicKeyFile: join(folder, 'public.pem') };
  await ensureKeys(keys);
  frames = new Frames(openSigner(keys.privateKeyFile));
  cells = { tokyo: await startCell(), osaka: await startCell() };
  routing = await Routing.load({
    fleet,
    folder,
    verifier: openVerifier(keys.publicKeyFile),
    onProblem: (problem) => assert.fail(problem.message),
    onChanged: () => undefined,
  });
  metrics = new RouterMetrics({ version: () => 1, tenants: () => 0, live: () => routing.live });
  router = await listenData({
    host: '127.0.0.1',
    port: 0,
    partitionKey: { header: 'x-tenant', subdomainOf: ['localhost'] },
    routing,
    metrics,
    upstreams,
  });
  port = Number(new URL(router.url).port);
  apply(
    [
      { name: 'tokyo-1', address: cells.tokyo.address },
      { name: 'osaka-1', address: cells.osaka.address },
      { name: 'down-1', address: 'http://127.0.0.1:1' },
    ],
    [
      { tenant: 'acme', cell: 'tokyo-1', epoch: 3 },
      { tenant: 'bolt', cell: 'osaka-1', epoch: 1 },
      { tenant: 'dune', cell: 'down-1', epoch: 1 },
      { tenant: 'gone', epoch: 2, removed: true },
    ],
  );
});

after(async () => {
  agent.destroy();
  await router.stop();
  await routing.stop();
  for (const { server } of Object.values(cells)) {
    server.closeAllConnections();
    server.close();
  }
  await rm(folder, { recursive: true });
});

interface Answered {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly raw: string[];
  readonly body: string;
  readonly trailers: string[];
}

function ask(options: {
  method?: string;
  path?: string;
  headers?: Record<string, string | string[]>;
  body?: string | Buffer;
}): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        port,
        host: '127.0.0.1',
        agent,
        method: options.method ?? 'GET',
        path: options.path ?? '/',
        headers: options.headers ?? {},
      },
      (answer) => {
        const pieces: Buffer[] = [];
        answer.on('data', (piece: Buffer) => pieces.push(piece));
        answer.on('error', reject);
        answer.on('end', () =>
          resolve({
            status: answer.statusCode ?? 0,
            headers: answer.headers,
            raw: answer.rawHeaders,
            body: Buffer.concat(pieces).toString(),
            trailers: answer.rawTrailers,
          }),
        );
      },
    );
    sent.on('error', reject);
    sent.end(options.body);
  });
}

const forAcme = { 'x-tenant': 'acme' };

function codeOf(answer: Answered): string {
  assert.equal(answer.headers['content-type'], problemMediaType);
  return (JSON.parse(answer.body) as { code: string }).code;
}

/** Everything that comes back on a connection for these bytes, until it closes. */
function raw(text: string): Promise<{ readonly text: string; readonly closed: boolean }> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let received = '';
    socket.on('data', (piece) => (received += piece.toString('latin1')));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve({ text: received, closed: true }));
    socket.write(Buffer.from(text, 'latin1'));
  });
}

test('known tenant: the cell answers, stamped with tenant, epoch and cell, and the client learns the cell', async () => {
  let seen: string[] = [];
  cells.tokyo.handle = (incoming, response) => {
    seen = incoming.rawHeaders;
    response.writeHead(201, ['Set-Cookie', 'a=1', 'set-cookie', 'b=2', 'X-Case', 'kept']);
    response.end('made');
  };
  const answer = await ask({
    path: '/a?b=c',
    headers: { ...forAcme, 'cellwright-epoch': '99', 'Cellwright-Cell': 'evil', 'X-Twice': ['1', '2'] },
  });
  assert.equal(answer.status, 201);
  assert.equal(answer.body, 'made');
  assert.equal(answer.headers['cellwright-cell'], 'tokyo-1');
  assert.deepEqual(answer.headers['set-cookie'], ['a=1', 'b=2']);
  assert.ok(answer.raw.includes('X-Case'), 'the case of names is kept');
  const stamps: string[] = [];
  for (let i = 0; i < seen.length; i += 2)
    if (seen[i]?.toLowerCase().startsWith('cellwright-')) stamps.push(`${seen[i]}=${seen[i + 1]}`);
  assert.deepEqual(stamps, ['cellwright-tenant=acme', 'cellwright-epoch=3', 'cellwright-cell=tokyo-1']);
  assert.equal(seen.filter((name) => name === 'X-Twice').length, 2);
});

test('the tenant can be the subdomain of a base', async () => {
  cells.osaka.handle = (incoming, response) => response.end(incoming.headers.host);
  const answer = await ask({ headers: { host: `bolt.localhost:${port}` } });
  assert.equal(answer.headers['cellwright-cell'], 'osaka-1');
  assert.equal(answer.body, `bolt.localhost:${port}`);
});

test('no tenant, two that disagree, a repeated or malformed one: 400', async () => {
  const cases: [Record<string, string | string[]>, string][] = [
    [{}, 'tenant-missing'],
    [{ 'x-tenant': 'acme', host: 'bolt.localhost' }, 'tenant-ambiguous'],
    [{ 'x-tenant': ['acme', 'acme'] }, 'tenant-ambiguous'],
    [{ 'x-tenant': 'Acme' }, 'tenant-malformed'],
    [{ 'x-tenant': '' }, 'tenant-malformed'],
    [{ host: 'a.b.localhost' }, 'tenant-malformed'],
  ];
  for (const [headers, code] of cases) {
    const answer = await ask({ headers });
    assert.equal(answer.status, 400);
    assert.equal(codeOf(answer), code, JSON.stringify(headers));
  }
});

test('unknown or removed tenant while the table is not live: 503 tenant-not-known-yet, never 404', async () => {
  for (const tenant of ['nobody', 'gone']) {
    const answer = await ask({ headers: { 'x-tenant': tenant } });
    assert.equal(answer.status, 503);
    assert.equal(codeOf(answer), 'tenant-not-known-yet');
    assert.equal(answer.headers['retry-after'], '1');
  }
});

test('its cell is down: 503 with Retry-After, for writes too, because nothing was sent', async () => {
  for (const method of ['GET', 'POST']) {
    const answer = await ask({ method, headers: { 'x-tenant': 'dune' }, ...(method === 'POST' ? { body: 'x' } : {}) });
    assert.equal(answer.status, 503);
    assert.equal(codeOf(answer), 'cell-unreachable');
    assert.equal(answer.headers['retry-after'], '1');
  }
});

test('a write whose connection is lost after it was sent: 502 outcome-unknown, sent once', async () => {
  let times = 0;
  cells.tokyo.handle = (incoming) => {
    times += 1;
    incoming.resume().on('end', () => incoming.socket.destroy());
  };
  const answer = await ask({ method: 'POST', headers: forAcme, body: 'write' });
  assert.equal(answer.status, 502);
  assert.equal(codeOf(answer), 'outcome-unknown');
  assert.equal(times, 1);
});

test('a read whose connection is lost is repeated once, then 502', async () => {
  let times = 0;
  cells.tokyo.handle = (incoming, response) => {
    times += 1;
    if (times === 1) incoming.socket.destroy();
    else response.end('second');
  };
  assert.equal((await ask({ headers: forAcme })).body, 'second');
  times = 0;
  cells.tokyo.handle = (incoming) => {
    times += 1;
    incoming.socket.destroy();
  };
  const answer = await ask({ headers: forAcme });
  assert.equal(codeOf(answer), 'answer-cut');
  assert.equal(times, 2);
});

const refusal = (code: string, status: number, more: Record<string, string> = {}): RequestListener => {
  return (_incoming, response) => {
    response.writeHead(status, { 'cellwright-refusal': code, 'content-length': '2', ...more });
    response.end('no');
  };
};

test('a stale epoch: the 421 of the gate is followed to the newer owner, the client does not see it', async () => {
  cells.tokyo.handle = refusal('not-owner', 421, { 'cellwright-assignment': 'osaka-1 4' });
  cells.osaka.handle = (incoming, response) => {
    let body = '';
    incoming.on('data', (piece: Buffer) => (body += piece.toString()));
    incoming.on('end', () => response.end(`${String(incoming.headers['cellwright-epoch'])} ${body}`));
  };
  const answer = await ask({ method: 'POST', headers: forAcme, body: 'order' });
  assert.equal(answer.status, 200);
  assert.equal(answer.body, '4 order');
  assert.equal(answer.headers['cellwright-cell'], 'osaka-1');
});

test('a 421 or 503 that the application says is its answer and is not sent again', async () => {
  let times = 0;
  cells.tokyo.handle = (_incoming, response) => {
    times += 1;
    response.writeHead(421, { 'x-own': 'yes' });
    response.end('mine');
  };
  const answer = await ask({ method: 'POST', headers: forAcme, body: 'x' });
  assert.equal(answer.status, 421);
  assert.equal(answer.body, 'mine');
  assert.equal(times, 1);
});

test('two cells that point at each other end in 503 assignment-unsettled after hopsMax', async () => {
  let epoch = 3;
  const pointAt =
    (cell: string): RequestListener =>
    (incoming, response) => {
      epoch += 1;
      refusal('not-owner', 421, { 'cellwright-assignment': `${cell} ${epoch}` })(incoming, response);
    };
  cells.tokyo.handle = pointAt('osaka-1');
  cells.osaka.handle = pointAt('tokyo-1');
  cells.tokyo.seen.length = 0;
  cells.osaka.seen.length = 0;
  const answer = await ask({ headers: forAcme });
  assert.equal(codeOf(answer), 'assignment-unsettled');
  assert.equal(cells.tokyo.seen.length + cells.osaka.seen.length, 3);
  assert.equal(answer.headers['cellwright-refusal'], undefined);
  assert.equal(answer.headers['cellwright-assignment'], undefined);
});

test('a cell that is behind is brought the signed frames of the tenant, then asked again', async () => {
  const offered: { frames: unknown[] }[] = [];
  cells.tokyo.handle = (incoming, response) => {
    if (incoming.url === '/.cellwright/frames') {
      let body = '';
      incoming.on('data', (piece: Buffer) => (body += piece.toString()));
      incoming.on('end', () => {
        offered.push(JSON.parse(body) as { frames: unknown[] });
        response.writeHead(204).end();
      });
    } else if (offered.length === 0) refusal('cell-behind', 503)(incoming, response);
    else response.end('caught up');
  };
  const answer = await ask({ method: 'POST', headers: forAcme, body: 'x' });
  assert.equal(answer.body, 'caught up');
  assert.equal(offered[0]?.frames.length, 1);
  assert.equal(routing.framesConcerning(Value.Parse(TenantNameSchema, 'acme')).length, 1);
});

test('a cell that never becomes ready: 503 within the bound, with Retry-After', async () => {
  cells.tokyo.seen.length = 0;
  cells.tokyo.handle = refusal('cell-not-ready', 503);
  const answer = await ask({ headers: forAcme });
  assert.equal(answer.status, 503);
  assert.equal(codeOf(answer), 'cell-not-ready');
  assert.equal(answer.headers['retry-after'], '1');
  assert.ok(cells.tokyo.seen.length > 1, 'it was asked again before');
});

test('any other refusal of a gate reaches the client without what is between gate and router', async () => {
  cells.tokyo.handle = refusal('workload-down', 503, { 'retry-after': '2' });
  const answer = await ask({ headers: forAcme });
  assert.equal(answer.status, 503);
  assert.equal(answer.headers['cellwright-refusal'], undefined);
  assert.equal(answer.headers['retry-after'], '2');
});

test('a client cannot make up a refusal, and an application cannot set our headers on the answer', async () => {
  cells.tokyo.handle = (_incoming, response) => {
    response.writeHead(200, { 'cellwright-cell': 'forged', 'cellwright-anything': 'x' });
    response.end('ok');
  };
  const answer = await ask({ headers: { ...forAcme, 'cellwright-refusal': 'not-owner' } });
  assert.equal(answer.headers['cellwright-cell'], 'tokyo-1');
  assert.equal(answer.headers['cellwright-anything'], undefined);
});

test('smuggling attempts and malformed heads: 400, and the connection is closed', async () => {
  const host = 'Host: acme.localhost\r\n';
  const cases: Record<string, string> = {
    'length and chunks': `POST / HTTP/1.1\r\n${host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'repeated length': `POST / HTTP/1.1\r\n${host}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`,
    'joined length': `POST / HTTP/1.1\r\n${host}Content-Length: 3, 3\r\n\r\nabc`,
    'signed length': `POST / HTTP/1.1\r\n${host}Content-Length: +3\r\n\r\nabc`,
    'repeated host': `GET / HTTP/1.1\r\n${host}${host}\r\n`,
    'joined host': 'GET / HTTP/1.1\r\nHost: acme.localhost, bolt.localhost\r\n\r\n',
    'host with user': 'GET / HTTP/1.1\r\nHost: a@acme.localhost\r\n\r\n',
    'no host': 'GET / HTTP/1.1\r\nx-tenant: acme\r\n\r\n',
    'bare line feeds': 'GET / HTTP/1.1\nHost: acme.localhost\n\n',
    'bare line feed in the head': 'GET / HTTP/1.1\r\nHost: acme.localhost\nX: y\r\n\r\n',
    'folded header': `GET / HTTP/1.1\r\n${host}X: a\r\n b\r\n\r\n`,
    'blank before colon': 'GET / HTTP/1.1\r\nHost : acme.localhost\r\n\r\n',
    'coding twice': `POST / HTTP/1.1\r\n${host}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`,
    'unknown coding': `POST / HTTP/1.1\r\n${host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    'chunks in 1.0': `POST / HTTP/1.0\r\n${host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'other authority in the target': `GET http://bolt.localhost/ HTTP/1.1\r\n${host}\r\n`,
    'asterisk without OPTIONS': `GET * HTTP/1.1\r\n${host}\r\n`,
    'other expectation': `POST / HTTP/1.1\r\n${host}Expect: cake\r\nContent-Length: 1\r\n\r\nx`,
    'HTTP/2 preface': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'no HTTP at all': 'hello\r\n\r\n',
  };
  cells.tokyo.seen.length = 0;
  for (const [what, text] of Object.entries(cases)) {
    const answer = await raw(text);
    assert.match(answer.text, /^HTTP\/1\.1 400 /, what);
    assert.match(answer.text, /"code":"request-malformed"/, what);
    assert.equal(answer.text.match(/^HTTP\/1\.1 /gm)?.length, 1, `${what}: one answer, nothing behind it`);
  }
  assert.equal(cells.tokyo.seen.length, 0, 'nothing of this reached a cell');
});

test('a malformed chunk: 400 in place of the answer, and the cell sees a cut upload', async () => {
  const cutAtCell = Promise.withResolvers<void>();
  const bodyArrives = Promise.withResolvers<void>();
  cells.tokyo.handle = (incoming, response) => {
    response.writeContinue();
    incoming.on('error', () => cutAtCell.resolve());
    incoming.once('data', () => bodyArrives.resolve());
  };
  const head = 'POST / HTTP/1.1\r\nHost: acme.localhost\r\nTransfer-Encoding: chunked\r\n\r\n';
  const answer = await new Promise<string>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let received = '';
    socket.on('data', (piece) => (received += piece.toString()));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(received));
    socket.write(`${head}3\r\nabc\r\n`);
    void bodyArrives.promise.then(() => socket.write('zz\r\n'));
  });
  assert.match(answer, /^HTTP\/1\.1 400 [^]*request-malformed/);
  await cutAtCell.promise;
  assert.match((await raw(`${head}zz\r\n`)).text, /^HTTP\/1\.1 400 /);
});

test('nothing behind a malformed request on the same connection is served', async () => {
  cells.tokyo.seen.length = 0;
  cells.tokyo.handle = (_incoming, response) => response.end('first');
  const good = 'GET / HTTP/1.1\r\nHost: acme.localhost\r\n\r\n';
  const double = 'POST / HTTP/1.1\r\nHost: acme.localhost\r\nHost: acme.localhost\r\nContent-Length: 1\r\n\r\nx';
  const answer = await raw(double + good + good);
  assert.match(answer.text, /^HTTP\/1\.1 400 /);
  assert.equal(answer.text.match(/^HTTP\/1\.1 /gm)?.length, 1);
  assert.equal(cells.tokyo.seen.length, 0);
  assert.match((await raw(`${good}BAD\r\n\r\n`)).text, /^(HTTP\/1\.1 200 [\s\S]*first)?(HTTP\/1\.1 400 [^]*)?$/);
});

test('heads above their bounds: 431', async () => {
  const host = 'Host: acme.localhost\r\n';
  const many = await raw(`GET / HTTP/1.1\r\n${host}${'x: 1\r\n'.repeat(100)}\r\n`);
  assert.match(many.text, /^HTTP\/1\.1 431 /);
  const large = await raw(`GET / HTTP/1.1\r\n${host}x: ${'a'.repeat(17_000)}\r\n\r\n`);
  assert.match(large.text, /^HTTP\/1\.1 431 /);
});

test('a header count at its bound passes', async () => {
  cells.tokyo.handle = (_incoming, response) => response.end('ok');
  const answer = await raw(
    `GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n${'x: 1\r\n'.repeat(98)}\r\n`,
  );
  assert.match(answer.text, /^HTTP\/1\.1 200 /);
});

test('hop-by-hop headers, and those that Connection names, go no further in either direction', async () => {
  let seen: IncomingMessage['headers'] = {};
  cells.tokyo.handle = (incoming, response) => {
    seen = incoming.headers;
    response.writeHead(200, ['Connection', 'close, X-Mine', 'X-Mine', '1', 'Proxy-Authenticate', 'Basic', 'X-Ok', '1']);
    response.end();
  };
  const answer = await raw(
    'GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close, x-secret, host\r\nx-secret: 1\r\n' +
      'Keep-Alive: 5\r\nProxy-Authorization: x\r\nTE: trailers\r\nX-Ok: 1\r\n\r\n',
  );
  assert.equal(seen['x-secret'], undefined);
  assert.equal(seen['keep-alive'], undefined);
  assert.equal(seen['proxy-authorization'], undefined);
  assert.equal(seen.te, 'trailers');
  assert.equal(seen.host, 'acme.localhost');
  assert.equal(seen['x-ok'], '1');
  assert.doesNotMatch(answer.text, /X-Mine|Proxy-Authenticate/);
  assert.match(answer.text, /X-Ok: 1/);
});

test('HEAD, 204 and 304 answers have no body and keep their headers', async () => {
  cells.tokyo.handle = (incoming, response) => {
    if (incoming.method === 'HEAD') response.writeHead(200, { 'content-length': '1234' });
    else response.writeHead(incoming.url === '/304' ? 304 : 204, { etag: '"x"' });
    response.end();
  };
  const head = await ask({ method: 'HEAD', headers: forAcme });
  assert.equal(head.headers['content-length'], '1234');
  assert.equal(head.body, '');
  for (const path of ['/204', '/304']) {
    const answer = await ask({ path, headers: forAcme });
    assert.equal(String(answer.status), path.slice(1));
    assert.equal(answer.headers.etag, '"x"');
    assert.equal(answer.body, '');
  }
});

test('trailers and 103 pass', async () => {
  cells.tokyo.handle = (_incoming, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload' });
    response.writeHead(200, { trailer: 'x-sum' });
    response.write('body');
    response.addTrailers({ 'x-sum': '42', 'cellwright-cell': 'forged' });
    response.end();
  };
  const answer = await raw('GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n\r\n');
  assert.match(answer.text, /^HTTP\/1\.1 103 [^\r]*\r\nlink: <\/a.css>; rel=preload\r\n\r\nHTTP\/1\.1 200/i);
  assert.match(answer.text, /x-sum: 42\r\n\r\n$/);
  assert.doesNotMatch(answer.text, /forged/);
});

test('trailers of a chunked request pass', async () => {
  const trailers: string[][] = [];
  cells.tokyo.handle = (incoming, response) => {
    response.writeContinue();
    incoming.resume().on('end', () => {
      trailers.push(incoming.rawTrailers);
      response.end('ok');
    });
  };
  await raw(
    'POST / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n' +
      '3\r\nabc\r\n0\r\nX-Sum: 7\r\nCellwright-Epoch: 9\r\n\r\n',
  );
  assert.deepEqual(trailers, [['X-Sum', '7']]);
});

test('a large body waits for the gate: refused before it was read, it goes to the newer owner whole', async () => {
  const size = 1_000_000;
  cells.tokyo.handle = refusal('not-owner', 421, { 'cellwright-assignment': 'osaka-1 4' });
  let expected: string | undefined;
  cells.osaka.handle = (incoming, response) => {
    expected = incoming.headers.expect;
    response.writeContinue();
    let bytes = 0;
    incoming.on('data', (piece: Buffer) => (bytes += piece.length));
    incoming.on('end', () => response.end(String(bytes)));
  };
  const answer = await ask({ method: 'PUT', headers: forAcme, body: Buffer.alloc(size) });
  assert.equal(answer.body, String(size));
  assert.equal(expected, '100-continue');
});

test('a client that expects a consent gets it when the gate gives it, and not before', async () => {
  cells.tokyo.handle = (incoming, response) => {
    response.writeContinue();
    incoming.resume().on('end', () => response.end('taken'));
  };
  const sent = request({
    port,
    host: '127.0.0.1',
    agent: false,
    method: 'POST',
    headers: { ...forAcme, expect: '100-continue', 'content-length': '100000' },
  });
  const text = await new Promise<string>((resolve, reject) => {
    sent.on('continue', () => sent.end(Buffer.alloc(100_000)));
    sent.on('error', reject);
    sent.on('response', (answer) => {
      let body = '';
      answer.on('data', (piece: Buffer) => (body += piece.toString()));
      answer.on('end', () => resolve(body));
    });
    sent.flushHeaders();
  });
  assert.equal(text, 'taken');
});

test('a client that uploads without being wanted still reads the refusal', async () => {
  const answer = await ask({ method: 'POST', headers: { 'x-tenant': 'dune' }, body: Buffer.alloc(500_000) });
  assert.equal(codeOf(answer), 'cell-unreachable');
});

/** Waits until a count no longer grows while the router does other work. */
async function stalled(read: () => number): Promise<void> {
  cells.osaka.handle = (_incoming, response) => response.end();
  let last = -1;
  while (last !== read()) {
    last = read();
    for (let i = 0; i < 50; i++) await ask({ headers: { 'x-tenant': 'bolt' } });
  }
}

test('a client that does not read stops the cell from sending: nothing piles up in between', async () => {
  const piece = Buffer.alloc(256 * 1024, 'x');
  const total = piece.length * 400;
  let sentBytes = 0;
  cells.tokyo.handle = (_incoming, response) => {
    const more = (): void => {
      while (sentBytes < total) {
        sentBytes += piece.length;
        if (!response.write(piece)) {
          response.once('drain', more);
          return;
        }
      }
      response.end();
    };
    more();
  };
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ port, host: '127.0.0.1', agent: false, headers: forAcme }, resolve).on('error', reject).end();
  });
  await stalled(() => sentBytes);
  assert.ok(sentBytes < total / 2, `${sentBytes} bytes were taken from the cell, none was read by the client`);
  let bytes = 0;
  for await (const received of answer) bytes += (received as Buffer).length;
  assert.equal(bytes, total);
});

test('a cell that does not read stops the client from sending', async () => {
  const piece = Buffer.alloc(256 * 1024, 'x');
  const total = piece.length * 400;
  const reads = Promise.withResolvers<void>();
  cells.tokyo.handle = (incoming, response) => {
    response.writeContinue();
    let bytes = 0;
    incoming.on('end', () => response.end(String(bytes)));
    void reads.promise.then(() => incoming.on('data', (received: Buffer) => (bytes += received.length)));
  };
  const sent = request({ port, host: '127.0.0.1', agent: false, method: 'POST', headers: forAcme });
  const answered = new Promise<string>((resolve, reject) => {
    sent.on('error', reject);
    sent.on('response', (answer) => answer.on('data', (received: Buffer) => resolve(received.toString())));
  });
  let sentBytes = 0;
  const more = (): void => {
    while (sentBytes < total) {
      sentBytes += piece.length;
      if (!sent.write(piece)) {
        sent.once('drain', more);
        return;
      }
    }
    sent.end();
  };
  more();
  await stalled(() => sentBytes);
  assert.ok(sentBytes < total / 2, `${sentBytes} bytes were taken from the client, none was read by the cell`);
  reads.resolve();
  assert.equal(await answered, String(total));
});

test('a chunked request reaches the cell piece by piece, before its end', async () => {
  cells.tokyo.handle = (incoming, response) => {
    response.writeContinue();
    response.flushHeaders();
    incoming.on('data', (piece: Buffer) => response.write(piece.toString().toUpperCase()));
    incoming.on('end', () => response.end());
  };
  const sent = request({ port, host: '127.0.0.1', agent: false, method: 'POST', headers: forAcme });
  sent.write('one');
  const received: string[] = [];
  await new Promise<void>((resolve, reject) => {
    sent.on('error', reject);
    sent.on('response', (answer) => {
      answer.on('data', (piece: Buffer) => {
        received.push(piece.toString());
        if (received.length === 1) sent.end('two');
      });
      answer.on('end', resolve);
    });
  });
  assert.deepEqual(received, ['ONE', 'TWO']);
});

test('an answer that the cell cuts is cut for the client, whether sized, chunked or HTTP/1.0', async () => {
  for (const headers of [{ 'content-length': '100' }, {}]) {
    cells.tokyo.handle = (_incoming, response) => {
      response.writeHead(200, headers);
      response.write('partial', () => setImmediate(() => response.socket?.destroy()));
    };
    await assert.rejects(ask({ headers: forAcme }), /aborted|ECONNRESET|socket hang up/);
  }
  const error = await new Promise<Error | undefined>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let failure: Error | undefined;
    socket.on('error', (cause) => (failure = cause));
    socket.on('close', () => resolve(failure));
    socket.resume();
    socket.write('GET / HTTP/1.0\r\nx-tenant: acme\r\n\r\n');
  });
  assert.match(String(error), /ECONNRESET/);
});

test('a client that goes away cancels the request at the cell', async () => {
  const cancelled = new Promise<void>((resolve) => {
    cells.tokyo.handle = (_incoming, response) => {
      response.on('close', resolve);
      client.destroy();
    };
  });
  const client = request({ port, host: '127.0.0.1', agent: false, headers: forAcme });
  client.on('error', () => undefined);
  client.end();
  await cancelled;
});

test('an upload that the client cuts is cut for the cell', async () => {
  const aborted = new Promise<void>((resolve) => {
    cells.tokyo.handle = (incoming, response) => {
      response.writeContinue();
      incoming.on('error', () => resolve());
      incoming.once('data', () => client.destroy());
    };
  });
  const client = request({ port, host: '127.0.0.1', agent: false, method: 'POST', headers: { ...forAcme } });
  client.on('error', () => undefined);
  client.write('a');
  await aborted;
});

test('a WebSocket is a tunnel both ways, stamped like any request', async () => {
  const sockets = new WebSocketServer({ noServer: true });
  let epoch: unknown;
  const onUpgrade = (incoming: IncomingMessage, socket: Socket, head: Buffer): void => {
    epoch = incoming.headers['cellwright-epoch'];
    sockets.handleUpgrade(incoming, socket, head, (webSocket) => {
      webSocket.on('message', (data: Buffer) => webSocket.send(`echo ${data.toString()}`));
    });
  };
  cells.tokyo.server.on('upgrade', onUpgrade);
  const client = new WebSocket(`ws://127.0.0.1:${port}/chat`, { headers: forAcme });
  const received: string[] = [];
  await new Promise<void>((resolve, reject) => {
    client.on('error', reject);
    client.on('open', () => client.send('one'));
    client.on('message', (data: Buffer) => {
      received.push(data.toString());
      if (received.length === 1) client.send('x'.repeat(200_000));
      else client.close();
    });
    client.on('close', () => resolve());
  });
  cells.tokyo.server.removeListener('upgrade', onUpgrade);
  assert.equal(epoch, '3');
  assert.equal(received[0], 'echo one');
  assert.equal(received[1]?.length, 200_005);
});

test('an upgrade that the cell refuses is an ordinary answer; a tunnel passes half-close on', async () => {
  const onUpgrade = (incoming: IncomingMessage, socket: Socket): void => {
    if (incoming.url === '/no') socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno');
    else {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst ');
      let all = '';
      socket.on('data', (piece) => (all += piece.toString()));
      socket.on('end', () => socket.end(`got ${all}`));
    }
  };
  cells.tokyo.server.on('upgrade', onUpgrade);
  const upgrade = 'Host: acme.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n';
  const refused = await raw(`GET /no HTTP/1.1\r\n${upgrade}`);
  assert.match(refused.text, /^HTTP\/1\.1 403 [\s\S]*no$/);
  const text = await new Promise<string>((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let received = '';
    let ended = false;
    socket.on('data', (piece) => {
      received += piece.toString();
      if (!ended && received.includes('first')) {
        ended = true;
        socket.end('ping');
      }
    });
    socket.on('close', () => resolve(received));
    socket.write(`GET /yes HTTP/1.1\r\n${upgrade}`);
  });
  cells.tokyo.server.removeListener('upgrade', onUpgrade);
  assert.match(text, /^HTTP\/1\.1 101 /);
  assert.match(text, /\r\n\r\nfirst got ping$/);
});

test('an Upgrade to HTTP/2 is ignored: nothing goes past the checks in a tunnel', async () => {
  let upgrade: string | undefined = 'not called';
  cells.tokyo.handle = (incoming, response) => {
    upgrade = incoming.headers.upgrade;
    response.end('plain');
  };
  const answer = await raw(
    'GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n',
  );
  assert.match(answer.text, /^HTTP\/1\.1 200 [\s\S]*plain/);
  assert.equal(upgrade, undefined);
});

test('a small body that does not arrive in time: 408, and nothing was sent to the cell', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  cells.tokyo.seen.length = 0;
  const socket = connect(port, '127.0.0.1');
  let received = '';
  socket.on('data', (piece) => {
    received += piece.toString();
    if (received.endsWith('100 Continue\r\n\r\n')) t.mock.timers.tick(proxyBounds.heldBodyTimeoutMs);
    else if (received.includes('request-too-slow')) t.mock.timers.tick(proxyBounds.lingerMs);
  });
  socket.write('POST / HTTP/1.1\r\nHost: acme.localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\nab');
  await once(socket, 'close');
  assert.match(received, /HTTP\/1\.1 408 /);
  assert.equal(cells.tokyo.seen.length, 0);
});

test('requests at one cell at once are bounded: 429 with Retry-After above', async () => {
  const bounded = await listenData({
    host: '127.0.0.1',
    port: 0,
    partitionKey: { header: 'x-tenant', subdomainOf: [] },
    routing,
    metrics,
    upstreams: new Upstreams({ exchangesPerAddressMax: 1 }),
  });
  const url = bounded.url;
  const arrived = Promise.withResolvers<() => void>();
  cells.tokyo.handle = (_incoming, response) => arrived.resolve(() => response.end('first'));
  const first = fetch(url, { headers: forAcme });
  const release = await arrived.promise;
  const second = await fetch(url, { headers: forAcme });
  assert.equal(second.status, 429);
  assert.equal(second.headers.get('retry-after'), '1');
  release();
  assert.equal(await (await first).text(), 'first');
  await bounded.stop();
});

test('what is under /.cellwright/ is 404 for every client, however it is written, and reaches no cell', async () => {
  cells.tokyo.seen.length = 0;
  for (const path of ['/.cellwright/frames', '/%2ecellwright/frames', '/a/../.cellwright/frames', '//.cellwright/x']) {
    for (const headers of [forAcme, {}]) {
      const answer = await ask({ method: 'POST', path, headers, body: '{}' });
      assert.equal(answer.status, 404);
      assert.equal(codeOf(answer), 'not-found');
    }
  }
  assert.equal(cells.tokyo.seen.length, 0);
});

test('a second spelling of our headers or of the partition header goes neither way', async () => {
  let seen: string[] = [];
  cells.tokyo.handle = (incoming, response) => {
    seen = Object.keys(incoming.headers);
    response.setHeader('cellwright_cell', 'forged').end();
  };
  const headers = { ...forAcme, cellwright_tenant: 'victim', Cellwright_epoch: '9', x_tenant: 'victim', x_own: '1' };
  const answer = await ask({ headers });
  assert.deepEqual(
    seen.filter((name) => name.includes('_')),
    ['x_own'],
  );
  assert.ok(seen.includes('x-tenant'));
  assert.equal(answer.headers['cellwright_cell'], undefined);
});

test('requests that are sent ahead of an answer are served one after the other, in order', async () => {
  const arrived: string[] = [];
  let atOnce = 0;
  cells.tokyo.handle = (incoming, response) => {
    atOnce += 1;
    assert.equal(atOnce, 1);
    arrived.push(String(incoming.url));
    incoming.resume().on('end', () =>
      setImmediate(() => {
        atOnce -= 1;
        response.end(`<${String(incoming.url)}>`);
      }),
    );
  };
  const paths = Array.from({ length: 3 * proxyBounds.pipelinedMax }, (_, i) => `/${i}`);
  const last = paths.at(-1);
  const text = paths
    .map((path) => {
      const close = path === last ? 'Connection: close\r\n' : '';
      return `POST ${path} HTTP/1.1\r\nHost: acme.localhost\r\n${close}Content-Length: 2\r\n\r\nab`;
    })
    .join('');
  const answers = (await raw(text)).text;
  assert.deepEqual(arrived, paths);
  assert.deepEqual(
    [...answers.matchAll(/<(.*?)>/g)].map(([, path]) => path),
    paths,
  );
});

test('an answer that is cut behind another one on its connection ends the connection', async () => {
  cells.tokyo.handle = (incoming, response) => {
    if (incoming.url === '/first') {
      response.end('first');
      return;
    }
    response.writeHead(200, { 'content-length': '9' });
    response.write('half', () => response.socket?.destroy());
  };
  const { text, closed } = await raw(
    'GET /first HTTP/1.1\r\nHost: acme.localhost\r\n\r\nGET /cut HTTP/1.1\r\nHost: acme.localhost\r\n\r\n',
  );
  assert.ok(closed);
  assert.match(text, /first/);
});

test('an upgrade that is sent ahead of an answer ends the connection, and nothing else', async () => {
  cells.tokyo.handle = () => undefined;
  const upgrade = 'GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n';
  assert.ok((await raw(`GET /hang HTTP/1.1\r\nHost: acme.localhost\r\n\r\n${upgrade}`)).closed);
  cells.tokyo.handle = (_incoming, response) => response.end('alive');
  assert.equal((await ask({ headers: forAcme })).body, 'alive');
});

test('an answer whose head cannot be passed on is 502, once, and keeps no place at its cell', async () => {
  const bounded = await listenData({
    host: '127.0.0.1',
    port: 0,
    partitionKey: { header: 'x-tenant', subdomainOf: [] },
    routing,
    metrics,
    upstreams: new Upstreams({ exchangesPerAddressMax: 1 }),
  });
  let times = 0;
  cells.tokyo.handle = (incoming) => {
    times += 1;
    incoming.socket.write('HTTP/1.1 099 Odd\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno');
  };
  for (const [method, code] of [
    ['GET', 'answer-cut'],
    ['POST', 'outcome-unknown'],
  ] as const) {
    times = 0;
    const answer = await fetch(bounded.url, { method, headers: forAcme });
    assert.equal(answer.status, 502);
    assert.equal(((await answer.json()) as { code: string }).code, code);
    assert.equal(times, 1);
  }
  cells.tokyo.handle = (_incoming, response) => response.end('fine');
  assert.equal(await (await fetch(bounded.url, { headers: forAcme })).text(), 'fine');
  await bounded.stop();
});

test('a tunnel keeps its place at its cell until it ends', async () => {
  const bounded = await listenData({
    host: '127.0.0.1',
    port: 0,
    partitionKey: { header: 'x-tenant', subdomainOf: [] },
    routing,
    metrics,
    upstreams: new Upstreams({ exchangesPerAddressMax: 1 }),
  });
  const onUpgrade = (_incoming: IncomingMessage, socket: Socket): void => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
    socket.pipe(socket);
  };
  cells.tokyo.server.on('upgrade', onUpgrade);
  cells.tokyo.handle = (_incoming, response) => response.end('free');
  const upgrade = { connection: 'Upgrade', upgrade: 'echo', ...forAcme };
  const [, tunnel] = (await once(request(bounded.url, { headers: upgrade }).end(), 'upgrade')) as [unknown, Socket];
  assert.equal((await fetch(bounded.url, { headers: forAcme })).status, 429);
  tunnel.destroy();
  let status = 429;
  while (status === 429) status = (await fetch(bounded.url, { headers: forAcme })).status;
  assert.equal(status, 200);
  cells.tokyo.server.removeListener('upgrade', onUpgrade);
  await bounded.stop();
});

test('metrics count by cell and class and never name a tenant', async () => {
  const text = await metrics.text();
  assert.match(text, /cellwright_router_requests_total\{cell="tokyo-1",class="2xx"\}/);
  assert.doesNotMatch(text, /acme|bolt|dune/);
});

test('/livez on the data listener is just a path of a tenant', async () => {
  cells.tokyo.handle = (incoming, response) => response.end(incoming.url);
  assert.equal((await ask({ path: '/livez', headers: forAcme })).body, '/livez');
  assert.equal((await ask({ path: '/livez' })).status, 400);
});
