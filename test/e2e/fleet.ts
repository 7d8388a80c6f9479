import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Type, type Static } from 'typebox';
import { ask, expectShape, type Answer, type Asking } from './http.ts';
import { eventually, freePort, killHard, processesWith, treeOf, type ProcessInfo } from './processes.ts';

/** The checkout under test; another copy of it may be given, to run as somebody else. */
export const checkout: string = fileURLToPath(new URL('../../', import.meta.url));
export const ordersFleet: string = join(checkout, 'examples/orders/fleet.yaml');
export const anyHttpAppFleet: string = join(checkout, 'examples/any-http-app/fleet.yaml');

/** INTERFACE: ready in under 60 s after installing. */
const readyMsMax = 60_000;
const stopMsMax = 20_000;
/** Marks every process of one fleet in its environment, so that orphans can be found. */
const markName = 'CELLWRIGHT_E2E_MARK';

const ReadySchema = Type.Object({
  ready: Type.Literal(true),
  router: Type.String({ pattern: '^http://127\\.0\\.0\\.1:' }),
  routerAdmin: Type.String({ pattern: '^http://127\\.0\\.0\\.1:' }),
  control: Type.String({ pattern: '^http://127\\.0\\.0\\.1:' }),
  token: Type.String({ minLength: 16 }),
  cells: Type.Array(Type.Object({ name: Type.String(), url: Type.String(), pid: Type.Integer(), data: Type.String() })),
  pids: Type.Object({ host: Type.Integer(), router: Type.Integer(), control: Type.Integer() }),
});
export type Ready = Static<typeof ReadySchema>;

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StartOptions {
  /** The fleet file: the orders example if absent, none if empty. */
  readonly file?: string;
  /** An existing data folder; a new temporary one if absent. */
  readonly data?: string;
  readonly routerPort?: number;
  readonly controlPort?: number;
  readonly arguments?: readonly string[];
  /** Runs the launcher through another program, e.g. one that changes the user. */
  readonly through?: readonly string[];
  readonly checkout?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A new temporary folder that is removed when this test process ends. Its name has a space and a letter beyond ASCII. */
export function temporaryFolder(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'cellwright é 2e-')));
  folders.add(folder);
  return folder;
}

const folders = new Set<string>();
const started = new Set<FleetProcess>();
process.once('exit', () => {
  for (const fleet of started) fleet.killTree();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

/** What a stranger's shell has: no package's own programs first in PATH, no colours, none of our variables. */
function strangersEnvironment(extra: Readonly<Record<string, string>> = {}): Record<string, string> {
  const path = (process.env['PATH'] ?? '').split(':').filter((part) => !part.includes('node_modules'));
  const kept = Object.entries(process.env).flatMap(([name, value]): [string, string][] =>
    value === undefined || /^(npm_|NODE_|CELLWRIGHT_|FORCE_COLOR)/.test(name) ? [] : [[name, value]],
  );
  return { ...Object.fromEntries(kept), PATH: path.join(':'), NO_COLOR: '1', ...extra };
}

/** Program and arguments: the launcher itself, or another program that starts it. */
function commandLine(
  options: { readonly through?: readonly string[]; readonly checkout?: string },
  args: readonly string[],
): readonly [string, readonly string[]] {
  const launcher = join(options.checkout ?? checkout, 'bin/cellwright');
  const [program, ...rest] = options.through ?? [];
  return program === undefined ? [launcher, args] : [program, [...rest, launcher, ...args]];
}

/** Runs the command-line program until it ends. */
export async function runCli(
  args: readonly string[],
  options: {
    readonly data?: string;
    readonly cwd?: string;
    readonly timeoutMs?: number;
    readonly through?: readonly string[];
    readonly checkout?: string;
    readonly env?: Readonly<Record<string, string>>;
  } = {},
): Promise<Finished> {
  const data = options.data === undefined ? [] : ['--data', options.data];
  const [program, all] = commandLine(options, [...args, ...data]);
  const child = spawn(program, all, {
    cwd: options.cwd ?? tmpdir(),
    env: strangersEnvironment(options.env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = collect(child);
  const timeoutMs = options.timeoutMs ?? 30_000;
  const timer = setTimeout(() => {
    for (const { pid } of treeOf(child.pid ?? 0)) killHard(pid);
  }, timeoutMs);
  const code = await ended(child);
  clearTimeout(timer);
  return { code, stdout: output.stdout(), stderr: output.stderr() };
}

function collect(child: ChildProcess): { stdout(): string; stderr(): string } {
  const parts = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (parts.stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (parts.stderr += text));
  return { stdout: () => parts.stdout, stderr: () => parts.stderr };
}

function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code));
  });
}

