import { readFileSync } from 'node:fs';
import { builtinModules, registerHooks, stripTypeScriptTypes } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import type { MachineSource } from '../../../protocol/resources.ts';
import { isMachine, type Machine } from '../../decide/definition/machine.ts';
import { isRefusedBuiltin, refusedBuiltin } from './ambient.ts';
import { installTraps } from './traps.ts';

/** The library that a machine gets when it imports `cellwright`: this one, wherever its file lies. */
const library = new URL(`../../../index${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url).href;
/** What is part of Cellwright itself is loaded as the runtime does it. */
const ownFolder = new URL('../../../', import.meta.url).href;
/** Modules of machines, and what they import. */
const machineModules = new Set<string>();
let hooked = false;

/**
 * Makes machines load wherever their files lie. `cellwright` is the copy that runs the cell, because a
 * machine made by another copy would not be recognised. TypeScript is an ES module without its types,
 * also in an installed package and beside a package.json that says `commonjs`, where the runtime
 * alone would refuse it. What a machine imports may not import the modules of Node that see the outside.
 */
function hookLoading(): void {
  if (hooked) return;
  hooked = true;
  registerHooks({
    resolve: (specifier, context, next) => {
      if (specifier === 'cellwright') return { url: library, shortCircuit: true };
      const { parentURL } = context;
      if (parentURL === undefined || !machineModules.has(parentURL)) return next(specifier, context);
      if (isRefusedBuiltin(specifier, builtinModules)) {
        throw new Error(`${fileURLToPath(parentURL)} imports ${specifier}, but ${refusedBuiltin}`);
      }
      const resolved = next(specifier, context);
      if (resolved.url.startsWith('file:') && !resolved.url.startsWith(ownFolder)) machineModules.add(resolved.url);
      return resolved;
    },
    load: (url, context, next) => {
      if (!/^file:.*\.m?ts$/.test(url) || url.startsWith(ownFolder)) return next(url, context);
      const source = stripTypeScriptTypes(readFileSync(fileURLToPath(url), 'utf8'), { mode: 'strip', sourceUrl: url });
      return { format: 'module', source, shortCircuit: true };
    },
  });
}

/**
 * Loads the machine of a blueprint; from then on what is ambient in this process is trapped (`installTraps`).
 * Fault `machine-unloadable` names the module and the remedy.
 */
export async function loadMachine(source: MachineSource): Promise<Machine> {
  installTraps();
  hookLoading();
  const file = resolve(source.module);
  machineModules.add(pathToFileURL(file).href);
  const name = source.export ?? 'default';
  let exported: unknown;
  try {
    exported = await importModule(pathToFileURL(file).href);
  } catch (cause) {
    throw unloadable(file, cause instanceof Error ? cause.message : String(cause), 'spec.machine.module', cause);
  }
  const value: unknown = typeof exported === 'object' && exported !== null ? Reflect.get(exported, name) : undefined;
  if (isMachine(value)) return value;
  if (value === undefined) {
    const names = Object.keys(exported ?? {}).join(', ') || 'nothing';
    throw unloadable(file, `it has no export "${name}"; it exports ${names}`, 'spec.machine.export');
  }
  throw unloadable(file, `its export "${name}" was not made by machine()`, 'spec.machine.export');
}

function importModule(url: string): Promise<unknown> {
  return import(url);
}

function unloadable(file: string, why: string, field: string, cause?: unknown): Fault {
  const message = `${file} cannot be loaded: ${why}. Correct the module or the blueprint, then stop and start the cell.`;
  return fault('machine-unloadable', message, { field, cause });
}
