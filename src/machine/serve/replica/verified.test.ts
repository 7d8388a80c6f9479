import { setTimeout as pause } from 'node:timers/promises';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { deepStrictEqual, match, ok, rejects, strictEqual } from 'node:assert/strict';
import { machineOf, replicaSource } from '../../../cell/serve/machines.ts';
import { isPlainObject } from '../../decide/state/value.ts';
import { loadMachine } from '../traps/load-machine.ts';
import { evidenceText, requestRelease } from './quarantine.ts';
import { openVerified, type Verified } from './verified.ts';

/** A folder with machine files and a log, as a cell has them. */
class Place {
  readonly folder = mkdtempSync(join(tmpdir(), 'cellwright-verified-'));
  readonly problems: string[] = [];
  readonly notices: string[] = [];
  #files = 0;
  #opened: Verified | undefined;

  /** A machine file as a user writes it; `evolve` is the body of its event. A new file, because modules are loaded once. */
  file(outside: string, evolve: string): string {
    const file = join(this.folder, `machine-${(this.#files += 1)}.ts`);
    writeFileSync(
      file,
      `import { machine, table, Type } from 'cellwright';
const Row = Type.Object({ id: Type.String(), text: Type.String() });
${outside}
export default machine({
  name: 'planted',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: { put: { data: Row, evolve: (state, row) => { ${evolve} } } },
  commands: { put: { input: Row, decide: (_state, input) => [{ type: 'put', data: input }] } },
  queries: { rows: { input: Type.Object({}), answer: (state) => [...state.rows.scan()] } },
});
`,
    );
    return file;
  }

  async open(module: string, replica = true): Promise<Verified> {
    const machine = await loadMachine({ module });
    const verified = await openVerified({
      folder: join(this.folder, 'log'),
      owner: 'fleet/cell',
      mustExist: false,
      machineFor: (instance) => machineOf(instance, machine),
      nowMs: () => Date.now(),
      onStopped: (reason) => this.problems.push(reason.message),
      onNotice: (message) => this.notices.push(message),
      replica: replica ? replicaSource({ module }) : undefined,
      onQuarantine: () => undefined,
      onProblem: (message) => this.problems.push(message),
    });
    this.#opened = verified;
    if (replica) await until(() => verified.replica?.state === 'verifying');
    return verified;
  }

