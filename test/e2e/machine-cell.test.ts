import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Fleet } from './fleet.ts';
import { AcceptedSchema, ask, expectProblem, expectShape, StateSchema, type Answer } from './http.ts';
import { inParallel } from './fleet.ts';
import { jurisdictionsOf } from './orders.ts';
import { eventually } from './processes.ts';

describe('a machine cell', { timeout: 120_000 }, () => {
  let fleet: Fleet;
  before(async () => {
    fleet = await Fleet.start();
    await fleet.putTenants('cell', 12, await jurisdictionsOf(fleet));
  });
  after(() => fleet.stop());

  const command = (tenant: string, name: string, json: unknown, key?: string): Promise<Answer> =>
    fleet.tenant(tenant, `/commands/${name}`, { json, headers: key === undefined ? {} : { 'idempotency-key': key } });
  const state = async (tenant: string): Promise<{ seq: number; stateHash: string; epoch: number; tenant: string }> =>
    expectShape(StateSchema, (await fleet.tenant(tenant, '/state')).json, 'GET /state');

  it('starts a tenant at sequence 0, and two empty tenants have one state hash', async () => {
    const [one, two] = [await state('cell-1'), await state('cell-2')];
    assert.deepEqual([one.tenant, one.seq, two.seq], ['cell-1', 0, 0]);
    assert.equal(one.stateHash, two.stateHash);
  });

  it('answers a command with sequence, events and state hash, and the state says the same', async () => {
    const stocked = await command('cell-1', 'addStock', { item: 'tea', quantity: 5 });
    assert.equal(stocked.status, 200, stocked.body);
    const first = expectShape(AcceptedSchema, stocked.json, 'addStock');
    assert.deepEqual([first.seq, first.events.length], [1, 1]);
    const second = expectShape(
      AcceptedSchema,
      (await command('cell-1', 'placeOrder', { id: 'a', item: 'tea', quantity: 2 })).json,
      'placeOrder',
    );
    assert.deepEqual([second.seq, second.events.length], [2, 1]);
    const now = await state('cell-1');
    assert.deepEqual([now.seq, now.stateHash], [2, second.stateHash]);
    const orders = await fleet.tenant('cell-1', '/queries/orders');
    assert.match(orders.body, /"a"/);
    assert.match((await fleet.tenant('cell-1', '/queries/stock')).body, /"quantity":3/);
    assert.doesNotMatch(
      (await fleet.tenant('cell-2', '/queries/orders')).body,
      /"a"/,
      'another tenant sees nothing of it',
    );
  });

  it('refuses what the application refuses with 409, a broken invariant with 422, and changes nothing', async () => {
    const before = await state('cell-1');
    const twice = expectProblem(await command('cell-1', 'placeOrder', { id: 'a', item: 'tea', quantity: 1 }), 409);
    assert.match(twice.detail, /a/);
    expectProblem(await command('cell-1', 'cancelOrder', { id: 'unheard-of' }), 409);
    const answer = await command('cell-1', 'placeOrder', { id: 'b', item: 'tea', quantity: 1_000 });
    assert.ok([409, 422].includes(answer.status), answer.body);
    assert.deepEqual(await state('cell-1'), before);
    assert.doesNotMatch((await fleet.tenant('cell-1', '/queries/orders')).body, /"b"/);
  });

  it('refuses input that does not fit the schema with 400 and names the field', async () => {
    const before = await state('cell-1');
    const wrong = [
      { item: 'tea' },
      { item: 'tea', quantity: 'many' },
      { item: 'tea', quantity: 1.5 },
      { item: 7, quantity: 1 },
      [],
    ];
    for (const input of wrong) {
      const answer = await command('cell-1', 'addStock', input);
      expectProblem(answer, 400);
    }
    assert.match((await command('cell-1', 'addStock', { item: 'tea', quantity: 'many' })).body, /quantity/);
    expectProblem(
      await fleet.tenant('cell-1', '/commands/addStock', {
        body: '{"item":',
        headers: { 'content-type': 'application/json' },
      }),
      400,
    );
    assert.deepEqual(await state('cell-1'), before);
  });

  it('says what it does not know: a command, a query, a method, a path', async () => {
    expectProblem(await command('cell-1', 'burnStock', {}), 404);
    expectProblem(await fleet.tenant('cell-1', '/queries/secrets'), 404);
    expectProblem(await fleet.tenant('cell-1', '/nowhere'), 404);
    expectProblem(await fleet.tenant('cell-1', '/commands/addStock'), 405);
  });

  it('gives a repeat with the same key its first answer, whatever happened between', async () => {
    const first = await command('cell-3', 'addStock', { item: 'rice', quantity: 4 }, 'k1');
    assert.equal(first.status, 200, first.body);
    await command('cell-3', 'addStock', { item: 'rice', quantity: 1 }, 'k2');
    const again = await command('cell-3', 'addStock', { item: 'rice', quantity: 4 }, 'k1');
    assert.deepEqual([again.status, again.json], [200, first.json]);
    assert.equal((await state('cell-3')).seq, 2);
    const refused = await command('cell-3', 'cancelOrder', { id: 'x' }, 'k3');
    await command('cell-3', 'placeOrder', { id: 'x', item: 'rice', quantity: 1 }, 'k4');
    const refusedAgain = await command('cell-3', 'cancelOrder', { id: 'x' }, 'k3');
    assert.deepEqual([refusedAgain.status, refusedAgain.json], [409, refused.json], 'a refusal is an answer too');
  });

  it('refuses a key that comes back with another input or another command with 422', async () => {
    const before = await state('cell-3');
    expectProblem(
      await command('cell-3', 'addStock', { item: 'rice', quantity: 5 }, 'k1'),
      422,
      'idempotency-key-reused',
    );
    expectProblem(await command('cell-3', 'cancelOrder', { id: 'x' }, 'k1'), 422, 'idempotency-key-reused');
    assert.deepEqual(await state('cell-3'), before);
    const elsewhere = await command('cell-4', 'addStock', { item: 'salt', quantity: 1 }, 'k1');
    assert.equal(elsewhere.status, 200, 'keys are a tenant’s own');
  });

  it('applies one key once, however many requests bring it at the same time', async () => {
    const answers = await inParallel(20, Array.from({ length: 20 }), () =>
      command('cell-5', 'addStock', { item: 'lamp', quantity: 1 }, 'same'),
    );
    assert.equal(new Set(answers.map(({ status, body }) => `${status} ${body}`)).size, 1);
    assert.equal((await state('cell-5')).seq, 1);
  });

  it('never sells more than there is, however many ask at once', async () => {
    await command('cell-6', 'addStock', { item: 'tea', quantity: 10 });
    const numbers = Array.from({ length: 40 }, (_, index) => index);
    const answers = await inParallel(40, numbers, (n) =>
      command('cell-6', 'placeOrder', { id: `o${n}`, item: 'tea', quantity: 1 }),
    );
    assert.equal(answers.filter(({ status }) => status === 200).length, 10);
    assert.equal((await state('cell-6')).seq, 11);
  });

  it('accepts a key of the longest length and refuses a longer one', async () => {
    assert.equal((await command('cell-7', 'addStock', { item: 'tea', quantity: 1 }, 'k'.repeat(255))).status, 200);
    expectProblem(await command('cell-7', 'addStock', { item: 'tea', quantity: 1 }, 'k'.repeat(256)), 400);
  });

  it('refuses a body beyond 1 MiB with 413', async () => {
    expectProblem(await command('cell-7', 'addStock', { item: 'x'.repeat(1024 * 1024), quantity: 1 }), 413);
  });

  it('keeps keys and answers over a SIGKILL', async () => {
    const tenant = 'cell-8';
    const first = await command(tenant, 'addStock', { item: 'tea', quantity: 2 }, 'durable');
    const refused = await command(tenant, 'cancelOrder', { id: 'none' }, 'durable-refusal');
    const before = await state(tenant);
    fleet.kill(first.headers['cellwright-cell'] ?? '');
    const again = await eventually('the cell answers again', 20_000, async () => {
      const answer = await command(tenant, 'addStock', { item: 'tea', quantity: 2 }, 'durable').catch(() => undefined);
      return answer !== undefined && answer.status === 200 && answer;
    });
    assert.deepEqual(again.json, first.json);
    assert.deepEqual((await command(tenant, 'cancelOrder', { id: 'none' }, 'durable-refusal')).json, refused.json);
    expectProblem(
      await command(tenant, 'addStock', { item: 'tea', quantity: 3 }, 'durable'),
      422,
      'idempotency-key-reused',
    );
    assert.deepEqual(await state(tenant), before);
  });

  it('refuses at its gate, with 421, a tenant that another cell owns, also without a router', async () => {
    const { headers } = await fleet.tenant('cell-1', '/state');
    for (const { name, url } of fleet.ready.cells) {
      const answer = await ask(`${url}/state`, { headers: { 'x-tenant': 'cell-1', 'cellwright-tenant': 'cell-1' } });
      if (name !== headers['cellwright-cell']) expectProblem(answer, 421, 'not-owner');
    }
  });
});
