import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkout, Fleet, temporaryFolder } from './fleet.ts';

/**
 * Packs the package as it would be published and lays it out as npm would install it, with the
 * dependencies of this checkout.
 */
function installed(): string {
  const project = temporaryFolder();
  const modules = join(project, 'node_modules');
  mkdirSync(modules);
  for (const name of readdirSync(join(checkout, 'node_modules'))) {
    if (!name.startsWith('.')) symlinkSync(join(checkout, 'node_modules', name), join(modules, name));
  }
  const packed = execFileSync('npm', ['pack', '--json', '--pack-destination', project], {
    cwd: checkout,
    encoding: 'utf8',
  });
  const name = /"filename": "([^"]+)"/.exec(packed)?.[1];
  assert.ok(name, `npm pack names its file: ${packed.slice(0, 200)}`);
  const folder = join(modules, 'cellwright');
  mkdirSync(folder);
  execFileSync('tar', ['-xzf', join(project, name), '-C', folder, '--strip-components=1']);
  return project;
}

test('the package that would be published runs its example, and a machine of a project of one’s own', async () => {
  const project = installed();
  const packageFolder = join(project, 'node_modules', 'cellwright');
  assert.ok(!readdirSync(packageFolder).includes('src'), 'what is published is the build');

  const example = await Fleet.start({
    checkout: packageFolder,
    file: join(packageFolder, 'examples/orders/fleet.yaml'),
  });
  const stock = await example.tenant('acme', '/commands/addStock', { json: { item: 'tea', quantity: 2 } });
  assert.equal(stock.status, 200, stock.body);
  await example.stop();

  writeFileSync(join(project, 'package.json'), '{ "name": "shop", "version": "1.0.0", "type": "commonjs" }');
  writeFileSync(
    join(project, 'counter.ts'),
    `import { machine, table, Type, type Static } from 'cellwright';
     const Count = Type.Object({ id: Type.String(), value: Type.Integer() });
     const zero: Static<typeof Count> = { id: 'one', value: 0 };
     export const counter = machine({
       name: 'counter', version: 1,
       tables: { counts: table(Count, { key: 'id' }) },
       events: { counted: { data: Type.Object({}), evolve: (state) => {
         const before = state.counts.get('one') ?? zero;
         state.counts.upsert({ ...before, value: before.value + 1 });
       } } },
       commands: { count: { input: Type.Object({}), decide: () => [{ type: 'counted', data: {} }] } },
       queries: { counts: { input: Type.Object({}), answer: (state) => [...state.counts.scan()] } },
     });`,
  );
  writeFileSync(
    join(project, 'fleet.yaml'),
    `kind: Blueprint
name: counter
spec: { machine: { module: ./counter.ts, export: counter } }
---
kind: Cell
name: one
spec: { blueprint: counter, jurisdiction: jp, capacity: { users: 10 } }
---
kind: Tenant
name: acme
spec: { jurisdiction: jp }
`,
  );
  const own = await Fleet.start({ checkout: packageFolder, file: join(project, 'fleet.yaml') });
  assert.equal((await own.tenant('acme', '/commands/count', { json: {} })).status, 200);
  assert.match((await own.tenant('acme', '/queries/counts')).body, /"value":1/);
  await own.stop();
});
