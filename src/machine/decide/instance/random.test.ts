import { test } from 'node:test';
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { Instance } from './instance.ts';
import { machine, table } from '../definition/machine.ts';
import { openInMemory } from './memory.ts';
import { CommandRun, generatorFrom, idsPerCommandMax, Xoshiro128 } from './random.ts';

test('the generator gives the numbers of its reference implementation', () => {
  // From the C program of its authors, with this state.
  const generator = new Xoshiro128(Int32Array.of(0x964d4a0c, 0xd40ab895, 0xad7fdecb, 0x3006f0f0));
  deepStrictEqual(
    Array.from({ length: 4 }, () => generator.next().toString(16)),
    ['f1391922', '6fe53806', 'a5be2840', 'f510ee70'],
  );
});

test('a seed gives these numbers for ever', () => {
  const run = new CommandRun('t', 1_700_000_000_000, () => 'seed');
  deepStrictEqual(
    [run.random(), run.random.integer(1, 6), run.id(), run.id()],
    [0.3063909088454396, 6, '018bcfe5-6800-71af-82f2-8f7bd1496b31', '018bcfe5-6800-71af-833d-8469005de259'],
  );
  strictEqual(run.seed, 'seed');
});

test('numbers lie in their range, whatever the range and the seed', () => {
  fc.assert(
    fc.property(fc.string(), fc.maxSafeInteger(), fc.maxSafeInteger(), (seed, a, b) => {
      const run = new CommandRun('t', 0, () => seed);
      const [min, max] = [Math.min(a, b), Math.max(a, b)];
      fc.pre(Number.isSafeInteger(max - min + 1));
      for (let i = 0; i < 5; i++) {
        const integer = run.random.integer(min, max);
        ok(Number.isSafeInteger(integer) && integer >= min && integer <= max);
        const number = run.random();
        ok(number >= 0 && number < 1);
      }
      strictEqual(run.random.integer(min, min), min);
    }),
  );
});

test('each number of a range comes as often as the others', () => {
  const run = new CommandRun('t', 0, () => 'even');
  const counts = [0, 0, 0, 0, 0, 0];
  for (let i = 0; i < 60_000; i++) {
    const drawn = run.random.integer(1, 6) - 1;
    counts[drawn] = (counts[drawn] ?? 0) + 1;
  }
  // Chi-squared with 5 degrees of freedom: 20.5 is exceeded once in a thousand seeds.
  const chi = counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0);
  ok(chi < 20.5, counts.join());
  // Two thirds of what a draw can be: without rejection the lower half would come twice as often as the upper.
  const range = Math.floor((2 ** 53 / 3) * 2);
  const lower = Array.from({ length: 10_000 }, () => run.random.integer(0, range - 1)).filter((n) => n < range / 2);
  ok(Math.abs(lower.length - 5_000) < 300, String(lower.length));
  const half = Array.from({ length: 10_000 }, () => run.random()).reduce((sum, each) => sum + each, 0) / 10_000;
  ok(Math.abs(half - 0.5) < 0.01, String(half));
});

