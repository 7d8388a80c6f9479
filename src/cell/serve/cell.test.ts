import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setInterval as ticks } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { Value } from 'typebox/value';
import { CellBootSchema, type CellBoot } from '../../protocol/boot.ts';
import { carriedBytesMax, carriedFramesMax } from '../../protocol/carry.ts';
import { limits } from '../../protocol/limits.ts';
import type { BlueprintSpec } from '../../protocol/resources.ts';
import type { ChildMessage } from '../../protocol/supervision.ts';
import { SignedSchema } from '../../protocol/routing.ts';
import type { CellStatus } from '../../protocol/status.ts';
import type { Stoppable } from '../../process/life.ts';
import { ensureKeys, openSigner, type Signer } from '../../trust/signature.ts';
import { startCell } from './cell.ts';

const fleet = 'fleet-of-the-test';
const guardianFile = fileURLToPath(new URL('../../main/guardian.ts', import.meta.url));
const machineUrl = new URL('../../machine/decide/definition/machine.ts', import.meta.url).href;
const counterMachine = `
  import { Type } from ${JSON.stringify(import.meta.resolve('typebox'))};
  import { machine } from ${JSON.stringify(machineUrl)};
  const Item = Type.Object({ name: Type.String(), count: Type.Integer() });
  export const notAMachine = { name: 'x' };
  export default machine({
    name: 'counter', version: 1,
    tables: { items: { schema: Item, key: 'name' } },
    events: { counted: { data: Item, evolve: (state, item) => state.items.upsert(item) } },
    commands: {
      count: {
        input: Type.Object({ name: Type.String(), by: Type.Integer() }),
        decide: (state, { name, by }, ctx) => by === 0
          ? ctx.refuse('nothing-to-count', 'Count by another number than 0.', 'by')
          : [{ type: 'counted', data: { name, count: (state.items.get(name)?.count ?? 0) + by } }],
      },
    },
    queries: {
      items: {
        input: Type.Object({ atLeast: Type.Optional(Type.Integer()) }),
        answer: (state, { atLeast = -1e9 }) => [...state.items.scan()].filter(({ count }) => count >= atLeast),
      },
    },
    invariants: { neverNegative: (state) => [...state.items.scan()].every(({ count }) => count >= 0) },
  });`;

interface Answered {
  readonly status: number;
  readonly headers: Headers;
  readonly json: Record<string, unknown> & { readonly code?: string; readonly detail?: string };
}

