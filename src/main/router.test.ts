import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Value } from 'typebox/value';
import { RoutingFrameSchema, type Signed } from '../protocol/routing.ts';
import { ChildMessageSchema, type ChildMessage } from '../protocol/supervision.ts';
import { hashTable } from '../protocol/table-hash.ts';
import { ensureKeys, openSigner } from '../trust/signature.ts';

interface Started {
  readonly child: ChildProcess;
  readonly url: string;
  readonly adminUrl: string;
}

/** Starts the router as its host does, and waits until it says that it serves. */
async function start(bootFile: string): Promise<Started> {
  const child = fork(new URL('./router.ts', import.meta.url), [bootFile], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const { promise, resolve, reject } = Promise.withResolvers<Started>();
  let listening: Extract<ChildMessage, { type: 'listening' }> | undefined;
  child.on('message', (message) => {
    if (!Value.Check(ChildMessageSchema, message)) reject(new Error(JSON.stringify(message)));
    else if (message.type === 'listening') listening = message;
    else if (message.type === 'fatal') reject(new Error(message.problem.detail));
    else if (listening?.adminUrl === undefined) reject(new Error('settled before it listened'));
    else resolve({ child, url: listening.url, adminUrl: listening.adminUrl });
  });
  child.on('exit', (code) => reject(new Error(`exit ${code}`)));
  return promise;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve));
}

test('a router serves with nothing, with the control plane, and again from disk without it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'cellwright-router-main-'));
  const keys = { privateKeyFile: join(folder, 'private.pem'), publicKeyFile: join(folder, 'public.pem') };
  await ensureKeys(keys);
  const signer = openSigner(keys.privateKeyFile);
  const fleet = 'fleet-of-the-test';

  const cell = createServer((request, response) =>
    response.end(`epoch ${String(request.headers['cellwright-epoch'])}`),
  );
  await new Promise<void>((resolve) => cell.listen(0, '127.0.0.1', resolve));
  const addressOf = (server: typeof cell): string => {
    const address = server.address();
    assert(address !== null && typeof address === 'object');
    return `http://127.0.0.1:${address.port}`;
  };
  const draft = Value.Parse(RoutingFrameSchema, {
    kind: 'snapshot',
    fleet,
    generation: 1,
    version: 7,
    cells: [{ name: 'tokyo-1', address: addressOf(cell) }],
    tenants: [{ tenant: 'acme', cell: 'tokyo-1', epoch: 5 }],
    hash: '',
  });
  const snapshot: Signed = signer.sign({ ...draft, hash: hashTable(draft) });

  const streams = new Set<ServerResponse>();
  const statuses: unknown[] = [];
  let answers = false;
  const control = createServer((request, response) => {
    if (!answers) response.destroy();
    else if (request.url === '/v1/agents/status') {
      let body = '';
      request.on('data', (piece: Buffer) => (body += piece.toString()));
      request.on('end', () => {
        statuses.push(JSON.parse(body));
        response.writeHead(204).end();
      });
    } else {
      assert.equal(request.headers.authorization, 'Bearer the-token');
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const frame =
        request.headers['last-event-id'] === '1.7'
          ? ''
          : `event: frame\nid: 1.7\ndata: ${JSON.stringify(snapshot)}\n\n`;
      response.write(`${frame}event: beat\ndata: {}\n\n`);
      streams.add(response);
    }
  });
  await new Promise<void>((resolve) => control.listen(0, '127.0.0.1', resolve));

  const bootFile = join(folder, 'boot.json');
  const tokenFile = join(folder, 'token');
  await writeFile(tokenFile, 'the-token\n');
  await writeFile(
    bootFile,
    JSON.stringify({
      process: 'router',
      fleet,
      name: 'router-1',
      folder: join(folder, 'router'),
      publicKeyFile: keys.publicKeyFile,
      controlUrl: addressOf(control),
      tokenFile,
      listen: { host: '127.0.0.1', port: 0 },
      adminListen: { host: '127.0.0.1', port: 0 },
      partitionKey: { header: 'x-tenant', subdomainOf: ['localhost'] },
    }),
  );
  const statusOf = async (url: string, tenant?: string): Promise<number> => {
    const response = await fetch(url, tenant === undefined ? {} : { headers: { 'x-tenant': tenant } });
    await response.arrayBuffer();
    return response.status;
  };

  const first = await start(bootFile);
  assert.equal(await statusOf(first.url, 'acme'), 503);
  assert.equal(await statusOf(`${first.adminUrl}/livez`), 200);
  assert.equal(await statusOf(`${first.adminUrl}/readyz`), 503);
  answers = true;
  await until(async () => (await statusOf(first.url, 'acme')) === 200);
  await until(async () => (await statusOf(first.url, 'nobody')) === 404);
  assert.equal(await statusOf(`${first.adminUrl}/readyz`), 200);
  assert.equal(await statusOf(`${first.adminUrl}/other`), 404);
  const table = (await (await fetch(`${first.adminUrl}/debug/table`)).json()) as Record<string, unknown>;
  const { sinceMs, ...facts } = table;
  assert.equal(typeof sinceMs, 'number');
  assert.deepEqual(facts, { generation: 1, version: 7, hash: hashTable(draft), tenants: 1, cells: 1, live: true });
  const metrics = await (await fetch(`${first.adminUrl}/metrics`)).text();
  assert.match(metrics, /cellwright_router_table_version 7/);
  await until(() => Promise.resolve(statuses.some((status) => JSON.stringify(status).includes('"version":7'))));

  answers = false;
  for (const stream of streams) stream.destroy();
  await until(async () => (await statusOf(first.url, 'nobody')) === 503);
  assert.equal(await statusOf(first.url, 'acme'), 200);
  await end(first.child, 'SIGKILL');

  const second = await start(bootFile);
  const answer = await fetch(second.url, { headers: { 'x-tenant': 'acme' } });
  assert.equal(await answer.text(), 'epoch 5');
  assert.equal(await statusOf(second.url, 'nobody'), 503);
  assert.equal(await statusOf(`${second.adminUrl}/readyz`), 200);
  await end(second.child, 'SIGTERM');

  for (const server of [cell, control]) {
    server.closeAllConnections();
    server.close();
  }
  await rm(folder, { recursive: true });
});
