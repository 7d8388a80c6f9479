import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Fleet } from './fleet.ts';
import { failureCounts, isFailure, summarise, wrongWhileDown } from './figures.ts';
import type { Entry } from './history.ts';
import { Load, seed, Seeded, soak } from './load.ts';
import { cellsOf, jurisdictionsOf, proven, told } from './orders.ts';

const instants = soak ? 200 : 20;
const servedAgainMsMax = 20_000;

/** From the kill to the first answer that the restarted cell gave to a request begun after it. */
interface Outage {
  readonly cell: string;
  readonly from: number;
  readonly to: number;
  readonly durationMs: number;
}

describe('a cell that is killed under load', { timeout: soak ? 1_800_000 : 240_000 }, () => {
  let fleet: Fleet;
  before(async () => {
    fleet = await Fleet.start();
  });
  after(() => fleet.stop());

  it(`is felt by its own tenants only and loses nothing, at ${instants} random instants`, async (t) => {
    t.diagnostic(`seed ${seed}`);
    const random = new Seeded(seed);
    const tenants = await fleet.putTenants('kill', soak ? 120 : 30, await jurisdictionsOf(fleet));
    const cellOf = await cellsOf(fleet, tenants);
    const cells = [...new Set(cellOf.values())].sort();
    const load = new Load({ router: fleet.ready.router, tenants, clients: 8, seed });
    load.start();
    await load.after(500);

    const outages: Outage[] = [];
    for (let instant = 0; instant < instants; instant += 1) {
      const cell = random.pick(cells);
      await load.after(1 + random.below(400));
      const from = load.now;
      const fromMs = performance.now();
      fleet.kill(cell);
      const served = await load.next(
        `${cell} serves again after kill ${instant + 1}`,
        servedAgainMsMax,
        (entry) => cellOf.get(entry.tenant) === cell && entry.began > from && !isFailure(entry),
      );
      outages.push({ cell, from, to: served.ended, durationMs: served.endedMs - fromMs });
    }
    await load.after(500);
    await load.stop();

    const during = ({ tenant, began, ended }: Entry): boolean =>
      outages.some(({ cell, from, to }) => cell === cellOf.get(tenant) && ended >= from && began <= to);
    const failures = load.entries.filter(isFailure);
    const elsewhere = failures.filter((entry) => !during(entry));
    const durations = outages.map(({ durationMs }) => Math.round(durationMs)).sort((a, b) => a - b);
    t.diagnostic(summarise(load.entries));
    t.diagnostic(`outages in ms, shortest to longest: ${durations.join(' ')}`);
    t.diagnostic(`failures of tenants whose cell was up: ${elsewhere.length} of ${load.entries.length} requests`);
    assert.deepEqual(failureCounts(elsewhere), {}, 'a tenant of another cell felt the kill');
    const wrong = failures.map(wrongWhileDown).filter((text) => text !== undefined);
    assert.deepEqual([...new Set(wrong)], [], `${wrong.length} answers that INTERFACE.md does not know`);
    t.diagnostic(told(await proven(load)));
    await load.close();
  });
});
