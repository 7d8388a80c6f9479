import { join } from 'node:path';
import { Side } from './children.ts';
import type { Peers } from './peers.ts';
import { startPostgres } from './postgres.ts';
import type { RawAsk, RawShape } from './raw-side.ts';
import { median, medianRound, type Round } from './rounds.ts';
import type { RuntimeAsk } from './runtime-side.ts';

/** Durable commands per second: Cellwright, raw `node:sqlite`, Emmett. Rounds of all sides take turns. */
export interface DurableSize {
  readonly tenants: number;
  readonly warmUpCommands: number;
  readonly roundMs: number;
  readonly rounds: number;
  readonly concurrencies: readonly number[];
  readonly rawBatches: readonly number[];
  readonly rawPagesBytes: readonly number[];
}

export interface Durable {
  readonly concurrency: number;
  readonly ours: Round;
  readonly raw: { readonly round: Round; readonly shape: RawShape };
  /** Raw SQLite without regard to how many commands are outstanding. */
  readonly rawUnbounded: { readonly round: Round; readonly shape: RawShape };
  readonly emmett: Readonly<Record<string, { readonly round: Round; readonly concurrency: number }>>;
}

/** The latency at which throughput counts. */
export const p99MaxMs = 10;

const rowsPerInserts = [1, 32];
const emmettConcurrencies = [1, 2, 4, 8, 16, 32];
const countMin = 200;

interface Contender<Setting> {
  readonly setting: Setting;
  run(): Promise<Round>;
}

/** One round of each setting; the best by `better`. */
async function calibrated<Setting>(
  settings: readonly Setting[],
  run: (setting: Setting) => Promise<Round>,
  better: (a: Round, b: Round) => boolean,
): Promise<{ readonly setting: Setting; readonly round: Round }> {
  let best: { readonly setting: Setting; readonly round: Round } | undefined;
  for (const setting of settings) {
    const round = await run(setting);
    if (best === undefined || better(round, best.round)) best = { setting, round };
  }
  if (best === undefined) throw new Error('there is at least one setting');
  return best;
}

const faster = (a: Round, b: Round): boolean => a.perSecond > b.perSecond;

/** Faster among those that answer in time; if none does, the one that comes nearest. */
function fasterInTime(a: Round, b: Round): boolean {
  if (a.p99Ms <= p99MaxMs && b.p99Ms <= p99MaxMs) return faster(a, b);
  return a.p99Ms < b.p99Ms;
}

/** As many commands as a round of that rate lasts. */
function countOf(size: DurableSize, perSecond: number): number {
  return Math.max(countMin, Math.round((perSecond * size.roundMs) / 1000));
}

async function openOurs(folder: string, size: DurableSize): Promise<{ readonly side: Side; readonly log: string }> {
  const side = new Side(new URL('runtime-side.ts', import.meta.url));
  const ask = (what: RuntimeAsk): Promise<Round> => side.ask<Round>(what);
  const warm = join(folder, 'warm-up');
  await ask({ do: 'open', folder: warm, tenants: size.tenants, keyed: true });
  const concurrency = median(size.concurrencies);
  for (let i = 0; i < 4; i++) await ask({ do: 'round', count: Math.ceil(size.warmUpCommands / 4), concurrency });
  await ask({ do: 'close' });
  await ask({ do: 'open', folder: join(folder, 'ours'), tenants: size.tenants, keyed: true });
  return { side, log: join(warm, 'log', 'log.db') };
}

async function contendOurs(side: Side, size: DurableSize): Promise<Contender<number>> {
  const run = (count: number, concurrency: number): Promise<Round> =>
    side.ask<Round>({ do: 'round', count, concurrency } satisfies RuntimeAsk);
  let count = Math.ceil(size.warmUpCommands / 4);
  const best = await calibrated(
    size.concurrencies,
    async (concurrency) => {
      const round = await run(count, concurrency);
      count = countOf(size, round.perSecond / 3);
      return round;
    },
    fasterInTime,
  );
  return { setting: best.setting, run: () => run(countOf(size, best.round.perSecond), best.setting) };
}

async function contendRaw(
  side: Side,
  folder: string,
  batches: readonly number[],
  pagesBytes: readonly number[],
): Promise<Contender<RawShape>> {
  const shapes = batches.flatMap((batch) =>
    pagesBytes.flatMap((pageBytes) => rowsPerInserts.map((rowsPerInsert) => ({ batch, pageBytes, rowsPerInsert }))),
  );
  const run = (shape: RawShape): Promise<Round> =>
    side.ask<Round>({ do: 'round', file: join(folder, 'raw.db'), shape } satisfies RawAsk);
  const best = await calibrated(shapes, run, faster);
  return { setting: best.setting, run: () => run(best.setting) };
}

