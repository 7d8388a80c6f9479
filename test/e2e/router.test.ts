import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Type } from 'typebox';
import { WebSocket } from 'ws';
import { Fleet, temporaryFolder } from './fleet.ts';
import { ask, expectProblem, expectShape } from './http.ts';
import { eventually, killHard } from './processes.ts';

const EchoSchema = Type.Object({
  method: Type.String(),
  url: Type.String(),
  headers: Type.Record(Type.String(), Type.Unknown()),
  body: Type.Object({ length: Type.Integer(), sha256: Type.String() }),
  cell: Type.String(),
  pid: Type.Integer(),
});
const CountsSchema = Type.Record(Type.String(), Type.Integer());

/** A fleet of three cells that run the application of application.ts. */
function probeFleet(): string {
  const application = fileURLToPath(new URL('application.ts', import.meta.url));
  const workload = {
    command: [process.execPath, application],
    env: { PORT: '{port}', DATA: '{data}', CELL: '{cell}' },
    health: '/healthz',
  };
  const cell = (name: string, jurisdiction: string): unknown => ({
    kind: 'Cell',
    name,
    spec: { blueprint: 'probe', jurisdiction, capacity: { users: 1_000 } },
  });
  const tenant = (name: string, jurisdiction: string): unknown => ({
    kind: 'Tenant',
    name,
    spec: { jurisdiction, users: 1 },
  });
  const resources = [
    { kind: 'Blueprint', name: 'probe', spec: { workload } },
    cell('tokyo', 'jp'),
    cell('kathmandu', 'np'),
    cell('dublin', 'eu'),
    tenant('acme', 'jp'),
    tenant('yeti', 'np'),
    tenant('celt', 'eu'),
  ];
  const path = join(temporaryFolder(), 'fleet.yaml');
  writeFileSync(path, resources.map((resource) => JSON.stringify(resource)).join('\n---\n'));
  return path;
}

