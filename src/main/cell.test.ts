import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Value } from 'typebox/value';
import { ChildMessageSchema, type ChildMessage } from '../protocol/supervision.ts';
import { ensureKeys, openSigner } from '../trust/signature.ts';

const cellFile = fileURLToPath(new URL('./cell.ts', import.meta.url));

function next(cell: ChildProcess, type: ChildMessage['type']): Promise<ChildMessage> {
  return new Promise((resolve, reject) => {
    cell.once('exit', () => reject(new Error(`the cell ended before it was ${type}`)));
    cell.on('message', (message) => {
      if (Value.Check(ChildMessageSchema, message) && message.type === type) resolve(message);
    });
  });
}

test('a cell process listens, serves what its disk says without a control plane, and ends with its host', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'cellwright-main-cell-'));
  const files = { privateKeyFile: join(folder, 'private.pem'), publicKeyFile: join(folder, 'public.pem') };
  await ensureKeys(files);
  const own = join(folder, 'tokyo-1');
  const command = [
    process.execPath,
    '-e',
    `require('http').createServer((_, r) => r.end('up')).listen(Number(process.argv[1]), '127.0.0.1')`,
    '{port}',
  ];
  const desired = {
    kind: 'cell-desired',
    fleet: 'fleet-of-the-test',
    generation: 1,
    version: 1,
    cell: 'tokyo-1',
    spec: { blueprint: 'b', jurisdiction: 'jp', capacity: { users: 10 } },
    blueprint: { name: 'b', version: 1, spec: { workload: { command, health: '/' } } },
  };
  await writeFile(join(folder, 'token'), 'cw1.cell.tokyo-1.test');
  await writeFile(
    join(folder, 'cell-boot.json'),
    JSON.stringify({
      process: 'cell',
      fleet: desired.fleet,
      folder: own,
      publicKeyFile: files.publicKeyFile,
      controlUrl: 'http://127.0.0.1:9',
      tokenFile: join(folder, 'token'),
      name: 'tokyo-1',
      listen: { host: '127.0.0.1', port: 0 },
      logExpected: false,
      workloadPort: 40_000 + (process.pid % 20_000),
    }),
  );
  const start = () =>
    fork(cellFile, [join(folder, 'cell-boot.json')], { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const ended = (cell: ChildProcess) => new Promise((resolve) => cell.once('exit', resolve));
  const first = start();
  t.after(async () => {
    first.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  });

  const listening = await next(first, 'listening');
  assert.ok(listening.type === 'listening');
  assert.equal((await fetch(listening.url, { headers: { 'x-tenant': 'acme' } })).status, 503);
  const firstEnd = ended(first);
  first.send({ type: 'stop' });
  assert.equal(await firstEnd, 0);

  await writeFile(join(own, 'desired.json'), JSON.stringify(openSigner(files.privateKeyFile).sign(desired)));
  const second = start();
  t.after(() => second.kill('SIGKILL'));
  const settled = await next(second, 'settled');
  assert.ok(settled.type === 'settled' && settled.state === 'serving', JSON.stringify(settled));
  const secondEnd = once(second, 'exit');
  second.disconnect();
  // An orphan is ended by its thread, unless its own orderly exit was quicker.
  const [code, signal] = await secondEnd;
  assert.ok(code === 0 || signal === 'SIGKILL', `${String(code)} ${String(signal)}`);
});
