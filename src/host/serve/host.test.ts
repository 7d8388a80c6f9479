import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it, type TestContext } from 'node:test';
import type { Fault } from '../../kernel/fault.ts';
import { openSigner } from '../../trust/signature.ts';
import { issueToken, readSecretFile, readToken } from '../../trust/token.ts';
import { startHost, type Host } from './host.ts';
import { ensureIdentity } from './identity.ts';
import { openOutputs } from './output.ts';
import { isPortFree, openPorts } from './ports.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-host-'));
after(() => rmSync(root, { recursive: true, force: true }));
const address = '127.0.0.1';

/** A child that listens nowhere, settles, and does what a file `do` in its folder says. */
const program = join(root, 'child.mjs');
writeFileSync(
  program,
  `import { readFileSync } from 'node:fs';
   import { dirname, join } from 'node:path';
   let what = '';
   try { what = readFileSync(join(dirname(process.argv[2]), 'do'), 'utf8'); } catch {}
   process.on('disconnect', () => process.exit(0));
   process.on('SIGTERM', () => process.exit(0));
   console.log('started');
   if (what === 'crash') process.exit(3);
   if (what === 'never') {
     const problem = { type: '', title: '', status: 503, code: 'log-damaged', detail: 'It is damaged.', reaction: 'operator' };
     process.send({ type: 'fatal', problem, restart: 'never' }, () => process.exit(1));
   } else {
     process.send({ type: 'listening', url: 'http://child' });
     process.send({ type: 'settled', state: 'serving' });
   }`,
);

interface Started {
  readonly host: Host;
  readonly data: string;
  readonly problems: Fault[];
  ask(path: string, options?: { method?: string; token?: string }): Promise<{ status: number; body: string }>;
}

/** A host with two cells on disk, and no control plane that answers. */
async function start(t: TestContext, data: string, cells: readonly string[] = ['tokyo', 'osaka']): Promise<Started> {
  const identity = await ensureIdentity(data);
  const ports = await openPorts(join(data, 'host', 'ports.json'), address);
  const desired = join(data, 'host', 'desired.json');
  if (!existsSync(desired)) {
    const document = {
      kind: 'host-desired',
      fleet: identity.fleet,
      generation: 1,
      version: 1,
      host: 'local',
      cells: cells.map((name) => ({ name, state: 'wanted' })),
    };
    writeFileSync(desired, JSON.stringify(openSigner(identity.privateKeyFile).sign(document)));
  }
  const problems: Fault[] = [];
  const host = await startHost({
    data,
    address,
    identity,
    ports,
    routerPort: await ports.choose('router'),
    controlPort: await ports.choose('control'),
    programs: { control: program, router: program, cell: program },
    onChange: () => undefined,
    onProblem: (reason) => problems.push(reason),
  });
  t.after(() => host.stop());
  const ask: Started['ask'] = async (path, { method = 'GET', token = identity.adminToken } = {}) => {
    const url = `http://${address}:${ports.known('host')}${path}`;
    const response = await fetch(url, { method, headers: { authorization: `Bearer ${token}` } });
    return { status: response.status, body: await response.text() };
  };
  return { host, data, problems, ask };
}

function folder(name: string, files: Readonly<Record<string, string>> = {}): string {
  const data = join(root, name);
  mkdirSync(join(data, 'host'), { recursive: true });
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(data, path, '..'), { recursive: true });
    writeFileSync(join(data, path), text);
  }
  return data;
}

async function phase({ host }: Started, name: string, wanted: string): Promise<void> {
  const reached = await host.supervisor.until(() => host.supervisor.process(name)?.phase === wanted, 20_000);
  assert.ok(reached, `${name} is ${host.supervisor.process(name)?.phase}, not ${wanted}`);
}

