import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Fleet } from './fleet.ts';
import { summarise } from './figures.ts';
import { Load, seed, soak } from './load.ts';
import { jurisdictionsOf, proven, statesOf, told } from './orders.ts';
import { eventually, runs } from './processes.ts';

const rounds = soak ? 20 : 1;

describe('a fleet that is killed as a whole', { timeout: soak ? 900_000 : 180_000 }, () => {
  let fleet: Fleet;
  before(async () => {
    fleet = await Fleet.start();
  });
  after(() => fleet.stop());

  const killAll = async (): Promise<void> => {
    const all = fleet.up.processes();
    assert.ok(all.length >= 3 + fleet.ready.cells.length, 'host, control, router and cells run');
    fleet.up.killTree();
    await eventually('everything is gone', 5_000, () => !all.some(runs));
  };
  const startAgain = async (): Promise<void> => {
    const { data, routerPort, controlPort } = fleet.up;
    fleet = await Fleet.start({ data, routerPort, controlPort });
  };

  it('comes back with every tenant’s sequence and state hash as before', async (t) => {
    const tenants = await fleet.putTenants('all', 60, await jurisdictionsOf(fleet));
    const load = new Load({ router: fleet.ready.router, tenants, clients: 16, requests: 3_000, seed });
    load.start();
    await load.done();
    await load.close();
    const before = await statesOf(fleet, tenants);
    await killAll();
    await startAgain();
    t.diagnostic(summarise(load.entries));
    assert.deepEqual(await statesOf(fleet, tenants), before);
  });

  it(`loses and doubles nothing when it happens under load (rounds: ${rounds})`, async (t) => {
    const tenants = await fleet.putTenants('mid', 30, await jurisdictionsOf(fleet));
    const load = new Load({ router: fleet.ready.router, tenants, clients: 16, seed });
    load.start();
    for (let round = 0; round < rounds; round += 1) {
      await load.after(800);
      await killAll();
      await startAgain();
      await load.next('the fleet serves again', 20_000, ({ outcome }) => outcome.kind === 'accepted');
    }
    await load.after(300);
    await load.stop();
    t.diagnostic(`seed ${seed}; ${summarise(load.entries)}`);
    t.diagnostic(told(await proven(load)));
    await load.close();
  });
});
