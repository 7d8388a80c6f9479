import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, afterEach, describe, test } from 'node:test';
import { createParser } from 'eventsource-parser';
import { pino } from 'pino';
import { request } from 'undici';
import { openRuntime, type Runtime } from '../../machine/serve/runtime.ts';
import type { FleetId } from '../../protocol/names.ts';
import { CellDesiredSchema, HostDesiredSchema } from '../../protocol/desired.ts';
import { RoutingFrameSchema } from '../../protocol/routing.ts';
import { TableHash } from '../../protocol/table-hash.ts';
import { ensureKeys, openSigner, openVerifier, type Signer, type Verifier } from '../../trust/signature.ts';
import { issueToken, type Principal } from '../../trust/token.ts';
import { fleetMachine } from '../decide/fleet.ts';
import { fleetInstance } from '../decide/tables.ts';
import { Plane } from './plane.ts';
import { agentStreamsMax, startControlServer, type ControlServer } from './server.ts';

const secret = new Uint8Array(32).fill(7);
const admin = issueToken(secret, { role: 'admin' });
const agent = (kind: 'host' | 'router' | 'cell', name: string): string =>
  issueToken(secret, { role: 'agent', kind, name });
const log = pino({ level: 'silent' });

interface Control {
  readonly runtime: Runtime;
  readonly plane: Plane;
  readonly server: ControlServer;
}

let keys: string;
let signer: Signer;
let verifier: Verifier;
let folder: string;
let control: Control;

before(async () => {
  keys = await mkdtemp(join(tmpdir(), 'cellwright-keys-'));
  const files = { privateKeyFile: join(keys, 'private.pem'), publicKeyFile: join(keys, 'public.pem') };
  await ensureKeys(files);
  signer = openSigner(files.privateKeyFile);
  verifier = openVerifier(files.publicKeyFile);
});
after(() => rm(keys, { recursive: true, force: true }));
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cellwright-control-'));
  control = await open();
});
afterEach(async () => {
  await close(control);
  await rm(folder, { recursive: true, force: true });
});

async function open(): Promise<Control> {
  const runtime = await openRuntime({
    folder,
    owner: 'fleet-of-tests/control',
    mustExist: false,
    machineFor: (instance) => (instance === fleetInstance ? fleetMachine : undefined),
    nowMs: Date.now,
    onStopped: (reason) => assert.fail(reason),
  });
  const plane = await Plane.open({ runtime, fleet: 'fleet-of-tests' as FleetId, nowMs: Date.now });
  const server = await startControlServer({ plane, signer, secret, listen: { host: '127.0.0.1', port: 0 }, log });
  return { runtime, plane, server };
}

async function close({ runtime, plane, server }: Control): Promise<void> {
  await server.stop();
  plane.close();
  await runtime.close();
}

interface Asking {
  readonly method?: 'GET' | 'PUT' | 'POST' | 'DELETE';
  readonly json?: unknown;
  readonly text?: string;
  readonly token?: string | undefined;
  readonly headers?: Record<string, string>;
}

