import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { appendFile, mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import picocolors from 'picocolors';
import { golden } from '../../test/golden/golden.ts';
import { fault, type ErrorCode } from '../protocol/errors.ts';
import { problemOf } from '../protocol/problem.ts';
import { runProgram } from './program.ts';
import type { Output, Terminal } from './terminal.ts';
import type { Up } from './verbs/up.ts';

const token = 'secret-of-the-test';
const nowMs = Date.parse('2026-11-21T12:00:00Z');
const ready = { type: 'Ready', status: 'True', reason: 'Serving', message: 'It serves 1 tenant' };

const cell = (name: string, jurisdiction: string, users: number, more: object = {}) => ({
  kind: 'Cell',
  name,
  spec: { blueprint: 'orders', region: 'r1', zone: 'a', jurisdiction, capacity: { users: 50_000 } },
  version: 12,
  status: {
    state: 'serving',
    address: 'http://127.0.0.1:9001',
    process: 'running',
    restarts: 0,
    usage: { tenants: 1, users },
    conditions: [ready],
    ...more,
  },
});
const tenant = (name: string, where: string, served: boolean) => ({
  kind: 'Tenant',
  name,
  spec: { jurisdiction: 'jp', users: 1200, tier: 'standard' },
  version: 7,
  status: {
    assignment: { cell: where, epoch: 1 },
    conditions: [
      served
        ? { type: 'Served', status: 'True', reason: 'Routed', message: 'known to all' }
        : { type: 'Served', status: 'False', reason: 'Waiting', message: 'It waits for a router' },
    ],
  },
});
const placement = {
  because: 'tokyo-1 is in jurisdiction jp and has room for 1200 users',
  rejected: [
    { cell: 'osaka-1', reason: 'less-free', detail: '100 of 50000 users free, 0 %' },
    { cell: 'frankfurt-1', reason: 'other-jurisdiction', detail: 'its jurisdiction is eu' },
  ],
  rejectedCounts: { 'no-room': 0, 'less-free': 1, 'other-jurisdiction': 21, removed: 0 },
};
const explanation = {
  tenant: 'acme',
  removed: false,
  cell: 'tokyo-1',
  epoch: 1,
  since: '2026-11-21T10:30:00.000Z',
  version: 7,
  ...placement,
  served: true,
  reports: {
    cell: { state: 'serving', process: 'running', applied: { generation: 1, version: 9 } },
    routers: [{ name: 'router', applied: { generation: 1, version: 6 }, tableHash: 'x' }],
  },
};
interface Shown {
  readonly kind: string;
  readonly name: string;
  readonly spec: object;
  readonly version: number;
  readonly status: object;
}
const lists: Readonly<Record<string, readonly Shown[]>> = {
  cells: [
    cell('tokyo-1', 'jp', 45_000),
    cell('osaka-1', 'jp', 50_000, { process: 'held' }),
    cell('berlin-1', 'eu', 0, { state: 'refusing' }),
  ],
  tenants: [tenant('acme', 'tokyo-1', true), tenant('sakura', 'tokyo-1', false)],
  blueprints: [
    {
      kind: 'Blueprint',
      name: 'orders',
      spec: { machine: { module: '/m.ts' } },
      version: 1,
      status: { cells: 3, conditions: [] },
    },
  ],
};
const events = [
  { version: 1, at: '2026-11-21T10:00:00.000Z', command: 'apply', type: 'blueprintPut', data: { name: 'orders' } },
  {
    version: 2,
    at: '2026-11-21T11:59:00.000Z',
    command: 'apply',
    type: 'tenantPlaced',
    data: { name: 'acme', placement },
  },
];

interface Asked {
  readonly method: string;
  readonly url: string;
  readonly body: unknown;
}

interface Fleet {
  readonly data: string;
  readonly asked: Asked[];
  /** What `POST /v1/apply` and deletes answer instead. */
  refusal: ErrorCode | undefined;
  controlState: string;
  stopControl(): Promise<void>;
  /** Emits `stream` with each watch that begins. */
  readonly watches: EventEmitter<{ stream: [ServerResponse] }>;
}

/** A control plane and a host that answer as their real ones do, on ports of their own. */
async function fakeFleet(t: TestContext): Promise<Fleet> {
  const data = await mkdtemp(join(tmpdir(), 'cellwright-cli-'));
  const listen = async (answer: (request: IncomingMessage, response: ServerResponse) => void) => {
    const server = createServer(answer).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const close = async (): Promise<void> => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    };
    t.after(close);
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
  };
  const fleet: Fleet = {
    data,
    asked: [],
    refusal: undefined,
    controlState: 'serving',
    stopControl: async () => {},
    watches: new EventEmitter(),
  };
  const control = await listen((request, response) => void answerControl(fleet, request, response));
  const host = await listen((request, response) => {
    const [, , , name, action] = (request.url ?? '').split('/');
    if (name === 'control' && action !== undefined) fleet.controlState = action === 'stop' ? 'held' : 'serving';
    send(response, 200, {
      items: [
        { name: 'control', state: fleet.controlState, held: false, pid: 4242, url: null, restarts: 1, problem: null },
      ],
    });
  });
  fleet.stopControl = control.close;
  await writeFile(join(data, 'token'), `${token}\n`);
  await writeFile(
    join(data, 'endpoints.json'),
    JSON.stringify({ control: control.url, host: host.url, router: 'http://r' }),
  );
  t.after(() => rm(data, { recursive: true, force: true }));
  return fleet;
}

