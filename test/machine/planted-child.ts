/**
 * Runs planted machines, one after the other, and prints what happened to each as one line of JSON:
 * `planted-child.ts PHASE [MODULE FOLDER]...`. `trial` runs commands in memory; `serve` runs them for two tenants
 * in a log, with a verifying replica; `again` replays that log, from its events alone and the tenants in another order.
 */
import { scheduler } from 'node:timers/promises';
import { machineOf, replicaSource } from '../../src/cell/serve/machines.ts';
import type { Machine } from '../../src/machine/decide/definition/machine.ts';
import { openInMemory } from '../../src/machine/decide/instance/memory.ts';
import { loadMachine } from '../../src/machine/serve/traps/load-machine.ts';
import { openVerified, type Verified } from '../../src/machine/serve/replica/verified.ts';

/** Texts and numbers at which engines, locales and Unicode versions come apart. */
const inputs = [
  { id: 'b', n: 0.1, text: 'née {' },
  { id: 'ä', n: 0.2, text: 'ƛ' },
  { id: 'refused', n: -1, text: 'breaks the invariant after it was evolved' },
  { id: 'A', n: 0.3, text: 'ß' },
  { id: 'z', n: 1e21, text: 'a' },
];
/** How often a condition is looked at: the replica needs the processor more. */
const pollMs = 5;
const tenants = ['acme', 'globex'];

function trial(machine: Machine): object {
  const instance = openInMemory(machine);
  const failed: string[] = [];
  for (const input of inputs) {
    const answer = instance.execute('put', input);
    if (answer.kind === 'rejected' && answer.fault.code === 'handler-failed') failed.push(answer.fault.message);
  }
  return { failed };
}

async function open(machine: Machine, module: string, folder: string, again: boolean): Promise<Verified> {
  return openVerified({
    folder,
    owner: 'fleet/cell',
    mustExist: again,
    machineFor: (instance) => machineOf(instance, machine),
    nowMs: () => 1_000,
    onStopped: () => undefined,
    onNotice: () => undefined,
    replica: again ? undefined : replicaSource({ module }),
    onQuarantine: () => undefined,
    onProblem: () => undefined,
  });
}

async function serve(machine: Machine, module: string, folder: string): Promise<object> {
  const opened = await open(machine, module, folder, false);
  const { runtime, quarantine } = opened;
  while (opened.replica?.state !== 'verifying') await scheduler.wait(pollMs);
  let recorded = 0;
  for (const instance of tenants) {
    for (const input of inputs) {
      const answer = await runtime.execute({ instance, command: 'put', input });
      if (answer.kind === 'accepted' || answer.fault.code === 'invariant-violated') recorded += 1;
    }
  }
  const seen = (): number => (opened.replica?.verified ?? 0) + (opened.replica?.skipped ?? 0);
  while (quarantine.size === 0 && seen() < recorded) await scheduler.wait(pollMs);
  const drift = quarantine.size > 0;
  await opened.close();
  return { drift };
}

async function again(machine: Machine, module: string, folder: string): Promise<object> {
  const opened = await open(machine, module, folder, true);
  for (const instance of tenants.toReversed()) await opened.runtime.state(instance).catch(() => undefined);
  const drift = opened.quarantine.size > 0;
  await opened.close();
  return { drift };
}

async function run(phase: string, module: string, folder: string): Promise<object> {
  let machine: Machine;
  try {
    machine = await loadMachine({ module });
  } catch (thrown) {
    return { load: thrown instanceof Error ? thrown.message : String(thrown) };
  }
  if (phase === 'trial') return trial(machine);
  return phase === 'serve' ? serve(machine, module, folder) : again(machine, module, folder);
}

const [phase = '', ...pairs] = process.argv.slice(2);
for (let i = 0; i + 1 < pairs.length; i += 2) {
  const outcome = await run(phase, pairs[i] ?? '', pairs[i + 1] ?? '');
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