async function ask(path: string, { method = 'GET', json, text, token = admin, headers = {} }: Asking = {}) {
  const body = text ?? (json === undefined ? null : JSON.stringify(json));
  const answer = await request(control.server.url + path, {
    method,
    body,
    headers: {
      ...(token === '' ? {} : { authorization: `Bearer ${token}` }),
      ...(body === null ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
  });
  const received = await answer.body.text();
  return { status: answer.statusCode, headers: answer.headers, body: received === '' ? null : JSON.parse(received) };
}

/** An object of which the test looks at a field or two. */
type Json = Readonly<Record<string, unknown>>;

interface Heard {
  readonly type: string;
  readonly id: string | undefined;
  readonly data: ReturnType<typeof JSON.parse>;
}

/** Follows a stream; `until` resolves with all events so far once one of them fits. */
async function listen(path: string, { token = admin, lastEventId }: { token?: string; lastEventId?: string } = {}) {
  const abort = new AbortController();
  const answer = await request(control.server.url + path, {
    signal: abort.signal,
    headers: {
      authorization: `Bearer ${token}`,
      ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
    },
  });
  assert.equal(answer.statusCode, 200);
  const heard: Heard[] = [];
  const decoder = new TextDecoder();
  const parser = createParser({
    onEvent: ({ event = 'message', id, data }) => heard.push({ type: event, id, data: JSON.parse(data) }),
  });
  const chunks = answer.body[Symbol.asyncIterator]();
  return {
    heard,
    async until(fits: (event: Heard) => boolean): Promise<Heard[]> {
      while (!heard.some(fits)) {
        const { value, done } = await chunks.next();
        assert.equal(done ?? false, false, `the stream ended; heard ${JSON.stringify(heard.map(({ type }) => type))}`);
        parser.feed(decoder.decode(value, { stream: true }));
      }
      return heard;
    },
    async ended(): Promise<void> {
      for (;;) if ((await chunks.next()).done === true) return;
    },
    close: () => abort.abort(),
  };
}

const blueprint = { kind: 'Blueprint', name: 'orders', spec: { machine: { module: 'orders.ts' } } };
const cell = (name: string, jurisdiction = 'jp', users = 100) => ({
  kind: 'Cell',
  name,
  spec: { blueprint: 'orders', jurisdiction, capacity: { users } },
});
const tenant = (name: string, jurisdiction = 'jp', users = 10) => ({
  kind: 'Tenant',
  name,
  spec: { jurisdiction, users },
});

async function apply(...items: unknown[]) {
  const answer = await ask('/v1/apply', { method: 'POST', json: { items } });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return answer.body;
}

/** What a healthy fleet of one cell and one router would report. */
async function reportAll(
  version: number,
  cells: readonly string[] = ['tokyo-1'],
  routed = { generation: 1, version },
): Promise<void> {
  const applied = { generation: 1, version };
  for (const name of cells) {
    const status = {
      kind: 'cell',
      name,
      pid: 1,
      applied,
      state: 'serving',
      blueprintVersion: 1,
      tenants: 0,
      conditions: [],
    };
    assert.equal(
      (await ask('/v1/agents/status', { method: 'POST', json: status, token: agent('cell', name) })).status,
      204,
    );
  }
  const router = { kind: 'router', name: 'router', pid: 1, applied: routed, tableHash: '' };
  assert.equal(
    (await ask('/v1/agents/status', { method: 'POST', json: router, token: agent('router', 'router') })).status,
    204,
  );
}

async function reportHost(cells: Record<string, string>): Promise<void> {
  const status = {
    kind: 'host',
    name: 'local',
    pid: 1,
    cells: Object.entries(cells).map(([name, address]) => ({ name, address, process: 'running', restarts: 0 })),
  };
  assert.equal(
    (await ask('/v1/agents/status', { method: 'POST', json: status, token: agent('host', 'local') })).status,
    204,
  );
}

describe('resources', () => {
  test('A1: an apply takes items in any order, and what is already so changes nothing', async () => {
    const items = [tenant('acme'), cell('tokyo-1'), blueprint];
    const first = await apply(...items);
    assert.deepEqual(
      first.items.map(({ name, action }: Json) => `${name} ${action}`),
      ['acme created', 'tokyo-1 created', 'orders created'],
    );
    assert.deepEqual(first.items[0].assignment, { cell: 'tokyo-1', epoch: 1 });
    const second = await apply(...items);
    assert.deepEqual(
      second.items.map(({ action }: Json) => action),
      ['unchanged', 'unchanged', 'unchanged'],
    );
    assert.equal(second.version, first.version);
  });

  test('A2: one item that is refused leaves nothing half-applied, and the refusal names it', async () => {
    const answer = await ask('/v1/apply', {
      method: 'POST',
      json: { items: [blueprint, cell('tokyo-1'), tenant('acme', 'np')] },
    });
    assert.equal(answer.status, 409);
    assert.equal(answer.body.code, 'no-permitted-cell');
    assert.equal(answer.body.field, 'items[2].spec.jurisdiction');
    assert.match(answer.body.detail, /acme.*np.*tokyo-1: other-jurisdiction.*Apply a cell with jurisdiction np/);
    assert.deepEqual((await ask('/v1/blueprints')).body, { items: [], version: 0 });
  });

  test('A3: a dry run says what would change, or would be refused, and records nothing', async () => {
    const dry = await ask('/v1/apply', {
      method: 'POST',
      json: { items: [blueprint, cell('tokyo-1'), tenant('acme')], dryRun: true },
    });
    assert.equal(dry.status, 200, JSON.stringify(dry.body));
    assert.equal(dry.body.version, 0);
    assert.deepEqual(dry.body.items[2], {
      kind: 'Tenant',
      name: 'acme',
      action: 'created',
      assignment: { cell: 'tokyo-1', epoch: 1 },
    });
    assert.deepEqual((await ask('/v1/cells')).body.items, []);
    const refused = await ask('/v1/apply', { method: 'POST', json: { items: [cell('tokyo-1')], dryRun: true } });
    assert.equal(refused.body.code, 'reference-missing');
    assert.equal(refused.body.field, 'items[0].spec.blueprint');
  });

  test('A PUT makes (201), changes (200) and answers with the version as ETag', async () => {
    const made = await ask('/v1/blueprints/orders', { method: 'PUT', json: { spec: blueprint.spec } });
    assert.equal(made.status, 201);
    assert.equal(made.headers['etag'], '"1"');
    const same = await ask('/v1/blueprints/orders', { method: 'PUT', json: blueprint });
    assert.equal(same.status, 200);
    assert.equal(same.body.version, 1);
    assert.deepEqual((await ask('/v1/blueprints/orders')).body, same.body);
  });

  test('V1: If-Match and If-None-Match make a PUT and a DELETE a compare-and-set', async () => {
    await apply(blueprint);
    const changed = { spec: { machine: { module: 'other.ts' } } };
    const put = (headers: Record<string, string>) =>
      ask('/v1/blueprints/orders', { method: 'PUT', json: changed, headers });
    assert.equal((await put({ 'if-match': '"7"' })).status, 412);
    assert.equal((await put({ 'if-none-match': '*' })).body.code, 'version-conflict');
    assert.equal((await put({ 'if-match': 'yesterday' })).status, 400);
    assert.equal((await put({ 'if-match': '"1"' })).status, 200);
    assert.equal(
      (await ask('/v1/blueprints/orders', { method: 'DELETE', headers: { 'if-match': '"1"' } })).status,
      412,
    );
    assert.equal(
      (await ask('/v1/blueprints/orders', { method: 'DELETE', headers: { 'if-match': '"2"' } })).status,
      200,
    );
    assert.equal((await ask('/v1/blueprints/orders')).status, 404);
  });

  test('R1: what is in use cannot be removed', async () => {
    await apply(blueprint, cell('tokyo-1'), tenant('acme'));
    assert.equal((await ask('/v1/blueprints/orders', { method: 'DELETE' })).body.code, 'still-in-use');
    assert.equal((await ask('/v1/cells/tokyo-1', { method: 'DELETE' })).body.code, 'still-in-use');
    for (const path of ['tenants/acme', 'cells/tokyo-1', 'blueprints/orders']) {
      assert.equal((await ask(`/v1/${path}`, { method: 'DELETE' })).status, 200, path);
    }
    assert.equal((await ask('/v1/tenants/acme', { method: 'DELETE' })).status, 404);
  });

  test('S3: a PUT of a tenant answers 202 when nobody can serve it in time, and at once when its cell and every router can', async () => {
    await apply(blueprint, cell('tokyo-1'));
    const waiting = await ask('/v1/tenants/acme', { method: 'PUT', json: tenant('acme') });
    assert.equal(waiting.status, 202);
    assert.equal(waiting.body.status.conditions[0].status, 'False');
    const { version } = waiting.body;
    const again = ask('/v1/tenants/acme', { method: 'PUT', json: tenant('acme') });
    await reportAll(version);
    assert.equal((await again).status, 200);
    assert.equal((await ask('/v1/tenants/acme')).body.status.conditions[0].status, 'True');
    assert.deepEqual((await ask('/v1/cells/tokyo-1')).body.status.usage, { tenants: 1, users: 10 });
  });

  test('S4: a host that reports an address makes the cell routable, once', async () => {
    await apply(blueprint, cell('tokyo-1'));
    await reportHost({ 'tokyo-1': 'http://127.0.0.1:4001', 'no-such-cell': 'http://127.0.0.1:4002' });
    await reportHost({ 'tokyo-1': 'http://127.0.0.1:4001' });
    const routing = (await ask('/v1/routing')).body;
    assert.deepEqual(routing.cells, [{ name: 'tokyo-1', address: 'http://127.0.0.1:4001' }]);
    assert.equal((await ask('/v1/cells/tokyo-1')).body.status.address, 'http://127.0.0.1:4001');
    const events = (await ask('/v1/events')).body.items;
    assert.deepEqual(
      events.map(({ type }: Json) => type),
      ['blueprintPut', 'cellPut', 'cellAddressed'],
    );
  });

  test('E1: the audit log can be read in pages, and an explanation says where, why and what was rejected', async () => {
    await apply(blueprint, cell('tokyo-1'), cell('kathmandu-1', 'np'), tenant('acme'));
    const page = (await ask('/v1/events?after=1&limit=2')).body;
    assert.deepEqual(
      page.items.map(({ version }: Json) => version),
      [2, 3],
    );
    const why = (await ask('/v1/tenants/acme/explanation')).body;
    assert.equal(why.cell, 'tokyo-1');
    assert.equal(why.epoch, 1);
    assert.match(why.because, /tokyo-1 is in jurisdiction jp/);
    assert.deepEqual(
      why.rejected.map(({ cell, reason }: Json) => [cell, reason]),
      [['kathmandu-1', 'other-jurisdiction']],
    );
    assert.equal(why.served, false);
    assert.match(why.waitingFor, /cell tokyo-1/);
    assert.equal((await ask('/v1/tenants/nobody/explanation')).status, 404);
  });
});

describe('bad input', () => {
  const rows: readonly (readonly [string, string, Asking, number, string, string | undefined, RegExp])[] = [
    [
      'malformed JSON',
      '/v1/apply',
      { method: 'POST', text: '{"items":' },
      400,
      'input-invalid',
      undefined,
      /well-formed JSON/,
    ],
    ['no items', '/v1/apply', { method: 'POST', json: {} }, 400, 'resource-invalid', 'items', /list of resources/],
    [
      'an unknown kind',
      '/v1/apply',
      { method: 'POST', json: { items: [{ kind: 'Cel', name: 'a', spec: {} }] } },
      400,
      'kind-unknown',
      'items[0].kind',
      /Blueprint, Cell, Tenant/,
    ],
    [
      'a wrong type',
      '/v1/cells/a',
      { method: 'PUT', json: { spec: { ...cell('a').spec, capacity: { users: '5' } } } },
      400,
      'resource-invalid',
      'spec.capacity.users',
      /must be a whole number from 1 .*write it without quotes/,
    ],
    [
      'a missing jurisdiction',
      '/v1/cells/a',
      { method: 'PUT', json: { spec: { blueprint: 'b', capacity: { users: 5 } } } },
      400,
      'resource-invalid',
      'spec.jurisdiction',
      /is missing.*jurisdiction in which data may rest/,
    ],
    [
      'an unknown field',
      '/v1/tenants/a',
      { method: 'PUT', json: { spec: { jurisdiction: 'jp', user: 1 } } },
      400,
      'resource-invalid',
      'spec.user',
      /did you mean users/,
    ],
    [
      'a name that is no label',
      '/v1/tenants/A_1',
      { method: 'PUT', json: { spec: { jurisdiction: 'jp' } } },
      400,
      'resource-invalid',
      'name',
      /a–z, 0–9 and hyphen/,
    ],
    [
      'another name in the body',
      '/v1/tenants/a',
      { method: 'PUT', json: tenant('b') },
      400,
      'resource-invalid',
      'name',
      /address says a/,
    ],
    [
      'a blueprint that is neither',
      '/v1/blueprints/b',
      { method: 'PUT', json: { spec: {} } },
      400,
      'resource-invalid',
      'spec',
      /one of machine, workload/,
    ],
    [
      'a workload without command',
      '/v1/blueprints/b',
      { method: 'PUT', json: { spec: { workload: {} } } },
      400,
      'resource-invalid',
      'spec.workload.command',
      /is missing/,
    ],
    [
      'a missing blueprint',
      '/v1/cells/a',
      { method: 'PUT', json: cell('a') },
      409,
      'reference-missing',
      'spec.blueprint',
      /blueprint orders, which does not exist/,
    ],
    [
      'a tenant nobody may host',
      '/v1/tenants/a',
      { method: 'PUT', json: tenant('a') },
      409,
      'no-permitted-cell',
      'spec.jurisdiction',
      /the fleet has no cell/,
    ],
    [
      'the same twice',
      '/v1/apply',
      { method: 'POST', json: { items: [blueprint, blueprint] } },
      409,
      'resource-invalid',
      'items[1]',
      /twice/,
    ],
    ['an unknown address', '/v1/cell', {}, 404, 'not-found', undefined, /openapi/],
    ['an unknown query', '/v1/events?limit=many', {}, 400, 'input-invalid', 'limit', /whole number/],
    [
      'not JSON',
      '/v1/apply',
      { method: 'POST', text: 'kind: Cell', headers: { 'content-type': 'application/yaml' } },
      400,
      'input-invalid',
      'content-type',
      /application\/json/,
    ],
  ];
  for (const [what, path, asking, status, code, field, message] of rows) {
    test(`I1: ${what} gets ${code} naming ${field ?? 'what is wrong'}`, async () => {
      const answer = await ask(path, asking);
      assert.equal(answer.body.code, code, JSON.stringify(answer.body));
      assert.equal(answer.body.field, field);
      assert.match(answer.body.detail, message);
      assert.equal(answer.status, code === 'resource-invalid' ? 400 : status);
      assert.match(String(answer.headers['content-type']), /^application\/problem\+json/);
      assert.equal((await ask('/v1/events')).body.version, 0);
    });
  }
});

describe('access', () => {
  const cellStatus = {
    kind: 'cell',
    name: 'tokyo-1',
    pid: 1,
    applied: { generation: 1, version: 0 },
    state: 'starting',
    blueprintVersion: 1,
    tenants: 0,
    conditions: [],
  };
  const who: Readonly<Record<string, Principal | undefined>> = {
    nobody: undefined,
    admin: { role: 'admin' },
    router: { role: 'agent', kind: 'router', name: 'router' },
    cell: { role: 'agent', kind: 'cell', name: 'tokyo-1' },
    'another cell': { role: 'agent', kind: 'cell', name: 'tokyo-2' },
    host: { role: 'agent', kind: 'host', name: 'local' },
  };
  const everybody = Object.keys(who);
  const known = everybody.filter((name) => name !== 'nobody');
  const rows: readonly (readonly [string, Asking, readonly string[]])[] = [
    ['/livez', {}, everybody],
    ['/readyz', {}, everybody],
    ['/openapi.json', {}, everybody],
    ['/v1/cells', {}, ['admin']],
    ['/v1/events', {}, ['admin']],
    ['/v1/tenants/acme/explanation', {}, ['admin']],
    ['/v1/cells/tokyo-1', { method: 'DELETE' }, ['admin']],
    ['/v1/routing', {}, known],
    ['/v1/agents/status', { method: 'POST', json: cellStatus }, ['admin', 'cell']],
    ['/v1/agents/cells/tokyo-1?watch=true', {}, ['admin', 'cell']],
    ['/v1/agents/hosts/local?watch=true', {}, ['admin', 'host']],
    ['/v1/agents/hosts/tokyo-1?watch=true', {}, ['admin']],
    ['/v1/routing?watch=true', {}, known],
  ];
  for (const [path, asking, allowed] of rows) {
    test(`Z1: ${asking.method ?? 'GET'} ${path} is for ${allowed.join(', ')} alone`, async () => {
      await apply(blueprint, cell('tokyo-1'), cell('tokyo-2'));
      for (const name of everybody.toReversed()) {
        const principal = who[name];
        const token = principal === undefined ? '' : issueToken(secret, principal);
        if (path.includes('watch=true') && allowed.includes(name)) {
          const stream = await listen(path, { token });
          await stream.until(({ type }) => type === 'beat');
          stream.close();
          continue;
        }
        const { status } = await ask(path, { ...asking, token });
        const expected = allowed.includes(name)
          ? status < 300 || status === 404
            ? status
            : 200
          : name === 'nobody'
            ? 401
            : 403;
        assert.equal(status, expected, `${name} at ${path}`);
      }
    });
  }

  test('Z2: a token of another fleet is refused, and says where the right one is', async () => {
    const foreign = issueToken(new Uint8Array(32).fill(8), { role: 'admin' });
    const answer = await ask('/v1/cells', { token: foreign });
    assert.equal(answer.status, 401);
    assert.match(answer.body.detail, /file `token`/);
  });

  test('the API describes itself as OpenAPI 3.1', async () => {
    const { body } = await ask('/openapi.json', { token: '' });
    assert.match(body.openapi, /^3\.1/);
    for (const path of [
      '/v1/cells',
      '/v1/cells/{name}',
      '/v1/apply',
      '/v1/routing',
      '/v1/events',
      '/v1/agents/status',
    ]) {
      assert.ok(path in body.paths, path);
    }
    assert.ok(
      'jurisdiction' in
        body.paths['/v1/cells/{name}'].put.requestBody.content['application/json'].schema.properties.spec.properties,
    );
  });
});

describe('streams', () => {
  const table = (events: readonly Heard[]) => {
    const hash = new TableHash();
    let last = '';
    let version: number | undefined;
    for (const { type, data } of events) {
      if (type !== 'frame') continue;
      const frame = verifier.verify(data, RoutingFrameSchema);
      if (frame.kind === 'change' && version !== undefined)
        assert.equal(frame.previous, version, 'no frame is missing or repeated');
      hash.apply(frame);
      last = frame.hash;
      version = frame.version;
    }
    assert.equal(hash.text, last, 'the frames add up to the hash that they claim');
    return { version, hash: last };
  };

  test('T3: a follower of the table gets a snapshot, then each change, and resumes without loss or repetition', async () => {
    await apply(blueprint, cell('tokyo-1', 'jp', 1000), tenant('t1'));
    const first = await listen('/v1/routing?watch=true');
    await first.until(({ type }) => type === 'beat');
    await apply(tenant('t2'), tenant('t3'));
    const heard = await first.until(({ type, id }) => type === 'frame' && id === '1.5');
    first.close();
    assert.deepEqual(
      heard.filter(({ type }) => type === 'frame').map(({ id }) => id),
      ['1.3', '1.5'],
    );

    await ask('/v1/tenants/t1', { method: 'DELETE' });
    await close(control);
    control = await open();
    await apply(tenant('t4'));
    const resumed = await listen('/v1/routing?watch=true', { lastEventId: '1.5' });
    const more = await resumed.until(({ type }) => type === 'beat');
    resumed.close();
    assert.deepEqual(
      more.filter(({ type }) => type === 'frame').map(({ id }) => id),
      ['1.6', '1.7'],
    );

    const { version, hash } = table([...heard, ...more]);
    const snapshot = (await ask('/v1/routing')).body;
    assert.equal(version, snapshot.version);
    assert.equal(hash, verifier.verify(snapshot.signed, RoutingFrameSchema).hash);
    assert.deepEqual(
      snapshot.tenants.find(({ tenant }: Json) => tenant === 't1'),
      { tenant: 't1', epoch: 2, removed: true },
    );
  });

  test('T4: a position that is not known gets a snapshot', async () => {
    await apply(blueprint, cell('tokyo-1'), tenant('t1'));
    for (const lastEventId of ['1.99', '2.3', 'nonsense']) {
      const stream = await listen('/v1/routing?watch=true', { lastEventId });
      const [frame] = await stream.until(({ type }) => type === 'beat');
      stream.close();
      assert.equal(verifier.verify(frame?.data, RoutingFrameSchema).kind, 'snapshot');
    }
  });

  test('T5: a cell gets its desired state and the frames of its own tenants only', async () => {
    await apply(blueprint, cell('tokyo-1'), cell('kathmandu-1', 'np'), tenant('t1'), tenant('n1', 'np'));
    const stream = await listen('/v1/agents/cells/tokyo-1?watch=true', { token: agent('cell', 'tokyo-1') });
    const first = await stream.until(({ type }) => type === 'beat');
    assert.deepEqual(
      first.map(({ type }) => type),
      ['desired', 'frame', 'beat'],
    );
    const desired = verifier.verify(first[0]?.data, CellDesiredSchema);
    assert.equal(desired.blueprint.name, 'orders');
    const snapshot = verifier.verify(first[1]?.data, RoutingFrameSchema);
    assert.deepEqual(snapshot.scope, { cell: 'tokyo-1' });
    assert.deepEqual(
      snapshot.tenants.map(({ tenant }) => tenant),
      ['t1'],
    );

    await apply(tenant('n2', 'np'), tenant('t2'), { ...blueprint, spec: { machine: { module: 'new.ts' } } });
    const heard = await stream.until(
      ({ type, data }) => type === 'frame' && JSON.parse(data.payload).kind === 'change',
    );
    stream.close();
    const documents = heard.slice(first.length).filter(({ type }) => type !== 'beat');
    assert.deepEqual(
      heard.filter(({ type }) => type !== 'beat').map(({ type }) => type),
      ['desired', 'frame', 'desired', 'frame'],
    );
    assert.ok(documents !== undefined);
    table(heard);
  });

  test('T6: a host is told which cells it runs; a cell leaves the list only as retired', async () => {
    await apply(blueprint, cell('tokyo-1'), cell('tokyo-2'));
    const stream = await listen('/v1/agents/hosts/local?watch=true', { token: agent('host', 'local') });
    await stream.until(({ type }) => type === 'beat');
    await ask('/v1/cells/tokyo-2', { method: 'DELETE' });
    const states = ({ type, data }: Heard) =>
      type === 'desired' ? verifier.verify(data, HostDesiredSchema).cells.map(({ state }) => state) : [];
    const heard = await stream.until((event) => states(event).includes('retired'));
    stream.close();
    assert.deepEqual(heard.filter(({ type }) => type === 'desired').map(states), [
      ['wanted', 'wanted'],
      ['wanted', 'retired'],
    ]);
  });

  test('W1: a watch gives what there is, synced, then changes; it resumes after a restart without loss or repetition', async () => {
    await apply(blueprint, cell('tokyo-1'), tenant('t1'));
    const first = await listen('/v1/tenants?watch=true');
    await first.until(({ type }) => type === 'beat');
    await apply(tenant('t2'));
    const heard = await first.until(({ data }) => data.name === 't2');
    first.close();
    assert.deepEqual(
      heard.filter(({ type }) => type !== 'beat').map(({ type, id, data }) => [type, id, data.name]),
      [
        ['put', undefined, 't1'],
        ['synced', '3', undefined],
        ['put', '4', 't2'],
      ],
    );
    await ask('/v1/tenants/t1', { method: 'DELETE' });
    await close(control);
    control = await open();
    await apply(tenant('t3'));
    const resumed = await listen('/v1/tenants?watch=true', { lastEventId: '4' });
    const more = await resumed.until(({ type }) => type === 'beat');
    resumed.close();
    assert.deepEqual(
      more.filter(({ type }) => type !== 'beat').map(({ type, id, data }) => [type, id, data.name]),
      [
        ['delete', '5', 't1'],
        ['put', '6', 't3'],
        ['synced', '6', undefined],
      ],
    );
  });

  test('W2: a watcher from the future is told to forget what it has', async () => {
    await apply(blueprint);
    const stream = await listen('/v1/blueprints?watch=true', { lastEventId: '99' });
    const heard = await stream.until(({ type }) => type === 'beat');
    stream.close();
    assert.deepEqual(
      heard.map(({ type }) => type),
      ['reset', 'put', 'synced', 'beat'],
    );
  });

  test('W4: a status that changed is told with a beat', async () => {
    await apply(blueprint, cell('tokyo-1'));
    const stream = await listen('/v1/cells?watch=true');
    await stream.until(({ type }) => type === 'beat');
    await reportAll(0);
    await stream.until(({ type, data }) => type === 'put' && data.status.state === 'serving');
    stream.close();
  });

  test('W4: a watch tells when a tenant stops being served, and when it is served again', async () => {
    await apply(blueprint, cell('tokyo-1'), tenant('acme'), tenant('himal'));
    const { version } = control.plane.model;
    await reportAll(version);
    const stream = await listen('/v1/tenants?watch=true');
    await stream.until(({ type }) => type === 'beat');
    const told = async (served: string) => {
      for (const name of ['acme', 'himal']) {
        await stream.until(
          ({ type, data }) => type === 'put' && data.name === name && data.status.conditions[0].status === served,
        );
      }
    };
    await told('True');
    await reportAll(version, [], { generation: 1, version: 0 });
    await told('False');
    await reportAll(version);
    await told('True');
    stream.close();
  });

  test('B2: one agent has as many streams as its bound, and takes none from the others', async () => {
    await apply(blueprint, cell('tokyo-1'), cell('tokyo-2'));
    const own = (name: string) => listen(`/v1/agents/cells/${name}?watch=true`, { token: agent('cell', name) });
    const streams = await Promise.all(Array.from({ length: agentStreamsMax }, () => own('tokyo-1')));
    const more = await ask('/v1/routing?watch=true', { token: agent('cell', 'tokyo-1') });
    assert.deepEqual([more.status, more.body.code], [429, 'limit-exceeded']);
    streams.push(await own('tokyo-2'));
    for (const stream of streams) stream.close();
  });

  test('I1: an address that is not well-formed is refused as a problem document', async () => {
    const answer = await ask('/v1/tenants/%zz');
    assert.equal(answer.status, 400);
    assert.equal(answer.body.code, 'input-invalid');
    assert.match(answer.body.detail, /%25/);
  });

  test('B2: stopping ends every stream, and a taken port is named with the option for another', async () => {
    const stream = await listen('/v1/routing?watch=true');
    await stream.until(({ type }) => type === 'beat');
    await control.server.stop();
    await stream.ended().catch(() => undefined);
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const address = other.address();
    assert.ok(address !== null && typeof address === 'object');
    await assert.rejects(
      startControlServer({
        plane: control.plane,
        signer,
        secret,
        listen: { host: '127.0.0.1', port: address.port },
        log,
      }),
      { code: 'port-in-use', field: '--control-port' },
    );
    other.close();
  });
});
