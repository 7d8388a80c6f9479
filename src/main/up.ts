import { extname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Type } from 'typebox';
import { Fault } from '../kernel/fault.ts';
import { isRunning, type Phase, type Supervised } from '../host/decide/supervise.ts';
import { controlName, folderOf, routerName } from '../host/serve/children.ts';
import { FleetClient } from '../host/serve/fleet-client.ts';
import { openFleetFolder } from '../host/serve/fleet-folder.ts';
import { startHost, type Host } from '../host/serve/host.ts';
import { ensureIdentity, type Identity } from '../host/serve/identity.ts';
import { openPorts, whyPortUnusable, type Ports } from '../host/serve/ports.ts';
import type { ProcessView } from '../host/serve/supervisor.ts';
import { fault } from '../protocol/errors.ts';
import { asFault, problemOf, type Problem } from '../protocol/problem.ts';
import type { Resource } from '../protocol/resources.ts';
import { emptyDataFolder, privateUmask, readJsonFile, writeFileAtomically } from '../process/folder.ts';
import { openVerifier } from '../trust/signature.ts';

/** A fleet file as the command line read it. */
export interface FleetFile {
  readonly items: readonly Resource[];
  /** Of everything that the file means; another one means that it has to be applied again. */
  readonly sha256: string;
}

export interface UpOptions {
  readonly fleet?: FleetFile | undefined;
  readonly data: string;
  /** 0: a port is chosen once, and kept. */
  readonly routerPort: number;
  readonly controlPort: number;
  /** Empties the data folder first, if it is ours and not in use. */
  readonly fresh: boolean;
  readonly onProgress: (event: UpProgress) => void;
  /** Ends a start that is under way: everything is stopped again, and `up` throws `draining`. */
  readonly signal?: AbortSignal | undefined;
}

export type UpProgress =
  | { readonly type: 'held'; readonly names: readonly string[] }
  | { readonly type: 'process'; readonly name: string; readonly phase: Phase; readonly problem: Problem | undefined }
  | { readonly type: 'applied'; readonly resources: number }
  | { readonly type: 'waiting'; readonly for: readonly string[] }
  | { readonly type: 'problem'; readonly problem: Problem };

/** A problem of a fleet that runs; `process` names whose it is, unless it is the host's own. */
export type UpProblem = Problem & { readonly process?: string };

export interface UpResult {
  /** Everything does what it is for, or refuses with a reason, or is held down. */
  readonly ready: boolean;
  readonly router: string;
  readonly routerAdmin: string;
  readonly control: string;
  readonly token: string;
  readonly cells: readonly {
    readonly name: string;
    readonly url: string;
    /** null while it is not running. */
    readonly pid: number | null;
    readonly data: string;
  }[];
  readonly pids: { readonly host: number; readonly router: number | null; readonly control: number | null };
  readonly held: readonly string[];
  /** What does not do what it is for, as it is now; the rest serves. */
  readonly problems: readonly UpProblem[];
  /** Stops everything, workloads included. Resolves, each time, to the exit code: 1 if a person has to look. */
  stop(): Promise<number>;
}

const address = '127.0.0.1';
/** INTERFACE asks for less than a minute; after this, what is missing is a problem and the rest goes on. */
export const readyWaitMsMax = 45_000;
const lookEveryMs = 100;
/** Problems of the host itself that are kept; processes have at most one each. The first ones say most. */
const ownProblemsMax = 100;
const AppliedSchema = Type.Object({ sha256: Type.String() });

/**
 * Starts a fleet on this machine and resolves when it is ready, or as ready as it will be; what is
 * supervised stays so until `stop`. Throws, with everything stopped again, if the folder or a port
 * cannot be had (`folder-*`, `port-in-use`) or the fleet file is refused.
 */
export async function up(options: UpOptions): Promise<UpResult> {
  process.umask(privateUmask);
  if (options.routerPort === options.controlPort && options.routerPort !== 0) {
    throw fault('usage', `--router-port and --control-port are both ${options.routerPort}. Choose two ports.`, {
      field: '--control-port',
    });
  }
  const folder = await openFleetFolder(options.data).catch((thrown: unknown) => {
    throw naming(thrown, '--data');
  });
  try {
    await checkPort('router', options.routerPort);
    await checkPort('control', options.controlPort);
    // Only now: a start that is refused for its options must not have cost the data.
    if (options.fresh) await emptyDataFolder(folder);
    const ports = await openPorts(join(folder.path, 'host', 'ports.json'), address);
    const routerPort = options.routerPort === 0 ? await ports.choose('router') : options.routerPort;
    const controlPort = options.controlPort === 0 ? await ports.choose('control') : options.controlPort;
    const identity = await ensureIdentity(folder.path);
    const start = new Start(options, { data: folder.path, identity, ports, routerPort, controlPort });
    return await start.run(() => folder.release());
  } catch (thrown) {
    folder.release();
    throw thrown;
  }
}