describe('a host', { timeout: 120_000 }, () => {
  it('starts everything from disk while no control plane answers, each with its own token only', async (t) => {
    const started = await start(t, folder('static'));
    for (const name of ['control', 'router', 'tokyo', 'osaka']) await phase(started, name, 'serving');
    const secret = await readSecretFile(join(started.data, 'trust', 'secret'));
    for (const [path, whose] of [
      ['router/token', { role: 'agent', kind: 'router', name: 'router' }],
      ['cells/tokyo/token', { role: 'agent', kind: 'cell', name: 'tokyo' }],
      ['token', { role: 'admin' }],
    ] as const) {
      const file = join(started.data, path);
      assert.deepEqual(readToken(secret, readFileSync(file, 'utf8').trim()), whose);
      assert.equal(statSync(file).mode & 0o777, 0o600);
    }
    assert.match(readFileSync(join(started.data, 'logs', 'tokyo.log'), 'utf8'), /started/);
    await started.host.stop();
    assert.equal(existsSync(join(started.data, 'endpoints.json')), false);
  });

  it('remembers which processes with a log served, and tells them so from then on, also in its next life', async (t) => {
    const data = folder('served', { 'cells/osaka/do': 'crash' });
    const expects = (path: string): unknown =>
      JSON.parse(readFileSync(join(data, path, 'boot.json'), 'utf8')).logExpected;
    const first = await start(t, data);
    for (const name of ['control', 'router', 'tokyo']) await phase(first, name, 'serving');
    assert.deepEqual(['control', 'cells/tokyo', 'cells/osaka', 'router'].map(expects), [
      false,
      false,
      false,
      undefined,
    ]);
    await first.host.servedIsKept();
    const file = join(data, 'host', 'served.json');
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), { served: ['control', 'tokyo'] });
    const pid = first.host.supervisor.process('tokyo')?.pid;
    assert.ok(pid !== undefined);
    process.kill(pid, 'SIGKILL');
    assert.ok(await first.host.supervisor.until(() => first.host.supervisor.process('tokyo')?.run === 2, 20_000));
    await phase(first, 'tokyo', 'serving');
    assert.equal(expects('cells/tokyo'), true);
    await first.host.stop();

    const second = await start(t, data);
    for (const name of ['control', 'tokyo']) await phase(second, name, 'serving');
    assert.deepEqual(['control', 'cells/tokyo', 'cells/osaka'].map(expects), [true, true, false]);
  });

  it('starts nothing when it cannot tell which processes served, and names the file', async (t) => {
    const data = folder('torn-served', { 'host/served.json': '{"served":["con' });
    await assert.rejects(start(t, data), { code: 'file-unreadable', field: join(data, 'host', 'served.json') });
    assert.equal(existsSync(join(data, 'control', 'boot.json')), false);
  });

  it('says that a hold could not be written instead of that it is in force', async (t) => {
    const data = folder('unheld');
    const started = await start(t, data);
    await phase(started, 'tokyo', 'serving');
    mkdirSync(join(data, 'host', 'held.json'));
    const answer = await started.ask('/v1/processes/tokyo/stop', { method: 'POST' });
    assert.equal(answer.status, 403);
    assert.match(answer.body, /folder-unwritable.*held\.json/);
    rmSync(join(data, 'host', 'held.json'), { recursive: true });
    assert.equal((await started.ask('/v1/processes/osaka/stop', { method: 'POST' })).status, 200);
    assert.deepEqual(JSON.parse(readFileSync(join(data, 'host', 'held.json'), 'utf8')), { held: ['tokyo', 'osaka'] });
  });

  it('starts again, with a growing pause, what keeps crashing, and leaves down what says never', async (t) => {
    const started = await start(t, folder('crash', { 'cells/tokyo/do': 'crash', 'cells/osaka/do': 'never' }));
    await phase(started, 'osaka', 'failed');
    const { supervisor } = started.host;
    assert.ok(await supervisor.until(() => (supervisor.process('tokyo')?.restarts ?? 0) >= 2, 20_000));
    assert.equal(supervisor.process('osaka')?.restarts, 0);
    const answer = await started.ask('/v1/processes/osaka/start', { method: 'POST' });
    assert.equal(answer.status, 500);
    assert.match(answer.body, /start-failed.*It is damaged/);
    rmSync(join(started.data, 'cells/osaka/do'));
    assert.equal((await started.ask('/v1/processes/osaka/start', { method: 'POST' })).status, 200);
  });

  it('gives a killed process back its address', async (t) => {
    const started = await start(t, folder('killed'));
    await phase(started, 'tokyo', 'serving');
    const [before] = started.host.cells();
    const pid = started.host.supervisor.process('tokyo')?.pid;
    assert.ok(pid !== undefined);
    process.kill(pid, 'SIGKILL');
    const { supervisor } = started.host;
    assert.ok(await supervisor.until(() => supervisor.process('tokyo')?.run === 2, 20_000));
    await phase(started, 'tokyo', 'serving');
    assert.deepEqual(started.host.cells()[0], before);
  });

  it('holds a process down, also in its next life, until it is let up', async (t) => {
    const data = folder('held');
    const first = await start(t, data);
    await phase(first, 'control', 'serving');
    const answer = await first.ask('/v1/processes/control/stop', { method: 'POST' });
    assert.equal(answer.status, 200);
    assert.match(answer.body, /"state":"held".*"pid":null/);
    assert.equal(first.host.supervisor.process('router')?.held, false);
    await first.host.stop();

    const second = await start(t, data);
    assert.deepEqual(second.host.held, ['control']);
    await phase(second, 'router', 'serving');
    assert.equal(second.host.supervisor.process('control')?.phase, 'down');
    assert.equal((await second.ask('/v1/processes/control/start', { method: 'POST' })).status, 200);
    await phase(second, 'control', 'serving');
    assert.deepEqual(JSON.parse(readFileSync(join(data, 'host', 'held.json'), 'utf8')), { held: [] });
  });

  it('answers only the administrator, and names the processes that there are', async (t) => {
    const started = await start(t, folder('api'));
    const secret = await readSecretFile(join(started.data, 'trust', 'secret'));
    const cell = issueToken(secret, { role: 'agent', kind: 'cell', name: 'tokyo' });
    assert.equal((await started.ask('/v1/processes', { token: 'x' })).status, 401);
    assert.equal((await started.ask('/v1/processes', { token: cell })).status, 403);
    const unknown = await started.ask('/v1/processes/kyoto/stop', { method: 'POST' });
    assert.equal(unknown.status, 404);
    assert.match(unknown.body, /resource-unknown.*control, router, tokyo, osaka/);
  });

  it('says that desired state is damaged, leaves it, and starts the rest', async (t) => {
    const torn = '{"payload":"{\\"kind\\":';
    const started = await start(t, folder('torn', { 'host/desired.json': torn }));
    await phase(started, 'router', 'serving');
    assert.deepEqual(
      started.problems.map(({ code, field }) => [code, field]),
      [['file-unreadable', join(started.data, 'host', 'desired.json')]],
    );
    assert.equal(readFileSync(join(started.data, 'host', 'desired.json'), 'utf8'), torn);
  });

  for (const file of ['held.json', 'ports.json']) {
    it(`starts nothing when ${file} is torn, and names it`, async (t) => {
      const data = folder(`torn-${file}`, { [`host/${file}`]: '{"held' });
      await assert.rejects(start(t, data), { code: 'file-unreadable', field: join(data, 'host', file) });
      assert.equal(existsSync(join(data, 'router', 'boot.json')), false);
    });
  }
});