describe('the router', { timeout: 180_000 }, () => {
  let fleet: Fleet;
  let port = 0;
  before(async () => {
    fleet = await Fleet.start({ file: probeFleet() });
    port = fleet.up.routerPort;
  });
  after(() => fleet.stop());

  const counts = async (tenant: string): Promise<Readonly<Record<string, number>>> =>
    expectShape(CountsSchema, (await fleet.tenant(tenant, '/counts')).json, 'counts');
  const echo = async (
    tenant: string,
    asking: Parameters<typeof ask>[1] = {},
    path = '/echo',
  ): Promise<ReturnType<typeof readEcho>> => readEcho(await fleet.tenant(tenant, path, asking));

  it('sends each tenant to its cell and says which it was', async () => {
    for (const [tenant, cell] of [
      ['acme', 'tokyo'],
      ['yeti', 'kathmandu'],
      ['celt', 'dublin'],
    ] as const) {
      const answer = await fleet.tenant(tenant, '/');
      assert.equal(answer.status, 200);
      assert.equal(answer.body, cell);
      assert.equal(answer.headers['cellwright-cell'], cell);
    }
  });

  it('takes the tenant from the subdomain as well', async () => {
    const answer = await ask(`http://127.0.0.1:${port}/`, { headers: { host: `yeti.localhost:${port}` } });
    assert.equal(answer.headers['cellwright-cell'], 'kathmandu');
  });

  it('refuses a request without tenant (400), with two (400), or with an unknown one (404)', async () => {
    expectProblem(await ask(`${fleet.ready.router}/`), 400, 'tenant-missing');
    expectProblem(
      await fleet.tenant('acme', '/', { headers: { host: `yeti.localhost:${port}` } }),
      400,
      'tenant-ambiguous',
    );
    expectProblem(await fleet.tenant('nobody', '/'), 404, 'tenant-unknown');
    expectProblem(await fleet.tenant('../acme', '/'), 400, 'tenant-malformed');
    const same = await fleet.tenant('acme', '/', { headers: { host: `acme.localhost:${port}` } });
    assert.equal(same.status, 200, 'two sources that agree are no conflict');
  });

  it('passes method, path, query, headers and body on, and everything that comes back', async () => {
    const body = randomBytes(10_000);
    const { seen, answer } = await echo(
      'acme',
      { method: 'PATCH', body, headers: { 'x-mine': 'kept' } },
      '/echo?a=1&b=%2F%20c',
    );
    assert.equal(seen.method, 'PATCH');
    assert.equal(seen.url, '/echo?a=1&b=%2F%20c');
    assert.equal(seen.headers['x-mine'], 'kept');
    assert.deepEqual(seen.body, { length: body.length, sha256: sha256(body) });
    assert.equal(answer.headers['x-own'], 'kept');
    assert.equal(answer.headers['set-cookie'], 'a=1, b=2');
    assert.equal((await fleet.tenant('acme', '/empty')).status, 204);
    const unchanged = await fleet.tenant('acme', '/unchanged');
    assert.deepEqual([unchanged.status, unchanged.headers['etag'], unchanged.body], [304, '"7"', '']);
    const head = await fleet.tenant('acme', '/echo', { method: 'HEAD' });
    assert.deepEqual([head.status, head.body], [200, '']);
    assert.equal((await fleet.tenant('acme', '/unheard-of')).body, 'the application does not know that');
  });

  it('lets no client set a cellwright header', async () => {
    const forged = {
      'cellwright-tenant': 'yeti',
      'cellwright-epoch': '999',
      'cellwright-cell': 'dublin',
      'Cellwright-Anything': 'forged',
    };
    const answer = await fleet.tenant('acme', '/echo', { headers: forged });
    if (answer.status === 400) return;
    const { seen } = readEcho(answer);
    assert.equal(seen.cell, 'tokyo');
    const own = Object.entries(seen.headers).filter(([name]) => name.startsWith('cellwright-'));
    assert.deepEqual(
      own.filter(([, value]) => ['yeti', '999', 'dublin', 'forged'].includes(String(value))),
      [],
    );
  });

  it('passes on a 421 of the application, never repeats it, and believes none of its cellwright headers', async () => {
    for (const method of ['GET', 'POST']) {
      const before = (await counts('acme'))['/misdirected'] ?? 0;
      const answer = await fleet.tenant('acme', '/misdirected', { method });
      assert.equal(answer.status, 421);
      assert.equal(answer.body, 'an answer of the application');
      assert.equal(answer.headers['x-own'], 'kept');
      assert.equal(answer.headers['cellwright-cell'], 'tokyo');
      assert.equal(answer.headers['cellwright-refusal'], undefined);
      assert.equal(answer.headers['cellwright-assignment'], undefined);
      assert.equal((await counts('acme'))['/misdirected'], before + 1, 'the application was asked once');
    }
  });

  it('says 502 outcome-unknown of a write whose connection is lost, and sends it once', async () => {
    const before = (await counts('acme'))['/cut'] ?? 0;
    expectProblem(await fleet.tenant('acme', '/cut', { method: 'POST', body: 'x' }), 502, 'outcome-unknown');
    expectProblem(await fleet.tenant('acme', '/cut', { method: 'DELETE' }), 502, 'outcome-unknown');
    assert.equal((await counts('acme'))['/cut'], before + 2);
  });

  it('cuts an answer that the application cuts, and never completes it', async () => {
    await assert.rejects(fleet.tenant('acme', '/half'));
    assert.equal((await fleet.tenant('acme', '/')).status, 200);
  });

  it('streams both ways: each piece comes back before the next is sent', async () => {
    const request = httpRequest(`${fleet.ready.router}/duplex`, {
      method: 'POST',
      headers: { 'x-tenant': 'acme', 'transfer-encoding': 'chunked' },
      timeout: 10_000,
    });
    request.flushHeaders();
    request.write('0;');
    const response = await answered(request);
    response.setEncoding('utf8');
    let received = '';
    response.on('data', (text: string) => (received += text));
    let sent = '0;';
    for (let piece = 1; piece <= 20; piece += 1) {
      await eventually(`piece ${piece} comes back`, 5_000, () => received === sent);
      request.write(`${piece};`);
      sent += `${piece};`;
    }
    request.end();
    await once(response, 'end');
    assert.equal(received, sent);
  });

  it('carries large uploads and downloads whole', async () => {
    const body = randomBytes(24 * 1024 * 1024);
    const { seen } = await echo('yeti', { method: 'POST', body, timeoutMs: 30_000 });
    assert.deepEqual(seen.body, { length: body.length, sha256: sha256(body) });
    const bytes = 24 * 1024 * 1024 + 7;
    const answer = await fleet.tenant('yeti', `/download?bytes=${bytes}`, { timeoutMs: 30_000 });
    assert.equal(answer.body.length, bytes);
    assert.equal(sha256(answer.body), sha256(Buffer.alloc(bytes, 'cell')));
  });

  it('lets go of the application when the client goes', async () => {
    const request = httpRequest(`${fleet.ready.router}/endless`, { headers: { 'x-tenant': 'celt' } }).end();
    const response = await answered(request);
    response.once('data', () => request.destroy());
    response.on('error', () => {});
    await eventually('the application notices', 10_000, async () => (await counts('celt'))['/endless closed'] === 1);
  });

  it('carries WebSockets both ways, by header and by subdomain, up to the closing code', async () => {
    const variants = [{ headers: { 'x-tenant': 'acme' } }, { headers: { host: `acme.localhost:${port}` } }];
    for (const { headers } of variants) {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/live?x=1`, {
        headers: { ...headers, 'cellwright-tenant': 'yeti' },
      });
      const messages: Buffer[] = [];
      socket.on('message', (data: Buffer) => messages.push(data));
      await once(socket, 'open');
      await eventually('the greeting', 5_000, () => messages.length === 1);
      const greeting = expectShape(
        Type.Object({ cell: Type.String(), url: Type.String(), headers: Type.Record(Type.String(), Type.String()) }),
        JSON.parse(messages[0]?.toString() ?? ''),
        'greeting',
      );
      assert.deepEqual([greeting.cell, greeting.url], ['tokyo', '/live?x=1']);
      assert.notEqual(greeting.headers['cellwright-tenant'], 'yeti');
      const large = randomBytes(1024 * 1024);
      socket.send('hello');
      socket.send(large);
      await eventually('both come back', 5_000, () => messages.length === 3);
      assert.equal(messages[1]?.toString(), 'hello');
      assert.ok(messages[2]?.equals(large));
      socket.send('close');
      const [code] = (await once(socket, 'close')) as [number];
      assert.equal(code, 4_000);
    }
  });

  it('refuses a WebSocket of an unknown tenant with 404', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { 'x-tenant': 'nobody' } });
    const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { statusCode: number }];
    assert.equal(response.statusCode, 404);
    socket.on('error', () => {}).terminate();
  });

  const malformed: readonly (readonly [string, string])[] = [
    [
      'Content-Length and Transfer-Encoding',
      'POST /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'two lengths',
      'POST /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello',
    ],
    [
      'the same length twice',
      'POST /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello',
    ],
    ['a signed length', 'POST /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nContent-Length: +5\r\n\r\nhello'],
    ['a list of lengths', 'POST /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nContent-Length: 5, 5\r\n\r\nhello'],
    ['a bare line feed', 'GET /smuggled HTTP/1.1\nHost: x\nx-tenant: acme\n\n'],
    ['a folded header', 'GET /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nx-more: a\r\n b\r\n\r\n'],
    ['a space before the colon', 'GET /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant : acme\r\n\r\n'],
    ['two hosts', 'GET /smuggled HTTP/1.1\r\nHost: acme.localhost\r\nHost: yeti.localhost\r\n\r\n'],
    ['a list of hosts', 'GET /smuggled HTTP/1.1\r\nHost: acme.localhost, yeti.localhost\r\nx-tenant: acme\r\n\r\n'],
    ['no host', 'GET /smuggled HTTP/1.1\r\nx-tenant: acme\r\n\r\n'],
    [
      'an unknown transfer coding',
      'POST /smuggled HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'a malformed chunk',
      'POST /echo HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n',
    ],
    ['no HTTP at all', 'hello\r\n\r\n'],
  ];
  for (const [name, bytes] of malformed) {
    it(`answers 400 to ${name} and closes the connection`, async () => {
      const { text, closed } = await raw(port, bytes);
      assert.match(text, /^HTTP\/1\.1 400 /, JSON.stringify(text.slice(0, 200)));
      assert.ok(closed, 'the connection is closed');
      assert.equal((await counts('acme'))['/smuggled'], undefined, 'nothing reached the application');
    });
  }

  it('answers pipelined requests in order', async () => {
    const one = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: x\r\nx-tenant: acme\r\n${more}\r\n`;
    const { text } = await raw(port, one('/') + one('/unheard-of') + one('/', 'Connection: close\r\n'));
    assert.deepEqual(
      [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
      ['200', '404', '200'],
    );
  });

  it('answers 503 with Retry-After while a cell is held down, and serves once it is let up', async () => {
    await fleet.must('stop', 'dublin');
    const answer = await fleet.tenant('celt', '/');
    expectProblem(answer, 503);
    assert.match(answer.headers['retry-after'] ?? '', /^\d+$/);
    expectProblem(await fleet.tenant('celt', '/echo', { method: 'POST', body: 'x' }), 503);
    assert.equal((await fleet.tenant('acme', '/')).status, 200);
    await fleet.must('start', 'dublin');
    await eventually('the cell serves again', 20_000, async () => (await fleet.tenant('celt', '/')).status === 200);
  });

  it('answers 503 while the application of a cell is dead, and it is started again', async () => {
    const { seen } = await echo('celt');
    assert.ok(killHard(seen.pid));
    const statuses = new Set<number>();
    await eventually('the application is back', 20_000, async () => {
      const { status, headers } = await fleet.tenant('celt', '/');
      statuses.add(status);
      if (status === 503) assert.match(headers['retry-after'] ?? '', /^\d+$/);
      return status === 200;
    });
    assert.deepEqual(
      [...statuses].filter((status) => ![200, 502, 503].includes(status)),
      [],
    );
    assert.notEqual((await echo('celt')).seen.pid, seen.pid);
  });

  it('tells its state on a listener of its own', async () => {
    const admin = fleet.ready.routerAdmin;
    assert.equal((await ask(`${admin}/livez`)).status, 200);
    assert.equal((await ask(`${admin}/readyz`)).status, 200);
    const metrics = await ask(`${admin}/metrics`);
    assert.match(metrics.body, /^# (HELP|TYPE) /m);
    const table = await ask(`${admin}/debug/table`);
    const TableSchema = Type.Object({ version: Type.Unknown(), hash: Type.String(), live: Type.Boolean() });
    assert.equal(expectShape(TableSchema, table.json, '/debug/table').live, true);
    expectProblem(await ask(`${fleet.ready.router}/debug/table`), 400, 'tenant-missing');
  });
});

function readEcho(answer: Awaited<ReturnType<typeof ask>>): {
  seen: ReturnType<typeof parseEcho>;
  answer: typeof answer;
} {
  assert.equal(answer.status, 200, answer.body);
  return { seen: parseEcho(answer.json), answer };
}

function parseEcho(json: unknown) {
  return expectShape(EchoSchema, json, 'echo');
}

function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function answered(request: ReturnType<typeof httpRequest>): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => request.once('response', resolve).once('error', reject));
}

/** Sends bytes as they are and reads until the other side closes, or for 5 s. */
function raw(port: number, bytes: string): Promise<{ readonly text: string; readonly closed: boolean }> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    const finish = (closed: boolean): void => {
      socket.destroy();
      resolve({ text, closed });
    };
    socket.setEncoding('latin1').on('data', (part) => (text += String(part)));
    socket.once('end', () => finish(true)).once('error', () => finish(true));
    socket.setTimeout(5_000, () => finish(false));
  });
}
