/** Replays a log of `replayed.ts` and prints what it comes to: `replayed-child.ts FOLDER`. */
import { measures } from './replayed.ts';
import { openRuntime } from '../../src/machine/serve/runtime.ts';

const runtime = await openRuntime({
  folder: process.argv[2] ?? '',
  owner: 'test/log',
  mustExist: true,
  machineFor: () => measures,
  // No clock: under a faked one it would be another time, and nothing is recorded here.
  nowMs: () => 0,
  onStopped: (reason) => {
    throw reason;
  },
  proveWhole: true,
});
const states = [];
for (const instance of runtime.instances()) states.push(await runtime.state(instance));
await runtime.close();
process.stdout.write(
  `${JSON.stringify({
    states: states.sort((a, b) => (a.instance < b.instance ? -1 : 1)),
    seen: {
      node: process.versions.node.split('.')[0],
      locale: new Intl.NumberFormat().resolvedOptions().locale,
      zone: new Intl.DateTimeFormat().resolvedOptions().timeZone,
      year: new Date().getUTCFullYear(),
    },
  })}\n`,
);
