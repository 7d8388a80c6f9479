import { orders } from '../../examples/orders/machine.ts';
import { openRuntime } from '../../src/machine/serve/runtime.ts';

/** Executes commands until the log stops, and prints what they came to: `full-disk-child.ts FOLDER`. */
const [folder = ''] = process.argv.slice(2);
const stops: string[] = [];
const runtime = await openRuntime({
  folder,
  owner: 'test/log',
  mustExist: false,
  machineFor: () => orders,
  nowMs: () => Date.now(),
  onStopped: (reason) => stops.push(reason.code),
});
let accepted = 0;
const codes = new Set<string>();
for (let i = 0; codes.size === 0 && i < 10_000; i++) {
  const answers = await Promise.all(
    Array.from({ length: 64 }, (_, n) =>
      runtime.execute({ instance: 'acme', command: 'addStock', input: { item: `${i}-${n}`, quantity: 1 } }),
    ),
  );
  for (const answer of answers) {
    if (answer.kind === 'accepted') accepted += 1;
    else codes.add(answer.fault.code);
  }
}
const late = await runtime.execute({ instance: 'acme', command: 'addStock', input: { item: 'late', quantity: 1 } });
if (late.kind === 'rejected') codes.add(late.fault.code);
process.stdout.write(`${JSON.stringify({ accepted, codes: [...codes].toSorted(), stops })}\n`);
process.exit(0);