/** `cellwright up` as a process, ready or not. */
export class FleetProcess {
  readonly data: string;
  readonly routerPort: number;
  readonly controlPort: number;
  readonly launcher: number;
  readonly #child: ChildProcess;
  readonly #output: { stdout(): string; stderr(): string };
  readonly #ended: Promise<number | null>;
  readonly #mark: string;
  #exit: { readonly code: number | null } | undefined;

  private constructor(options: StartOptions, ports: { router: number; control: number }) {
    this.data = options.data ?? join(temporaryFolder(), 'data');
    this.routerPort = ports.router;
    this.controlPort = ports.control;
    this.#mark = randomUUID();
    const file = options.file ?? ordersFleet;
    const args = ['up', ...(file === '' ? [] : [file]), '-o', 'json', '--data', this.data];
    args.push('--router-port', String(ports.router), '--control-port', String(ports.control));
    const [program, all] = commandLine(options, [...args, ...(options.arguments ?? [])]);
    this.#child = spawn(program, all, {
      cwd: tmpdir(),
      env: strangersEnvironment({ [markName]: this.#mark, ...options.env }),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.launcher = this.#child.pid ?? 0;
    this.#output = collect(this.#child);
    this.#ended = ended(this.#child);
    void this.#ended.then((code) => (this.#exit = { code }));
    started.add(this);
  }

  /** Starts `up` and does not wait for anything. */
  static async spawn(options: StartOptions = {}): Promise<FleetProcess> {
    const router = options.routerPort ?? (await freePort());
    const control = options.controlPort ?? (await freePort());
    return new FleetProcess(options, { router, control });
  }

  get stdout(): string {
    return this.#output.stdout();
  }

  get stderr(): string {
    return this.#output.stderr();
  }

  /** Waits for the ready line; fails with what was written if `up` ends before. */
  async ready(timeoutMs: number = readyMsMax): Promise<Ready> {
    const line = await eventually(`the ready line of up (${this.data})`, timeoutMs, () => {
      const found = this.stdout.split('\n').find((text) => text.startsWith('{') && text.includes('"ready"'));
      if (found === undefined && this.#exit !== undefined) {
        throw new Error(`up ended with ${this.#exit.code} before it was ready:\n${this.stdout}\n${this.stderr}`);
      }
      return found;
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}\nstdout: ${this.stdout}\nstderr: ${this.stderr}`, { cause: error });
    });
    return expectShape(ReadySchema, JSON.parse(line), 'ready line');
  }

  /** Every process of the fleet: the launcher's tree, and orphans that carry the fleet's mark. */
  processes(): readonly ProcessInfo[] {
    const tree = treeOf(this.launcher).filter(({ zombie }) => !zombie);
    const known = new Set(tree.map(({ pid }) => pid));
    return [...tree, ...processesWith(markName, this.#mark).filter(({ pid }) => !known.has(pid))];
  }

  /** SIGKILLs every process of the fleet in one go. */
  killTree(): void {
    for (let round = 0; round < 5; round += 1) {
      const left = this.processes();
      if (left.length === 0) break;
      for (const { pid } of left) killHard(pid);
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Waits until `up` has ended by itself. */
  async end(timeoutMs: number = stopMsMax): Promise<Finished> {
    await eventually(`up ends (${this.data}); stderr so far: ${this.stderr}`, timeoutMs, () => this.#exit);
    const code = await this.#ended;
    return { code, stdout: this.stdout, stderr: this.stderr };
  }

  /** Stops it as an operator does, and checks that nothing stays behind. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Finished> {
    this.signal(signal);
    try {
      const finished = await this.end();
      const left = this.processes();
      if (left.length > 0) throw new Error(`left after stop: ${JSON.stringify(left)}`);
      return finished;
    } finally {
      this.killTree();
      started.delete(this);
    }
  }
}

/** A fleet that is ready. */
export class Fleet {
  readonly up: FleetProcess;
  readonly ready: Ready;

  private constructor(up: FleetProcess, ready: Ready) {
    this.up = up;
    this.ready = ready;
  }

  static async start(options: StartOptions = {}): Promise<Fleet> {
    const up = await FleetProcess.spawn(options);
    try {
      return new Fleet(up, await up.ready());
    } catch (error) {
      up.killTree();
      throw error;
    }
  }

  get data(): string {
    return this.up.data;
  }

  /** Asks the application through the router, for a tenant. */
  tenant(name: string, path: string, asking: Asking = {}): Promise<Answer> {
    return ask(`${this.ready.router}${path}`, { ...asking, headers: { 'x-tenant': name, ...asking.headers } });
  }

  /** Asks the control API with the administrator's token. */
  control(path: string, asking: Asking = {}): Promise<Answer> {
    const headers = { authorization: `Bearer ${this.ready.token}`, ...asking.headers };
    return ask(`${this.ready.control}${path}`, { ...asking, headers });
  }

  async putTenant(name: string, jurisdiction: string): Promise<void> {
    const answer = await this.control(`/v1/tenants/${name}`, {
      method: 'PUT',
      json: { spec: { jurisdiction, users: 1 } },
    });
    if (![200, 201, 202].includes(answer.status)) throw new Error(`PUT ${name}: ${answer.status} ${answer.body}`);
    if (answer.status === 202) {
      await eventually(`tenant ${name} is served`, 10_000, async () => {
        const { status } = await this.tenant(name, '/state');
        return status !== 404 && status !== 503;
      });
    }
  }

  /** Creates `count` tenants `PREFIX-1…`, dealt out over the jurisdictions in turn. */
  async putTenants(prefix: string, count: number, jurisdictions: readonly string[]): Promise<readonly string[]> {
    const names = Array.from({ length: count }, (_, index) => `${prefix}-${index + 1}`);
    await inParallel(8, names, (name, index) =>
      this.putTenant(name, jurisdictions[index % jurisdictions.length] ?? ''),
    );
    return names;
  }

  cli(...args: readonly string[]): Promise<Finished> {
    return runCli(args, { data: this.data });
  }

  /** Runs the command-line program and fails unless it succeeds. */
  async must(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.cli(...args);
    if (code !== 0) throw new Error(`cellwright ${args.join(' ')}: exit ${code}\n${stdout}\n${stderr}`);
    return stdout;
  }

  /** The process of a cell, router or control as it runs now (after a restart it is another). */
  processOf(name: string): ProcessInfo | undefined {
    const file = new RegExp(`/(cells/)?${name}/boot\\.json( |$)`);
    const candidates = this.up.processes().filter(({ command }) => file.test(command));
    return candidates.find(({ parent }) => parent === this.ready.pids.host);
  }

  /** SIGKILLs the process of that name, and tells which it was. */
  kill(name: string): ProcessInfo {
    const found = this.processOf(name);
    if (found === undefined) throw new Error(`no process of ${name} runs: ${JSON.stringify(this.up.processes())}`);
    killHard(found.pid);
    return found;
  }

  stop(): Promise<Finished> {
    return this.up.stop();
  }
}

/** Runs `work` for every item, at most `width` at a time, and returns the results in order. */
export async function inParallel<T, R>(
  width: number,
  items: readonly T[],
  work: (item: T, index: number) => Promise<R>,
): Promise<readonly R[]> {
  const results = new Map<number, R>();
  const entries = items.entries();
  const worker = async (): Promise<void> => {
    for (const [index, item] of entries) results.set(index, await work(item, index));
  };
  await Promise.all(Array.from({ length: width }, worker));
  return items.flatMap((_, index) => {
    const result = results.get(index);
    return result === undefined ? [] : [result];
  });
}