test('ids are UUIDs of version 7, in order within a command and over time, and as many as the bound', () => {
  let draws = 0;
  const at = (nowMs: number): CommandRun => new CommandRun('t', nowMs, () => `id ${(draws += 1)}`);
  const first = at(1_700_000_000_000);
  const ids = Array.from({ length: idsPerCommandMax }, () => first.id());
  for (const id of ids) match(id, /^018bcfe5-6800-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  deepStrictEqual(ids, ids.toSorted());
  strictEqual(new Set(ids).size, ids.length);
  fails(() => first.id(), /may make 131072 ids/);
  const later = at(1_700_000_000_001).id();
  ok(later > (ids.at(-1) ?? ''));
  fails(() => at(2 ** 48).id(), /holds times below/);
  strictEqual(
    at(2 ** 48 - 1)
      .id()
      .slice(0, 13),
    'ffffffff-ffff',
  );
});

test('a seed that hashes to nothing still begins somewhere', () => {
  ok(generatorFrom('').next() >= 0);
});

function fails(what: () => unknown, message: RegExp): void {
  let thrown: unknown;
  try {
    what();
  } catch (error) {
    thrown = error;
  }
  ok(thrown instanceof Error, 'nothing was thrown');
  match(thrown.message, message);
}

const Draw = Type.Object({ id: Type.String(), n: Type.Number() });
let kept: (() => unknown) | undefined;
const draws = machine({
  name: 'draws',
  version: 1,
  tables: { draws: table(Draw, { key: 'id' }) },
  events: { drawn: { data: Draw, evolve: (state, draw) => state.draws.insert(draw) } },
  commands: {
    draw: {
      input: Type.Object({}),
      decide: (_, __, ctx) => [{ type: 'drawn', data: { id: ctx.id(), n: ctx.random() } }],
    },
    plain: { input: Type.Object({}), decide: (_, __, ctx) => [{ type: 'drawn', data: { id: `at ${ctx.now}`, n: 0 } }] },
    wrong: {
      input: Type.Object({}),
      decide: (_, __, ctx) => [{ type: 'drawn', data: { id: '', n: ctx.random.integer(2, 1) } }],
    },
    keep: {
      input: Type.Object({}),
      decide: (_, __, ctx) => {
        kept = () => ctx.random();
        return [];
      },
    },
  },
});

test('entropy is asked for once, by the first draw, and its seed is recorded; a command without draws records none', () => {
  const instance = new Instance('t', draws);
  let asked = 0;
  const entropy = (): string => `entropy ${(asked += 1)}`;
  const plain = instance.execute({ command: 'plain', input: {} }, 7, entropy);
  deepStrictEqual([plain.record?.context, asked], [{}, 0]);
  const drawn = instance.execute({ command: 'draw', input: {} }, 8, entropy);
  deepStrictEqual([drawn.record?.context, asked], [{ seed: 'entropy 1' }, 1]);
});

test('a record decided again gives the same events, and leaves no trace where nothing may be kept', () => {
  const instance = new Instance('t', draws);
  const copy = new Instance('t', draws);
  let asked = 0;
  for (const command of ['draw', 'plain', 'draw']) {
    const { answer, record } = instance.execute({ command, input: {} }, 7 + asked, () => `entropy ${(asked += 1)}`);
    ok(record !== undefined);
    const before = copy.stateHash;
    deepStrictEqual(copy.decideAgain(record), answer);
    deepStrictEqual([copy.stateHash, copy.seq], [before, record.seqBefore]);
    deepStrictEqual(copy.executeAgain(record), answer);
    strictEqual(copy.stateHash, instance.stateHash);
  }
});

test('in memory the same seed draws the same, also in a replayed copy; another seed draws others', () => {
  const [one, same, other] = [openInMemory(draws), openInMemory(draws), openInMemory(draws, { seed: 'other' })];
  const first = one.execute('draw', {});
  deepStrictEqual(same.execute('draw', {}), first);
  ok(JSON.stringify(other.execute('draw', {})) !== JSON.stringify(first));
  const copy = one.replayed();
  deepStrictEqual(copy.execute('draw', {}), one.execute('draw', {}));
});

test('no entropy, a range that is none, and a context that outlived its command are errors in plain words', () => {
  const instance = new Instance('t', draws);
  const messageOf = (command: string): string => {
    const { answer } = instance.execute({ command, input: {} }, 0);
    return answer.kind === 'rejected' ? answer.fault.message : '';
  };
  match(messageOf('draw'), /gave no entropy/);
  const memory = openInMemory(draws);
  const wrong = memory.execute('wrong', {});
  match(
    wrong.kind === 'rejected' ? wrong.fault.message : '',
    /takes two safe integers, the lesser one first, not 2 and 1/,
  );
  memory.execute('keep', {});
  fails(() => kept?.(), /used after its command ended/);
});