async function contendEmmett(side: Side, store: string, place: string, size: DurableSize): Promise<Contender<number>> {
  const concurrencies = emmettConcurrencies.filter((each) => each <= Math.max(...size.concurrencies));
  const run = (count: number, concurrency: number): Promise<Round> =>
    side.ask<Round>({ do: 'round', count, concurrency });
  await side.ask({ do: 'open', store, place, connectionsMax: Math.max(...concurrencies), tenants: size.tenants });
  // The first commands of each tenant stock its items, and warm the process up.
  const warm = await run(size.tenants * 6, 4);
  const best = await calibrated(concurrencies, (each) => run(countOf(size, warm.perSecond / 2), each), faster);
  return { setting: best.setting, run: () => run(countOf(size, best.round.perSecond), best.setting) };
}

/** Runs every side and returns the median round of each. `peers` is undefined if Emmett is to be left out. */
export async function measureDurable(folder: string, size: DurableSize, peers: Peers | undefined): Promise<Durable> {
  const sides: Side[] = [];
  const ends: (() => Promise<void>)[] = [];
  try {
    const { side: oursSide, log } = await openOurs(folder, size);
    sides.push(oursSide);
    const ours = await contendOurs(oursSide, size);

    const rawSide = new Side(new URL('raw-side.ts', import.meta.url));
    sides.push(rawSide);
    await rawSide.ask({ do: 'load', log, recordsMax: 100_000 } satisfies RawAsk);
    const rawUnbounded = await contendRaw(rawSide, folder, size.rawBatches, size.rawPagesBytes);
    const raw = await contendRaw(
      rawSide,
      folder,
      [...size.rawBatches.filter((batch) => batch < ours.setting), ours.setting],
      size.rawPagesBytes,
    );

    const emmett = new Map<string, Contender<number>>();
    const addEmmett = async (store: string, place: string): Promise<void> => {
      const side = new Side(new URL('../peers/emmett-side.js', import.meta.url));
      sides.push(side);
      emmett.set(store, await contendEmmett(side, store, place, size));
      ends.push(() => side.ask({ do: 'close' }));
    };
    if (peers?.sqlite === true) await addEmmett('sqlite', join(folder, 'emmett.db'));
    if (peers?.postgresPackage !== undefined) {
      const place = join(folder, 'postgres');
      const postgres = await startPostgres(peers.postgresPackage, place);
      ends.push(() => postgres.stop());
      await addEmmett('postgres', postgres.connectionString);
      // The client closes before its server.
      ends.reverse();
    }

    const contenders = new Map<string, Contender<unknown>>([
      ['ours', ours],
      ['raw', raw],
      ['rawUnbounded', rawUnbounded],
      ...emmett,
    ]);
    const rounds = new Map<string, Round[]>();
    for (let i = 0; i < size.rounds; i++) {
      for (const [name, contender] of contenders)
        rounds.set(name, [...(rounds.get(name) ?? []), await contender.run()]);
    }
    const middle = (name: string): Round => medianRound(rounds.get(name) ?? []);
    return {
      concurrency: ours.setting,
      ours: middle('ours'),
      raw: { round: middle('raw'), shape: raw.setting },
      rawUnbounded: { round: middle('rawUnbounded'), shape: rawUnbounded.setting },
      emmett: Object.fromEntries(
        [...emmett].map(([store, { setting }]) => [store, { round: middle(store), concurrency: setting }]),
      ),
    };
  } finally {
    for (const end of ends) await end();
    for (const side of sides) side.end();
  }
}

/** A log of `count` commands, for replaying, and the state hash of each tenant at its end. */
export async function writtenLog(
  folder: string,
  tenants: number,
  count: number,
): Promise<Readonly<Record<string, string>>> {
  const side = new Side(new URL('runtime-side.ts', import.meta.url));
  try {
    await side.ask({ do: 'open', folder, tenants, keyed: true } satisfies RuntimeAsk);
    await side.ask({ do: 'round', count, concurrency: 1_024 } satisfies RuntimeAsk);
    return await side.ask<Readonly<Record<string, string>>>({ do: 'close' } satisfies RuntimeAsk);
  } finally {
    side.end();
  }
}