async function answerControl(fleet: Fleet, request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  const body: unknown = text === '' ? undefined : JSON.parse(text);
  const { method = '', url = '' } = request;
  fleet.asked.push({ method, url, body });
  const refuse = (code: ErrorCode): void => {
    const problem = problemOf(fault(code, `The fake says ${code}.`, { field: 'items[0]' }));
    send(response, problem.status, problem);
  };
  if (request.headers.authorization !== `Bearer ${token}`) return refuse('unauthenticated');
  const { pathname, searchParams } = new URL(url, 'http://x');
  const [, , plural = '', name, part] = pathname.split('/');
  if (searchParams.get('watch') === 'true') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const item of lists[plural] ?? []) sse(response, 'put', item);
    sse(response, 'synced', {});
    sse(response, 'beat', {});
    fleet.watches.emit('stream', response);
    return;
  }
  if (method !== 'GET' && fleet.refusal !== undefined) return refuse(fleet.refusal);
  if (plural === 'apply') {
    const { items } = body as { items: readonly { kind: string; name: string }[] };
    return send(response, 200, {
      version: 9,
      dryRun: false,
      items: items.map(({ kind, name }, i) => ({ kind, name, action: ['created', 'changed', 'unchanged'][i % 3] })),
    });
  }
  if (plural === 'events')
    return send(response, 200, { items: events.slice(Number(searchParams.get('after') ?? 0)), version: 2 });
  if (part === 'explanation') return send(response, 200, explanation);
  const list = lists[plural];
  if (list === undefined) return refuse('not-found');
  if (name === undefined) return send(response, 200, { items: list, version: 12 });
  const item = list.find((one) => one.name === name);
  return item === undefined ? refuse('resource-unknown') : send(response, 200, item);
}

