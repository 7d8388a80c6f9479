import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { anyHttpAppFleet, Fleet } from './fleet.ts';
import { jurisdictionsOf } from './orders.ts';
import { eventually, killHard, runs } from './processes.ts';

/** INTERFACE: no process stays behind for longer after a SIGKILL of launcher or host. */
const orphanMsMax = 5_000;

describe('two fleets side by side', { timeout: 120_000 }, () => {
  let one: Fleet;
  let two: Fleet;
  before(async () => {
    [one, two] = await Promise.all([Fleet.start({ file: anyHttpAppFleet }), Fleet.start({ file: anyHttpAppFleet })]);
  });
  after(async () => {
    one.up.killTree();
    two.up.killTree();
  });

  it('know nothing of each other', async () => {
    const [jurisdiction = ''] = await jurisdictionsOf(one);
    await one.control('/v1/tenants/only-here', { method: 'PUT', json: { spec: { jurisdiction, users: 1 } } });
    await eventually(
      'the first fleet serves its tenant',
      10_000,
      async () => (await one.tenant('only-here', '/')).status === 200,
    );
    assert.equal((await two.tenant('only-here', '/')).status, 404);
    const [tokenOne, tokenTwo] = [one.ready.token, two.ready.token];
    assert.notEqual(tokenOne, tokenTwo);
    const foreign = await two.control('/v1/cells', { headers: { authorization: `Bearer ${tokenOne}` } });
    assert.equal(foreign.status, 401);
  });

  const leavesNothing = async (fleet: Fleet, pid: number): Promise<string> => {
    const all = fleet.up.processes();
    const workloads = all.filter(({ command }) => command.includes('json-server'));
    assert.ok(workloads.length >= fleet.ready.cells.length, `workloads run: ${JSON.stringify(all)}`);
    const beganMs = performance.now();
    assert.ok(killHard(pid));
    await eventually(
      'no process is left',
      orphanMsMax,
      () => !all.some(runs) && fleet.up.processes().length === 0,
    ).catch((error: unknown) => {
      throw new Error(`left: ${JSON.stringify(all.filter(runs))}`, { cause: error });
    });
    return `${all.length} processes, ${workloads.length} of them workloads, gone after ${Math.round(performance.now() - beganMs)} ms`;
  };

  it('SIGKILL of the launcher leaves no process behind, and the other fleet is unharmed', async (t) => {
    t.diagnostic(await leavesNothing(one, one.up.launcher));
    assert.equal((await two.control('/v1/cells')).status, 200);
  });

  it('SIGKILL of the host leaves no process behind', async (t) => {
    t.diagnostic(await leavesNothing(two, two.ready.pids.host));
  });
});
