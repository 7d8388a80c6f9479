import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Value } from 'typebox/value';
import { fault } from '../../protocol/errors.ts';
import { CellNameSchema, TenantNameSchema, type TenantName } from '../../protocol/names.ts';
import { Ownership, type OwnershipLog } from './ownership.ts';

const here = Value.Parse(CellNameSchema, 'here');
const acme = Value.Parse(TenantNameSchema, 'acme');
type CommandAnswer = Awaited<ReturnType<OwnershipLog['execute']>>;

/** A log that holds back each answer until it is told what became of the record. */
class HeldLog implements OwnershipLog {
  readonly #answers: PromiseWithResolvers<CommandAnswer>[] = [];
  query(): ReturnType<OwnershipLog['query']> {
    return Promise.resolve({ kind: 'answered', value: [{ tenant: acme, state: 'owned', epoch: 1 }], seq: 1 });
  }
  execute(): Promise<CommandAnswer> {
    const answer = Promise.withResolvers<CommandAnswer>();
    this.#answers.push(answer);
    return answer.promise;
  }
  async asked(): Promise<PromiseWithResolvers<CommandAnswer>> {
    for (;;) {
      const answer = this.#answers.shift();
      if (answer !== undefined) return answer;
      await new Promise(setImmediate);
    }
  }
}

async function openHeld() {
  const log = new HeldLog();
  const closed: TenantName[] = [];
  const ownership = await Ownership.open(log, here, (tenant) => void closed.push(tenant));
  return { log, closed, ownership };
}
const removal = [{ tenant: acme, epoch: 2, removed: true as const }];

test('O8: the gate closes, and what is under way ends, before the record that ends an ownership is durable', async () => {
  const { log, closed, ownership } = await openHeld();
  const taken = ownership.take(here, removal);
  const record = await log.asked();
  assert.deepEqual(ownership.standings.get(acme), { state: 'owned', epoch: 1, closing: true });
  assert.deepEqual(closed, [acme]);
  record.resolve({
    kind: 'accepted',
    seq: 2,
    events: [{ seq: 2, type: 'tenantRemoved', data: { tenant: acme, epoch: 2 } }],
    stateHash: '',
    repeated: false,
  });
  await taken;
  assert.equal(ownership.standings.get(acme)?.state, 'released');
});

test('O8: a record that was not written after all leaves the gate as it was', async () => {
  const { log, ownership } = await openHeld();
  const taken = ownership.take(here, removal);
  (await log.asked()).resolve({ kind: 'rejected', fault: fault('log-busy', 'full'), repeated: false });
  await assert.rejects(taken, { code: 'log-busy' });
  assert.deepEqual(ownership.standings.get(acme), { state: 'owned', epoch: 1, closing: false });
});

test('O8: a new ownership has no effect before it is durable, and ends nothing', async () => {
  const { log, closed, ownership } = await openHeld();
  const taken = ownership.take(here, [{ tenant: acme, cell: here, epoch: 5 }]);
  const record = await log.asked();
  assert.equal(ownership.standings.get(acme)?.epoch, 1);
  record.resolve({ kind: 'rejected', fault: fault('log-busy', 'full'), repeated: false });
  await assert.rejects(taken);
  assert.deepEqual(closed, []);
});
