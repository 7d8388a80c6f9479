import { join } from 'node:path';
import { orders } from '../../examples/orders/machine.ts';
import { openRuntime, type Runtime } from '../../src/machine/serve/runtime.ts';
import { answerAsks } from './children.ts';
import { closedLoop, type Round } from './rounds.ts';
import { Workload } from './workload.ts';

/** Cellwright: commands through the runtime, each answered when it is durable. */
export type RuntimeAsk =
  | { readonly do: 'open'; readonly folder: string; readonly tenants: number; readonly keyed: boolean }
  | { readonly do: 'round'; readonly count: number; readonly concurrency: number }
  | { readonly do: 'close' };

/** What a log belongs to here. */
export const owner = 'bench/log';

let open: { readonly runtime: Runtime; readonly workload: Workload } | undefined;

async function opened(folder: string): Promise<Runtime> {
  return openRuntime({
    folder: join(folder, 'log'),
    owner,
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => Date.now(),
    onStopped: (reason) => {
      throw reason;
    },
  });
}

async function round(
  { runtime, workload }: NonNullable<typeof open>,
  count: number,
  concurrency: number,
): Promise<Round> {
  const requests = workload.take(count);
  return closedLoop([requests], concurrency, (request) =>
    runtime.execute(request).then((answer) => {
      if (answer.kind !== 'accepted') throw answer.fault;
    }),
  );
}

answerAsks(async (ask: RuntimeAsk) => {
  if (ask.do === 'open') {
    const workload = new Workload(ask.tenants, ask.keyed);
    open = { runtime: await opened(ask.folder), workload };
    // Tables that were listed once keep their rows in order, which costs more; so every tenant has listed its orders.
    for (const instance of workload.tenants)
      await open.runtime.query({ instance, query: 'orders', input: { limit: 1 } });
    return undefined;
  }
  if (open === undefined) throw new Error('a log is opened before it is used');
  if (ask.do === 'round') return round(open, ask.count, ask.concurrency);
  const { runtime } = open;
  open = undefined;
  const states = await Promise.all(runtime.instances().map((instance) => runtime.state(instance)));
  await runtime.close();
  return Object.fromEntries(states.map(({ instance, stateHash }) => [instance, stateHash]));
});
