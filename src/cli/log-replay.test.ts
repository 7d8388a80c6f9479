import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import picocolors from 'picocolors';
import { orders } from '../../examples/orders/machine.ts';
import { golden } from '../../test/golden/golden.ts';
import { openRuntime } from '../machine/serve/runtime.ts';
import { runProgram } from './program.ts';
import type { Output } from './terminal.ts';

const ordersFile = fileURLToPath(new URL('../../examples/orders/machine.ts', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'cellwright-log-verbs-'));
after(() => rmSync(root, { recursive: true, force: true }));

const fleet = 'f00dfeed';
const data = join(root, 'data');
const folder = join(data, 'cells', 'tokyo-1');

/** A cell's folder as its host and its runtime leave it. */
async function writeCell(): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const listen = { host: '127.0.0.1', port: 1 };
  const boot = { process: 'cell', fleet, folder, publicKeyFile: 'k', controlUrl: 'u', tokenFile: 't', name: 'tokyo-1' };
  writeFileSync(join(folder, 'boot.json'), JSON.stringify({ ...boot, listen, logExpected: true, workloadPort: 1 }));
  const payload = JSON.stringify({
    kind: 'cell-desired',
    fleet,
    generation: 1,
    version: 1,
    cell: 'tokyo-1',
    spec: { blueprint: 'orders', jurisdiction: 'jp', capacity: { users: 1 } },
    blueprint: { name: 'orders', spec: { machine: { module: ordersFile } }, version: 1 },
  });
  writeFileSync(join(folder, 'desired.json'), JSON.stringify({ payload, signature: 's', key: 'k' }));
  let nowMs = Date.parse('2026-11-21T12:00:00Z');
  const runtime = await openRuntime({
    folder,
    owner: `${fleet}/tokyo-1`,
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => (nowMs += 1_000),
    onStopped: (reason) => {
      throw reason;
    },
  });
  const run = (instance: string, command: string, input: unknown, idempotencyKey?: string) =>
    runtime.execute({ instance, command, input, ...(idempotencyKey === undefined ? {} : { idempotencyKey }) });
  await run('acme', 'addStock', { item: 'nut', quantity: 10 }, 'first');
  await run('sakura', 'addStock', { item: 'bolt', quantity: 7 });
  await run('acme', 'placeOrder', { id: 'o-1', item: 'nut', quantity: 4 });
  await run('acme', 'placeOrder', { id: 'o-2', item: 'nut', quantity: 3 });
  await run('acme', 'placeOrder', { id: 'o-3', item: 'nut', quantity: 30 }, 'too-many');
  await run('acme', 'cancelOrder', { id: 'o-1' });
  await run('acme', 'cancelOrder', { id: 'o-1' }, 'again');
  await runtime.close();
}

await writeCell();

class Captured implements Output {
  text = '';
  readonly isTTY = false;
  readonly colors = picocolors.createColors(false);
  write(text: string): void {
    this.text += text;
  }
}

async function run(...args: readonly string[]) {
  const out = new Captured();
  const err = new Captured();
  const terminal = {
    out,
    err,
    stdin: async function* () {},
    env: {},
    cwd: root,
    nowMs: () => 0,
    interrupted: () => AbortSignal.abort(),
  };
  const code = await runProgram(args, {
    terminal,
    version: '1.2.3',
    loadUp: async () => {
      throw new Error('nothing may start here');
    },
    loadOwnMachines: async () => [],
  });
  const shown = (text: string): string => text.replaceAll(root, 'ROOT').replaceAll(ordersFile, 'ORDERS');
  return { code, out: shown(out.text), err: shown(err.text) };
}

/** Another version of the example: it refuses to cancel, in other words, and stocks no bolts. */
const changed = join(root, 'changed.ts');
writeFileSync(
  changed,
  readFileSync(ordersFile, 'utf8')
    .replace(/version: \d+/, 'version: 9')
    .replace('There is no order', 'Nobody ordered')
    .replace('quantity: level + added.quantity', 'quantity: level + added.quantity - (added.item === "bolt" ? 1 : 0)'),
);

function damagedCopy(): string {
  const copy = join(root, 'damaged');
  cpSync(folder, copy, { recursive: true });
  const database = new DatabaseSync(join(copy, 'log.db'));
  database.exec("UPDATE record SET payload = replace(payload, 'bolt', 'bulb') WHERE position = 2");
  database.close();
  return copy;
}

