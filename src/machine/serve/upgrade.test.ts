import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Type } from 'typebox';
import { Fault } from '../../kernel/fault.ts';
import { machine, table, type Machine } from '../decide/definition/machine.ts';
import { upcast } from '../decide/definition/versions.ts';
import { openRuntime, type Runtime } from './runtime.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-upgrade-'));
after(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
function newFolder(): string {
  folders += 1;
  return join(root, `log-${folders}`);
}

const Account = Type.Object({ id: Type.String(), cents: Type.Integer() });

/** Version 1 pays in whole amounts. */
const first = machine({
  name: 'bank',
  version: 1,
  tables: { accounts: table(Account, { key: 'id' }) },
  events: {
    paid: {
      data: Type.Object({ id: Type.String(), amount: Type.Integer() }),
      evolve: (state, { id, amount }) =>
        state.accounts.upsert({ id, cents: (state.accounts.get(id)?.cents ?? 0) + amount }),
    },
  },
  commands: {
    pay: {
      input: Type.Object({ id: Type.String(), amount: Type.Integer() }),
      decide: (_, input) => [{ type: 'paid', data: input }],
    },
  },
});

/** Version 2 counts cents; what version 1 recorded were whole amounts, and its states were wrong. */
function second(changes: Readonly<Record<number, string>>, version = 2): Machine {
  const Paid = Type.Object({ id: Type.String(), cents: Type.Integer() });
  return machine({
    name: 'bank',
    version,
    changes,
    tables: { accounts: table(Account, { key: 'id' }) },
    events: {
      paid: {
        data: Paid,
        upcast: {
          1: upcast(Type.Object({ id: Type.String(), amount: Type.Integer() }), ({ id, amount }) => ({
            id,
            cents: 100 * amount,
          })),
        },
        evolve: (state, { id, cents }) =>
          state.accounts.upsert({ id, cents: (state.accounts.get(id)?.cents ?? 0) + cents }),
      },
    },
    commands: { pay: { input: Paid, decide: (_, input) => [{ type: 'paid', data: input }] } },
    queries: {
      cents: {
        input: Type.Object({ id: Type.String() }),
        answer: (state, { id }) => state.accounts.get(id)?.cents ?? 0,
      },
    },
  });
}

const declared = { 2: 'amounts were whole, and are cents' };

function open(folder: string, on: Machine): Promise<Runtime> {
  return openRuntime({
    folder,
    owner: 'test/bank',
    mustExist: false,
    machineFor: () => on,
    nowMs: () => 1_000,
    onStopped: (reason) => {
      throw reason;
    },
  });
}

async function paid(runtime: Runtime, instance: string, input: unknown): Promise<void> {
  const answer = await runtime.execute({ instance, command: 'pay', input, idempotencyKey: JSON.stringify(input) });
  assert.equal(answer.kind, 'accepted');
}

async function centsOf(runtime: Runtime, instance: string): Promise<unknown> {
  const answer = await runtime.query({ instance, query: 'cents', input: { id: 'a' } });
  return answer.kind === 'answered' ? answer.value : answer.fault.code;
}

async function writtenByFirst(): Promise<string> {
  const folder = newFolder();
  const runtime = await open(folder, first);
  for (const instance of ['acme', 'zeta']) {
    await paid(runtime, instance, { id: 'a', amount: 3 });
    await paid(runtime, instance, { id: 'a', amount: 4 });
  }
  await runtime.close();
  return folder;
}

test('a declared change is recorded when a tenant is first used, which then serves, is closed and opens again', async () => {
  const folder = await writtenByFirst();
  const two = await open(folder, second(declared));
  assert.equal(await centsOf(two, 'acme'), 700);
  const upgraded = await two.state('acme');
  assert.equal(upgraded.seq, 3, 'the upgrade took a sequence');
  await paid(two, 'acme', { id: 'a', cents: 1 });
  const state = await two.state('acme');
  await two.close();

  const again = await open(folder, second(declared));
  assert.deepEqual(await again.state('acme'), state);
  assert.equal(await centsOf(again, 'acme'), 701);
  assert.equal(await centsOf(again, 'zeta'), 700, 'the other tenant is upgraded when it is used');
  await again.close();

  const later = await open(folder, second(declared, 3));
  assert.deepEqual(await later.state('acme'), state, 'a later version without a change of its own writes nothing');
  await later.close();
});

test('a change that nobody declared refuses the tenant that it concerns', async () => {
  const folder = await writtenByFirst();
  const two = await open(folder, second({}));
  assert.equal(await centsOf(two, 'acme'), 'tenant-quarantined');
  await two.close();
  const one = await open(folder, first);
  assert.equal((await one.state('acme')).seq, 2, 'the version that wrote it serves it as ever');
  await one.close();
});

test('an older version refuses a log that a newer one has written, and says which one to run', async () => {
  const folder = await writtenByFirst();
  const two = await open(folder, second(declared));
  await paid(two, 'acme', { id: 'a', cents: 1 });
  await two.close();
  await assert.rejects(
    open(folder, first),
    (error) => error instanceof Fault && error.code === 'machine-unloadable' && /version 2/.test(error.message),
  );
});
