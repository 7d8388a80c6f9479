import assert from 'node:assert/strict';
import { cpSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { exists, findInLog, flip, hashesOf } from './files.ts';
import { Fleet, FleetProcess, temporaryFolder } from './fleet.ts';
import { ask, expectProblem } from './http.ts';
import { seed, Seeded, soak } from './load.ts';
import { cellsOf, jurisdictionsOf, statesOf } from './orders.ts';
import { accepts, eventually } from './processes.ts';

const writesPerTenant = 12;

/** A data folder as a fleet left it, kept aside, with what every tenant must be found at. */
interface Kept {
  readonly how: 'stopped' | 'killed';
  readonly copy: string;
  readonly states: ReadonlyMap<string, string>;
}

/**
 * What is done to one log, and who must feel it: the whole cell, if its log cannot be opened; the tenant whose record it
 * is, if that lies before the checkpoint; elsewhere it is refused or everything is as before.
 */
interface Damage {
  readonly cell: number;
  readonly name: string;
  readonly felt: 'by the cell' | 'by its first tenant' | 'perhaps';
  readonly apply: (folder: string) => void;
}

describe('damage on disk', { timeout: 300_000 }, () => {
  const aside = temporaryFolder();
  const random = new Seeded(seed);
  let kept: readonly Kept[] = [];
  let data = '';
  let ports = { routerPort: 0, controlPort: 0 };
  let cells: readonly string[] = [];
  let tenants: readonly string[] = [];
  let cellOf: ReadonlyMap<string, string> = new Map();

  before(async () => {
    let fleet = await Fleet.start();
    ({ data } = fleet);
    ports = { routerPort: fleet.up.routerPort, controlPort: fleet.up.controlPort };
    tenants = await fleet.putTenants('flip', 9, await jurisdictionsOf(fleet));
    cellOf = await cellsOf(fleet, tenants);
    cells = [...new Set(cellOf.values())].sort();
    const write = async (round: string): Promise<ReadonlyMap<string, string>> => {
      for (const tenant of tenants) {
        for (let n = 0; n < writesPerTenant; n += 1) {
          const json = { item: `needle-${round}-${tenant}-${n}`, quantity: 1 + n };
          assert.equal((await fleet.tenant(tenant, '/commands/addStock', { json })).status, 200);
        }
      }
      return statesOf(fleet, tenants);
    };
    const keep = (how: Kept['how'], states: ReadonlyMap<string, string>): Kept => {
      const copy = join(aside, how);
      cpSync(data, copy, { recursive: true });
      return { how, copy, states };
    };
    const first = await write('stopped');
    await fleet.stop();
    const stopped = keep('stopped', first);
    fleet = await Fleet.start({ data, ...ports });
    const second = await write('killed');
    fleet.up.killTree();
    kept = [stopped, keep('killed', second)];
  });
  after(() => rmSync(data, { recursive: true, force: true }));

  const restore = ({ copy }: Kept): void => {
    rmSync(data, { recursive: true, force: true });
    cpSync(copy, data, { recursive: true });
  };
  const folderOf = (cell: string): string => join(data, 'cells', cell);
  const whoIn = (cell: string, quarantined: ReadonlySet<string>): string =>
    tenantsOf(cell).find((tenant) => quarantined.has(tenant)) ?? 'as before';
  const tenantsOf = (cell: string): readonly string[] => tenants.filter((tenant) => cellOf.get(tenant) === cell);

  const inPayload = (round: string, last: boolean) => (folder: string) => {
    const tenant = tenantsOf(folder.split('/').at(-1) ?? '')[0] ?? '';
    const found = findInLog(folder, `needle-${round}-${tenant}-${last ? writesPerTenant - 1 : 0}`);
    assert.ok(found, `the input of a command stands in the log of ${folder}`);
    flip(found.path, found.offset + 3);
  };
  const somewhere = (name: string) => (folder: string) => {
    const path = join(folder, name);
    if (exists(path)) flip(path, -1 - random.below(4_096));
  };
  const at = (name: string, offset: number) => (folder: string) => {
    const path = join(folder, name);
    flip(exists(path) ? path : join(folder, 'log.db'), offset);
  };
  const cutInHalf = (folder: string): void => {
    const path = join(folder, exists(join(folder, 'log.db-wal')) ? 'log.db-wal' : 'log.db');
    truncateSync(path, Math.floor(statSync(path).size / 2));
  };
  const rounds: readonly { how: Kept['how']; soakOnly: boolean; damages: readonly Damage[] }[] = [
    {
      how: 'stopped',
      soakOnly: false,
      damages: [
        { cell: 0, name: 'in the first record', felt: 'by its first tenant', apply: inPayload('stopped', false) },
        { cell: 1, name: 'in the first bytes of the file', felt: 'by the cell', apply: at('log.db', 3) },
        {
          cell: 2,
          name: 'the whole log missing',
          felt: 'by the cell',
          apply: (folder) => rmSync(join(folder, 'log.db')),
        },
      ],
    },
    {
      how: 'killed',
      soakOnly: false,
      damages: [
        { cell: 0, name: 'in a record not yet moved', felt: 'by the cell', apply: inPayload('killed', false) },
        { cell: 1, name: 'in the head of the write-ahead log', felt: 'by the cell', apply: at('log.db-wal', 18) },
        { cell: 2, name: 'in the mark of the last acknowledged', felt: 'perhaps', apply: at('log.mark', 4) },
      ],
    },
    {
      how: 'stopped',
      soakOnly: true,
      damages: [
        { cell: 0, name: 'in the last record', felt: 'by its first tenant', apply: inPayload('stopped', true) },
        { cell: 1, name: 'somewhere in the last page', felt: 'perhaps', apply: somewhere('log.db') },
      ],
    },
    {
      how: 'killed',
      soakOnly: true,
      damages: [
        { cell: 0, name: 'in the last page of the write-ahead log', felt: 'perhaps', apply: somewhere('log.db-wal') },
        { cell: 1, name: 'the last half missing', felt: 'by the cell', apply: cutInHalf },
      ],
    },
  ];

  for (const { how, damages } of rounds.filter(({ soakOnly }) => soak || !soakOnly)) {
    const what = damages.map(({ name }) => name).join('; ');
    it(`in the log of a cell of a ${how} fleet (${what}) is felt by its tenants only`, async (t) => {
      const state = kept.find((candidate) => candidate.how === how);
      assert.ok(state);
      restore(state);
      const damaged = damages.map((damage) => ({ ...damage, name: cells[damage.cell] ?? '', where: damage.name }));
      for (const { apply, name } of damaged) apply(folderOf(name));
      const before = new Map(damaged.map(({ name }) => [name, hashesOf(folderOf(name))]));
      const fleet = await Fleet.start({ data, ...ports });
      const refused = new Set<string>();
      const quarantined = new Set<string>();
      try {
        for (const { name, where, felt } of damaged) {
          for (const [i, tenant] of tenantsOf(name).entries()) {
            const answer = await settled(fleet, tenant);
            const own = felt === 'by its first tenant' && i === 0;
            if (answer.status === 200 && !own && felt !== 'by the cell') continue;
            if (own || (felt === 'perhaps' && answer.body.includes('tenant-quarantined'))) {
              quarantined.add(tenant);
              const problem = expectProblem(answer, 503, 'tenant-quarantined');
              assert.match(problem.detail, new RegExp(tenant), 'names the tenant');
              const json = { item: 'more', quantity: 1 };
              expectProblem(await fleet.tenant(tenant, '/commands/addStock', { json }), 503, 'tenant-quarantined');
              continue;
            }
            refused.add(name);
            assert.equal(answer.status, 503, `${name}, ${where}: ${answer.body}`);
            const problem = expectProblem(answer, 503, 'cell-damaged');
            assert.match(problem.detail, /log/, 'says what cannot be proven');
            assert.match(problem.detail, new RegExp(name), 'names the cell or its file');
          }
          const shown = await fleet.must('describe', 'cell', name);
          if (refused.has(name)) assert.match(shown, /damaged|cannot be proven/i, 'describe says why');
        }
        const isServed = (tenant: string): boolean =>
          !refused.has(cellOf.get(tenant) ?? '') && !quarantined.has(tenant);
        const healthy = tenants.filter(isServed);
        const expected = new Map(healthy.map((tenant) => [tenant, state.states.get(tenant)]));
        assert.deepEqual(await statesOf(fleet, healthy), expected, 'whoever serves, serves everything');
        t.diagnostic(
          damaged
            .map(({ name, where }) => `${where}: ${refused.has(name) ? 'refused' : whoIn(name, quarantined)}`)
            .join('; '),
        );
      } finally {
        await fleet.stop();
      }
      for (const name of refused)
        assert.deepEqual(logsIn(hashesOf(folderOf(name))), logsIn(before.get(name)), 'the evidence is untouched');
      for (const tenant of quarantined) {
        const name = cellOf.get(tenant) ?? '';
        assert.equal(recordsIn(hashesOf(folderOf(name))), recordsIn(before.get(name)), 'the evidence is untouched');
      }
    });
  }

  it('in what router and cells keep of the control plane’s word is mended from there', async () => {
    const [state] = kept;
    assert.ok(state);
    restore(state);
    flip(join(data, 'router', 'frames'), 200);
    for (const cell of cells.slice(0, 2)) flip(join(folderOf(cell), 'desired.json'), 60);
    const fleet = await Fleet.start({ data, ...ports });
    try {
      assert.deepEqual(await statesOf(fleet, tenants), state.states);
      expectProblem(await fleet.tenant('nobody', '/state'), 404, 'tenant-unknown');
    } finally {
      await fleet.stop();
    }
  });

  const controlDamages: readonly {
    how: Kept['how'];
    name: string;
    apply: (folder: string) => void;
    /** When `up` is told to stop: that the log is damaged must not be forgotten either way. */
    stopped: 'once it runs' | 'while it starts';
  }[] = [
    { how: 'stopped', name: 'in a record', apply: inControl, stopped: 'once it runs' },
    { how: 'killed', name: 'in a record', apply: inControl, stopped: 'while it starts' },
    ...(soak
      ? [{ how: 'stopped', name: 'in the first bytes', apply: at('log.db', 3), stopped: 'once it runs' } as const]
      : []),
  ];
  for (const { how, name, apply, stopped } of controlDamages) {
    it(`in the control log of a ${how} fleet (${name}) keeps it down, and routers and cells serve from disk`, async () => {
      const state = kept.find((candidate) => candidate.how === how);
      assert.ok(state);
      restore(state);
      const folder = join(data, 'control');
      apply(folder);
      const before = recordsIn(hashesOf(folder));
      const up = await FleetProcess.spawn({ data, ...ports });
      try {
        const router = `http://127.0.0.1:${ports.routerPort}`;
        for (const tenant of tenants) {
          await eventually(`${tenant} is served at its state; stderr: ${up.stderr}`, 30_000, async () => {
            const answer = await ask(`${router}/state`, { headers: { 'x-tenant': tenant } }).catch(() => undefined);
            const json = answer?.status === 200 ? answer.json : undefined;
            if (typeof json !== 'object' || json === null || !('seq' in json) || !('stateHash' in json)) return false;
            return `${String(json.seq)} ${String(json.stateHash)}` === state.states.get(tenant);
          });
        }
        const unknown = await ask(`${router}/state`, { headers: { 'x-tenant': 'nobody' } });
        expectProblem(unknown, 503, 'tenant-not-known-yet');
        await eventually(
          `up says what is wrong; stderr: ${up.stderr}`,
          10_000,
          () => /control (failed|stays down)/.test(up.stderr) && up.stderr.includes(folder),
        );
        assert.equal(await accepts(ports.controlPort), false, 'the control plane stays down');
        if (stopped === 'once it runs') {
          const line = await eventually('the line of up', 60_000, () => /^\{.*\}$/m.exec(up.stdout)?.[0]);
          assert.match(line, /"ready":false/);
          assert.match(line, /log-damaged/);
        }
      } finally {
        const finished = await up.stop();
        assert.equal(finished.code, 1, `up ends with 1; stderr: ${finished.stderr}`);
      }
      assert.equal(recordsIn(hashesOf(folder)), before, 'the evidence is untouched');
    });
  }

  function inControl(folder: string): void {
    const found = findInLog(folder, 'flip-1');
    assert.ok(found, 'a tenant’s name stands in the control log');
    flip(found.path, found.offset + 1);
  }
});

/** The answer of a tenant’s cell once it either serves or refuses for good. */
async function settled(fleet: Fleet, tenant: string): Promise<Awaited<ReturnType<Fleet['tenant']>>> {
  return eventually(`${tenant} is answered`, 15_000, async () => {
    const answer = await fleet.tenant(tenant, '/state');
    return (answer.status === 200 || /damaged|quarantined/.test(answer.body)) && answer;
  });
}

function logsIn(hashes: Readonly<Record<string, string>> | undefined): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(hashes ?? {}).filter(([path]) => path.startsWith('log.')));
}

/** Of a log that was opened because only its history is damaged: the records. Its mark is written at each opening. */
function recordsIn(hashes: Readonly<Record<string, string>> | undefined): string | undefined {
  return hashes?.['log.db'];
}
