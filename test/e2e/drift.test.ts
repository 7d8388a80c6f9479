import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Fleet, runCli, temporaryFolder, type Finished } from './fleet.ts';
import { expectProblem, expectShape, StateSchema, type Answer } from './http.ts';
import { eventually } from './processes.ts';
import { exists } from './files.ts';

/** How long drift may take from the durable record to a refused tenant, on a busy machine. */
const foundMsMax = 30_000;

/** A machine that counts in its module, outside any table, when a note says so. */
function machineText(shout: string): string {
  return `import { machine, table, Type } from 'cellwright';
const Note = Type.Object({ id: Type.String(), text: Type.String() });
let count = 40;
const shout = (text: string): string => ${shout};
export default machine({
  name: 'notes',
  version: 1,
  tables: { notes: table(Note, { key: 'id' }) },
  events: { noted: { data: Note, evolve: (state, note) => state.notes.upsert({ ...note, text: shout(note.text) }) } },
  commands: { note: { input: Note, decide: (_state, input) => [{ type: 'noted', data: input }] } },
  queries: { notes: { input: Type.Object({}), answer: (state) => [...state.notes.scan()] } },
});
`;
}
const drifting = "text === 'count' ? String((count += 1)) : text";
/** Leads to what was acknowledged: the first count of the first process was 41. */
const corrected = "text === 'count' ? '41' : text";

describe('a tenant whose state drifts', { timeout: 240_000 }, () => {
  const folder = temporaryFolder();
  const file = join(folder, 'fleet.yaml');
  const module = join(folder, 'notes.ts');
  const tenants = ['acme', 'globex', 'initech'];
  let fleet: Fleet;
  before(async () => {
    writeFileSync(module, machineText(drifting));
    writeFileSync(
      file,
      [
        '{ kind: Blueprint, name: notes, spec: { machine: { module: ./notes.ts, verify: true } } }',
        '{ kind: Cell, name: tokyo-1, spec: { blueprint: notes, jurisdiction: jp, capacity: { users: 1000 } } }',
        ...tenants.map((name) => `{ kind: Tenant, name: ${name}, spec: { jurisdiction: jp } }`),
      ].join('\n---\n'),
    );
    fleet = await Fleet.start({ file });
  });
  after(() => fleet.stop());

  const note = (tenant: string, id: string, text: string): Promise<Answer> =>
    fleet.tenant(tenant, '/commands/note', { json: { id, text } });
  const cli = (...args: string[]): Promise<Finished> => runCli(args, { data: fleet.data, timeoutMs: 150_000 });
  const refused = async (tenant: string): Promise<boolean> => (await fleet.tenant(tenant, '/state')).status === 503;
  let hash = '';

  it('is refused with 503 and the way to its evidence, and the other tenants are served on', async () => {
    await eventually('the replica verifies', foundMsMax, async () => {
      const shown = await cli('get', 'cell', 'tokyo-1', '-o', 'json');
      return /"reason": ?"Verified"/.test(shown.stdout) || undefined;
    });
    for (const tenant of tenants) assert.equal((await note(tenant, 'a', 'hello')).status, 200);
    const acknowledged = await note('acme', 'b', 'count');
    assert.equal(acknowledged.status, 200);
    hash = expectShape(StateSchema, { ...Object(acknowledged.json), tenant: 'acme', epoch: 1 }, 'answer').stateHash;
    await eventually('acme is quarantined', foundMsMax, async () => (await refused('acme')) || undefined);
    for (const path of ['/state', '/queries/notes']) {
      const problem = expectProblem(await fleet.tenant('acme', path), 503, 'tenant-quarantined');
      assert.match(problem.detail, /event 2 \(noted\) leads to state .*quarantine release acme/);
    }
    expectProblem(await note('acme', 'c', 'no'), 503, 'tenant-quarantined');
    for (const tenant of ['globex', 'initech']) assert.equal((await note(tenant, 'c', 'yes')).status, 200);
  });

  it('has evidence in a file of its own, for its user alone', async () => {
    const evidence = join(fleet.data, 'cells/tokyo-1/quarantine/acme.json');
    assert.equal(statSync(evidence).mode & 0o777, 0o600);
    const text = await eventually('both states are compared', foundMsMax, () => {
      const found = readFileSync(evidence, 'utf8');
      return found.includes('"difference"') ? found : undefined;
    });
    for (const part of ['"command": "note"', '"event": "noted"', '"path": "/text"', '"value": "41"', '"value": "42"']) {
      assert.ok(text.includes(part), `${part} in ${text}`);
    }
  });

  it('is shown by quarantine list and show, describe and explain', async () => {
    assert.match((await cli('quarantine', 'list')).stdout, /tokyo-1 +acme +\S+Z +event 2/);
    assert.match((await cli('quarantine', 'show', 'acme')).stdout, /path: \/text/);
    const gone = await cli('quarantine', 'show', 'globex');
    assert.equal(gone.code, 1);
    assert.match(gone.stderr, /globex is not quarantined/);
    await eventually('the control plane knows', foundMsMax, async () => {
      const cell = await cli('describe', 'cell', 'tokyo-1');
      return /StatesProven +False +Quarantined +Quarantined: acme/.test(cell.stdout) || undefined;
    });
    assert.match((await cli('describe', 'tenant', 'acme')).stdout, /Served +False +Quarantined .*acme\.json/);
    assert.match((await cli('explain', 'tenant', 'acme')).stdout, /not served.*quarantined it/);
    assert.match((await cli('explain', 'tenant', 'globex')).stdout, /are served/);
  });

  it('stays refused over a restart, and is not released while the cause is there', async () => {
    await cli('stop', 'tokyo-1');
    await cli('start', 'tokyo-1');
    expectProblem(await fleet.tenant('acme', '/state'), 503, 'tenant-quarantined');
    assert.equal((await note('globex', 'd', 'yes')).status, 200);
    // The process counted up to 41 once; to make it 42 is what replay must not do.
    writeFileSync(module, machineText(drifting.replace('count += 1', 'count += 2')));
    await cli('stop', 'tokyo-1');
    await cli('start', 'tokyo-1');
    const released = await cli('quarantine', 'release', 'acme', '--cell', 'tokyo-1');
    assert.equal(released.code, 1, released.stdout);
    assert.match(released.stderr, /acme stays quarantined: .*event noted leads to state/);
    expectProblem(await fleet.tenant('acme', '/state'), 503, 'tenant-quarantined');
  });

  it('is served again, as it was acknowledged, once every hash of its log agrees', async () => {
    writeFileSync(module, machineText(corrected));
    await cli('stop', 'tokyo-1');
    await cli('start', 'tokyo-1');
    expectProblem(await fleet.tenant('acme', '/state'), 503, 'tenant-quarantined');
    const released = await cli('quarantine', 'release', 'acme');
    assert.equal(released.code, 0, released.stderr);
    const state = expectShape(StateSchema, (await fleet.tenant('acme', '/state')).json, 'GET /state');
    assert.deepEqual([state.seq, state.stateHash], [2, hash]);
    assert.equal((await note('acme', 'e', 'on')).status, 200);
    assert.match((await cli('quarantine', 'list')).stdout, /No tenant is quarantined/);
    assert.equal(exists(join(fleet.data, 'cells/tokyo-1/quarantine/acme.json')), false);
  });
});