describe('ports', () => {
  it('are kept, unless another program took one', async () => {
    const file = join(root, 'ports', 'ports.json');
    const first = await openPorts(file, address);
    const [one, two] = await Promise.all([first.choose('one'), first.choose('two')]);
    assert.notEqual(one, two);
    const again = await openPorts(file, address);
    assert.equal(await again.choose('one'), one);

    const thief = createServer();
    await new Promise<void>((resolve) => thief.listen(one, address, resolve));
    try {
      assert.equal(await isPortFree(address, one), false);
      const other = await again.choose('one');
      assert.ok(other !== one && other !== two);
      assert.equal(JSON.parse(readFileSync(file, 'utf8')).one, other, 'on disk before it is used');
    } finally {
      await new Promise((resolve) => thief.close(resolve));
    }
  });
});

describe('logs', () => {
  for (const [sizeBytes, bounded] of [
    [99, false],
    [100, false],
    [101, true],
  ] as const) {
    it(`of ${sizeBytes} bytes are ${bounded ? 'moved aside' : 'kept'} when 100 are allowed`, async () => {
      const logs = join(root, `logs-${sizeBytes}`);
      const outputs = openOutputs(logs, 100);
      const file = join(logs, 'a.log');
      writeFileSync(file, 'x'.repeat(sizeBytes));
      await outputs.bound();
      outputs.stop();
      assert.equal(statSync(file).size, bounded ? 0 : sizeBytes);
      assert.equal(existsSync(`${file}.1`), bounded);
    });
  }
});