test('log verify and replay have their golden texts', async () => {
  const all: string[] = [];
  const lines = [
    'log verify',
    'log verify tokyo-1 -o json',
    'log verify --folder damaged',
    'replay --cell tokyo-1',
    'replay --cell tokyo-1 -o wide',
    'replay --cell tokyo-1 --tenant acme',
    'replay --cell tokyo-1 --tenant acme -o wide --limit 3',
    'replay --cell tokyo-1 --tenant acme --at 2',
    'replay --cell tokyo-1 --tenant acme --at 2026-11-21T12:00:03Z -o json',
    'replay --cell tokyo-1 --tenant acme --diff 1 4',
    'replay --cell tokyo-1 --tenant acme --diff 3 4 -o yaml',
    'replay --cell tokyo-1 --against changed.ts',
    'replay --cell tokyo-1 --against changed.ts --tenant acme -o yaml',
  ];
  damagedCopy();
  for (const line of lines) {
    const { code, out, err } = await run(...line.split(' '), '--data', data);
    all.push(`$ cellwright ${line}\n${out}${err}(ends with ${code})\n`);
  }
  golden('cli/log-replay.txt', all.join('\n'));
});

test('log verify ends with 0 if all is proven, 1 if anything is damaged, 2 if there is nothing to prove', async () => {
  assert.equal((await run('log', 'verify', '--data', data)).code, 0);
  assert.equal((await run('log', 'verify', '--folder', damagedCopy())).code, 1);
  const missing = await run('log', 'verify', 'tokio-1', '--data', data);
  assert.equal(missing.code, 2);
  assert.match(missing.err, /Did you mean tokyo-1\?/);
  assert.equal((await run('log', 'verify', 'tokyo-1', '--folder', folder, '--data', data)).code, 2);
  assert.equal((await run('log', 'verify', '--folder', join(root, 'nowhere'))).code, 2);
  const unloadable = await run('log', 'verify', '--folder', folder, '--machine', 'nowhere.ts');
  assert.equal(unloadable.code, 2);
});

test('the log of another cell in a folder is named, and not taken for damage', async () => {
  const swapped = join(root, 'swapped');
  cpSync(folder, swapped, { recursive: true });
  const boot = readFileSync(join(folder, 'boot.json'), 'utf8').replace('"name":"tokyo-1"', '"name":"osaka-1"');
  writeFileSync(join(swapped, 'boot.json'), boot);
  const { code, err } = await run('log', 'verify', '--folder', swapped);
  assert.equal(code, 2);
  assert.match(err, /folder-foreign.*belongs to f00dfeed\/tokyo-1, and not to f00dfeed\/osaka-1/);
});

test('without a machine to replay with, the chain is proven all the same and the reason is said', async () => {
  const bare = join(root, 'bare');
  cpSync(folder, bare, { recursive: true });
  rmSync(join(bare, 'desired.json'));
  const { code, out } = await run('log', 'verify', '--folder', bare);
  assert.equal(code, 0);
  assert.match(out, /none replayed; not those of orders: name its module with --machine/);
  const state = await run('replay', '--folder', bare, '--tenant', 'acme', '--at', '1');
  assert.equal(state.code, 2);
  assert.match(state.err, /name its module with --machine/);
});

test('replay --against ends with 0 without differences, 1 with them, 2 on an error', async () => {
  assert.equal((await run('replay', '--cell', 'tokyo-1', '--data', data, '--against', ordersFile)).code, 0);
  for (const mode of ['isolated', 'cumulative']) {
    const { code } = await run('replay', '--cell', 'tokyo-1', '--data', data, '--against', changed, '--mode', mode);
    assert.equal(code, 1);
  }
  assert.equal((await run('replay', '--cell', 'tokyo-1', '--data', data, '--against', 'nowhere.ts')).code, 2);
  assert.equal((await run('replay', '--folder', join(root, 'damaged'), '--against', changed)).code, 2);
});

test('a command line that cannot be meant is refused with what to write', async () => {
  const refused = async (line: string, message: RegExp): Promise<void> => {
    const { code, err } = await run(...line.split(' '), '--data', data);
    assert.equal(code, 2, line);
    assert.match(err, message);
  };
  await refused('replay', /--cell NAME, or --folder DIR/);
  await refused('replay --cell tokyo-1 --at 3', /name it with --tenant/);
  await refused('replay --cell tokyo-1 --tenant acme --at 3 --diff 1 2', /one of --at and --diff/);
  await refused('replay --cell tokyo-1 --tenant acme --diff 1', /two moments/);
  await refused('replay --cell tokyo-1 --tenant acme --diff 3 1', /earlier of the two/);
  await refused('replay --cell tokyo-1 --tenant acme --at noon', /a sequence \(17\), or a time/);
  await refused('replay --cell tokyo-1 --tenant acme --at 5', /acme has 4 events/);
  await refused('replay --cell tokyo-1 --machine a.ts --against b.ts', /leave --machine out/);
  await refused('replay --cell tokyo-1 --limit 0', /whole number/);
});