  evidence(instance: string): unknown {
    const document: unknown = JSON.parse(evidenceText(join(this.folder, 'log'), instance) ?? 'null');
    return isPlainObject(document) ? document['evidence'] : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.close().catch(() => undefined);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const waitMsMax = 30_000;
const lookEveryMs = 5;

async function until(holds: () => boolean, what = holds.toString()): Promise<void> {
  const deadlineMs = performance.now() + waitMsMax;
  while (!holds()) {
    ok(performance.now() < deadlineMs, `it does not come about within ${waitMsMax} ms: ${what}`);
    await pause(lookEveryMs);
  }
}

async function put({ runtime }: Verified, instance: string, id: string, text: string): Promise<string> {
  const answer = await runtime.execute({ instance, command: 'put', input: { id, text } });
  return answer.kind === 'accepted' ? 'accepted' : answer.fault.code;
}

async function codeOf(asked: Promise<unknown>): Promise<string> {
  try {
    const answer = await asked;
    if (isPlainObject(answer) && answer['kind'] === 'rejected' && isPlainObject(answer['fault'])) {
      return String(answer['fault']['code']);
    }
    return 'answered';
  } catch (thrown) {
    return isPlainObject(thrown) ? String(thrown['code']) : String(thrown);
  }
}

const honest = 'state.rows.upsert(row);';
/** Drift only where a tenant asks for it, so that the others can be seen to be served on. */
const planted: Readonly<Record<string, readonly [outside: string, evolve: string]>> = {
  'a counter in the module': [
    'let count = 0;',
    "state.rows.upsert(row.text === 'drift' ? { ...row, text: String(count += 1) } : row);",
  ],
  'the order of a Map that tenants share': [
    'const seen = new Map();',
    "seen.set(row.id, seen.size); state.rows.upsert(row.text === 'drift' ? { ...row, text: [...seen.keys()].join() } : row);",
  ],
  'an object that an event changed': [
    'const last = { text: "" };',
    "state.rows.upsert(row.text === 'drift' ? { ...row, text: last.text } : row); last.text = row.id;",
  ],
  'the environment, read when the module was loaded': [
    "const { env } = globalThis.process ?? { env: {} }; const home = env['CELLWRIGHT_TEST_SETTING'] ?? 'none';",
    "state.rows.upsert(row.text === 'drift' ? { ...row, text: home } : row);",
  ],
  'a name that each load of the module gives itself': [
    'const own = String(globalThis.performance.now());',
    "state.rows.upsert(row.text === 'drift' ? { ...row, text: own } : row);",
  ],
};

test('planted drift is quarantined, with evidence, and the other tenants are served on', async () => {
  process.env['CELLWRIGHT_TEST_SETTING'] = 'only here';
  for (const [what, [outside, evolve]] of Object.entries(planted)) {
    await using place = new Place();
    const verified = await place.open(place.file(outside, evolve));
    for (let i = 0; i < 5; i++) {
      // Together, so that they come to the replica in one batch.
      const tenants = ['acme', 'globex', 'initech'];
      const answers = await Promise.all(tenants.map((tenant) => put(verified, tenant, `${tenant}-${i}`, 'x')));
      deepStrictEqual(answers, ['accepted', 'accepted', 'accepted']);
    }
    strictEqual(await put(verified, 'acme', 'row-9', 'drift'), 'accepted');
    await until(() => verified.quarantine.has('acme'), what);
    strictEqual(await put(verified, 'acme', 'row-10', 'x'), 'tenant-quarantined', what);
    strictEqual(
      await codeOf(verified.runtime.query({ instance: 'acme', query: 'rows', input: {} })),
      'tenant-quarantined',
    );
    strictEqual(await codeOf(verified.runtime.state('acme')), 'tenant-quarantined');
    for (const tenant of ['globex', 'initech']) strictEqual(await put(verified, tenant, 'row-10', 'x'), 'accepted');
    await until(
      () => isPlainObject(place.evidence('acme')) && JSON.stringify(place.evidence('acme')).includes('states'),
    );
    const { size } = verified.quarantine;
    await verified.close();
    strictEqual(size, 1, what);
    deepStrictEqual(place.problems, [], what);
  }
});

test('the evidence says record, event, hashes and in which field both states differ', async () => {
  await using place = new Place();
  const [outside, evolve] = planted['a counter in the module'] ?? ['', ''];
  const verified = await place.open(place.file(outside, evolve));
  await put(verified, 'acme', 'a', 'x');
  await put(verified, 'acme', 'b', 'drift');
  await until(() => JSON.stringify(place.evidence('acme') ?? '').includes('states'));
  await verified.close();
  const evidence = place.evidence('acme');
  ok(isPlainObject(evidence) && isPlainObject(evidence['states']) && isPlainObject(evidence['record']));
  const { record, mismatch, states, position, foundBy } = evidence;
  deepStrictEqual([foundBy, position], ['replica', 2]);
  ok(isPlainObject(mismatch));
  deepStrictEqual([mismatch['kind'], mismatch['seq'], mismatch['event']], ['state', 2, 'put']);
  deepStrictEqual(record['input'], { value: { id: 'b', text: 'drift' } });
  deepStrictEqual(record['event'], { type: 'put', data: { value: { id: 'b', text: 'drift' } } });
  strictEqual(states['atDrift'], true);
  ok(isPlainObject(states['difference']));
  match(JSON.stringify(states['difference']['rows']), /"key":"b".*"path":"\/text","from":\{"value":"1"\}/);
});

test('a quarantine survives a restart, and ends only if every hash of the log agrees', async () => {
  await using place = new Place();
  const environment = (): readonly [string, string] =>
    planted['the environment, read when the module was loaded'] ?? ['', ''];
  process.env['CELLWRIGHT_TEST_SETTING'] = 'only here';
  let verified = await place.open(place.file(...environment()));
  await put(verified, 'acme', 'a', 'x');
  await put(verified, 'globex', 'a', 'x');
  await put(verified, 'acme', 'b', 'drift');
  await until(() => verified.quarantine.has('acme'));
  await verified.close();

  // The cause is still there: the same module, now without what it had read.
  delete process.env['CELLWRIGHT_TEST_SETTING'];
  verified = await place.open(place.file(...environment()), false);
  strictEqual(await codeOf(verified.runtime.state('acme')), 'tenant-quarantined');
  strictEqual(await put(verified, 'globex', 'b', 'x'), 'accepted');
  requestRelease(join(place.folder, 'log'), 'acme');
  deepStrictEqual(verified.quarantine.requests(), ['acme']);
  const { prove } = verified;
  strictEqual(await verified.quarantine.release('acme', () => prove('acme')), false);
  match(verified.quarantine.get('acme')?.releaseRefused?.reason ?? '', /event put leads to state/);
  strictEqual(await codeOf(verified.runtime.state('acme')), 'tenant-quarantined');
  await verified.close();

  // A machine that says in itself what it had read leads to what was acknowledged.
  const [, evolve] = environment();
  verified = await place.open(place.file("const home = 'only here';", evolve));
  strictEqual(await codeOf(verified.runtime.state('acme')), 'tenant-quarantined');
  const again = verified.prove;
  strictEqual(await verified.quarantine.release('acme', () => again('acme')), true);
  strictEqual(await put(verified, 'acme', 'c', 'drift'), 'accepted');
  strictEqual(await put(verified, 'acme', 'd', 'x'), 'accepted');
  await verified.close();
  verified = await place.open(place.file("const home = 'only here';", evolve));
  strictEqual((await verified.runtime.state('acme')).seq, 4);
  await verified.close();
});

test('a snapshot made after the drift does not help a release past it', async () => {
  await using place = new Place();
  const [outside, evolve] = planted['a counter in the module'] ?? ['', ''];
  let verified = await place.open(place.file(outside, evolve), false);
  await put(verified, 'acme', 'a', 'drift');
  for (let i = 0; i < 1_100; i++) await put(verified, 'acme', 'b', `${i}`);
  await until(() => verified.runtime.residency.snapshots > 0);
  await verified.close();
  verified = await place.open(place.file('let count = 7;', evolve), false);
  // Without suspicion the snapshot serves, and nobody notices.
  strictEqual(await codeOf(verified.runtime.state('acme')), 'answered');
  const hashes = { seq: 1, stateHash: 'c2:1', keysHash: 'c2:2' };
  verified.runtime.quarantineInstance('acme', {
    foundBy: 'replica',
    position: 1,
    recorded: hashes,
    found: hashes,
    reason: 'a replica said so',
  });
  const { prove } = verified;
  strictEqual(await verified.quarantine.release('acme', () => prove('acme')), false);
  await rejects(verified.runtime.state('acme'), /quarantined/);
  await verified.close();
});

test('an honest machine is verified through the runtime, from captures after a restart as well', async () => {
  await using place = new Place();
  const file = place.file('', honest);
  let verified = await place.open(file);
  for (let i = 0; i < 50; i++) await put(verified, `tenant-${i % 5}`, `row-${i}`, 'x');
  await until(() => verified.replica?.verified === 50);
  await verified.close();
  verified = await place.open(file);
  for (let i = 0; i < 50; i++) await put(verified, `tenant-${i % 5}`, `row-${i}`, 'y');
  await until(() => (verified.replica?.verified ?? 0) + (verified.replica?.skipped ?? 0) === 50);
  ok((verified.replica?.verified ?? 0) > 0);
  strictEqual(verified.replica?.captures, 5);
  strictEqual(verified.quarantine.size, 0);
  await verified.close();
});
