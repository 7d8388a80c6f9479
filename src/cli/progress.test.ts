import assert from 'node:assert/strict';
import { test } from 'node:test';
import picocolors from 'picocolors';
import { linesMax, Progress } from './progress.ts';
import { age } from './output.ts';
import { panel } from './panel.ts';
import { sameWishMs, StopRequests } from './stop-requests.ts';
import { wantsColor } from './terminal.ts';
import { golden } from '../../test/golden/golden.ts';
import { parseResources } from './resource-file.ts';
import { problemText } from './failure.ts';
import { readFileSync } from 'node:fs';

const colors = picocolors.createColors(false);

function progressOn(isTTY: boolean) {
  const written: string[] = [];
  let nowMs = 0;
  const progress = new Progress({ isTTY, colors, write: (text) => void written.push(text) }, () => nowMs);
  return { progress, written, later: (ms: number) => (nowMs += ms) };
}

const news = (name: string, phase: string) => ({ type: 'process', name, phase, problem: undefined }) as const;

test('without a terminal each change is a line, and what repeats is not', () => {
  const { progress, written, later } = progressOn(false);
  progress.take(news('control', 'starting'));
  later(1200);
  progress.take(news('control', 'starting'));
  progress.take(news('control', 'serving'));
  progress.take({ type: 'applied', resources: 9 });
  progress.end();
  assert.deepEqual(written, ['  0.0s control starting\n', '  1.2s control serving\n', '  1.2s applied 9 resources\n']);
});

test('on a terminal the list is drawn in place, and nothing moves once it has ended', () => {
  const { progress, written, later } = progressOn(true);
  progress.take(news('control', 'starting'));
  later(500);
  progress.take(news('tokyo-1', 'serving'));
  assert.ok(written[1]?.startsWith('\u001B[1A'), 'the second drawing begins where the first did');
  assert.deepEqual(progress.lines(), ['… control  starting    0.5s', '✓ tokyo-1  serving     0.0s']);
  progress.end();
  progress.take(news('tokyo-1', 'backing-off'));
  assert.equal(written.at(-1), '  0.5s tokyo-1 backing-off\n');
});

test('a large fleet shows what is not ready first, and counts the rest', () => {
  const { progress } = progressOn(false);
  for (let i = 0; i < linesMax + 5; i++) progress.take(news(`cell-${i}`, i === linesMax + 4 ? 'starting' : 'serving'));
  const lines = progress.lines();
  assert.equal(lines.length, linesMax + 1);
  assert.match(lines[0] ?? '', /cell-24 .*starting/);
  assert.equal(lines.at(-1)?.trim(), 'and 5 more');
});

test('a Ctrl-C that arrives twice is one wish; a later one means at once', () => {
  const requests = new StopRequests();
  assert.deepEqual(
    [0, 5, sameWishMs - 1, sameWishMs].map((ms) => requests.take(ms)),
    ['stop', 'repeated', 'repeated', 'at-once'],
  );
});

test('colour follows FORCE_COLOR, then NO_COLOR, then the terminal', () => {
  assert.equal(wantsColor({}, true), true);
  assert.equal(wantsColor({}, false), false);
  assert.equal(wantsColor({ NO_COLOR: '1' }, true), false);
  assert.equal(wantsColor({ NO_COLOR: '' }, true), true);
  assert.equal(wantsColor({ NO_COLOR: '1', FORCE_COLOR: '1' }, false), true);
  assert.equal(wantsColor({ FORCE_COLOR: '0' }, true), false);
  assert.equal(wantsColor({ TERM: 'dumb' }, true), false);
});

test('an age is said in at most two units', () => {
  const second = 1_000;
  const hour = 3_600 * second;
  const said = [0, 119 * second, 120 * second, 2 * hour, 2.5 * hour, 25 * hour, 48 * hour, 200 * hour, -5];
  assert.deepEqual(
    said.map((ms) => age(0, ms)),
    ['0s', '119s', '2m', '2h', '2h30m', '1d1h', '2d', '8d', '0s'],
  );
});

test('the panel says where the fleet is, what to try and what is wrong', () => {
  const file = new URL('../../examples/orders/fleet.yaml', import.meta.url);
  const items = parseResources(readFileSync(file, 'utf8'), 'fleet.yaml', '/fleet', []).map(({ resource }) => resource);
  const cells = ['frankfurt-1', 'osaka-1', 'tokyo-1'].map((name) => ({ name, url: 'http://x' }));
  const fleet = { router: 'http://127.0.0.1:8080', control: 'http://127.0.0.1:7070', cells, held: [], problems: [] };
  const problems = [{ code: 'log-damaged', detail: 'Record 7 cannot be proven.', process: 'osaka-1' }];
  golden(
    'cli/panel.txt',
    `${panel(fleet, items, '.cellwright', colors)}\n----\n${panel({ ...fleet, held: ['control'], problems }, items, 'other', colors)}`,
  );
});

test('problems are listed two lines each, and counted', () => {
  const text = 'kind: Cel\n---\nkind: Cell\nname: a\nspec: { blueprint: b, capacity: { users: x } }\n---\na: [\n';
  const problems: Parameters<typeof parseResources>[3] = [];
  parseResources(text, 'fleet.yaml', '/fleet', problems);
  golden('cli/problems.txt', problemText({ isTTY: false, colors, write: () => undefined }, problems));
});