function send(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

function sse(response: ServerResponse, type: string, data: unknown): void {
  response.write(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
}

class Captured implements Output {
  text = '';
  readonly isTTY: boolean;
  readonly colors: Output['colors'];
  #changed: () => void = () => undefined;
  constructor(isTTY = false, color = false) {
    this.isTTY = isTTY;
    this.colors = picocolors.createColors(color);
  }
  write(text: string): void {
    this.text += text;
    this.#changed();
  }
  async until(condition: (text: string) => boolean): Promise<void> {
    while (!condition(this.text)) await new Promise<void>((done) => (this.#changed = done));
  }
}

function terminalOf(options: Partial<Terminal> = {}) {
  const out = new Captured();
  const err = new Captured();
  const terminal: Terminal = {
    out,
    err,
    async *stdin() {
      yield 'kind: Tenant\nname: piped\nspec: { jurisdiction: jp }\n';
    },
    env: {},
    cwd: tmpdir(),
    nowMs: () => nowMs,
    interrupted: () => AbortSignal.abort(),
    ...options,
  };
  return { terminal, out, err };
}

const noUp = async (): Promise<Up> => {
  throw new Error('nothing may start here');
};

async function run(args: readonly string[], options: Partial<Terminal> = {}, loadUp = noUp) {
  const { terminal, out, err } = terminalOf(options);
  const code = await runProgram(args, { terminal, version: '1.2.3', loadUp, loadOwnMachines: async () => [] });
  return { code, out: out.text, err: err.text };
}

test('tables are aligned, wide adds columns, and every format has its golden text', async (t) => {
  const { data } = await fakeFleet(t);
  const all: string[] = [];
  const lines = [
    'get cells',
    'get cells -o wide',
    'get cell/tokyo-1 tenant/acme',
    'get tenants',
    'get tenant acme -o yaml',
    'get t -o name',
    'get bp -o wide',
    'get events',
    'get events -o wide',
    'get processes',
    'get cells tokyo-1 osaka-1 -o name',
    'explain tenant acme',
    'describe cell tokyo-1',
    'describe tenant/acme',
  ];
  for (const line of lines) {
    const { code, out, err } = await run([...line.split(' '), '--data', data]);
    assert.equal(code, 0, err);
    all.push(`$ cellwright ${line}\n${out}${err}`);
  }
  golden('cli/show.txt', all.join('\n'));
});

test('JSON of a list is what the API gives, of one name the item', async (t) => {
  const { data } = await fakeFleet(t);
  const list = await run(['get', 'cells', '-o', 'json', '--data', data]);
  assert.deepEqual(JSON.parse(list.out), { items: lists['cells'], version: 12 });
  const one = await run(['get', 'cell', 'tokyo-1', '-o', 'json', '--data', data]);
  assert.deepEqual(JSON.parse(one.out), lists['cells']?.[0]);
});

test('colour means something and is there only when it is wanted', async (t) => {
  const { data } = await fakeFleet(t);
  const out = new Captured(true, true);
  await run(['get', 'cells', '--data', data], { out });
  const { green, yellow, red } = picocolors.createColors(true);
  for (const word of [green('serving'), yellow('held'), red('refusing'), yellow('45000/50000'), red('50000/50000')]) {
    assert.ok(out.text.includes(word), word);
  }
});

test('apply sends every resource at once and says what became of each', async (t) => {
  const fleet = await fakeFleet(t);
  const files =
    'kind: Tenant\nname: b\nspec: { jurisdiction: jp }\n---\nkind: Blueprint\nname: a\nspec: { machine: { module: ./m.ts } }\n';
  await writeFile(join(fleet.data, 'f.yaml'), files);
  const args = ['apply', '-f', join(fleet.data, 'f.yaml'), '-f', '-', '--data', fleet.data];
  const { code, out } = await run(args);
  assert.equal(code, 0);
  assert.equal(out, 'blueprint/a created\ntenant/b changed\ntenant/piped unchanged\n');
  const dry = await run([...args, '--dry-run']);
  assert.match(dry.out, /blueprint\/a created \(dry run\)/);
  assert.deepEqual(
    fleet.asked.map(({ method, url, body }) => [method, url, (body as { dryRun: boolean }).dryRun]),
    [
      ['POST', '/v1/apply', false],
      ['POST', '/v1/apply', true],
    ],
  );
  const sent = fleet.asked[0]?.body as { items: readonly { spec: { machine?: { module: string } } }[] };
  assert.equal(sent.items[0]?.spec.machine?.module, join(fleet.data, 'm.ts'));
});

test('a refusal of the control plane is told with its code and ends with 1', async (t) => {
  const fleet = await fakeFleet(t);
  fleet.refusal = 'no-permitted-cell';
  const { code, out, err } = await run(['apply', '-f', '-', '--data', fleet.data]);
  assert.deepEqual([code, out], [1, '']);
  assert.equal(err, 'error no-permitted-cell (items[0]): The fake says no-permitted-cell.\n');
});

test('with one bad file nothing is sent, and diff ends with 2', async (t) => {
  const fleet = await fakeFleet(t);
  await writeFile(join(fleet.data, 'bad.yaml'), 'kind: Cel\n');
  for (const [verb, expected] of [
    ['apply', 1],
    ['diff', 2],
    ['delete', 1],
  ] as const) {
    const { code, err } = await run([verb, '-f', '-', '-f', join(fleet.data, 'bad.yaml'), '--data', fleet.data]);
    assert.equal(code, expected, verb);
    assert.match(err, /did you mean Cell\?/);
  }
  assert.deepEqual(fleet.asked, []);
});

test('diff shows what apply would change, defaults considered, and says so with its exit code', async (t) => {
  const fleet = await fakeFleet(t);
  const same = 'kind: Tenant\nname: acme\nspec: { jurisdiction: jp, users: 1200 }\n';
  await writeFile(join(fleet.data, 'same.yaml'), same);
  const nothing = await run(['diff', '-f', join(fleet.data, 'same.yaml'), '--data', fleet.data]);
  assert.deepEqual([nothing.code, nothing.out], [0, '']);
  await writeFile(join(fleet.data, 'other.yaml'), `${same.replace('1200', '900')}---\n${same.replace('acme', 'new')}`);
  const changed = await run(['diff', '-f', join(fleet.data, 'other.yaml'), '--data', fleet.data]);
  assert.equal(changed.code, 1);
  golden('cli/diff.txt', changed.out);
});

test('delete removes what refers to others first, and goes on after one that cannot be', async (t) => {
  const fleet = await fakeFleet(t);
  const done = await run(['delete', 'cell/tokyo-1', 'tenant/acme', '--data', fleet.data]);
  assert.deepEqual([done.code, done.out], [0, 'tenant/acme deleted\ncell/tokyo-1 deleted\n']);
  const dry = await run(['delete', 'tenant', 'acme', '--dry-run', '--data', fleet.data]);
  assert.equal(dry.out, 'tenant/acme deleted (dry run)\n');
  assert.deepEqual(
    fleet.asked.map(({ method }) => method),
    ['DELETE', 'DELETE', 'GET'],
  );
  fleet.refusal = 'still-in-use';
  const refused = await run(['delete', 'cell', 'a', 'b', '--data', fleet.data]);
  assert.equal(refused.code, 1);
  assert.equal(refused.err.match(/still-in-use/g)?.length, 4);
});

test('who cannot reach the control plane learns why and what to do', async (t) => {
  const fleet = await fakeFleet(t);
  const wrongToken = await run(['get', 'cells', '--data', fleet.data], { env: { CELLWRIGHT_TOKEN: 'x' } });
  assert.match(wrongToken.err, /^error unauthenticated/);
  await fleet.stopControl();
  fleet.controlState = 'held';
  const held = await run(['get', 'cells', '--data', fleet.data]);
  assert.equal(held.code, 1);
  assert.match(held.err, /^error control-unreachable: .*held down.*cellwright start control\n$/);
  fleet.controlState = 'failed';
  assert.match((await run(['get', 'cells', '--data', fleet.data])).err, /it is failed.*cellwright logs control/);
  const nobody = await run(['get', 'cells', '--data', join(fleet.data, 'none')]);
  assert.match(nobody.err, /^error fleet-not-running: .*cellwright up FLEET\.yaml/);
  await rm(join(fleet.data, 'token'));
  assert.match((await run(['get', 'cells', '--data', fleet.data])).err, /^error unauthenticated: .*CELLWRIGHT_TOKEN/);
});

test('stop and start speak to the host, and know the names', async (t) => {
  const { data } = await fakeFleet(t);
  assert.deepEqual(
    (await run(['stop', 'control', '--data', data])).out,
    'control held; it stays down until: cellwright start control\n',
  );
  assert.deepEqual((await run(['start', 'control', '--data', data])).out, 'control serving\n');
  const unknown = await run(['stop', 'contrl', '--data', data]);
  assert.equal(unknown.code, 1);
  assert.match(unknown.err, /Did you mean control\?/);
});

test('watch prints what is there and every change once, and begins again where the stream broke', async (t) => {
  const fleet = await fakeFleet(t);
  const interrupt = new AbortController();
  const out = new Captured();
  const opened = once(fleet.watches, 'stream');
  const watching = run(['get', 'tenants', '--watch', '-o', 'json', '--data', fleet.data], {
    out,
    interrupted: () => interrupt.signal,
  });
  const linesOf = (): readonly { type: string; item: { name: string } }[] =>
    out.text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { type: string; item: { name: string } });
  const [stream] = (await opened) as [ServerResponse];
  sse(stream, 'put', tenant('sakura', 'tokyo-1', true));
  await out.until(() => linesOf().length >= 3);
  sse(stream, 'put', tenant('new', 'tokyo-1', true));
  await out.until(() => linesOf().length >= 4);
  stream.destroy();
  await out.until(() => linesOf().length >= 6);
  assert.deepEqual(
    linesOf().map(({ type, item }) => `${type} ${item.name}`),
    ['put acme', 'put sakura', 'put sakura', 'put new', 'put sakura', 'delete new'],
  );
  interrupt.abort();
  assert.equal((await watching).code, 0);
});

test('logs shows the last lines, and what is appended', async (t) => {
  const { data } = await fakeFleet(t);
  await mkdir(join(data, 'logs'));
  const file = join(data, 'logs', 'tokyo-1.log');
  await writeFile(file, Array.from({ length: 30_000 }, (_, i) => `line ${i}\n`).join(''));
  const tail = await run(['logs', 'tokyo-1', '-n', '2', '--data', data]);
  assert.equal(tail.out, 'line 29998\nline 29999\n');
  assert.equal((await run(['logs', 'tokyo-1', '-n', '0', '--data', data])).out, '');
  assert.equal((await run(['logs', 'tokyo-1', '-n', '40000', '--data', data])).out.split('\n').length, 30_001);
  assert.match((await run(['logs', 'tokio-1', '--data', data])).err, /Did you mean tokyo-1\?/);
  assert.equal((await run(['logs', '../token', '--data', data])).code, 2);
  const interrupt = new AbortController();
  const out = new Captured();
  const following = run(['logs', 'tokyo-1', '--follow', '-n', '1', '--data', data], {
    out,
    interrupted: () => interrupt.signal,
  });
  await out.until((text) => text === 'line 29999\n');
  await appendFile(file, 'late\n');
  await out.until((text) => text.endsWith('late\n'));
  interrupt.abort();
  assert.equal((await following).code, 0);
});

test('up reads the file before anything starts', async (t) => {
  const { data } = await fakeFleet(t);
  await writeFile(join(data, 'bad.yaml'), 'kind: Cel\n');
  const { code, err } = await run(['up', join(data, 'bad.yaml')]);
  assert.equal(code, 1);
  assert.match(err, /did you mean Cell\?/);
});

test('help of every verb has its golden text', async () => {
  const verbs = [
    '',
    'up',
    'stop',
    'start',
    'get',
    'describe',
    'apply',
    'diff',
    'delete',
    'explain',
    'check',
    'logs',
    'log verify',
    'replay',
    'version',
  ];
  const all: string[] = [];
  for (const verb of verbs) {
    const { code, out } = await run([...verb.split(' '), '--help'].filter((word) => word !== ''));
    assert.equal(code, 0);
    all.push(`$ cellwright ${verb} --help`.replace('  ', ' '), out);
  }
  golden('cli/help.txt', all.join('\n'));
});

test('the program itself ends with 0, 1 or 2', async () => {
  const program = fileURLToPath(new URL('../main/cli.ts', import.meta.url));
  const cases = [
    [['--version'], 0],
    [['version'], 0],
    [['get', '--help'], 0],
    [[], 2],
    [['gte'], 2],
    [['get'], 2],
    [['get', 'tenents'], 2],
    [['get', 'cells', '-o', 'xml'], 2],
    [['apply'], 2],
    [['up', '--router-port', '70000'], 2],
    [['delete'], 2],
    [['get', 'cells', '--data', '/nonexistent'], 1],
    [['apply', '-f', '/nonexistent'], 1],
    [['diff', '-f', '/nonexistent'], 2],
  ] as const;
  const ends = await Promise.all(
    cases.map(async ([args]) => {
      const child = spawn(process.execPath, [program, ...args], {
        stdio: 'ignore',
        env: { ...process.env, NO_COLOR: '1' },
      });
      const [code] = (await once(child, 'exit')) as [number];
      return code;
    }),
  );
  assert.deepEqual(
    ends,
    cases.map(([, code]) => code),
  );
});

test('a verb that follows ends with 0 at a signal, and when the launcher is gone', async (t) => {
  const { data } = await fakeFleet(t);
  await mkdir(join(data, 'logs'));
  await writeFile(join(data, 'logs', 'control.log'), 'line\n');
  const program = fileURLToPath(new URL('../main/cli.ts', import.meta.url));
  for (const end of ['signal', 'launcher gone'] as const) {
    const args = end === 'signal' ? ['get', 'cells', '--watch'] : ['logs', 'control', '--follow'];
    const child = spawn(process.execPath, [program, ...args, '--data', data], {
      stdio: ['ignore', 'pipe', 'ignore', 'ipc'],
    });
    t.after(() => child.kill('SIGKILL'));
    assert.ok(child.stdout !== null);
    await once(child.stdout, 'data');
    const exited = once(child, 'exit');
    if (end === 'signal') child.kill('SIGTERM');
    else child.disconnect();
    assert.deepEqual(await exited, [0, null], end);
  }
});
