import { strictEqual, match, ok, deepStrictEqual } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Type } from 'typebox';
import { Instance } from '../../decide/instance/instance.ts';
import { openInMemory, type MemoryInstance } from '../../decide/instance/memory.ts';
import { machine, table } from '../../decide/definition/machine.ts';
import { hasSettledCase, isZonedTime } from './ambient.ts';
import { loadMachine } from './load-machine.ts';
import { installTraps } from './traps.ts';

installTraps();

// As a module takes them when it is loaded.
const { now } = Date;
const { sin } = Math;
const collator = new Intl.Collator('de');
const { compare } = collator;
const moment = new Date(0);
const clock = performance;
const generator = crypto;

let behave: () => unknown = () => 0;
const Row = Type.Object({ id: Type.String(), n: Type.Unknown() });
const probe = machine({
  name: 'probe',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: {
    put: { data: Row, evolve: (state, row) => state.rows.upsert(row) },
    compute: { data: Type.Object({}), evolve: (state) => state.rows.upsert({ id: 'a', n: behave() }) },
  },
  commands: {
    decides: {
      input: Type.Object({}),
      decide: () => {
        behave();
        return [{ type: 'put', data: { id: 'a', n: 1 } }];
      },
    },
    returns: { input: Type.Object({}), decide: () => [{ type: 'put', data: { id: 'a', n: behave() } }] },
    lazily: {
      input: Type.Object({}),
      decide: () => [
        {
          type: 'put',
          data: {
            id: 'a',
            get n() {
              return behave();
            },
          },
        },
      ],
    },
    evolves: { input: Type.Object({}), decide: () => [{ type: 'compute', data: {} }] },
  },
  invariants: {
    holds: (state) => {
      if (state.rows.get('a')?.n === 'invariant') behave();
      return true;
    },
  },
  queries: { asks: { input: Type.Object({}), answer: () => behave() } },
});

function failure(instance: MemoryInstance, command: string): string {
  const before = instance.stateHash;
  const answer = instance.execute(command, {});
  if (answer.kind === 'accepted') return '';
  strictEqual(answer.fault.code, 'handler-failed');
  strictEqual(instance.stateHash, before, 'a failed command changes nothing');
  strictEqual(instance.replayed().stateHash, before);
  return answer.fault.message;
}

const refused: Readonly<Record<string, readonly [use: () => unknown, says: RegExp]>> = {
  'Date.now': [() => Date.now(), /used Date\.now: use ctx\.now/],
  'Date.now taken at load': [() => now(), /used Date\.now: use ctx\.now/],
  'new Date()': [() => new Date(), /used new Date\(\): use ctx\.now/],
  'Date()': [() => Date(), /used Date\(\)/],
  'Date of an instance': [() => Reflect.construct(moment.constructor as DateConstructor, []), /used new Date\(\)/],
  'a local time': [() => new Date('2026-01-01T00:00'), /time zone/],
  'parsing a local time': [() => Date.parse('Jan 1 2026'), /time zone/],
  'parts of a local time': [() => new Date(2026, 1), /time zone/],
  'hours of a date': [() => moment.getHours(), /Date\.getHours.*UTC/],
  'a date as text': [() => `${moment}`, /Date\.toString.*UTC/],
  'performance.now': [() => performance.now(), /used performance/],
  'performance taken at load': [() => clock.now(), /used performance\.now/],
  'performance.timeOrigin taken at load': [() => clock.timeOrigin, /used performance\.timeOrigin/],
  'process.hrtime': [() => process.hrtime.bigint(), /used process/],
  'process.env': [() => process.env['HOME'], /used process: pass it as input/],
  'Math.random': [() => Math.random(), /ctx\.random\(\)/],
  'Math.sin': [() => Math.sin(1), /last digit/],
  'Math.sin taken at load': [() => sin(1), /last digit/],
  'Math.pow': [() => Math.pow(2, 0.5), /last digit/],
  'crypto.randomUUID': [() => crypto.randomUUID(), /ctx\.id\(\)/],
  'crypto taken at load': [() => generator.getRandomValues(new Uint8Array(1)), /ctx\.id\(\)/],
  setTimeout: [() => setTimeout(() => undefined, 1), /a timer/],
  setImmediate: [() => setImmediate(() => undefined), /a timer/],
  queueMicrotask: [() => queueMicrotask(() => undefined), /a timer/],
  fetch: [() => fetch('http://127.0.0.1:1/'), /outbox/],
  Intl: [() => new Intl.NumberFormat('de').format(1), /Intl\.NumberFormat/],
  'a collator made at load': [() => collator.compare('a', 'b'), /Intl\.Collator/],
  'its comparison taken at load': [(): unknown => ['b', 'a'].sort((a, b) => compare(a, b)), /Intl\.Collator/],
  localeCompare: [() => 'a'.localeCompare('b'), /compare with < and >/],
  'toLocaleString of a number': [() => (1).toLocaleString(), /Number\.toLocaleString/],
  toLocaleUpperCase: [() => 'i'.toLocaleUpperCase(), /locale/],
  normalize: [() => 'é'.normalize('NFD'), /Unicode/],
  'upper case of a letter that gained one late': [() => 'ƛ'.toUpperCase(), /Unicode/],
  'a fraction in another base': [() => (0.1).toString(3), /last digit/],
  WeakRef: [() => new WeakRef({}), /garbage/],
};