describe('a cell', () => {
  let folder: string;
  let signer: Signer;
  let control: FakeControl;
  let boot: CellBoot;
  let messages: ChildMessage[];
  let url: string;
  let cell: Stoppable | undefined;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cellwright-cell-'));
    const files = { privateKeyFile: join(folder, 'private.pem'), publicKeyFile: join(folder, 'public.pem') };
    await ensureKeys(files);
    signer = openSigner(files.privateKeyFile);
    control = await FakeControl.open();
    await writeFile(join(folder, 'token'), 'cw1.cell.tokyo-1.test\n');
    await writeFile(join(folder, 'counter.ts'), counterMachine);
    boot = Value.Parse(CellBootSchema, {
      process: 'cell',
      fleet,
      folder,
      publicKeyFile: files.publicKeyFile,
      controlUrl: control.url,
      tokenFile: join(folder, 'token'),
      name: 'tokyo-1',
      listen: { host: '127.0.0.1', port: 0 },
      workloadPort: await freePort(),
      logExpected: false,
    });
  });
  afterEach(async () => {
    await cell?.stop();
    cell = undefined;
    await control.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function start(): Promise<void> {
    messages = [];
    const life = {
      log: pino({ level: 'silent' }),
      report: (message: ChildMessage) => void messages.push(message),
      fail: (reason: Error) => assert.fail(reason),
    };
    cell = await startCell(boot, life, { guardianFile });
    const listening = messages.find((message) => message.type === 'listening');
    assert.ok(listening?.type === 'listening');
    url = listening.url;
  }
  async function restart(): Promise<void> {
    await cell?.stop();
    await start();
  }
  const settled = () => messages.findLast((message) => message.type === 'settled');
  const serving = () => until(() => settled()?.state === 'serving');
  const status = () => control.statuses.at(-1);

  const machineSpec = (): BlueprintSpec => ({ machine: { module: join(folder, 'counter.ts') } });
  function desired(version: number, spec: BlueprintSpec, blueprintVersion = 1): string {
    const cellSpec = { blueprint: 'b', jurisdiction: 'jp', capacity: { users: 10 } };
    const blueprint = { name: 'b', version: blueprintVersion, spec };
    const head = { kind: 'cell-desired', fleet, generation: 1, version };
    return JSON.stringify(signer.sign({ ...head, cell: 'tokyo-1', spec: cellSpec, blueprint }));
  }
  function frame(version: number, tenants: readonly unknown[], change: object = {}): string {
    const head = { kind: 'snapshot', fleet, scope: { cell: 'tokyo-1' }, generation: 1, version, cells: [], hash: '' };
    return JSON.stringify(signer.sign({ ...head, tenants, ...change }));
  }
  const acme = (epoch: number, to = 'tokyo-1') => ({ tenant: 'acme', cell: to, epoch });

  async function ask(
    path: string,
    init: { method?: string; body?: string; headers?: Record<string, string> } = {},
    tenant = 'acme',
  ): Promise<Answered> {
    const response = await fetch(`${url}${path}`, { ...init, headers: { 'x-tenant': tenant, ...init.headers } });
    const text = await response.text();
    return { status: response.status, headers: response.headers, json: text === '' ? {} : JSON.parse(text) };
  }
  const count = (input: unknown, headers: Record<string, string> = {}) =>
    ask('/commands/count', { method: 'POST', body: JSON.stringify(input), headers });
  async function servesAcme(): Promise<void> {
    control.say('desired', desired(1, machineSpec()));
    control.say('frame', frame(2, [acme(1)]), '1.2');
    await start();
    await serving();
    await until(async () => (await ask('/state')).status === 200);
  }

  test('refuses with cell-not-ready from its first moment, and serves once it knows what it is', async () => {
    await start();
    const early = await ask('/state');
    assert.equal(early.status, 503);
    assert.equal(early.headers.get('cellwright-refusal'), 'cell-not-ready');
    assert.equal(early.headers.get('retry-after'), '1');
    assert.equal(early.headers.get('content-type'), 'application/problem+json');
    control.say('desired', desired(1, machineSpec()));
    await serving();
  });

  test('answers commands, queries and state as a machine', async () => {
    await servesAcme();
    const first = await count({ name: 'widget', by: 2 }, { 'idempotency-key': 'k1' });
    assert.equal(first.status, 200);
    assert.equal(first.json['seq'], 1);
    assert.deepEqual(Object.keys(first.json), ['seq', 'events', 'stateHash']);
    const again = await count({ name: 'widget', by: 2 }, { 'idempotency-key': 'k1' });
    assert.deepEqual(again.json, first.json);
    assert.equal(
      (await count({ name: 'widget', by: 3 }, { 'idempotency-key': 'k1' })).json.code,
      'idempotency-key-reused',
    );
    const state = await ask('/state');
    assert.deepEqual(state.json, { tenant: 'acme', seq: 1, epoch: 1, stateHash: first.json['stateHash'] });
    assert.deepEqual((await ask('/queries/items?atLeast=2')).json, [{ name: 'widget', count: 2 }]);
    assert.deepEqual((await ask('/queries/items?atLeast=3')).json, []);
  });

  test('says what is wrong with an input, and what it has', async () => {
    await servesAcme();
    const refused = await count({ name: 'widget', by: 0 });
    assert.deepEqual(
      [refused.status, refused.json.code, refused.json['reason']],
      [409, 'command-refused', 'nothing-to-count'],
    );
    assert.equal(refused.headers.get('cellwright-refusal'), null, 'it was the application that refused');
    assert.deepEqual([(await count({ name: 'widget', by: -1 })).status], [422]);
    const misfit = await count({ name: 'widget', by: 'two' });
    assert.deepEqual([misfit.status, misfit.json['field']], [400, 'by']);
    const query = await ask('/queries/items?atLeast=many');
    assert.deepEqual([query.status, query.json['field']], [400, 'atLeast']);
    const broken = await ask('/commands/count', { method: 'POST', body: '{' });
    assert.deepEqual([broken.status, broken.json['field']], [400, 'body']);
    const wrong = await ask('/commands/count');
    assert.deepEqual([wrong.status, wrong.headers.get('allow')], [405, 'POST']);
    const nowhere = await ask('/nowhere');
    assert.equal(nowhere.status, 404);
    assert.match(nowhere.json.detail ?? '', /POST \/commands\/count, GET \/queries\/items, GET \/state/);
    assert.equal((await ask('/commands/none', { method: 'POST' })).json.code, 'command-unknown');
    assert.equal((await ask('/queries/none')).json.code, 'query-unknown');
    for (const key of ['', 'k'.repeat(limits.idempotencyKeyLengthMax + 1)]) {
      assert.equal((await count({ name: 'a', by: 1 }, { 'idempotency-key': key })).json['field'], 'Idempotency-Key');
    }
    assert.equal(
      (await count({ name: 'a', by: 1 }, { 'idempotency-key': 'k'.repeat(limits.idempotencyKeyLengthMax) })).status,
      200,
    );
  });

  test('takes a body up to its limit and refuses the next byte', async () => {
    await servesAcme();
    const rest = JSON.stringify({ by: 1, name: '' }).length;
    const name = 'n'.repeat(limits.machineInputBytesMax - rest);
    assert.notEqual((await count({ by: 1, name })).status, 413);
    assert.equal((await count({ by: 1, name: `${name}n` })).status, 413);
  });

  test('gives its consent to a body only after admission', async () => {
    await servesAcme();
    for (const [tenant, outcome] of [
      ['acme', 'continue'],
      ['stranger', 'response'],
    ] as const) {
      const sent = httpRequest(`${url}/commands/count`, {
        method: 'POST',
        headers: { 'x-tenant': tenant, expect: '100-continue', 'content-length': '22' },
      });
      sent.flushHeaders();
      const first = await Promise.race([
        once(sent, 'continue').then(() => 'continue'),
        once(sent, 'response').then(() => 'response'),
      ]);
      assert.equal(first, outcome);
      sent.destroy();
      sent.on('error', () => undefined);
    }
  });

  test('refuses whom it does not own, and says where the tenant went', async () => {
    await servesAcme();
    const stranger = await ask('/state', {}, 'stranger');
    assert.deepEqual([stranger.status, stranger.headers.get('cellwright-refusal')], [421, 'not-owner']);
    const routed = (epoch: string) =>
      ask('/state', { headers: { 'cellwright-tenant': 'acme', 'cellwright-epoch': epoch } });
    assert.equal((await routed('1')).status, 200);
    assert.equal((await routed('2')).headers.get('cellwright-refusal'), 'cell-behind');
    control.say('frame', frame(3, [acme(2, 'osaka-1')], { kind: 'change', previous: 2 }), '1.3');
    await until(async () => (await routed('1')).status === 421);
    assert.equal((await routed('1')).headers.get('cellwright-assignment'), 'osaka-1 2');
    assert.equal((await ask('/state', { headers: { 'cellwright-cell': 'osaka-1' } })).json.code, 'wrong-cell');
  });

  test('takes signed frames from anybody, and nothing that this fleet did not sign', async () => {
    await servesAcme();
    const carry = (...frames: readonly string[]) =>
      ask('/.cellwright/frames', { method: 'POST', body: `{"frames":[${frames.join(',')}]}` });
    const news = frame(4, [acme(7), { tenant: 'foreign', cell: 'osaka-1', epoch: 1 }], { scope: undefined });
    assert.equal((await carry(news)).status, 204);
    assert.equal((await ask('/state')).json['epoch'], 7);
    const forged = news.replaceAll('acme', 'evil');
    assert.deepEqual([(await carry(forged)).status, (await carry(forged)).json.code], [409, 'frame-refused']);
    assert.equal((await carry(frame(5, [acme(9)], { fleet: 'another-fleet' }))).status, 409);
    assert.equal((await ask('/.cellwright/frames')).status, 405);
    assert.equal((await ask('/.cellwright/frames', { method: 'POST', body: '{}' })).status, 400);
  });

  test('takes the frames of one message whole or not at all', async () => {
    await servesAcme();
    const good = frame(4, [acme(7)]);
    const forged = frame(5, [acme(8)]).replaceAll('acme', 'evil');
    for (const frames of [`${good},${forged}`, `${forged},${good}`]) {
      assert.equal((await ask('/.cellwright/frames', { method: 'POST', body: `{"frames":[${frames}]}` })).status, 409);
      assert.equal((await ask('/state')).json['epoch'], 1);
    }
  });

  test('takes carried frames up to their number and size, one message at a time, and never from a client', async () => {
    await servesAcme();
    const carry = (frames: readonly string[], headers: Record<string, string> = {}) =>
      ask('/.cellwright/frames', { method: 'POST', body: `{"frames":[${frames.join(',')}]}`, headers });
    const one = frame(2, [acme(1)]);
    const many = Array.from({ length: carriedFramesMax }, () => one);
    assert.equal((await carry(many)).status, 204);
    assert.equal((await carry([...many, one])).status, 400);
    const bytesOf = (padding: string) => `{"frames":[${one}],"padding":"${padding}"}`;
    const rest = carriedBytesMax - bytesOf('').length;
    for (const [padding, status] of [
      ['x'.repeat(rest), 204],
      ['x'.repeat(rest + 1), 413],
    ] as const) {
      const body = bytesOf(padding);
      assert.equal((await ask('/.cellwright/frames', { method: 'POST', body })).status, status);
    }
    const routed = await carry([one], { 'cellwright-tenant': 'acme' });
    assert.deepEqual([routed.status, routed.json.code], [404, 'not-found'], 'the application answers a routed request');

    const held = httpRequest(`${url}/.cellwright/frames`, {
      method: 'POST',
      headers: { expect: '100-continue', 'content-length': '99' },
    });
    held.flushHeaders();
    await once(held, 'continue');
    const busy = await carry([one]);
    assert.deepEqual([busy.status, busy.headers.get('retry-after')], [429, '1']);
    const [tooSlow] = (await once(held, 'response')) as [IncomingMessage];
    assert.equal(tooSlow.statusCode, 408, 'who holds the place loses it');
    held.on('error', () => undefined).destroy();
    assert.equal((await carry([one])).status, 204);
  });

  test('O8: a command whose body arrives after the ownership ended is refused, and is not in the log', async () => {
    await servesAcme();
    const body = JSON.stringify({ name: 'widget', by: 1 });
    const sent = httpRequest(`${url}/commands/count`, {
      method: 'POST',
      headers: { 'x-tenant': 'acme', expect: '100-continue', 'content-length': String(body.length) },
    });
    sent.flushHeaders();
    await once(sent, 'continue');
    const carry = (signed: string) =>
      ask('/.cellwright/frames', { method: 'POST', body: `{"frames":[${signed}]}` }).then(({ status }) => status);
    assert.equal(await carry(frame(3, [acme(2, 'osaka-1')])), 204);
    sent.end(body);
    const [refused] = (await once(sent, 'response')) as [IncomingMessage];
    refused.resume();
    assert.deepEqual([refused.statusCode, refused.headers['cellwright-refusal']], [421, 'not-owner']);
    assert.equal(await carry(frame(4, [acme(3)])), 204);
    assert.equal((await ask('/state')).json['seq'], 0);
  });

  test('asks for everything when it missed a change, and takes nothing before', async () => {
    await servesAcme();
    const followed = control.followed;
    control.say('frame', frame(9, [acme(9)], { kind: 'change', previous: 8 }), '1.9');
    await until(() => control.followed > followed);
    assert.equal((await ask('/state')).json['epoch'], 1);
    control.forget();
    control.say('frame', frame(9, [acme(9)]), '1.9');
    await until(async () => (await ask('/state')).json['epoch'] === 9);
  });

  test('never lets an old desired document take the place of a newer one', async () => {
    await servesAcme();
    const applies = (version: number) => until(() => status()?.applied.version === version);
    control.say('desired', desired(5, machineSpec(), 5));
    control.say('desired', desired(4, machineSpec(), 4));
    control.say('frame', frame(6, [acme(1)]), '1.6');
    await applies(6);
    const kept = async () =>
      Value.Parse(SignedSchema, JSON.parse(await readFile(join(folder, 'desired.json'), 'utf8')));
    assert.equal(JSON.parse((await kept()).payload).version, 5);
    control.say('desired', desired(7, machineSpec(), 7));
    control.say('frame', frame(8, [acme(1)]), '1.8');
    await applies(8);
    assert.equal(JSON.parse((await kept()).payload).version, 7);
  });

  test('serves again from its disk when the control plane is gone, with the same state', async () => {
    await servesAcme();
    await count({ name: 'widget', by: 2 });
    const before = (await ask('/state')).json;
    await control.close();
    await restart();
    await serving();
    assert.deepEqual((await ask('/state')).json, before);
  });

  test('keeps running the blueprint that it started with, and takes the new one when it is restarted', async () => {
    await servesAcme();
    const bad: BlueprintSpec = { machine: { module: join(folder, 'missing.ts') } };
    control.say('desired', desired(5, bad, 5));
    await until(
      () => status()?.conditions.some(({ type, status }) => type === 'BlueprintCurrent' && status === 'False') === true,
    );
    assert.equal((await ask('/state')).status, 200);
    await restart();
    await until(() => settled()?.state === 'refusing');
    assert.equal(settled()?.problem?.code, 'machine-unloadable');
    assert.match(settled()?.problem?.detail ?? '', /missing\.ts cannot be loaded.*stop and start the cell/);
    assert.equal((await ask('/state')).status, 503);
  });

  test('says what is wrong with a module that exports no machine', async () => {
    const spec: BlueprintSpec = { machine: { module: join(folder, 'counter.ts'), export: 'notAMachine' } };
    control.say('desired', desired(1, spec));
    await start();
    await until(() => settled()?.state === 'refusing');
    assert.match(settled()?.problem?.detail ?? '', /export "notAMachine" was not made by machine\(\)/);
  });

  test('with a damaged record refuses the tenant that it belongs to, with the evidence, and touches nothing else', async () => {
    await servesAcme();
    await count({ name: 'widget-to-damage', by: 2 });
    await cell?.stop();
    cell = undefined;
    const file = join(folder, 'log.db');
    const bytes = await readFile(file);
    const at = bytes.indexOf('widget-to-damage');
    assert.ok(at > 0);
    bytes[at] = 'W'.charCodeAt(0);
    await writeFile(file, bytes);
    await start();
    await serving();
    const refused = await ask('/state');
    assert.deepEqual([refused.status, refused.json.code], [503, 'tenant-quarantined']);
    assert.match(refused.json.detail ?? '', /quarantine\/acme\.json/);
    assert.ok((await readFile(file)).equals(bytes));
  });

  test('with a workload forwards what it admits, and lets no answer pass for its own', async () => {
    const application = `
      require('node:http').createServer((request, response) => {
        response.setHeader('cellwright-refusal', 'not-owner');
        response.statusCode = request.url === '/forged' ? 421 : 200;
        response.end(JSON.stringify({ tenant: request.headers['cellwright-tenant'], epoch: request.headers['cellwright-epoch'], url: request.url }));
      }).on('upgrade', (request, socket) => {
        socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n');
        socket.pipe(socket);
      }).listen(Number(process.argv[1]), '127.0.0.1');`;
    const command = [process.execPath, '-e', application, '{port}'];
    control.say('desired', desired(1, { workload: { command, health: '/' } }));
    control.say('frame', frame(2, [acme(1)]), '1.2');
    await start();
    await serving();
    await until(async () => (await ask('/some?path')).status === 200);
    const answer = await ask('/some?path', { headers: { 'cellwright-epoch': '1' } });
    assert.deepEqual(answer.json, { tenant: 'acme', url: '/some?path' });
    const forged = await ask('/forged');
    assert.deepEqual([forged.status, forged.headers.get('cellwright-refusal')], [421, null]);

    const upgrade = { connection: 'Upgrade', upgrade: 'echo', 'x-tenant': 'acme' };
    const sent = httpRequest(url, { headers: upgrade }).end();
    const [, socket] = (await once(sent, 'upgrade')) as [IncomingMessage, Socket];
    socket.write('hello');
    assert.equal(String((await once(socket, 'data'))[0]), 'hello');
    socket.destroy();
    const refused = httpRequest(url, { headers: { ...upgrade, 'x-tenant': 'stranger' } }).end();
    const [response] = (await once(refused, 'response')) as [IncomingMessage];
    assert.deepEqual([response.statusCode, response.headers['cellwright-refusal']], [421, 'not-owner']);
    response.resume();
  });

  test("O8: with a workload ends what is under way for a tenant when its ownership ends, and nobody else's", async () => {
    const application = `
      let hanging = 0;
      require('node:http').createServer((request, response) => {
        if (request.url === '/stream') response.write('begun');
        else if (request.url === '/hang') hanging += 1;
        else response.end(JSON.stringify({ hanging }));
      }).on('upgrade', (request, socket) => {
        socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n');
        socket.pipe(socket);
      }).listen(Number(process.argv[1]), '127.0.0.1');`;
    const command = [process.execPath, '-e', application, '{port}'];
    control.say('desired', desired(1, { workload: { command, health: '/' } }));
    control.say('frame', frame(2, [acme(1), { tenant: 'bolt', cell: 'tokyo-1', epoch: 1 }]), '1.2');
    await start();
    await serving();
    await until(async () => (await ask('/')).status === 200);

    const tunnelOf = async (tenant: string): Promise<Socket> => {
      const headers = { connection: 'Upgrade', upgrade: 'echo', 'x-tenant': tenant };
      const [, socket] = (await once(httpRequest(url, { headers }).end(), 'upgrade')) as [IncomingMessage, Socket];
      return socket.on('error', () => undefined);
    };
    const tunnels = { acme: await tunnelOf('acme'), bolt: await tunnelOf('bolt') };
    const stream = httpRequest(`${url}/stream`, { headers: { 'x-tenant': 'acme' } })
      .on('error', () => undefined)
      .end();
    const [streamed] = (await once(stream, 'response')) as [IncomingMessage];
    await once(streamed, 'data');
    const hanging = httpRequest(`${url}/hang`, { headers: { 'x-tenant': 'acme' } }).end();
    await until(async () => (await ask('/')).json['hanging'] === 1);
    const ends = Promise.all([
      new Promise((resolve) => tunnels.acme.on('close', resolve)),
      assert.rejects(once(streamed, 'end'), /aborted|ECONNRESET/),
      assert.rejects(once(hanging, 'response'), /hang up|ECONNRESET/),
    ]);
    // As the deletion of a tenant comes from the control plane.
    control.say(
      'frame',
      frame(3, [{ tenant: 'acme', epoch: 2, removed: true }], { kind: 'change', previous: 2 }),
      '1.3',
    );
    await ends;
    // Until the record is durable the cell is giving the tenant away; it admits nothing meanwhile.
    await until(async () => {
      const { status, headers: told } = await ask('/');
      assert.ok(
        status === 421 || told.get('cellwright-refusal') === 'cell-behind',
        `admitted or refused with ${status}`,
      );
      return status === 421;
    });
    tunnels.bolt.write('still here');
    assert.equal(String((await once(tunnels.bolt, 'data'))[0]), 'still here');
    tunnels.bolt.destroy();
  });

  test("no second spelling of our headers, or of the tenant's, reaches the application or comes from it", async () => {
    const application = `
      require('node:http').createServer((request, response) => {
        response.setHeader('cellwright_refusal', 'not-owner');
        response.end(JSON.stringify(Object.keys(request.headers)));
      }).listen(Number(process.argv[1]), '127.0.0.1');`;
    control.say('desired', desired(1, { workload: { command: [process.execPath, '-e', application, '{port}'] } }));
    control.say('frame', frame(2, [acme(1)]), '1.2');
    await start();
    await serving();
    await until(async () => (await ask('/')).status === 200);
    const headers = { cellwright_tenant: 'victim', x_tenant: 'victim', x_other: 'passes', Cellwright_Epoch: '9' };
    const answer = await ask('/', { headers });
    const seen = Object.values(answer.json).map(String);
    assert.deepEqual(seen.filter((name) => /tenant|cellwright|other/.test(name)).sort(), [
      'cellwright-tenant',
      'x-tenant',
      'x_other',
    ]);
    assert.equal(answer.headers.get('cellwright_refusal'), null);
  });

  test('with a workload that does not start refuses its tenants with workload-down', async () => {
    control.say('desired', desired(1, { workload: { command: ['no-such-program'] } }));
    control.say('frame', frame(2, [acme(1)]), '1.2');
    await start();
    await until(() => settled()?.state === 'refusing');
    assert.match(settled()?.problem?.detail ?? '', /no-such-program/);
    const refused = await ask('/');
    assert.deepEqual([refused.status, refused.headers.get('cellwright-refusal')], [503, 'workload-down']);
  });
});

