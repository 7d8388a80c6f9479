import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { files, offences, root, tracked } from './tree.ts';

const self = /^test\/house\//;
const all = files().filter(({ path }) => !self.test(path));
const sources = all.filter(({ path }) => /^src\/.*\.ts$/.test(path) && !path.endsWith('.test.ts'));
const tests = all.filter(({ path }) => path.endsWith('.test.ts') || path.startsWith('test/'));
const code = all.filter(({ path }) => /\.(ts|js)$/.test(path));

test('no source file is longer than one person can hold in mind (600 lines)', () => {
  const long = sources.filter(({ lines }) => lines.length > 600).map(({ path, lines }) => `${path}: ${lines.length}`);
  assert.deepEqual(long, []);
});

test('no folder or file is named for nothing in particular', () => {
  const vague = all
    .map(({ path }) => path)
    .filter((path) => /(^|\/)(utils?|helpers?|common|misc|shared|lib)(\/|\.|$)/.test(path));
  assert.deepEqual(vague, []);
});

test('no unfinished or silenced work is left', () => {
  assert.deepEqual(
    offences(
      code,
      /\b(TODO|FIXME|XXX|HACK)\b|@ts-ignore|@ts-nocheck|\bas any\b|: any\b|oxlint-disable(?!-next-line [a-z/-]+ -- )/,
    ),
    [],
  );
  // What must not compile is shown by tests of types, and nowhere else.
  const untyped = code.filter(({ path }) => !path.endsWith('/types.test.ts'));
  assert.deepEqual(offences(untyped, /@ts-expect-error/), []);
  assert.deepEqual(offences(code, /@ts-expect-error(?! -- )/), []);
  assert.deepEqual(offences(tests, /\b(test|it|describe|suite)\.(skip|only|todo)\b/), []);
});

test('the repository speaks of the project alone: no machine path, no registry host', () => {
  assert.deepEqual(offences(all, /\/work\/|\/root\/|registry\.npmjs|deb\.debian\.org|localhost:4873/), []);
  const lock = readFileSync(`${root}/package-lock.json`, 'utf8');
  assert.equal(
    /"resolved": "http/.test(lock),
    false,
    'package-lock.json names no registry: npm install --omit-lockfile-registry-resolved',
  );
});

test('tests wait for conditions, never for time', () => {
  assert.deepEqual(offences(tests, /setTimeout\(\s*r(es(olve)?)?\s*,|await (sleep|delay|wait)\(\s*\d/), []);
});

test('numbers of time and size have their unit in the name', () => {
  assert.deepEqual(
    offences(sources, /\b(const|let|readonly)?\s*\w*([tT]imeout|[dD]elay|[iI]nterval|[tT]tl)\s*[:=]\s*[1-9]/),
    [],
  );
});

test('no listener binds a public address by default', () => {
  assert.deepEqual(offences(sources, /['"](0\.0\.0\.0|::)['"]/), []);
});

test('ARCHITECTURE.md lists every room', () => {
  const text = readFileSync(`${root}/docs/ARCHITECTURE.md`, 'utf8');
  const rooms = new Set(
    sources
      .map(({ path }) => /^src\/([^/]+\/(?:decide|serve)|[^/]+)\//.exec(path)?.[1])
      .filter((room) => room !== undefined),
  );
  const missing = [...rooms].filter((room) => !text.includes(`\`${room}\``) && !text.includes(`\`${room}/\``));
  assert.deepEqual(missing, []);
});

test('links between documents lead somewhere', () => {
  const pages = all.filter(({ path }) => path.endsWith('.md'));
  const known = new Set(tracked());
  const broken = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)]
      .map((match) => new URL(match[1] ?? '', `file:///${path}`).pathname.slice(1).replace(/\/$/, ''))
      .filter(
        (target) =>
          !known.has(target) && ![...known].some((file) => file.startsWith(`${target}/`)) && target !== 'LICENSE',
      )
      .map((target) => `${path}: ${target}`),
  );
  assert.deepEqual(broken, []);
});
