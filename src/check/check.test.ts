import { deepStrictEqual, match, rejects, strictEqual } from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { checkBounds, checkMachine, checkModule } from './check.ts';
import { rules } from './finding.ts';

function rulesOf(text: string): readonly string[] {
  return checkModule('m.ts', text).findings.map(({ rule, line, column }) => `${rule} ${line}:${column}`);
}

const cases: readonly (readonly [text: string, ...expected: string[]])[] = [
  // Clocks, and the ways to one.
  ['f(Date.now());', 'clock 1:3'],
  ['const { now } = Date;', 'clock 1:9'],
  ['const D = Date;\nD.now();', 'clock 2:1'],
  ["globalThis['Date'].now();", 'clock 1:1'],
  ['const { Date: { now } } = globalThis;', 'clock 1:17'],
  ['const now = Date.now.bind(0);', 'clock 1:13'],
  ["Reflect.get(Date, 'now')();", 'clock 1:1'],
  ['(0, Date.now)();', 'clock 1:5'],
  ['new Date();', 'clock 1:1'],
  ['Date();', 'clock 1:1'],
  ['new Date(5).getUTCHours();'],
  ["new Date('2026-01-01T00:00Z');"],
  ["new Date('2026-01-01T00:00');", 'time-zone 1:1'],
  ['new Date(2026, 1);', 'time-zone 1:1'],
  ['x.getHours();', 'time-zone 1:1'],
  ['performance.now();', 'clock 1:1'],
  ['Temporal.Now.instant();', 'clock 1:1'],
  ['Date[name]();', 'indirect 1:1'],
  ['f(Date);', 'indirect 1:3'],
  ['class Day extends Date {}', 'indirect 1:19'],
  ['x instanceof Date;'],
  ['function f(Date) { return Date.now(); }'],
  ['const o = { Date: 1, now: 2 }; o.Date; o.now;'],
  // Random numbers, timers, network, surroundings.
  ['Math.random();', 'random 1:1'],
  ['const M = Math, { random: r } = M;', 'random 1:19'],
  ["import { randomUUID } from 'node:crypto';\nrandomUUID();", 'random 2:1'],
  ["import { createHash } from 'node:crypto';\ncreateHash('sha256');"],
  ["import * as c from 'crypto';\nc.randomBytes(4);", 'random 2:1'],
  ['crypto.randomUUID();', 'random 1:1'],
  ['setTimeout(f, 1);', 'timer 1:1'],
  ['globalThis.queueMicrotask(f);', 'timer 1:1'],
  ["fetch('x');", 'network 1:1'],
  ["new WebSocket('x');", 'network 1:5'],
  ['process.env.HOME;', 'surroundings 1:1'],
  ['const { env } = process;', 'surroundings 1:17'],
  ['import.meta.url;', 'surroundings 1:1'],
  // What engines answer differently.
  ['Math.sin(1);', 'inexact-math 1:1'],
  ['Math.sqrt(2) + Math.PI + Math.max(1, 2);'],
  ['a ** b;', 'inexact-math 1:1'],
  ['a **= 2;', 'inexact-math 1:1', 'global-state 1:1'],
  ['2 ** 10 + 10 ** 15;'],
  ['2 ** 0.5;', 'inexact-math 1:1'],
  ['10 ** 400;', 'inexact-math 1:1'],
  ['2n ** 100n;'],
  ['n.toString(36);', 'inexact-math 1:1'],
  ['n.toString(10) + n.toString() + b.toString("hex");'],
  ["a.localeCompare('b');", 'locale 1:1'],
  ['n.toLocaleString();', 'locale 1:1'],
  ['new Intl.Collator();', 'locale 1:5'],
  ["a.normalize('NFC');", 'unicode 1:1'],
  ['/\\p{L}/u.test(a);', 'unicode 1:1'],
  ['/[a-z]/iu.test(a);', 'unicode 1:1'],
  ['/[a-z]/i.test(a);'],
  ["new RegExp('\\\\p{L}', 'u');", 'unicode 1:1'],
  ['new WeakRef(a);', 'garbage 1:5'],
  ['new SharedArrayBuffer(1);', 'shared-memory 1:5'],
  ["eval('1');", 'eval 1:1'],
  ["new Function('1');", 'eval 1:5'],
  // Later.
  ['const f = async () => 1;', 'async 1:11'],
  ['await f;', 'async 1:1'],
  ["import('./x.ts');", 'async 1:1'],
  ['new Promise(f);', 'async 1:5'],
  ['const c = { *decide() {} };', 'async 1:20'],
  ['function* numbers() { yield 1; }'],
  // State outside of tables.
  ['let n = 0;\nexport const f = () => ++n;', 'module-state 2:24'],
  ['let n = 0;\nn += 1;\nexport const f = () => n;'],
  ['const cache = new Map();\nconst f = (k) => cache.set(k, 1);', 'module-state 2:18'],
  ['const cache = {};\nconst f = (k) => { cache.a[k] = 1; };', 'module-state 2:20'],
  ['const cache = {};\nconst f = (k) => { delete cache[k]; };', 'module-state 2:20'],
  ['const table = new Map();\nfor (const k of [1]) table.set(k, k);'],
  ['const f = (rows) => { let n = 0; rows.forEach(() => { n += 1; }); return n; };'],
  ['const f = (rows) => { const all = []; rows.forEach((r) => all.push(r)); return all; };'],
  ['function make() { let n = 0; return () => ++n; }\nconst next = make();', 'module-state 1:43'],
  ['function make() { let n = 0; return () => ++n; }\nconst f = () => make()();'],
  ['const next = (() => { let n = 0; return () => ++n; })();', 'module-state 1:47'],
  ['class C { #n = 0; next() { return ++this.#n; } }\nconst c = new C();', 'module-state 1:35'],
  ['class C { n = 0; constructor() { this.n = 1; } }\nconst c = new C();'],
  ['class C { n = 0; next() { return ++this.n; } }\nconst f = () => new C().next();'],
  ['class C { static n = 0; static next() { return ++C.n; } }', 'module-state 1:48'],
  ['const o = { n: 0, get next() { return ++this.n; } };', 'module-state 1:39'],
  ['const ids = (function* () { yield 1; })();\nconst f = () => ids.next();', 'module-state 2:17'],
  ['const word = /a/g;\nconst f = (x) => word.test(x);', 'module-state 2:18'],
  ["import { cache } from './c.ts';\nconst f = () => cache.set(1, 1);", 'module-state 2:17'],
  ['Array.prototype.first = f;', 'global-state 1:1'],
  ['globalThis.counter = 0;', 'global-state 1:1'],
  ["Object.defineProperty(String.prototype, 'x', {});", 'global-state 1:1'],
  ['const proto = Array.prototype;\nproto.x = 1;', 'global-state 2:1'],
  // Errors.
  ['try { f(); } catch (e) { g(e.message); }', 'error-text 1:28'],
  ['try { f(); } catch (e) { g(`${e}`); }', 'error-text 1:31'],
  ['try { f(); } catch ({ message }) { g(message); }', 'error-text 1:21', 'error-text 1:38'],
  ['try { f(); } catch (e) { if (e instanceof RangeError) h(); throw e; }'],
  ['try { f(); } catch { h(); }'],
  ['x.stack;', 'error-text 1:1'],
  // The rest.
  ['for (const k in o) f(k);', 'iteration-order 1:1'],
  ["console.log('x');", 'console 1:1'],
  ["import { readFileSync } from 'node:fs';", 'import 1:1'],
  ["import os from 'os';", 'import 1:1'],
  ["import x from 'left-pad';", 'import 1:1'],
  ["import { Type } from 'typebox';\nimport { machine } from 'cellwright';\nimport assert from 'node:assert/strict';"],
  ['const = 1;', 'syntax 1:7'],
  ['enum A { B }', 'syntax 1:1'],
  ['const n: number = Date.now();\ninterface A { now(): number }', 'clock 1:19'],
  // What is accepted.
  ['Date.now(); // cellwright-allow clock: shown in a log line only'],
  ['// cellwright-allow clock: shown in a log line only\nDate.now();'],
  ['Date.now(); // cellwright-allow random: wrong rule', 'clock 1:1', 'allow 1:13'],
  ['Date.now(); // cellwright-allow clock', 'clock 1:1', 'allow 1:13'],
  ['// cellwright-allow\nf();', 'allow 1:1'],
  ['// cellwright-allow clock: nothing here\nf();', 'allow 1:1'],
];

