import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openRuntime } from '../../src/machine/serve/runtime.ts';
import { measures } from './replayed.ts';

const run = promisify(execFile);
const child = fileURLToPath(new URL('./replayed-child.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'cellwright-same-hash-'));
const written = join(folder, 'written');
let expected: unknown;

const notes = [
  'i',
  'ı',
  'İzmir',
  'straße',
  'zebra',
  'ÅNGSTRÖM',
  'Å',
  '東京',
  'ёлка',
  'ἀγορά',
  '🙂',
  '\u0000',
  'é',
  'e\u0301',
];

before(async () => {
  let nowMs = 1_700_000_000_000;
  const runtime = await openRuntime({
    folder: written,
    owner: 'test/log',
    mustExist: false,
    machineFor: () => measures,
    nowMs: () => (nowMs += 7),
    onStopped: (reason) => {
      throw reason;
    },
  });
  for (let i = 0; i < 300; i++) {
    const input = { value: (i - 150) / 7 ** (i % 40), note: notes[i % notes.length] ?? '' };
    const answer = await runtime.execute({ instance: `tenant-${i % 3}`, command: 'measure', input });
    strictEqual(answer.kind, 'accepted');
  }
  const states = [];
  for (const instance of ['tenant-0', 'tenant-1', 'tenant-2']) states.push(await runtime.state(instance));
  expected = states;
  await runtime.close();
});
after(() => rmSync(folder, { recursive: true, force: true }));

interface Replayed {
  readonly states: unknown;
  readonly seen: { readonly node: string; readonly locale: string; readonly zone: string; readonly year: number };
}

/** Replays a copy of the log, from its events alone, in a process of its own. */
async function replayed(env: NodeJS.ProcessEnv, command: readonly string[] = [process.execPath]): Promise<Replayed> {
  const copy = mkdtempSync(join(folder, 'copy-'));
  for (const file of readdirSync(written)) if (file.startsWith('log.')) cpSync(join(written, file), join(copy, file));
  const [program = '', ...before] = command;
  const { stdout } = await run(program, [...before, '--conditions=cellwright-source', child, copy], {
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...env },
  });
  return JSON.parse(stdout) as Replayed;
}

const places: readonly NodeJS.ProcessEnv[] = [
  { LC_ALL: 'C', TZ: 'UTC' },
  { LC_ALL: 'tr_TR.UTF-8', LANG: 'tr_TR.UTF-8', TZ: 'Asia/Kathmandu' },
  { LC_ALL: 'sv_SE.UTF-8', LANG: 'sv_SE.UTF-8', TZ: 'America/St_Johns' },
  { LC_ALL: 'ar_EG.UTF-8', LANG: 'ar_EG.UTF-8', TZ: 'Pacific/Apia' },
];

for (const env of places) {
  test(`a log has the same hashes in locale ${env['LC_ALL']} and time zone ${env['TZ']}`, async () => {
    const { states, seen } = await replayed(env);
    deepStrictEqual(states, expected);
    if (env['TZ'] === 'America/St_Johns') strictEqual(seen.zone, env['TZ'], 'the other process is in another zone');
    if (env['LC_ALL'] === 'tr_TR.UTF-8') strictEqual(seen.locale, 'tr-TR', 'the other process is in another locale');
  });
}

test('a log has the same hashes at another time, as faketime has it', async (t: TestContext) => {
  const faketime = found('faketime');
  if (faketime === undefined) {
    t.diagnostic('NOT RUN: faketime is not installed; apt-get install faketime');
    return;
  }
  const { states, seen } = await replayed({}, [faketime, '-f', '2001-02-03 04:05:06', process.execPath]);
  deepStrictEqual(states, expected);
  strictEqual(seen.year, 2001);
});

test('a log has the same hashes under another version of Node', async (t: TestContext) => {
  const other = otherNode(join(folder, 'node'));
  if (other === undefined) {
    t.diagnostic(
      'NOT RUN: no other Node; name one with CELLWRIGHT_OTHER_NODE=PATH, or set CELLWRIGHT_SOAK=1, which fetches Node 24',
    );
    return;
  }
  const { states, seen } = await replayed({}, [other]);
  deepStrictEqual(states, expected);
  t.diagnostic(`written by Node ${process.versions.node}, replayed by Node ${seen.node}`);
  ok(seen.node !== process.versions.node.split('.')[0]);
});

function found(program: string): string | undefined {
  try {
    return execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
  } catch {
    return undefined;
  }
}

/** A Node of another version: one that was named, or Node 24 as a package, which takes half a minute. */
function otherNode(into: string): string | undefined {
  const named = process.env['CELLWRIGHT_OTHER_NODE'];
  if (named !== undefined && named !== '') return named;
  if (process.env['CELLWRIGHT_SOAK'] !== '1') return undefined;
  const name = `node-${process.platform}-${process.arch}`;
  try {
    execFileSync('npm', ['install', '--no-save', '--prefix', into, `${name}@24`], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  return join(into, 'node_modules', name, 'bin', 'node');
}
