import { setTimeout as pause } from 'node:timers/promises';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict';
import { replicaSource } from '../../../cell/serve/machines.ts';
import type { DriftEvidence, DriftStates } from '../../decide/replica/drift.ts';
import type { FeedRecord } from '../../decide/replica/feed.ts';
import { Instance } from '../../decide/instance/instance.ts';
import type { Machine } from '../../decide/definition/machine.ts';
import { encodeRecord } from '../../decide/log/record.ts';
import { loadMachine } from '../traps/load-machine.ts';
import { Replica, replicaBounds } from './replica.ts';

const folder = mkdtempSync(join(tmpdir(), 'cellwright-replica-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** A machine file as a user writes it; `evolve` is the body of its event. */
function machineFile(name: string, outside: string, evolve: string): string {
  const file = join(folder, `${name}.ts`);
  writeFileSync(
    file,
    `import { machine, table, Type } from 'cellwright';
const Row = Type.Object({ id: Type.String(), n: Type.Number() });
${outside}
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: { put: { data: Row, evolve: (state, row) => { ${evolve} } } },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
});
`,
  );
  return file;
}

const waitMsMax = 30_000;
const lookEveryMs = 5;

/** Waits for a condition that the other thread brings about. */
async function until(holds: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + waitMsMax;
  while (!holds()) {
    ok(performance.now() < deadlineMs, `it does not come about within ${waitMsMax} ms: ${holds.toString()}`);
    await pause(lookEveryMs);
  }
}

class Serving {
  readonly drifts: { readonly instance: string; readonly evidence: DriftEvidence }[] = [];
  readonly compared = new Map<string, DriftStates>();
  readonly problems: { readonly message: string; readonly off: boolean }[] = [];
  readonly replica: Replica;
  readonly #machine: Machine;
  readonly #instances = new Map<string, { readonly instance: Instance; position: number }>();
  #position = 0;

  private constructor(module: string, machine: Machine) {
    this.#machine = machine;
    this.replica = new Replica({
      source: replicaSource({ module }),
      capture: (name) => {
        const held = this.#instances.get(name);
        return held && { position: held.position, units: 100, state: held.instance.capture() };
      },
      rowsOf: () => 1,
      onDrift: (instance, evidence) => this.drifts.push({ instance, evidence }),
      onCompared: (instance, states) => this.compared.set(instance, states),
      onProblem: (message, off) => this.problems.push({ message, off }),
      restartPauseMs: 1,
    });
  }

  static async open(module: string): Promise<Serving> {
    const serving = new Serving(module, await loadMachine({ module }));
    await until(() => serving.replica.figures.state === 'verifying');
    return serving;
  }

  record(name: string, n: number): FeedRecord {
    let held = this.#instances.get(name);
    if (held === undefined) {
      held = { instance: new Instance(name, this.#machine), position: 0 };
      this.#instances.set(name, held);
    }
    const { record } = held.instance.execute({ command: 'put', input: { id: `row-${n % 7}`, n } }, n);
    ok(record !== undefined);
    this.#position += 1;
    const previous = held.position;
    held.position = this.#position;
    return { instance: name, position: this.#position, previous, ...encodeRecord(this.#position, previous, record) };
  }

  publish(name: string, n: number): void {
    this.replica.publish([this.record(name, n)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.replica.close();
  }
}

test('every record of an honest machine is verified', async () => {
  await using serving = await Serving.open(machineFile('honest', '', 'state.rows.upsert(row);'));
  for (let i = 0; i < 3_000; i++) serving.publish(`tenant-${i % 11}`, i);
  await until(() => serving.replica.figures.verified === 3_000);
  const { skipped, fellBehind, following, restarts } = serving.replica.figures;
  deepStrictEqual(
    { skipped, fellBehind, following, restarts },
    { skipped: 0, fellBehind: 0, following: 11, restarts: 0 },
  );
  deepStrictEqual(serving.drifts, []);
});

test('an instance that it meets in the middle is taken up from a capture', async () => {
  await using serving = await Serving.open(machineFile('late', '', 'state.rows.upsert(row);'));
  for (let i = 0; i < 10; i++) serving.record('acme', i);
  serving.publish('acme', 10);
  strictEqual(serving.replica.figures.skipped, 1);
  serving.publish('acme', 11);
  await until(() => serving.replica.figures.verified === 1);
  strictEqual(serving.replica.figures.captures, 1);
  deepStrictEqual(serving.drifts, []);
});

test('drift in a module of one thread is found, with both states beside each other', async () => {
  const file = machineFile('counter', 'let count = 0;', 'state.rows.upsert({ ...row, n: (count += 1) });');
  await using serving = await Serving.open(file);
  serving.publish('acme', 1);
  await until(() => serving.compared.has('acme'));
  strictEqual(serving.drifts[0]?.instance, 'acme');
  match(serving.drifts[0].evidence.reason, /event 1 \(put\) leads to state/);
  const states = serving.compared.get('acme');
  strictEqual(states?.atDrift, true);
  deepStrictEqual(states.difference.rows, [
    {
      table: 'rows',
      key: 'row-1',
      kind: 'changed',
      // The replica rehearsed the event once.
      fields: [{ path: '/n', from: { value: 1 }, to: { value: 2 } }],
    },
  ]);
});

test('a replica that crashes is started again and goes on, and holds nothing up', async () => {
  await using serving = await Serving.open(machineFile('crash', '', 'state.rows.upsert(row);'));
  serving.publish('acme', 1);
  const broken = { ...serving.record('acme', 2), head: 'no head' };
  serving.replica.publish([broken]);
  await until(() => serving.replica.figures.restarts === 1);
  match(serving.problems[0]?.message ?? '', /The verifying replica failed: .*started again/);
  await until(() => serving.replica.figures.state === 'verifying');
  serving.publish('acme', 3);
  serving.publish('acme', 4);
  const { verified } = serving.replica.figures;
  await until(() => serving.replica.figures.verified > verified);
  deepStrictEqual(serving.drifts, []);
});

test('it is started again so many times and no more, and says when it stays off', async () => {
  await using serving = await Serving.open(machineFile('crashes', '', 'state.rows.upsert(row);'));
  for (let i = 0; i <= replicaBounds.restartsMax; i++) {
    await until(() => serving.replica.figures.state === 'verifying');
    serving.replica.publish([{ ...serving.record(`tenant-${i}`, i), head: 'no head' }]);
    await until(() => serving.problems.length === i + 1);
  }
  strictEqual(serving.replica.figures.state, 'off');
  deepStrictEqual(
    serving.problems.map(({ off }) => off),
    [...Array<boolean>(replicaBounds.restartsMax).fill(false), true],
  );
  serving.publish('acme', 1);
  strictEqual(serving.replica.figures.restarts, replicaBounds.restartsMax);
});

test('a replica whose module cannot be loaded is off, with the reason', async () => {
  const problems: string[] = [];
  const replica = new Replica({
    source: replicaSource({ module: join(folder, 'nothing.ts') }),
    capture: () => undefined,
    rowsOf: () => 0,
    onDrift: () => undefined,
    onCompared: () => undefined,
    onProblem: (message) => problems.push(message),
  });
  await until(() => problems.length === 1);
  match(problems[0] ?? '', /cannot be loaded: .*nothing\.ts/);
  strictEqual(replica.figures.state, 'off');
  await replica.close();
});