for (const [text, ...expected] of cases) {
  test(`found in ${JSON.stringify(text)}: ${expected.join(', ') || 'nothing'}`, () => {
    deepStrictEqual(rulesOf(text), expected);
  });
}

test('modules that are imported by path are read too, and what machine() refuses is told', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cellwright-check-'));
  try {
    const file = join(folder, 'machine.ts');
    writeFileSync(
      file,
      "import { machine } from 'cellwright';\nimport './part.ts';\nexport default machine({ name: '1', version: 1, tables: {}, events: {}, commands: {} });\n",
    );
    writeFileSync(join(folder, 'part.ts'), "export { x } from './deep.ts';\nimport './machine.ts';\n");
    writeFileSync(join(folder, 'deep.ts'), 'export const x = () => Date.now();\n');
    const { files, findings } = await checkMachine(file, { exported: 'default' });
    deepStrictEqual(
      files.map((path) => path.slice(folder.length + 1)),
      ['machine.ts', 'part.ts', 'deep.ts'],
    );
    deepStrictEqual(
      findings.map(({ file: path, rule, line }) => [path.slice(folder.length + 1), rule, line]),
      [
        ['deep.ts', 'clock', 1],
        ['machine.ts', 'machine', 1],
      ],
    );
    match(findings[1]?.message ?? '', /"1" cannot be a name/);
    writeFileSync(join(folder, 'part.ts'), "import './gone.ts';\n");
    const { findings: missing } = await checkMachine(file, { exported: 'default' });
    match(missing[0]?.message ?? '', /gone\.ts, which is no file/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('a module is read up to its bound, and one beyond it is refused', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cellwright-check-'));
  try {
    const file = join(folder, 'machine.js');
    const text = 'export const x = Date.now();\n';
    writeFileSync(file, text.padEnd(checkBounds.moduleSizeMaxBytes, ' '));
    strictEqual((await checkMachine(file, { exported: 'default' })).findings[0]?.rule, 'clock');
    writeFileSync(file, text.padEnd(checkBounds.moduleSizeMaxBytes + 1, ' '));
    await rejects(checkMachine(file, { exported: 'default' }), /limit|more than/);
    await rejects(checkMachine(join(folder, 'none.ts'), { exported: 'default' }), /cannot be read/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('the example is clean', async () => {
  const file = fileURLToPath(new URL('../../examples/orders/machine.ts', import.meta.url));
  deepStrictEqual((await checkMachine(file, { exported: 'default' })).findings, []);
});

test('docs/determinism.md lists every rule', () => {
  const text = readFileSync(new URL('../../docs/determinism.md', import.meta.url), 'utf8');
  const listed = [...text.matchAll(/^\| `([a-z-]+)` +\|[^|]*\|$/gm)].map(([, rule]) => rule);
  deepStrictEqual(listed, Object.keys(rules));
});