/** Streams what it is told to say to every follower, from the beginning, and keeps what is pushed. */
class FakeControl {
  readonly statuses: CellStatus[] = [];
  readonly #server: Server;
  readonly #said: string[] = [];
  readonly #followers = new Set<ServerResponse>();
  /** Times that somebody began to follow. */
  followed = 0;

  private constructor(server: Server) {
    this.#server = server;
  }
  static async open(): Promise<FakeControl> {
    const server = createServer();
    const control = new FakeControl(server);
    server.on('request', (request, response) => control.#answer(request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return control;
  }
  get url(): string {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : 'http://127.0.0.1:1';
  }
  say(type: string, data: string, id?: string): void {
    const text = `event: ${type}\n${id === undefined ? '' : `id: ${id}\n`}data: ${data}\n\n`;
    this.#said.push(text);
    for (const follower of this.#followers) follower.write(text);
  }
  /** Says nothing of the past to those who follow from now on. */
  forget(): void {
    this.#said.length = 0;
  }
  #answer(request: IncomingMessage, response: ServerResponse): void {
    if (request.method === 'POST') {
      let text = '';
      request.on('data', (chunk: Buffer) => (text += chunk.toString()));
      request.on('end', () => {
        this.statuses.push(JSON.parse(text));
        response.writeHead(204).end();
      });
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(this.#said.join(''));
    response.write('event: beat\ndata: {}\n\n');
    this.#followers.add(response);
    this.followed += 1;
    response.on('close', () => this.#followers.delete(response));
  }
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for await (const _ of ticks(10)) if (await condition()) return;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}
