import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Fleet } from './fleet.ts';
import { isFailure, summarise } from './figures.ts';
import { Load, seed, soak } from './load.ts';
import { cellsOf, jurisdictionsOf, proven, told } from './orders.ts';

const requests = soak ? 500_000 : 20_000;

describe('a fleet under load', { timeout: soak ? 1_800_000 : 180_000 }, () => {
  let fleet: Fleet;
  before(async () => {
    fleet = await Fleet.start();
  });
  after(() => fleet.stop());

  it(`finds every acknowledged write of ${requests} mixed requests for 300 tenants, and fails none`, async (t) => {
    const tenants = await fleet.putTenants('load', 300, await jurisdictionsOf(fleet));
    const cells = await cellsOf(fleet, tenants);
    assert.ok(new Set(cells.values()).size >= 3, 'tenants live in several cells');

    const load = new Load({ router: fleet.ready.router, tenants, clients: 32, requests, seed });
    load.start();
    await load.done();
    t.diagnostic(`seed ${seed}; ${summarise(load.entries)}`);
    const strangers = load.entries.filter(({ tenant, cell }) => cell !== cells.get(tenant));
    assert.deepEqual(strangers.slice(0, 3), [], 'a request was served by another cell than its tenant’s');
    assert.deepEqual(load.entries.filter(isFailure).slice(0, 3), []);
    assert.ok(load.entries.length >= requests);
    t.diagnostic(told(await proven(load)));
    await load.close();
  });
});
