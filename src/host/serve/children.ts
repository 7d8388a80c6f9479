import { join } from 'node:path';
import { assert } from '../../kernel/assert.ts';
import type { Boot } from '../../protocol/boot.ts';
import { fault } from '../../protocol/errors.ts';
import { tenantHeader } from '../../protocol/headers.ts';
import { isCellName } from '../../protocol/names.ts';
import { ensureFile } from '../../process/folder.ts';
import { issueToken, type Principal } from '../../trust/token.ts';
import type { Identity } from './identity.ts';
import type { Ports } from './ports.ts';
import type { Command } from './supervisor.ts';

/** The one router of a machine, as it names itself in its status and token. */
export const routerName = 'router';
export const controlName = 'control';

/** Where each kind of process keeps its files, below the data folder. */
export function folderOf(data: string, name: string): string {
  return name === controlName || name === routerName ? join(data, name) : join(data, 'cells', name);
}

export interface ChildrenOptions {
  readonly data: string;
  readonly address: string;
  readonly identity: Identity;
  readonly ports: Ports;
  /** Ports that a person chose: never replaced by another. */
  readonly routerPort: number;
  readonly controlPort: number;
  /** The program of each kind of process. */
  readonly programs: { readonly control: string; readonly router: string; readonly cell: string };
}

/**
 * Makes ready what a process needs before it starts: its folder, its token (mode 0600, with its own
 * rights only), its ports, and the boot file that names them all. A file that is right already is left
 * alone, so that a process is started again on a disk that is full. `served` says whether it served before.
 */
export async function prepareChild(options: ChildrenOptions, name: string, served: boolean): Promise<Command> {
  const folder = folderOf(options.data, name);
  const tokenFile = join(folder, 'token');
  const { secret } = options.identity;
  const principal = principalOf(name);
  if (principal !== undefined) await ensureFile(tokenFile, `${issueToken(secret, principal)}\n`);
  const boot = await bootOf(options, name, { folder, tokenFile, logExpected: served });
  const bootFile = join(folder, 'boot.json');
  await ensureFile(bootFile, `${JSON.stringify(boot, undefined, 2)}\n`);
  return { program: options.programs[boot.process], bootFile };
}

/** The control plane holds the secret itself; it needs no token of its own. */
function principalOf(name: string): Principal | undefined {
  if (name === controlName) return undefined;
  return { role: 'agent', kind: name === routerName ? 'router' : 'cell', name };
}

async function bootOf(
  options: ChildrenOptions,
  name: string,
  files: { readonly folder: string; readonly tokenFile: string; readonly logExpected: boolean },
): Promise<Boot> {
  const { logExpected } = files;
  const { address: host, identity, ports, controlPort } = options;
  const common = { fleet: identity.fleet, folder: files.folder, publicKeyFile: identity.publicKeyFile };
  const client = { controlUrl: `http://${host}:${controlPort}`, tokenFile: files.tokenFile };
  if (name === controlName) {
    const { privateKeyFile, secretFile } = identity;
    return {
      process: 'control',
      ...common,
      listen: { host, port: controlPort },
      logExpected,
      privateKeyFile,
      secretFile,
    };
  }
  if (name === routerName) {
    return {
      process: 'router',
      ...common,
      ...client,
      name,
      listen: { host, port: options.routerPort },
      adminListen: { host, port: await ports.choose('router-admin') },
      partitionKey: { header: tenantHeader, subdomainOf: ['localhost'] },
    };
  }
  assert(isCellName(name), 'a host starts only what it knows the shape of');
  const port = await ports.choose(`cell:${name}`);
  const workloadPort = await ports.choose(`workload:${name}`);
  if (port === workloadPort) throw fault('internal', `${name} was given one port twice.`);
  return { process: 'cell', ...common, ...client, name, listen: { host, port }, logExpected, workloadPort };
}