/** Checks a port that a person chose before anything starts, so that the message can name the option. */
async function checkPort(use: 'router' | 'control', port: number): Promise<void> {
  const why = port === 0 ? undefined : await whyPortUnusable(address, port);
  if (why === undefined) return;
  const option = `--${use}-port`;
  const text = why === 'EADDRINUSE' ? 'is in use by another program' : `cannot be listened on (${why})`;
  throw fault('port-in-use', `Port ${port} ${text}. Choose another with ${option} (0 takes any that is free).`, {
    field: option,
  });
}

function naming(thrown: unknown, option: string): unknown {
  if (!(thrown instanceof Fault)) return thrown;
  return new Fault(thrown.code, thrown.kind, `${thrown.message} (option ${option})`, { field: option, cause: thrown });
}

interface Place {
  readonly data: string;
  readonly identity: Identity;
  readonly ports: Ports;
  readonly routerPort: number;
  readonly controlPort: number;
}

/** One start of a fleet, from its files to the answer of `up`. */
class Start {
  readonly #options: UpOptions;
  readonly #place: Place;
  readonly #client: FleetClient;
  /** Ends when the caller gives up, or when readiness took too long. */
  readonly #deadline: AbortSignal;
  readonly #ownProblems: UpProblem[] = [];
  readonly #problems = new Map<string, UpProblem>();
  readonly #phases = new Map<string, Phase>();
  readonly #appliedFile: string;

