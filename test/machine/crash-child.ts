import { createInterface } from 'node:readline';
import { orders } from '../../examples/orders/machine.ts';
import { openRuntime } from '../../src/machine/serve/runtime.ts';

/**
 * Serves commands and reads of a machine over its standard streams, one JSON object a line each way, until it is
 * killed: `crash-child.ts FOLDER`. Ends with whoever started it.
 */
const [folder = ''] = process.argv.slice(2);
const runtime = await openRuntime({
  folder,
  owner: 'test/log',
  mustExist: false,
  machineFor: () => orders,
  nowMs: () => Date.now(),
  onStopped: () => process.exit(1),
  bounds: { checkpointRecords: 40, snapshotRecordsMin: 20 },
});
const lines = createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0));
lines.on('line', (line) => {
  const { id, instance, key }: { id: number; instance: string; key: string | undefined } = JSON.parse(line);
  const say = (answer: unknown): void => void process.stdout.write(`${JSON.stringify({ id, ...Object(answer) })}\n`);
  if (key === undefined) {
    void runtime.state(instance).then(say, (thrown: unknown) => say({ failed: String(thrown) }));
    return;
  }
  const command = { instance, command: 'addStock', input: { item: key, quantity: 1 }, idempotencyKey: key };
  void runtime.execute(command).then((answer) => {
    if (answer.kind === 'accepted') say({ seq: answer.seq, stateHash: answer.stateHash });
    else say({ failed: answer.fault.code });
  });
});
process.stdout.write('{"id":-1}\n');
