import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, realpath, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';
import { root } from '../house/tree.ts';
import { freePort } from './processes.ts';

/** One command of the README's tour and what its output must contain. */
interface Step {
  readonly command: string;
  readonly expected: readonly string[];
}

function stepsOf(readme: string): readonly Step[] {
  const steps: { command: string; expected: string[] }[] = [];
  for (const block of readme.matchAll(/^```sh tour\n([\s\S]*?)^```$/gm)) {
    for (const line of (block[1] ?? '').split('\n')) {
      if (line.startsWith('# → ')) steps.at(-1)?.expected.push(line.slice('# → '.length));
      else if (line !== '') steps.push({ command: line, expected: [] });
    }
  }
  return steps;
}

async function run(command: string, folder: string): Promise<{ readonly code: number; readonly output: string }> {
  const child = spawn('bash', ['-c', command], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (part: Buffer) => (output += part.toString()));
  child.stderr.on('data', (part: Buffer) => (output += part.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code: code ?? 1, output };
}

/** A folder that looks like a fresh clone, so that the tour's data does not touch the real one. */
async function clone(t: TestContext): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'cellwright-tour-')));
  t.after(() => rm(folder, { recursive: true, force: true }));
  for (const name of ['bin', 'src', 'examples', 'node_modules', 'package.json'])
    await symlink(join(root, name), join(folder, name));
  return folder;
}

test('every command of the tours in README and docs/audit.md does what is said there', async (t) => {
  const pages = await Promise.all(['README.md', 'docs/audit.md'].map((page) => readFile(join(root, page), 'utf8')));
  const steps = pages.flatMap(stepsOf);
  assert.ok(steps.length > 10, 'the README has a tour');
  const folder = await clone(t);
  const routerPort = String(await freePort());
  const controlPort = String(await freePort());

  const up = spawn(
    './bin/cellwright',
    ['up', 'examples/orders/fleet.yaml', '-o', 'json', '--router-port', routerPort, '--control-port', controlPort],
    {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  t.after(async () => {
    up.kill('SIGTERM');
    if (up.exitCode === null && up.signalCode === null) await once(up, 'exit');
  });
  const [ready] = (await once(createInterface({ input: up.stdout }), 'line')) as [string];
  assert.match(ready, /"ready":true/);

  for (const { command, expected } of steps) {
    const here = command.replaceAll('localhost:8080', `localhost:${routerPort}`);
    const { code, output } = await run(here, folder);
    assert.equal(code, 0, `${command}\n${output}`);
    for (const text of expected)
      assert.ok(output.includes(text), `${command}\nshould print ${text}, printed:\n${output}`);
  }
  t.diagnostic(`${steps.length} commands of the tour`);
});
