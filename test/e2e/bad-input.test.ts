import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Type } from 'typebox';
import { exists, hashesOf } from './files.ts';
import { Fleet, FleetProcess, ordersFleet, runCli, temporaryFolder, type Finished } from './fleet.ts';
import { expectShape, ListSchema } from './http.ts';
import { freePort } from './processes.ts';

/** A refusal that a person can act on: exit code, each of the texts, and no stack trace. */
function expectRefusal(
  { code, stdout, stderr }: Finished,
  expectedCode: number,
  ...says: readonly (RegExp | string)[]
): void {
  const shown = `exit ${code}\nstdout: ${stdout}\nstderr: ${stderr}`;
  assert.equal(code, expectedCode, shown);
  for (const text of says)
    assert.ok(typeof text === 'string' ? stderr.includes(text) : text.test(stderr), `${text}\n${shown}`);
  assert.doesNotMatch(stderr, /^\s+at .*[:(]/m, `a stack trace is no message:\n${shown}`);
}

interface BadFile {
  readonly name: string;
  readonly text: string;
  readonly says: readonly (RegExp | string)[];
}

const badFiles: readonly BadFile[] = [
  { name: 'malformed YAML', text: 'kind: Tenant\nname: [zenith\nspec: {', says: [/bad\.yaml/, /line \d|:\d+/] },
  {
    name: 'an unknown kind',
    text: 'kind: Tenat\nname: zenith\nspec: { jurisdiction: jp }',
    says: [/bad\.yaml/, /Tenat/, /kind/, /Tenant/],
  },
  {
    name: 'a wrong type',
    text: 'kind: Tenant\nname: zenith\nspec: { jurisdiction: jp, users: many }',
    says: [/bad\.yaml/, /users/],
  },
  {
    name: 'an unknown field',
    text: 'kind: Tenant\nname: zenith\nspec: { jurisdiction: jp, userz: 3 }',
    says: [/bad\.yaml/, /userz/],
  },
  {
    name: 'a name that is none',
    text: 'kind: Tenant\nname: Acme_1\nspec: { jurisdiction: jp }',
    says: [/bad\.yaml/, /name/],
  },
  {
    name: 'a cell without jurisdiction',
    text: 'kind: Cell\nname: nowhere\nspec: { blueprint: orders, capacity: { users: 10 } }',
    says: [/bad\.yaml/, /jurisdiction/, /nowhere/],
  },
  {
    name: 'a cell of a blueprint that does not exist',
    text: 'kind: Cell\nname: lost\nspec: { blueprint: nothing, jurisdiction: jp, capacity: { users: 10 } }',
    says: [/blueprint/, /nothing/],
  },
  {
    name: 'a tenant that no cell may host',
    text: 'kind: Tenant\nname: zenith\nspec: { jurisdiction: atlantis }',
    says: [/zenith/, /jurisdiction/, /atlantis/],
  },
  {
    name: 'a tenant that no cell has room for',
    text: 'kind: Tenant\nname: zenith\nspec: { jurisdiction: jp, users: 999999999 }',
    says: [/zenith/, /users|capacity|room/],
  },
];

describe('bad input', { timeout: 240_000 }, () => {
  let fleet: Fleet;
  let data = '';
  const folder = temporaryFolder();
  const file = (text: string): string => {
    const path = join(folder, 'bad.yaml');
    writeFileSync(path, text);
    return path;
  };
  before(async () => {
    fleet = await Fleet.start();
    data = fleet.data;
  });
  after(() => fleet.stop());

  for (const [index, { name, text, says }] of badFiles.entries()) {
    it(`${name}: apply names what is wrong and applies nothing of the file`, async () => {
      const good = `good-${index}`;
      const before = expectShape(ListSchema, (await fleet.control('/v1/tenants')).json, 'GET /v1/tenants');
      const path = file(`kind: Tenant\nname: ${good}\nspec: { jurisdiction: jp }\n---\n${text}\n`);
      expectRefusal(await fleet.cli('apply', '-f', path), 1, ...says);
      const after = expectShape(ListSchema, (await fleet.control('/v1/tenants')).json, 'GET /v1/tenants');
      assert.deepEqual(after, before, 'nothing half-applied');
      assert.equal((await fleet.tenant(good, '/state')).status, 404);
    });
  }

  it('a file that does not exist is named', async () => {
    expectRefusal(await fleet.cli('apply', '-f', join(folder, 'missing.yaml')), 1, /missing\.yaml/);
  });

  it('a wrong command line ends with 2 and says what is wrong', async () => {
    expectRefusal(await runCli(['frobnicate']), 2, /frobnicate/);
    expectRefusal(await fleet.cli('get', 'tenants', '--nonsense'), 2, /nonsense/);
    expectRefusal(await fleet.cli('get', 'tenants', '-o', 'nonsense'), 2, /nonsense/);
    expectRefusal(await fleet.cli('get', 'tenats'), 2, /tenats/);
    expectRefusal(await runCli(['up', '--router-port', 'many']), 2, /router-port|many/);
  });

  it('a resource that does not exist ends with 1 and is named', async () => {
    expectRefusal(await fleet.cli('get', 'tenants', 'nobody'), 1, /nobody/);
  });

  it('diff ends with 0 without differences, 1 with some, and more on an error', async () => {
    assert.equal((await fleet.cli('diff', '-f', ordersFleet)).code, 0);
    const more = file('kind: Tenant\nname: newcomer\nspec: { jurisdiction: jp }\n');
    const differences = await fleet.cli('diff', '-f', more);
    assert.equal(differences.code, 1, differences.stderr);
    assert.match(differences.stdout, /newcomer/);
    assert.ok(((await fleet.cli('diff', '-f', join(folder, 'missing.yaml'))).code ?? 0) > 1);
    assert.equal((await fleet.tenant('newcomer', '/state')).status, 404, 'diff changes nothing');
  });

  it('a data folder in use is refused while the fleet on it goes on', async () => {
    expectRefusal(await up({ data }), 1, /in use/i, data);
    assert.equal((await fleet.control('/v1/cells')).status, 200);
  });

  it('without a fleet, commands say that none runs and how to start one', async () => {
    expectRefusal(await runCli(['get', 'tenants'], { data: join(folder, 'none') }), 1, /up/);
  });

  it('a port in use is named with its option, and no process stays behind', async () => {
    const taken = await freePort();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(taken, '127.0.0.1', resolve));
    try {
      expectRefusal(await up({ routerPort: taken }), 1, new RegExp(String(taken)), /--router-port/);
      expectRefusal(await up({ controlPort: taken }), 1, new RegExp(String(taken)), /--control-port/);
    } finally {
      server.close();
    }
  });

  it('a data folder that cannot be written is named', async () => {
    const plain = join(folder, 'a-file');
    writeFileSync(plain, 'not a folder');
    expectRefusal(await up({ data: join(plain, 'data') }), 1, join(plain, 'data'), /--data/);
    assert.equal(readFileSync(plain, 'utf8'), 'not a folder');
    expectRefusal(await up({ data: '/sys/cellwright-data' }), 1, /\/sys\/cellwright-data/, /--data/);
  });

  it('a folder that holds something else is left alone', async () => {
    const foreign = join(folder, 'photos');
    mkdirSync(foreign);
    writeFileSync(join(foreign, 'cat.jpg'), 'miaow');
    expectRefusal(await up({ data: foreign }), 1, foreign);
    assert.deepEqual(Object.keys(hashesOf(foreign)), ['cat.jpg']);
  });

  it('up with a bad file ends with 1, and leaves an existing data folder as it was', async () => {
    assert.equal((await fleet.stop()).code, 0, 'a fleet that is stopped ends with 0');
    const before = hashesOf(data);
    for (const { text, says } of badFiles.slice(0, 3)) {
      expectRefusal(await up({ data, file: file(text) }), 1, ...says);
      assert.deepEqual(hashesOf(data), before);
    }
    expectRefusal(await up({ data, file: join(folder, 'missing.yaml') }), 1, /missing\.yaml/);
    assert.deepEqual(hashesOf(data), before);
  });

  it('up with a tenant that no cell may host ends with 1 and applies nothing of the file', async () => {
    const fresh = join(folder, 'fresh');
    const cell = 'kind: Cell\nname: tokyo\nspec: { blueprint: b, jurisdiction: jp, capacity: { users: 10 } }';
    const blueprint = `kind: Blueprint\nname: b\nspec: { workload: { command: [sleep, '60'] } }`;
    const path = file(
      `${blueprint}\n---\n${cell}\n---\nkind: Tenant\nname: zenith\nspec: { jurisdiction: atlantis }\n`,
    );
    expectRefusal(await up({ data: fresh, file: path }), 1, /zenith/, /atlantis/, /jurisdiction/);
    assert.equal(exists(join(fresh, 'cells', 'tokyo')), false, 'no cell was made');
  });

  it('a data folder of a newer version is refused and left as it is', async () => {
    const path = join(data, 'format.json');
    const text = readFileSync(path, 'utf8');
    const NumbersSchema = Type.Record(Type.String(), Type.Unknown());
    const newer = Object.entries(expectShape(NumbersSchema, JSON.parse(text), 'format.json')).map(([name, value]) => [
      name,
      typeof value === 'number' ? value + 1_000 : value,
    ]);
    writeFileSync(path, JSON.stringify(Object.fromEntries(newer)));
    const before = hashesOf(data);
    expectRefusal(await up({ data }), 1, /newer/, data);
    assert.deepEqual(hashesOf(data), before);
    writeFileSync(path, text);
    fleet = await Fleet.start({ data });
    assert.equal((await fleet.control('/v1/cells')).status, 200, 'with its own version again it starts');
  });
});

/** Runs `up` where it must refuse; whatever it left behind fails the test. */
async function up(options: Parameters<typeof FleetProcess.spawn>[0]): Promise<Finished> {
  const fleet = await FleetProcess.spawn(options);
  try {
    const finished = await fleet.end(60_000);
    assert.deepEqual(fleet.processes(), [], 'a process stayed behind');
    return finished;
  } finally {
    fleet.killTree();
  }
}
