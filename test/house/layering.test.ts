import assert from 'node:assert/strict';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { files } from './tree.ts';

/**
 * Which rooms a room may import, beside its own. What is not listed is forbidden. `decide` rooms
 * are the part of a room that the simulator runs, so they see nothing that serves.
 */
const may: Readonly<Record<string, readonly string[]>> = {
  kernel: [],
  protocol: ['kernel'],
  'machine/decide': ['kernel', 'protocol'],
  'machine/serve': ['kernel', 'protocol', 'machine/decide'],
  trust: ['kernel', 'protocol', 'process'],
  process: ['kernel', 'protocol'],
  follow: ['kernel', 'protocol'],
  proxy: ['kernel', 'protocol'],
  'router/decide': ['kernel', 'protocol'],
  'router/serve': ['kernel', 'protocol', 'router/decide', 'proxy', 'follow', 'process', 'trust'],
  'control/decide': ['kernel', 'protocol', 'machine/decide'],
  'control/serve': ['kernel', 'protocol', 'control/decide', 'machine/decide', 'machine/serve', 'trust', 'process'],
  'cell/decide': ['kernel', 'protocol', 'machine/decide'],
  'cell/serve': [
    'kernel',
    'protocol',
    'cell/decide',
    'machine/decide',
    'machine/serve',
    'proxy',
    'follow',
    'process',
    'trust',
  ],
  'host/decide': ['kernel', 'protocol'],
  'host/serve': ['kernel', 'protocol', 'host/decide', 'follow', 'process', 'trust'],
  client: ['kernel', 'protocol'],
  testing: ['kernel', 'protocol', 'machine/decide'],
  'audit/decide': ['kernel', 'protocol', 'machine/decide'],
  'audit/serve': ['kernel', 'protocol', 'machine/decide', 'machine/serve', 'audit/decide'],
  check: ['kernel', 'protocol', 'machine/serve'],
  cli: ['kernel', 'protocol', 'follow', 'process', 'check', 'audit/decide', 'audit/serve', 'machine/serve'],
};
/** Only these see several processes; the library's front door shows the machine. */
const sees: Readonly<Record<string, readonly string[]>> = {
  main: Object.keys(may),
  '': ['machine/decide', 'machine/serve', 'kernel', 'protocol'],
};

/** Packages that decide rooms may use: pure ones. */
const purePackages = new Set(['typebox', 'typebox/value', 'typebox/compile', 'typebox/error', 'sorted-btree']);

const importPatterns = [
  /^(?:import|export)\s+(?:type\s+)?(?:\*(?:\s+as\s+\w+)?|\{[^}]*\}|\w+(?:\s*,\s*\{[^}]*\})?)\s+from\s+['"]([^'"]+)['"]/gm,
  /^import\s+['"]([^'"]+)['"]/gm,
  /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g,
];

function roomOf(path: string): string {
  const parts = dirname(path).split('/').slice(1);
  return parts[1] === 'decide' || parts[1] === 'serve' ? `${parts[0]}/${parts[1]}` : (parts[0] ?? '');
}

interface Import {
  readonly from: string;
  readonly room: string;
  readonly target: string;
}

function importsOf(path: string, text: string): readonly Import[] {
  return importPatterns.flatMap((pattern) =>
    [...text.matchAll(pattern)].map((match) => ({ from: path, room: roomOf(path), target: match[1] ?? '' })),
  );
}

const sources = files(/^src\/.*\.ts$/).filter(({ path }) => !path.endsWith('.test.ts'));
const imports = sources.flatMap(({ path, text }) => importsOf(path, text));

test('every room of src stands in the layering table', () => {
  const known = new Set([...Object.keys(may), ...Object.keys(sees)]);
  const unknown = [...new Set(sources.map(({ path }) => roomOf(path)))].filter((room) => !known.has(room));
  assert.deepEqual(unknown, []);
});

test('a room imports only the rooms that the layering allows', () => {
  const broken = imports
    .filter(({ target }) => target.startsWith('.'))
    .map((found) => ({ ...found, toRoom: roomOf(normalize(join(dirname(found.from), found.target))) }))
    .filter(({ room, toRoom }) => room !== toRoom && !(may[room] ?? sees[room] ?? []).includes(toRoom))
    .map(({ from, target, room, toRoom }) => `${from}: ${room || 'src'} may not import ${toRoom} (${target})`);
  assert.deepEqual(broken, []);
});

test('a pure room imports no package but pure ones', () => {
  const broken = imports
    .filter(
      ({ room, target }) =>
        (room === 'kernel' || room === 'protocol' || room.endsWith('/decide')) && !target.startsWith('.'),
    )
    .filter(({ target }) => !purePackages.has(target))
    .map(({ from, target }) => `${from}: ${target}`);
  assert.deepEqual(broken, []);
});

test('the import reader sees imports, re-exports, dynamic and multi-line imports', () => {
  const text =
    "import a from './a.ts';\nexport { b } from './b.ts';\nimport {\n  c,\n  d,\n} from './c.ts';\nawait import('./d.ts');\nimport './e.ts';\n";
  assert.deepEqual(
    importsOf('src/x/y.ts', text)
      .map(({ target }) => target)
      .sort(),
    ['./a.ts', './b.ts', './c.ts', './d.ts', './e.ts'],
  );
});