  constructor(options: UpOptions, place: Place) {
    this.#options = options;
    this.#place = place;
    this.#appliedFile = join(place.data, 'host', 'applied.json');
    const timeout = AbortSignal.timeout(readyWaitMsMax);
    this.#deadline = options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
    this.#client = new FleetClient({
      controlUrl: `http://${address}:${place.controlPort}`,
      token: place.identity.adminToken,
      verifier: openVerifier(place.identity.publicKeyFile),
    });
  }

  async run(release: () => void): Promise<UpResult> {
    const host = await startHost({
      ...this.#place,
      address,
      programs: { control: program('control'), router: program('router'), cell: program('cell') },
      onChange: (process) => this.#follow(process),
      onProblem: (reason) => this.#note(problemOf(reason)),
    });
    try {
      if (host.held.length > 0) this.#options.onProgress({ type: 'held', names: host.held });
      await this.#apply(host);
      const missing = await this.#arrive(host);
      if (this.#options.signal?.aborted === true) {
        // Somebody has to look at it: the exit code of this start must say so too.
        const control = this.#problems.get(controlName);
        throw control === undefined
          ? fault('draining', 'The start was ended before the fleet was ready.')
          : fault('start-failed', control.detail);
      }
      await host.servedIsKept().catch((thrown: unknown) => this.#note(problemOf(asFault(thrown))));
      return this.#result(host, missing, release);
    } catch (thrown) {
      await host.stop();
      throw thrown;
    } finally {
      this.#client.close();
    }
  }

  #note(problem: Problem): void {
    if (this.#ownProblems.length < ownProblemsMax) this.#ownProblems.push(problem);
    this.#options.onProgress({ type: 'problem', problem });
  }

  /** Keeps in step what is said of a process, also after the start. A held or stopped one keeps its problem. */
  #follow(process: Supervised): void {
    const { name, phase } = process;
    if (this.#phases.get(name) === phase) return;
    this.#phases.set(name, phase);
    const problem = problemWith(process, this.#place.data);
    if (problem !== undefined) this.#problems.set(name, problem);
    else if (phase === 'serving') this.#problems.delete(name);
    this.#options.onProgress({ type: 'process', name, phase, problem: problem ?? process.problem });
  }

  /** Applies the fleet file if it is another than the one that was applied last. */
  async #apply(host: Host): Promise<void> {
    const { fleet } = this.#options;
    if (fleet === undefined) return;
    const applied = await readJsonFile(this.#appliedFile, AppliedSchema);
    if (applied?.sha256 === fleet.sha256) return;
    await host.supervisor.until(() => hasArrived(host.supervisor.process(controlName)), undefined, this.#deadline);
    const control = host.supervisor.process(controlName);
    if (control?.phase !== 'serving') {
      const why = control?.held === true ? 'is held down; let it up with `cellwright start control`' : 'does not serve';
      this.#note(problemOf(fault('start-failed', `The fleet file was not applied, because the control plane ${why}.`)));
      return;
    }
    try {
      await this.#client.apply(fleet.items, this.#deadline);
    } catch (thrown) {
      // Nobody refused it: what runs goes on, and the next start applies the file again.
      const reason = asFault(thrown);
      if (reason.code !== 'control-unreachable') throw reason;
      if (this.#options.signal?.aborted !== true) this.#note(problemOf(reason));
      return;
    }
    await writeFileAtomically(this.#appliedFile, `${JSON.stringify({ sha256: fleet.sha256 })}\n`);
    this.#options.onProgress({ type: 'applied', resources: fleet.items.length });
  }

  /** Waits until nothing is missing; resolves to what still is when the time is over. */
  async #arrive(host: Host): Promise<readonly string[]> {
    let said = '';
    for (;;) {
      const missing = await this.#missing(host);
      if (missing.length === 0 || this.#deadline.aborted) return missing;
      if (missing.join() !== said) {
        said = missing.join();
        this.#options.onProgress({ type: 'waiting', for: missing });
      }
      await delay(lookEveryMs, undefined, { signal: this.#deadline }).catch(() => undefined);
    }
  }

  async #missing(host: Host): Promise<readonly string[]> {
    const { supervisor } = host;
    const control = supervisor.process(controlName);
    const router = supervisor.process(routerName);
    const missing = [control, router].filter((process) => !hasArrived(process)).map((process) => process?.name ?? '?');
    const local = host.cells().map(({ name }): string => name);
    try {
      const cells = control?.phase === 'serving' ? await this.#client.cells(this.#deadline) : [];
      for (const name of new Set([...local, ...cells])) {
        if (!hasArrived(supervisor.process(name))) missing.push(name);
      }
      if (missing.length > 0 || control?.phase !== 'serving') return missing;
      // The table is large: it is asked for when nothing else is missing any more.
      const routing = await this.#client.routing(this.#deadline);
      for (const name of cells) {
        if (supervisor.process(name)?.phase === 'serving' && !routing.addressed.has(name))
          missing.push(`the address of ${name}`);
      }
      if (router?.phase === 'serving' && router.adminUrl !== undefined) {
        const routed = await this.#client.routedVersion(router.adminUrl, this.#deadline);
        if (routed === undefined || routed < routing.version) missing.push('the routing table');
      }
    } catch (thrown) {
      // It died between two looks: supervision says so, and the next look finds it.
      missing.push(`an answer (${asFault(thrown).message})`);
    }
    return missing;
  }

  #result(host: Host, missing: readonly string[], release: () => void): UpResult {
    const { supervisor } = host;
    const { data, identity } = this.#place;
    for (const name of missing) {
      const known = supervisor.process(name);
      const look = known === undefined ? '' : ` Look into ${join(data, 'logs', `${name}.log`)}.`;
      const text = `Not ready after ${readyWaitMsMax / 1000} s: ${name}.${look}`;
      const problem = problemOf(fault('start-failed', text));
      if (known === undefined) this.#note(problem);
      else this.#problems.set(name, { ...problem, process: name });
    }
    const vital = [supervisor.process(controlName), supervisor.process(routerName)];
    const ready =
      missing.length === 0 && vital.every((process) => process?.phase === 'serving' || process?.held === true);
    const router = supervisor.process(routerName);
    const adminPort = this.#place.ports.known('router-admin') ?? 0;
    const problems = (): readonly UpProblem[] => [...this.#problems.values(), ...this.#ownProblems];
    let stopping: Promise<number> | undefined;
    const stop = async (): Promise<number> => {
      const whole = ready && !this.#problems.has(controlName) && !this.#problems.has(routerName);
      await host.stop().finally(release);
      return whole ? 0 : 1;
    };
    return {
      ready,
      router: host.routerUrl,
      routerAdmin: router?.adminUrl ?? `http://${address}:${adminPort}`,
      control: host.controlUrl,
      token: identity.adminToken,
      cells: host.cells().flatMap(({ name, url }) => {
        if (url === undefined) return [];
        return [{ name, url, pid: supervisor.process(name)?.pid ?? null, data: folderOf(data, name) }];
      }),
      pids: {
        host: process.pid,
        router: router?.pid ?? null,
        control: supervisor.process(controlName)?.pid ?? null,
      },
      held: supervisor.processes().flatMap(({ name, held }) => (held ? [name] : [])),
      get problems() {
        return problems();
      },
      stop: () => (stopping ??= stop()),
    };
  }
}

/** It does what it is for, or will not without a person. */
function hasArrived(process: ProcessView | undefined): boolean {
  if (process === undefined) return false;
  if (process.phase === 'serving' || process.phase === 'refusing' || process.phase === 'failed') return true;
  return process.held && !isRunning(process);
}

function problemWith(process: Supervised, data: string): UpProblem | undefined {
  if (process.phase !== 'refusing' && process.phase !== 'failed') return undefined;
  const { name } = process;
  const said = process.problem ?? problemOf(fault('start-failed', 'It gave no reason.'));
  const state = process.phase === 'failed' ? 'stays down' : 'refuses';
  const detail = `${name} ${state}: ${said.detail.replace(/\.?$/, '.')} Its data, unchanged, is in ${folderOf(data, name)}; its log is ${join(data, 'logs', `${name}.log`)}.`;
  return { ...said, detail, process: name };
}

/** The program of a process: the source while developing, JavaScript once built. */
function program(name: string): string {
  return fileURLToPath(new URL(`./${name}${extname(import.meta.url)}`, import.meta.url));
}
