import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { Type } from 'typebox';
import { Pool } from 'undici';
import { filesUnder } from './files.ts';
import { anyHttpAppFleet, Fleet, inParallel } from './fleet.ts';
import { ask, expectShape } from './http.ts';
import { seed, Seeded } from './load.ts';
import { cellsOf, jurisdictionsOf } from './orders.ts';
import { eventually, runs } from './processes.ts';

const requests = 5_000;
const DatabaseSchema = Type.Record(Type.String(), Type.Unknown());
const RowSchema = Type.Object({ id: Type.Union([Type.Integer(), Type.String()]) });

/** One acknowledged write, by the text in it that occurs nowhere else. */
interface Written {
  readonly tenant: string;
  readonly id: number | string;
  readonly text: string;
}

describe('an application that knows nothing of cells', { timeout: 180_000 }, () => {
  let fleet: Fleet;
  before(async () => {
    fleet = await Fleet.start({ file: anyHttpAppFleet });
  });
  after(() => fleet.stop());

  const resourceOf = async (tenant: string): Promise<string> => {
    const database = expectShape(DatabaseSchema, (await fleet.tenant(tenant, '/db')).json, 'GET /db');
    const [resource] = Object.entries(database).find(([, value]) => Array.isArray(value)) ?? [];
    assert.ok(resource !== undefined, 'the example’s database has a list');
    return resource;
  };
  const cellFilesWith = (text: string): readonly string[] =>
    fleet.ready.cells
      .filter(({ data }) => filesUnder(data).some((path) => readFileSync(path).includes(text)))
      .map(({ name }) => name);

  it(`runs as three cells: of ${requests} mixed requests, every acknowledged write is found, in its own cell only`, async (t) => {
    assert.equal(fleet.ready.cells.length, 3);
    const tenants = await fleet.putTenants('app', 9, await jurisdictionsOf(fleet));
    const cellOf = await cellsOf(fleet, tenants, '/');
    assert.equal(new Set(cellOf.values()).size, 3);
    const resource = await resourceOf(tenants[0] ?? '');
    const random = new Seeded(seed);
    const pool = new Pool(fleet.ready.router, { connections: 16 });
    const written: Written[] = [];
    const failures: string[] = [];
    const began = performance.now();
    await inParallel(16, Array.from({ length: requests }), async (_, index) => {
      const tenant = random.pick(tenants);
      const mine = random.below(10) < 3 ? undefined : written.findLast((row) => row.tenant === tenant);
      const headers = { 'x-tenant': tenant };
      const text = `text-of-${tenant}-number-${index}-end`;
      const answer =
        mine === undefined
          ? await ask(`${fleet.ready.router}/${resource}`, { dispatcher: pool, headers, json: { text } })
          : await ask(`${fleet.ready.router}/${resource}/${mine.id}`, { dispatcher: pool, headers });
      assert.equal(answer.headers['cellwright-cell'], cellOf.get(tenant));
      if (mine === undefined && answer.status === 201) {
        written.push({ tenant, text, id: expectShape(RowSchema, answer.json, 'created row').id });
      } else if (mine === undefined || answer.status !== 200)
        failures.push(`${answer.status} ${answer.body.slice(0, 100)}`);
      else if (!answer.body.includes(mine.text))
        failures.push(`read of ${mine.text} gave ${answer.body.slice(0, 100)}`);
    });
    await pool.destroy();
    const seconds = (performance.now() - began) / 1000;
    t.diagnostic(
      `seed ${seed}; ${requests} requests in ${seconds.toFixed(1)} s, ${written.length} writes acknowledged`,
    );
    assert.deepEqual(failures.slice(0, 5), []);

    for (const [cell, rows] of Map.groupBy(written, ({ tenant }) => cellOf.get(tenant) ?? '')) {
      const { body } = await fleet.tenant(rows[0]?.tenant ?? '', `/${resource}`, { timeoutMs: 30_000 });
      assert.deepEqual(rows.filter(({ text }) => !body.includes(text)).slice(0, 3), [], `missing in ${cell}`);
      const others = written.filter((row) => cellOf.get(row.tenant) !== cell);
      assert.deepEqual(others.filter(({ text }) => body.includes(text)).slice(0, 3), [], `of other cells in ${cell}`);
    }
    for (const tenant of tenants) {
      await eventually(`the data of ${tenant} rests in its cell's folder only`, 5_000, () => {
        const found = cellFilesWith(`text-of-${tenant}-`);
        return found.length === 1 && found[0] === cellOf.get(tenant);
      });
    }
  });

  it('keeps its data over a SIGKILL of a cell', async () => {
    const tenant = 'app-1';
    const resource = await resourceOf(tenant);
    const { json, headers } = await fleet.tenant(tenant, `/${resource}`, { json: { text: 'before the kill' } });
    const { id } = expectShape(RowSchema, json, 'created row');
    const cell = headers['cellwright-cell'] ?? '';
    const before = fleet.up.processes();
    const parents = new Map(before.map((process) => [process.pid, process.parent]));
    await eventually('the application has written it', 5_000, () => cellFilesWith('before the kill').length === 1);
    const { pid } = fleet.kill(cell);
    const orphans = before.filter((process) => process.parent === pid || parents.get(process.parent) === pid);
    assert.ok(orphans.length > 0, 'the cell had its application as a child');
    const again = await eventually('the cell serves again', 20_000, async () => {
      const answer = await fleet.tenant(tenant, `/${resource}/${id}`).catch(() => undefined);
      return answer?.status === 200 && answer;
    });
    assert.match(again.body, /before the kill/);
    assert.deepEqual(orphans.filter(runs), [], 'the old application never runs beside the new one');
  });
});
