import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const runner = fileURLToPath(new URL('../run.ts', import.meta.url));
const runtime = fileURLToPath(new URL('../../bin/runtime.js', import.meta.url));

function bench(...args: readonly string[]): { readonly status: number | null; readonly lines: readonly string[] } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [runtime, runner, ...args], { encoding: 'utf8' });
  return { status, lines: `${stdout.trim()}\n${stderr}`.trim().split('\n') };
}

test('the benchmark of machines ends with one line of JSON that has the promised names', () => {
  const { status, lines } = bench('machine', '--tiny');
  assert.equal(status, 0, lines.join('\n'));
  const { bench: name, ratios, figures } = JSON.parse(lines.at(-1) ?? '');
  assert.equal(name, 'machine');
  for (const key of ['commandsToRawSqlite']) assert.ok(ratios[key] > 0, `${key} is ${ratios[key]}`);
  for (const key of [
    'commandsPerSecond',
    'commandsP99Ms',
    'rawSqlitePerSecond',
    'replayEventsPerSecond',
    'bytesPerTenant',
  ]) {
    assert.ok(figures[key] > 0, `${key} is ${figures[key]}`);
  }
  const values = [...Object.values(ratios), ...Object.values(figures)];
  assert.deepEqual(
    values.filter((value) => typeof value !== 'number'),
    [],
  );
});

test('a part of the benchmark of machines runs alone', () => {
  const { status, lines } = bench('machine', 'memory', '--tiny');
  assert.equal(status, 0, lines.join('\n'));
  const { ratios, figures } = JSON.parse(lines.at(-1) ?? '');
  assert.deepEqual(ratios, {});
  assert.deepEqual(Object.keys(figures).sort(), ['bytesPerEmptyTenant', 'bytesPerTenant', 'loadBefore']);
});

test('a part that does not exist is named, and nothing is measured', () => {
  const { status, lines } = bench('machine', 'speed');
  assert.equal(status, 2);
  assert.match(lines.join('\n'), /Unknown: speed\. Parts are commands, emmett, replay, events, memory/);
});
