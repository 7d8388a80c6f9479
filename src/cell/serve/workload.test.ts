import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setInterval as ticks } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { limits } from '../../protocol/limits.ts';
import { endProcesses, findProcesses } from '../../process/descendants.ts';
import { startWorkload, type RunningWorkload, type WorkloadOptions } from './workload.ts';

const guardianFile = fileURLToPath(new URL('../../main/guardian.ts', import.meta.url));
const workloadModule = new URL('./workload.ts', import.meta.url).href;

/** An application with a child that leaves its group, and that says who and what it is. */
const application = `
  const { spawn } = require('node:child_process');
  const stray = spawn('sleep', ['300'], { detached: true, stdio: 'ignore' });
  require('node:http').createServer((request, response) => {
    if (request.url === '/sick') response.statusCode = 500;
    response.end(JSON.stringify({ pid: process.pid, guardian: process.ppid, stray: stray.pid, env: process.env, argv: process.argv }));
  }).listen(Number(process.argv[1]), '127.0.0.1');
  process.on('SIGTERM', () => {});
`;

interface About {
  readonly pid: number;
  readonly guardian: number;
  readonly stray: number;
  readonly env: Record<string, string>;
  readonly argv: readonly string[];
}

describe('a workload', () => {
  let folder: string;
  let port: number;
  const running: RunningWorkload[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cellwright-workload-'));
    port = await freePort();
  });
  afterEach(async () => {
    for (const workload of running.splice(0)) await workload.stop();
    const left = await instanceIn(folder);
    if (left !== undefined) await endProcesses({ instance: left, group: undefined }, 0);
    await rm(folder, { recursive: true, force: true });
  });

  function optionsOf(change: Partial<WorkloadOptions> = {}): WorkloadOptions {
    const command = [process.execPath, '-e', application, '{port}', '{data}', '{cell}'];
    return {
      workload: { command, env: { WHERE: 'in {cell} at {port}' }, health: '/' },
      cell: 'tokyo-1',
      folder,
      port,
      guardianFile,
      onChange: () => undefined,
      ...change,
    };
  }
  async function start(change: Partial<WorkloadOptions> = {}): Promise<RunningWorkload> {
    const workload = await startWorkload(optionsOf(change));
    running.push(workload);
    return workload;
  }
  const healthy = (workload: RunningWorkload) => until(() => workload.down === undefined);
  const about = async (): Promise<About> => (await (await fetch(`http://127.0.0.1:${port}/`)).json()) as About;
  /** A cell process that does nothing but run the workload. */
  async function startCellProcess(): Promise<ChildProcess> {
    const { onChange: _, ...options } = optionsOf();
    const text = `
      import { startWorkload } from ${JSON.stringify(workloadModule)};
      await startWorkload({ ...${JSON.stringify(options)}, onChange: ({ down }) => down === undefined && console.log('healthy') });`;
    const cell = spawn(process.execPath, ['--input-type=module', '-e', text], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(cell.stdout, 'data');
    return cell;
  }

  test('gets its port, data folder and cell, and nothing of the environment but what is allowed', async () => {
    process.env['CELL_TEST_SECRET'] = 'must not leak';
    await healthy(await start());
    const { env, argv } = await about();
    delete process.env['CELL_TEST_SECRET'];
    assert.deepEqual(argv.slice(1), [String(port), join(folder, 'workload'), 'tokyo-1']);
    assert.equal(env['WHERE'], `in tokyo-1 at ${port}`);
    const allowed = ['CELLWRIGHT_INSTANCE', 'HOME', 'LANG', 'PATH', 'TZ', 'WHERE'];
    assert.deepEqual(
      Object.keys(env).filter((name) => !allowed.includes(name)),
      [],
    );
    assert.ok((await stat(join(folder, 'workload'))).isDirectory());
  });

  test('is gone with everything that it started once it was stopped, also what ignores SIGTERM', async () => {
    const workload = await start();
    await healthy(workload);
    const instance = await instanceIn(folder);
    assert.ok(instance !== undefined && findProcesses({ instance, group: undefined }).length === 2);
    await workload.stop();
    assert.deepEqual(findProcesses({ instance, group: undefined }), []);
  });

  test('that crashes is started again, and nothing of the old one is left', async () => {
    const workload = await start();
    await healthy(workload);
    const old = await about();
    process.kill(old.pid, 'SIGKILL');
    await until(() => workload.down !== undefined);
    await healthy(workload);
    assert.notEqual((await about()).pid, old.pid);
    assert.equal(isAlive(old.stray), false);
  });

  test('whose guardian is killed is ended by the cell, and started again', async () => {
    const workload = await start();
    await healthy(workload);
    const old = await about();
    process.kill(old.guardian, 'SIGKILL');
    await until(() => !isAlive(old.pid) && !isAlive(old.stray));
    await until(async () => workload.down === undefined && (await about()).pid !== old.pid);
  });

  test('whose cell is killed is gone, with what left its group, within the promised time', async () => {
    const cell = await startCellProcess();
    const old = await about();
    const startMs = performance.now();
    cell.kill('SIGKILL');
    await until(() => [old.pid, old.stray, old.guardian].every((pid) => !isAlive(pid)));
    assert.ok(performance.now() - startMs < limits.orphanLifeMsMax, 'a bound of the interface, not a measurement');
  });

  test('whose cell and guardian are killed at once is ended by the next start, before the new one', async () => {
    const cell = await startCellProcess();
    const old = await about();
    const killed = once(cell, 'exit');
    process.kill(old.guardian, 'SIGSTOP');
    cell.kill('SIGKILL');
    await killed;
    process.kill(old.guardian, 'SIGKILL');
    await until(() => !isAlive(old.guardian));
    assert.equal(isAlive(old.pid), true);
    const workload = await start();
    assert.equal(isAlive(old.pid) || isAlive(old.stray), false);
    await healthy(workload);
    assert.notEqual((await about()).pid, old.pid);
  });

  test('that cannot be started says why, is tried again, and is reported after a few tries', async () => {
    const changes: { down: string | undefined; hopeless: boolean }[] = [];
    await start({
      workload: { command: ['no-such-program'], health: '/' },
      onChange: (change) => changes.push(change),
    });
    await until(() => changes.some(({ hopeless }) => hopeless));
    assert.match(changes[0]?.down ?? '', /no-such-program|does not answer/);
    assert.match(changes.at(-1)?.down ?? '', /could not be started.*no-such-program/);
  });

  test('is not started while a stranger has its port, which would be taken for it', async () => {
    const stranger = createServer().listen(port, '127.0.0.1');
    await once(stranger, 'listening');
    const workload = await start();
    await until(() => workload.down?.includes('is in use by another process') === true);
    stranger.close();
    await healthy(workload);
  });

  test('is down while its health path answers anything but 2xx', async () => {
    const sick = { ...optionsOf().workload, health: '/sick' };
    const workload = await start({ workload: sick });
    await until(() => workload.down === 'Its health path /sick answers 500.');
  });

  test('without a health path is up once it answers HTTP at all', async () => {
    const { command } = optionsOf().workload;
    await healthy(await start({ workload: { command } }));
  });
});

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for await (const _ of ticks(20)) if (await condition()) return;
}

/** Whether a process runs: one that has ended but was not waited for yet (a zombie) does not. */
function isAlive(pid: number): boolean {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.charAt(text.lastIndexOf(')') + 2) !== 'Z';
  } catch {
    return false;
  }
}

async function instanceIn(folder: string): Promise<string | undefined> {
  try {
    const record = JSON.parse(await readFile(join(folder, 'workload.json'), 'utf8')) as { instance: string };
    return record.instance;
  } catch {
    return undefined;
  }
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
