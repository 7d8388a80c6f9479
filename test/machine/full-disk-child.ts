import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { orders } from '../../examples/orders/machine.ts';
import { openRuntime, type CommandAnswer } from '../../src/machine/serve/runtime.ts';

/**
 * Fills a small disk, part of which a ballast takes, until commands are refused; reads meanwhile; removes the ballast,
 * and goes on: `full-disk-child.ts FOLDER BALLAST_BYTES`. Prints what it saw as one line of JSON.
 */
const [disk = '', ballastBytes = '0'] = process.argv.slice(2);
const folder = join(disk, 'log');
const ballast = join(disk, 'ballast');
if (Number(ballastBytes) > 0) writeFileSync(ballast, Buffer.alloc(Number(ballastBytes), 1));
const stops: string[] = [];
const options = {
  folder,
  owner: 'test/log',
  mustExist: false,
  machineFor: () => orders,
  nowMs: () => Date.now(),
  onStopped: (reason: { readonly code: string }) => stops.push(reason.code),
};
const runtime = await openRuntime(options);
const tenants = ['acme', 'bolt', 'coop'];
const accepted = new Map<string, number>();
const codes = new Set<string>();

function add(instance: string, item: string): Promise<CommandAnswer> {
  return runtime.execute({ instance, command: 'addStock', input: { item, quantity: 1 }, idempotencyKey: item });
}

function note(instance: string, answer: CommandAnswer): boolean {
  if (answer.kind === 'accepted') accepted.set(instance, (accepted.get(instance) ?? 0) + 1);
  else codes.add(answer.fault.code);
  return answer.kind === 'accepted';
}

for (let i = 0; codes.size === 0 && i < 10_000; i++) {
  const asked = tenants.flatMap((instance) => Array.from({ length: 20 }, (_, n) => ({ instance, item: `${i}-${n}` })));
  const answers = await Promise.all(asked.map(({ instance, item }) => add(instance, item)));
  answers.forEach((answer, n) => note(asked[n]?.instance ?? '', answer));
}
const stoppedWhileFull = stops.length > 0;
// What is durable is read while the disk is full, and is what was acknowledged.
const whileFull: unknown[] = [];
const refusedWhileFull: string[] = [];
if (stoppedWhileFull) {
  note('acme', await add('acme', 'late'));
} else {
  for (const instance of tenants) {
    whileFull.push((await runtime.state(instance)).seq);
    const late = await add(instance, 'late');
    if (late.kind === 'rejected') refusedWhileFull.push(late.fault.code);
  }
}
// Room again: it goes on by itself.
rmSync(ballast, { force: true });
let attempts = 0;
if (!stoppedWhileFull && Number(ballastBytes) > 0) {
  for (const endsAt = Date.now() + 20_000; Date.now() < endsAt;) {
    attempts += 1;
    if (note('acme', await add('acme', 'afterwards'))) break;
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(tenants.map(async (instance) => note(instance, await add(instance, 'last'))));
}
const afterwards: unknown[] = [];
if (!stoppedWhileFull) for (const instance of tenants) afterwards.push((await runtime.state(instance)).seq);
await runtime.close();
const reopened: unknown[] = [];
if (Number(ballastBytes) > 0) {
  const again = await openRuntime({ ...options, mustExist: true });
  for (const instance of tenants) reopened.push((await again.state(instance)).seq);
  await again.close();
}
const files = readdirSync(folder).map((name) => [name, statSync(join(folder, name)).size]);
const report = {
  accepted: [...accepted.values()].reduce((a, b) => a + b, 0),
  byTenant: tenants.map((instance) => accepted.get(instance) ?? 0),
  codes: [...codes].toSorted(),
  stops,
  whileFull,
  refusedWhileFull,
  attempts,
  afterwards,
  reopened,
  files,
};
process.stdout.write(`${JSON.stringify(report)}\n`);
process.exit(0);
