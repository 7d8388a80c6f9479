import { orders } from '../../examples/orders/machine.ts';
import { openRuntime } from '../../src/machine/serve/runtime.ts';

/**
 * Executes keyed commands as fast as they are acknowledged, 16 at a time, and writes each key to
 * stdout once its answer left: `kill-child.ts FOLDER FIRST_KEY`. Whoever starts it kills it.
 */
const [folder = '', first = '0'] = process.argv.slice(2);
// Ends with whoever started it.
process.stdin.on('end', () => process.exit(0)).resume();

const runtime = await openRuntime({
  folder,
  owner: 'test/log',
  mustExist: false,
  machineFor: () => orders,
  nowMs: () => Date.now(),
  onStopped: () => process.exit(1),
});

let next = Number(first);
async function work(): Promise<never> {
  for (;;) {
    const key = next;
    next += 1;
    const input = { item: `item-${key}`, quantity: 1 };
    const answer = await runtime.execute({
      instance: 'acme',
      command: 'addStock',
      input,
      idempotencyKey: `key-${key}`,
    });
    if (answer.kind !== 'accepted') throw answer.fault;
    process.stdout.write(`${key}\n`);
  }
}
await Promise.all(Array.from({ length: 16 }, work));
