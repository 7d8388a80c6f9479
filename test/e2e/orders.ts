import assert from 'node:assert/strict';
import { Type } from 'typebox';
import { check, type Verdict } from './check.ts';
import type { Fleet } from './fleet.ts';
import { expectShape, StateSchema } from './http.ts';
import type { Load } from './load.ts';
import { inParallel } from './fleet.ts';

const CellsSchema = Type.Object({
  items: Type.Array(Type.Object({ name: Type.String(), spec: Type.Object({ jurisdiction: Type.String() }) })),
});

/** Where data may rest in this fleet: one jurisdiction for each cell, in the order of cells. */
export async function jurisdictionsOf(fleet: Fleet): Promise<readonly string[]> {
  const { items } = expectShape(CellsSchema, (await fleet.control('/v1/cells')).json, 'GET /v1/cells');
  return items.map(({ spec }) => spec.jurisdiction);
}

/** Tenant → cell, read from the answers' own header. */
export async function cellsOf(
  fleet: Fleet,
  tenants: readonly string[],
  path = '/state',
): Promise<ReadonlyMap<string, string>> {
  const pairs = await inParallel(8, tenants, async (tenant): Promise<[string, string]> => {
    const { status, headers, body } = await fleet.tenant(tenant, path);
    assert.equal(status, 200, `${tenant}: ${body}`);
    return [tenant, headers['cellwright-cell'] ?? ''];
  });
  return new Map(pairs);
}

/** `seq` and state hash of every tenant, as text that can be compared. */
export async function statesOf(fleet: Fleet, tenants: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const pairs = await inParallel(8, tenants, async (tenant): Promise<[string, string]> => {
    const answer = await fleet.tenant(tenant, '/state');
    assert.equal(answer.status, 200, `${tenant}: ${answer.body}`);
    const { seq, stateHash } = expectShape(StateSchema, answer.json, 'GET /state');
    return [tenant, `${seq} ${stateHash}`];
  });
  return new Map(pairs);
}

/** Settles the load and asserts that nothing acknowledged is lost, doubled or contradicted. */
export async function proven(load: Load): Promise<Verdict> {
  const verdict = check(load.entries, await load.settle());
  assert.deepEqual(
    verdict.violations.slice(0, 10),
    [],
    `${verdict.violations.length} violations; the first ten follow`,
  );
  return verdict;
}

export function told({ accepted, refused, reads, open }: Verdict): string {
  return `${accepted} writes accepted and found exactly once, ${refused} refused rightly, ${reads} reads consistent, ${open} writes had an unknown outcome first`;
}
