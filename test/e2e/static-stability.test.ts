import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Fleet } from './fleet.ts';
import { failureCounts, isFailure, summarise, wrongWhileDown } from './figures.ts';
import { expectProblem } from './http.ts';
import { Load, seed, soak } from './load.ts';
import { cellsOf, jurisdictionsOf, proven, told } from './orders.ts';
import { accepts, eventually, hold } from './processes.ts';

const heldMs = soak ? 60_000 : 10_000;
const servedAgainMsMax = 20_000;

describe('a fleet whose control plane is held down', { timeout: 240_000 }, () => {
  let fleet: Fleet;
  let load: Load;
  let cellOf: ReadonlyMap<string, string>;
  before(async () => {
    fleet = await Fleet.start();
    const tenants = await fleet.putTenants('held', 60, await jurisdictionsOf(fleet));
    cellOf = await cellsOf(fleet, tenants);
    load = new Load({ router: fleet.ready.router, tenants, clients: 16, seed });
    load.start();
    await load.after(500);
    await fleet.must('stop', 'control');
  });
  after(async () => {
    await load.close();
    await fleet.stop();
  });

  it(`serves without one error for ${heldMs / 1000} s`, async (t) => {
    await eventually('the control plane is down', 5_000, async () => !(await accepts(fleet.up.controlPort)));
    await hold(heldMs);
    assert.equal(await accepts(fleet.up.controlPort), false, 'it stays down');
    t.diagnostic(`seed ${seed}; ${summarise(load.entries)}`);
    assert.deepEqual(failureCounts(load.entries), {});
  });

  it('says of an unknown tenant that it is not known yet, not that it does not exist', async () => {
    const answer = await eventually('the router notices that its table is not live', 10_000, async () => {
      const found = await fleet.tenant('nobody-yet', '/state');
      return found.status !== 404 && found;
    });
    expectProblem(answer, 503, 'tenant-not-known-yet');
    assert.match(answer.headers['retry-after'] ?? '', /^\d+$/);
  });

  it('gets its killed router back from disk, with no error beyond the death itself', async (t) => {
    const from = load.now;
    const fromMs = performance.now();
    const killed = fleet.kill('router');
    const served = await load.next('the router serves again', servedAgainMsMax, (e) => e.began > from && !isFailure(e));
    t.diagnostic(`router back after ${Math.round(served.endedMs - fromMs)} ms`);
    await load.after(1_000);
    assert.notEqual(fleet.processOf('router')?.pid, killed.pid);

    const since = load.entries.filter(({ ended }) => ended > from);
    const atDeath = since.filter((e) => isFailure(e) && e.began <= served.ended);
    t.diagnostic(`at the router’s own death: ${JSON.stringify(failureCounts(atDeath))}`);
    assert.deepEqual(
      failureCounts(atDeath.filter(({ outcome }) => outcome.kind === 'failed')),
      {},
      'a router that is back answers from its kept table at once',
    );
    assert.deepEqual(failureCounts(since.filter((e) => e.began > served.ended)), {});
  });

  it('gets a killed cell back from disk, felt by nobody else', async (t) => {
    const cell = [...cellOf.values()][0] ?? '';
    const from = load.now;
    const fromMs = performance.now();
    fleet.kill(cell);
    const served = await load.next(
      `${cell} serves again`,
      servedAgainMsMax,
      (e) => cellOf.get(e.tenant) === cell && e.began > from && !isFailure(e),
    );
    t.diagnostic(`${cell} back after ${Math.round(served.endedMs - fromMs)} ms`);
    await load.after(1_000);
    const failures = load.entries.filter((e) => e.ended > from && isFailure(e));
    assert.deepEqual(
      failureCounts(failures.filter((e) => cellOf.get(e.tenant) !== cell || e.began > served.ended)),
      {},
    );
    assert.deepEqual([...new Set(failures.map(wrongWhileDown).filter((text) => text !== undefined))], []);
  });

  it('is as before once the control plane is let up again', async () => {
    const from = load.now;
    await fleet.must('start', 'control');
    await eventually('the table is live again: an unknown tenant does not exist', 20_000, async () => {
      const { status } = await fleet.tenant('nobody-yet', '/state');
      return status === 404;
    });
    const [jurisdiction = ''] = await jurisdictionsOf(fleet);
    await fleet.putTenant('latecomer', jurisdiction);
    assert.equal((await fleet.tenant('latecomer', '/state')).status, 200);
    assert.deepEqual(failureCounts(load.entries.filter((e) => e.began > from)), {});
  });

  it('has lost and doubled nothing through all of that', async (t) => {
    await load.stop();
    t.diagnostic(told(await proven(load)));
  });
});
