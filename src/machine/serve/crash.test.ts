import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { ok, strictEqual } from 'node:assert/strict';
import { orders } from '../../../examples/orders/machine.ts';
import { straceThere } from '../../../test/machine/traced.ts';
import { openRuntime } from './runtime.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-crash-'));
after(() => rmSync(root, { recursive: true, force: true }));
const child = join(import.meta.dirname, '../../../test/machine/crash-child.ts');
const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--conditions=cellwright-source'];
/** Half of a start is loading modules, unless a process that ended by itself has left them compiled here. */
const env = { ...process.env, NODE_COMPILE_CACHE: join(root, 'compile-cache') };
const kills = process.env['CELLWRIGHT_SOAK'] === '1' ? 500 : 30;
const killsOfOneLog = 10;
const tenants = ['acme', 'bolt', 'coop'];
const workers = 8;

/** Pseudo-random numbers (mulberry32), so that a run can be repeated from its seed, but for its timing. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** At which call of a thread a process is killed, and up to which one this is drawn. */
const points: readonly (readonly [call: string, upTo: number])[] = [
  ['fsync', 30],
  ['fdatasync', 4],
  ['pwrite64', 90],
  ['ftruncate', 4],
  ['rename', 3],
  ['unlink', 8],
];

interface Answer {
  readonly id: number;
  readonly seq?: number;
  readonly stateHash?: string;
  readonly failed?: string;
}

interface Write {
  readonly instance: string;
  readonly key: string;
  answer: string | undefined;
}

/** What clients of one log asked and were told, over all lives of the process. */
class Clients {
  readonly writes: Write[] = [];
  /** By instance and sequence: the state hash that somebody was shown. */
  readonly shown = new Map<string, string>();
  readonly highest = new Map<string, number>();
  answers = 0;
  readonly #random: (below: number) => number;

  constructor(random: (below: number) => number) {
    this.#random = random;
  }

  /** Asks as fast as answers come, until the process is dead; `onAnswer` may kill it. */
  async life(process: ChildProcess, onAnswer: () => void): Promise<void> {
    const { stdin, stdout } = process;
    ok(stdin !== null && stdout !== null);
    stdin.on('error', () => {});
    const waiting = new Map<number, Write | string>();
    let id = 0;
    const ask = (): void => {
      id += 1;
      const instance = tenants[this.#random(tenants.length)] ?? '';
      if (this.#random(3) === 0) {
        waiting.set(id, instance);
        stdin.write(`${JSON.stringify({ id, instance })}\n`);
        return;
      }
      const asked = new Set(waiting.values());
      // What has no answer yet is repeated with its key; so is, now and then, what has one.
      const open = this.writes.find((write) => write.answer === undefined && !asked.has(write));
      const old = this.#random(5) === 0 ? this.writes[this.#random(this.writes.length + 1)] : undefined;
      const write = open ?? old ?? { instance, key: `key-${this.writes.length}`, answer: undefined };
      if (!this.writes.includes(write)) this.writes.push(write);
      waiting.set(id, write);
      stdin.write(`${JSON.stringify({ id, instance: write.instance, key: write.key })}\n`);
    };
    for await (const line of createInterface({ input: stdout })) {
      const answer = JSON.parse(line) as Answer;
      if (answer.id === -1) {
        for (let i = 0; i < workers; i++) ask();
        continue;
      }
      const asked = waiting.get(answer.id);
      waiting.delete(answer.id);
      this.#note(asked, answer);
      onAnswer();
      ask();
    }
  }

  #note(asked: Write | string | undefined, { seq, stateHash, failed }: Answer): void {
    ok(asked !== undefined && failed === undefined && seq !== undefined && stateHash !== undefined, failed ?? '');
    const instance = typeof asked === 'string' ? asked : asked.instance;
    this.answers += 1;
    const place = `${instance} ${seq}`;
    strictEqual(this.shown.get(place) ?? stateHash, stateHash, `${place}: what was shown once is gone`);
    this.shown.set(place, stateHash);
    this.highest.set(instance, Math.max(seq, this.highest.get(instance) ?? 0));
    if (typeof asked === 'string') return;
    const now = `${place} ${stateHash}`;
    strictEqual(asked.answer ?? now, now, `${asked.key} has two answers`);
    asked.answer = now;
  }
}

