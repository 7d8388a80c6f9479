import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Type } from 'typebox';
import type { Fault } from '../../kernel/fault.ts';
import type { CellName } from '../../protocol/names.ts';
import type { HostStatus } from '../../protocol/status.ts';
import { asFault } from '../../protocol/problem.ts';
import { pushStatus } from '../../follow/status.ts';
import { readJsonFile, writeFileAtomically } from '../../process/folder.ts';
import { openVerifier } from '../../trust/signature.ts';
import { issueToken } from '../../trust/token.ts';
import type { Supervised } from '../decide/supervise.ts';
import { serveApi } from './api.ts';
import { controlName, prepareChild, routerName, type ChildrenOptions } from './children.ts';
import { hostName, KeptDesired } from './desired.ts';
import type { Identity } from './identity.ts';
import { openOutputs } from './output.ts';
import type { Ports } from './ports.ts';
import { openServed } from './served.ts';
import { Supervisor } from './supervisor.ts';

export interface HostOptions {
  /** The data folder, absolute; locked by this process. */
  readonly data: string;
  readonly address: string;
  readonly identity: Identity;
  readonly ports: Ports;
  readonly routerPort: number;
  readonly controlPort: number;
  readonly programs: ChildrenOptions['programs'];
  readonly onChange: (process: Supervised) => void;
  readonly onProblem: (reason: Fault) => void;
}

/** One cell of this machine that is to run, with the address that it keeps. */
export interface HostedCell {
  readonly name: CellName;
  readonly url: string | undefined;
}

/** The host of one machine: its processes, what they are to be, and how to hold them. */
export interface Host {
  readonly supervisor: Supervisor;
  readonly held: readonly string[];
  readonly controlUrl: string;
  readonly routerUrl: string;
  cells(): readonly HostedCell[];
  /** Resolves once it is on disk which processes served; rejects if that cannot be written. */
  servedIsKept(): Promise<void>;
  /** Stops every process and everything else; resolves when all of it is gone. */
  stop(): Promise<void>;
}

const HeldSchema = Type.Object({ held: Type.Array(Type.String()) });

/**
 * Starts control plane, router and the cells that are on disk; none waits for another. Then follows
 * the control plane. Fault `file-unreadable` if `held.json` is damaged, because a process that a person
 * holds down could be started, or `served.json`, because a log that was lost could be begun anew.
 */
export async function startHost(options: HostOptions): Promise<Host> {
  const { data, address, identity, ports } = options;
  const folder = join(data, 'host');
  const heldFile = join(folder, 'held.json');
  const endpointsFile = join(data, 'endpoints.json');
  const controlUrl = `http://${address}:${options.controlPort}`;
  const routerUrl = `http://${address}:${options.routerPort}`;
  const token = issueToken(identity.secret, { role: 'agent', kind: 'host', name: hostName });

  const held = (await readJsonFile(heldFile, HeldSchema))?.held ?? [];
  const served = await openServed(join(folder, 'served.json'), (thrown) => options.onProblem(asFault(thrown)));
  const hostPort = await ports.choose('host');
  const outputs = openOutputs(join(data, 'logs'));
  let status: ReturnType<typeof pushStatus> | undefined = undefined;
  let endpoints = '';
  let writingEndpoints = Promise.resolve();

  const supervisor = new Supervisor({
    held,
    outputs,
    environment: childEnvironment(data),
    prepare: (name) => prepareChild(options, name, served.has(name)),
    persistHeld: (names) => writeFileAtomically(heldFile, `${JSON.stringify({ held: names })}\n`),
    onChange(process) {
      if (process.phase === 'serving' && process.name !== routerName) served.note(process.name);
      options.onChange(process);
      if (process.name === routerName) writeEndpoints(process.adminUrl);
      status?.changed();
    },
    onProblem: options.onProblem,
  });
  const desired = new KeptDesired({
    folder,
    fleet: identity.fleet,
    verifier: openVerifier(identity.publicKeyFile),
    onDesired({ cells }) {
      supervisor.retire(namesOf(cells, 'retired'));
      supervisor.want(namesOf(cells, 'wanted'));
      status?.changed();
    },
    onProblem: options.onProblem,
  });

  function writeEndpoints(routerAdmin: string | undefined): void {
    const host = `http://${address}:${hostPort}`;
    const next = JSON.stringify({ host, control: controlUrl, router: routerUrl, routerAdmin, pid: process.pid });
    if (next === endpoints) return;
    endpoints = next;
    writingEndpoints = writingEndpoints
      .then(() => writeFileAtomically(endpointsFile, `${next}\n`))
      .catch((thrown: unknown) => options.onProblem(asFault(thrown)));
  }

  function cells(): readonly HostedCell[] {
    const wanted = desired.current?.cells.filter(({ state }) => state === 'wanted') ?? [];
    return wanted.map(({ name }) => {
      const port = ports.known(`cell:${name}`);
      return { name, url: port === undefined ? undefined : `http://${address}:${port}` };
    });
  }

  function readStatus(): HostStatus {
    return {
      kind: 'host',
      name: hostName,
      pid: process.pid,
      cells: cells().flatMap(({ name, url }) => {
        const child = supervisor.process(name);
        if (url === undefined || child === undefined) return [];
        return [{ name, address: url, process: statusOf(child), restarts: child.restarts }];
      }),
    };
  }

  const api = await serveApi({ address, port: hostPort, secret: identity.secret, supervisor });
  writeEndpoints(undefined);
  supervisor.want([controlName, routerName]);
  await desired.load();
  const following = desired.follow(controlUrl, token);
  status = pushStatus({ controlUrl, token, read: readStatus });

  return {
    supervisor,
    held,
    controlUrl,
    routerUrl,
    cells,
    servedIsKept: () => served.kept(),
    async stop() {
      following.stop();
      status?.stop();
      await supervisor.shutDown();
      await served.kept().catch((thrown: unknown) => options.onProblem(asFault(thrown)));
      await api.close();
      outputs.stop();
      await writingEndpoints;
      await rm(endpointsFile, { force: true });
    },
  };
}

function namesOf(
  cells: readonly { name: CellName; state: string }[],
  state: 'wanted' | 'retired',
): readonly CellName[] {
  return cells.filter((cell) => cell.state === state).map(({ name }) => name);
}

/** What children inherit: not the administrator's token, nor flags that were meant for this process. */
function childEnvironment(data: string): NodeJS.ProcessEnv {
  const { CELLWRIGHT_TOKEN: _token, NODE_OPTIONS: _flags, NODE_CHANNEL_FD: _channel, ...inherited } = process.env;
  return { ...inherited, NODE_COMPILE_CACHE: join(data, 'compile-cache') };
}

function statusOf(process: Supervised): HostStatus['cells'][number]['process'] {
  if (process.held) return 'held';
  switch (process.phase) {
    case 'starting':
    case 'down':
      return 'starting';
    case 'backing-off':
    case 'failed':
      return process.phase;
    default:
      return 'running';
  }
}
