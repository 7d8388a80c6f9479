import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Fleet, FleetProcess } from './fleet.ts';
import { jurisdictionsOf, statesOf } from './orders.ts';
import { eventually } from './processes.ts';

describe('the life of a fleet', { timeout: 180_000 }, () => {
  it('ends at SIGTERM while it starts, starts again on the same data, with or without its file, and empty if told so', async () => {
    const starting = await FleetProcess.spawn();
    await eventually('the first children are there', 30_000, () => starting.processes().length >= 4);
    await starting.stop('SIGTERM');
    assert.equal(starting.stdout, '', 'it never said that it was ready');
    const fleet = await Fleet.start({ data: starting.data });
    const { data, routerPort, controlPort } = fleet.up;
    const tenants = await fleet.putTenants('kept', 4, await jurisdictionsOf(fleet));
    for (const tenant of tenants) {
      await fleet.tenant(tenant, '/commands/addStock', { json: { item: 'tea', quantity: 3 } });
    }
    const before = await statesOf(fleet, tenants);
    assert.equal((await fleet.stop()).code, 0);

    const again = await Fleet.start({ data, routerPort, controlPort, file: '' });
    assert.deepEqual(await statesOf(again, tenants), before, 'without its file it goes on with what is there');
    await again.stop();
    const fresh = await Fleet.start({ data, routerPort, controlPort, arguments: ['--fresh'] });
    assert.equal((await fresh.tenant('kept-1', '/state')).status, 404, 'it starts empty with --fresh only');
    await fresh.stop();
  });

  it('wins or loses a race for one new data folder, whole', async () => {
    const one = await FleetProcess.spawn();
    const two = await FleetProcess.spawn({ data: one.data });
    const outcomes = await Promise.all(
      [one, two].map(async (up) => {
        try {
          return { up, ready: await up.ready() };
        } catch {
          return { up, ready: undefined };
        }
      }),
    );
    const [winner, another] = outcomes.filter(({ ready }) => ready !== undefined);
    const loser = outcomes.find(({ ready }) => ready === undefined);
    assert.ok(
      winner !== undefined && another === undefined && loser !== undefined,
      'exactly one of two has the folder',
    );
    const lost = await loser.up.end();
    assert.equal(lost.code, 1, lost.stderr);
    assert.match(lost.stderr, /in use/);
    assert.equal((await winner.up.stop('SIGINT')).code, 0);
  });
});