/** One life: a process that is killed at a point of its own, or after some answers. Returns how it was killed. */
async function liveAndDie(folder: string, clients: Clients, random: (below: number) => number): Promise<string> {
  const point = straceThere && random(7) > 0 ? points[random(points.length)] : undefined;
  const [call, upTo] = point ?? ['', 0];
  const nth = 1 + random(upTo + 1);
  const inject = [`trace=${call}`, `inject=${call}:signal=KILL:when=${nth}`].flatMap((each) => ['-e', each]);
  const strace = ['strace', '-f', '-o', '/dev/null', ...inject];
  const [program, ...given] = [...(point === undefined ? [] : strace), ...node, child, folder];
  // A group of its own, so that whatever of it is left can be killed: strace survives who it traces for a moment.
  const process_ = spawn(program, given, { stdio: ['pipe', 'pipe', 'inherit'], detached: true, env });
  const closed = new Promise((resolve) => process_.once('close', resolve));
  let left = point === undefined ? 1 + random(100) : 150;
  let byHand = false;
  const kill = (): void => {
    if (byHand || process_.pid === undefined) return;
    byHand = true;
    process.kill(-process_.pid, 'SIGKILL');
  };
  await clients.life(process_, () => {
    left -= 1;
    if (left <= 0) kill();
  });
  await closed;
  return byHand ? 'a random instant' : call;
}

async function check(folder: string, clients: Clients): Promise<void> {
  const runtime = await openRuntime({
    folder,
    owner: 'test/log',
    mustExist: false,
    machineFor: () => orders,
    nowMs: () => Date.now(),
    onStopped: (reason) => {
      throw reason;
    },
  });
  try {
    for (const instance of tenants) {
      const { seq } = await runtime.state(instance);
      ok(seq >= (clients.highest.get(instance) ?? 0), `${instance}: somebody saw more than is there`);
      const history = await runtime.history(instance, { afterSeq: 0, limit: 1_000_000 });
      strictEqual(history.length, seq);
      const applied = new Map<string, number>();
      history.forEach(({ input, stateHash }, i) => {
        const { item } = input as { readonly item: string };
        ok(!applied.has(item), `${item} was applied twice`);
        applied.set(item, i + 1);
        const shown = clients.shown.get(`${instance} ${i + 1}`);
        strictEqual(shown ?? stateHash, stateHash, `${instance} ${i + 1}: what was shown is not what is there`);
      });
      for (const { key, answer } of clients.writes.filter((write) => write.instance === instance)) {
        if (answer !== undefined) strictEqual(`${instance} ${applied.get(key)}`, answer.split(' ', 2).join(' '));
      }
    }
  } finally {
    await runtime.close();
  }
}

test(`killed ${kills} times at every kind of sync point: nothing acknowledged is lost, applied twice, or taken back`, async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(
    `SEED=${seed}${straceThere ? '' : '; strace is missing, so at random instants only: apt-get install strace'}`,
  );
  const random = randomFrom(seed);
  const [program, ...given] = [...node, child, join(root, 'warm')];
  strictEqual(spawnSync(program, given, { input: '', stdio: ['pipe', 'ignore', 'inherit'], env }).status, 0);
  const killedAt = new Map<string, number>();
  let answers = 0;
  for (let kill = 0; kill < kills;) {
    const folder = join(root, `log-${kill}`);
    const clients = new Clients(random);
    for (let life = 0; life < killsOfOneLog && kill < kills; life++, kill++) {
      const where = await liveAndDie(folder, clients, random);
      killedAt.set(where, (killedAt.get(where) ?? 0) + 1);
    }
    await check(folder, clients);
    answers += clients.answers;
    rmSync(folder, { recursive: true, force: true });
  }
  t.diagnostic(
    `${answers} answers; killed at ${[...killedAt].map(([where, times]) => `${where}: ${times}`).join(', ')}`,
  );
});
