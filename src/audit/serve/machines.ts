import type { Machine } from '../../machine/decide/definition/machine.ts';
import { loadMachine } from '../../machine/serve/traps/load-machine.ts';

export type { Machine } from '../../machine/decide/definition/machine.ts';

/** The machines of which a process keeps records of its own, such as a cell's ownership. Loaded when they are needed. */
export type LoadOwnMachines = () => Promise<readonly Machine[]>;

/** Loads the machine that a module exports: its default, unless `name` is given. Fault `machine-unloadable`. */
export function machineOf(module: string, name: string | undefined): Promise<Machine> {
  return loadMachine(name === undefined ? { module } : { module, export: name });
}
