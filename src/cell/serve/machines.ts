import { Value } from 'typebox/value';
import { assert } from '../../kernel/assert.ts';
import { isTenantName } from '../../protocol/names.ts';
import { MachineSourceSchema, type MachineSource } from '../../protocol/resources.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import { loadMachine } from '../../machine/serve/traps/load-machine.ts';
import type { ReplicaSource } from '../../machine/serve/replica/replica.ts';
import { ownershipInstance, ownershipMachine } from '../decide/ownership.ts';

/** The machine of an instance in a cell's log: the cell's own ownership, or what the blueprint says for tenants. */
export function machineOf(instance: string, machine: Machine | undefined): Machine | undefined {
  if (instance === ownershipInstance) return ownershipMachine;
  return isTenantName(instance) ? machine : undefined;
}

/** How a verifying replica of a cell gets the same machines, loaded once more. */
export function replicaSource(source: MachineSource): ReplicaSource {
  return { module: import.meta.url, loader: machines.name, data: source };
}

/** What the replica's thread calls: it loads this module, and so the blueprint's, by itself. */
export async function machines(data: unknown): Promise<(instance: string) => Machine | undefined> {
  assert(Value.Check(MachineSourceSchema, data), 'the replica is given the source that `replicaSource` was');
  const machine = await loadMachine(data);
  return (instance) => machineOf(instance, machine);
}