for (const [what, [use, says]] of Object.entries(refused)) {
  test(`handlers cannot use ${what}; outside of them it works`, () => {
    behave = use;
    const instance = openInMemory(probe);
    for (const command of ['decides', 'returns', 'lazily', 'evolves']) match(failure(instance, command), says);
    match(failure(instance, 'decides'), /command decides used/);
    match(failure(instance, 'lazily'), /the data of event put used/);
    match(failure(instance, 'evolves'), /event compute used/);
    behave = () => 'invariant';
    strictEqual(instance.execute('returns', {}).kind, 'accepted');
    behave = use;
    match(failure(instance, 'decides'), says);
    try {
      instance.query('asks');
      ok(false, 'a query fails as well');
    } catch (thrown) {
      match(String(thrown), /query asks used/);
    }
    const value = use();
    if (value instanceof Promise) value.catch(() => undefined);
    if (what === 'setTimeout') clearTimeout(value as NodeJS.Timeout);
  });
}

test('a handler that catches the refusal has failed all the same, and the next one has not', () => {
  const instance = openInMemory(probe);
  behave = () => {
    try {
      return Math.random();
    } catch {
      return 0.5;
    }
  };
  match(failure(instance, 'returns'), /command returns used Math\.random/);
  behave = () => 0.5;
  strictEqual(failure(instance, 'returns'), '');
});

test('what computes from what it is given stays free', () => {
  const instance = openInMemory(probe);
  const free: readonly (() => unknown)[] = [
    () => new Date(0).toISOString(),
    () => new Date('2026-01-01').getTime(),
    () => Date.parse('2026-01-01T00:00:00+09:00'),
    () => Date.UTC(2026, 0, 1),
    () => Math.sqrt(2) + Math.floor(1.5) + Math.fround(1.1) + Math.imul(3, 4) + Math.abs(-1),
    () => 'Grüße, ἀγορά, Привет, 東京, Iași'.toUpperCase(),
    () => 'STRASSE'.toLowerCase(),
    () => ['b', 'a'].toSorted().join(),
    () => String(new Map([['a', 1]]).size),
    () => structuredClone({ a: [1] }),
    () => (255).toString(16) + (0.1).toString() + (0.5).toString(10),
  ];
  for (const use of free) {
    behave = use;
    strictEqual(failure(instance, 'returns'), '', String(use));
  }
});

test('console may be used, though it looks at clocks inside', () => {
  const instance = openInMemory(probe);
  const written: unknown[] = [];
  const original = process.stderr.write.bind(process.stderr);
  process.stderr.write = (text: unknown) => written.push(text) > 0;
  try {
    behave = () => console.error('seen');
    strictEqual(failure(instance, 'decides'), '');
  } finally {
    process.stderr.write = original;
  }
  strictEqual(written.length, 1);
});

test('ctx.random draws its seed from outside, in spite of the traps', () => {
  let drawn: unknown;
  const dice = machine({
    name: 'dice',
    version: 1,
    tables: {},
    events: { rolled: { data: Type.Object({ n: Type.Number() }), evolve: () => undefined } },
    commands: {
      roll: {
        input: Type.Object({}),
        decide: (_state, _input, ctx) => {
          drawn = ctx.random();
          return [{ type: 'rolled', data: { n: ctx.random() } }];
        },
      },
    },
  });
  const instance = new Instance('t', dice);
  const { answer } = instance.execute({ command: 'roll', input: {} }, 0, () => `${Math.random()} ${Date.now()}`);
  strictEqual(answer.kind, 'accepted');
  strictEqual(typeof drawn, 'number');
});

test('a text is zoned exactly when it means one moment everywhere', () => {
  for (const text of ['2026', '2026-01', '2026-01-01', '2026-01-01T00:00Z', '+002026-01-01T00:00:00.000-05:00']) {
    ok(isZonedTime(text), text);
  }
  for (const text of ['2026-01-01T00:00', 'Jan 1 2026', '2026/01/01', '2026-01-01 00:00Z', '', '01 Jan 2026 GMT']) {
    ok(!isZonedTime(text), text);
  }
});

test('the case of settled characters is the same in this engine as in every other', () => {
  const hash = createHash('sha256');
  let settled = 0;
  for (let point = 0; point <= 0x10_ffff; point++) {
    const text = String.fromCodePoint(point);
    if (!hasSettledCase(text)) continue;
    settled += 1;
    hash.update(`${text.toUpperCase()} ${text.toLowerCase()}\n`);
  }
  deepStrictEqual(
    [settled, hash.digest('hex')],
    [130_649, 'b09baab0d2ffb97e1924e763ccc22a0f954c4fffe2bb16ae83c4a005391c74d4'],
  );
});

test('wrapped functions look as before', () => {
  deepStrictEqual([Date.name, Date.length, setTimeout.name, Math.sin.length], ['Date', 7, 'setTimeout', 1]);
  ok(new Date() instanceof Date);
  ok(moment instanceof Date);
  strictEqual(moment.constructor, Date);
  class Day extends Date {}
  ok(new Day(0) instanceof Day);
  ok(Math.abs(Date.now() - new Date().getTime()) < 10_000);
});

test('a machine whose module imports what sees the outside does not load; what computes may be imported', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cellwright-traps-'));
  try {
    const module = join(folder, 'm.ts');
    writeFileSync(join(folder, 'part.ts'), "import { hostname } from 'os';\nexport const where = hostname();\n");
    writeFileSync(module, "import { where } from './part.ts';\nexport default where;\n");
    const refusal = await loadMachine({ module }).then(String, String);
    match(refusal, /part\.ts imports os, but machines compute/);
    const other = join(folder, 'n.ts');
    writeFileSync(
      other,
      "import { createHash } from 'node:crypto';\nimport { machine } from 'cellwright';\n" +
        "export default machine({ name: createHash('sha256').update('x').digest('hex').replace(/^\\d*/, '').slice(0, 5), version: 1, tables: {}, events: {}, commands: {} });\n",
    );
    strictEqual((await loadMachine({ module: other })).version, 1);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
