import assert from 'node:assert/strict';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import * as fc from 'fast-check';
import { aliasesMax, fileBytesMax, parseResources, readResourceFiles, type FileProblem } from './resource-file.ts';

async function* noStdin(): AsyncGenerator<string> {}

function problemsOf(text: string): readonly FileProblem[] {
  const problems: FileProblem[] = [];
  parseResources(text, 'fleet.yaml', '/fleet', problems);
  return problems;
}

async function folderWith(t: TestContext, files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'cellwright-files-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(folder, name, '..'), { recursive: true });
    await writeFile(join(folder, name), text);
  }
  return folder;
}

const tenant = (name: string): string => `kind: Tenant\nname: ${name}\nspec: { jurisdiction: jp }\n`;

/** [what is wrong, the text, where, the field, a part of message or remedy] */
const cases: readonly (readonly [string, string, string, string | undefined, RegExp])[] = [
  ['unknown kind', 'kind: Cel\nname: a\n', '1:1', 'kind', /did you mean Cell\?/],
  ['plural as kind', 'kind: tenants\nname: a\n', '1:1', 'kind', /did you mean Tenant\?/],
  ['missing kind', 'name: a\n', '1:1', 'kind', /is missing; must be one of Blueprint, Cell, Tenant/],
  ['kind that is no text', 'kind: [Cell]\n', '1:1', 'kind', /is no text/],
  [
    'cell without jurisdiction',
    'kind: Cell\nname: a\nspec: { blueprint: b, capacity: { users: 1 } }\n',
    '3:1',
    'spec.jurisdiction',
    /is missing;.*where the data may rest, for example jurisdiction: jp/s,
  ],
  ['missing spec', 'kind: Tenant\nname: a\n', '1:1', 'spec', /is missing/],
  ['missing name', 'kind: Tenant\nspec: { jurisdiction: jp }\n', '1:1', 'name', /is missing/],
  ['empty spec', 'kind: Tenant\nname: a\nspec:\n', '3:1', 'spec', /is empty/],
  [
    'number with separators in quotes',
    'kind: Tenant\nname: a\nspec: { jurisdiction: jp, users: "1,200" }\n',
    '3:27',
    'spec.users',
    /write it without quotes: 1200/,
  ],
  ['fraction', 'kind: Tenant\nname: a\nspec: { jurisdiction: jp, users: 1.5 }\n', '3:27', 'spec.users', /whole number/],
  [
    'no users at all',
    'kind: Tenant\nname: a\nspec: { jurisdiction: jp, users: 0 }\n',
    '3:27',
    'spec.users',
    /from 1 to/,
  ],
  [
    'number for a name',
    'kind: Tenant\nname: 42\nspec: { jurisdiction: jp }\n',
    '2:1',
    'name',
    /put quotes around it: '42'/,
  ],
  ['upper case', 'kind: Tenant\nname: Acme_1\nspec: { jurisdiction: jp }\n', '2:1', 'name', /write it as acme-1/],
  [
    'misspelt field',
    'kind: Tenant\nname: a\nspec: { jurisdicton: jp }\n',
    '3:9',
    'spec.jurisdicton',
    /did you mean jurisdiction\?/,
  ],
  [
    'habit of another tool',
    'kind: Tenant\nname: a\nmetadata: { x: 1 }\nspec: { jurisdiction: jp }\n',
    '3:1',
    'metadata',
    /put name beside kind/,
  ],
  [
    'machine and workload',
    "kind: Blueprint\nname: a\nspec: { machine: { module: x }, workload: { command: ['a'] } }\n",
    '3:1',
    'spec',
    /only one of machine, workload/,
  ],
  [
    'neither machine nor workload',
    'kind: Blueprint\nname: a\nspec: {}\n',
    '3:1',
    'spec',
    /add one of machine, workload/,
  ],
  [
    'wrong entry of a list',
    "kind: Blueprint\nname: a\nspec:\n  workload:\n    command: ['node', 3]\n",
    '5:23',
    'spec.workload.command[1]',
    /quotes around it: '3'/,
  ],
  [
    'empty command',
    'kind: Blueprint\nname: a\nspec: { workload: { command: [] } }\n',
    '3:21',
    'spec.workload.command',
    /is an empty list/,
  ],
  [
    'health without a slash',
    "kind: Blueprint\nname: a\nspec: { workload: { command: ['x'], health: ok } }\n",
    '3:37',
    'spec.workload.health',
    /write it as \/ok/,
  ],
  ['a list of resources', '- kind: Tenant\n', '1:1', undefined, /put --- between resources/],
  ['plain text', 'hello\n', '1:1', undefined, /is plain text/],
  ['tab', 'kind: Tenant\n\tname: a\n', '2:1', undefined, /tabs|spaces/i],
  ['open bracket', 'kind: [\n', '2:1', undefined, /is not well-formed YAML/],
  ['same key twice', 'kind: Tenant\nkind: Cell\n', '2:1', undefined, /keep one of the two/],
  ['unknown tag', 'kind: !thing Tenant\nname: a\n', '1:7', undefined, /remove the tag/],
  ['missing anchor', 'kind: *nothing\n', '1:1', undefined, /nothing/],
];

for (const [what, text, where, field, said] of cases) {
  test(`a problem names place, field and remedy: ${what}`, () => {
    const [problem, ...others] = problemsOf(text);
    assert.ok(problem !== undefined, 'there is a problem');
    assert.deepEqual(others, []);
    assert.equal(`${problem.line}:${problem.column}`, where);
    assert.equal(problem.document, 1);
    assert.equal(problem.field, field);
    assert.match(`${problem.message} → ${problem.remedy}`, said);
  });
}

test('a text without resources is a problem, empty documents beside others are not', () => {
  for (const text of ['', '\n', '# nothing\n', '---\n---\n'])
    assert.match(problemsOf(text)[0]?.message ?? '', /no resource/);
  assert.deepEqual(problemsOf(`---\n${tenant('a')}---\n`), []);
});

test('every problem of every file is listed, and then there is nothing to send', async (t) => {
  const folder = await folderWith(t, {
    'one.yaml': `${tenant('A')}---\nkind: Cel\n---\n${tenant('fine')}`,
    'two.yaml': 'a: [',
    'empty.yaml': '',
  });
  const read = await readResourceFiles(['one.yaml', 'two.yaml', 'empty.yaml', 'none.yaml'], {
    cwd: folder,
    stdin: noStdin,
  });
  assert.deepEqual(
    read.problems.map(({ file, document }) => `${file} ${document ?? ''}`.trim()),
    ['one.yaml 1', 'one.yaml 2', 'two.yaml 1', 'empty.yaml', 'none.yaml'],
  );
  assert.deepEqual(read.resources, []);
});

test('the same resource in two files is a problem that names both places', async (t) => {
  const folder = await folderWith(t, {
    'a.yaml': tenant('acme'),
    'b.yaml': `${tenant('sakura')}---\n${tenant('acme')}`,
  });
  const { problems } = await readResourceFiles(['a.yaml', 'b.yaml'], { cwd: folder, stdin: noStdin });
  assert.equal(problems.length, 1);
  assert.equal(`${problems[0]?.file}:${problems[0]?.line}`, 'b.yaml:5');
  assert.match(problems[0]?.message ?? '', /stands already in a\.yaml:1/);
});

test('a folder means its YAML files in order; resources come in the order in which they must exist', async (t) => {
  const folder = await folderWith(t, {
    'fleet/2.yml': tenant('acme'),
    'fleet/1.yaml': 'kind: Blueprint\nname: b\nspec: { machine: { module: ./machine.ts } }\n',
    'fleet/notes.txt': 'not: [yaml',
    'cell.yaml': 'kind: Cell\nname: c\nspec: { blueprint: b, jurisdiction: jp, capacity: { users: 1 } }\n',
  });
  const { resources, problems } = await readResourceFiles(['fleet', 'cell.yaml'], { cwd: folder, stdin: noStdin });
  assert.deepEqual(problems, []);
  assert.deepEqual(
    resources.map(({ kind, name }) => `${kind}/${name}`),
    ['Blueprint/b', 'Cell/c', 'Tenant/acme'],
  );
});

test('relative paths count from the folder of their file, of standard input from the working folder', async (t) => {
  const machine = 'kind: Blueprint\nname: m\nspec: { machine: { module: ./machine.ts } }\n';
  const workload = "kind: Blueprint\nname: w\nspec: { workload: { command: ['x'] } }\n";
  const folder = await folderWith(t, { 'in/fleet.yaml': `${machine}---\n${workload}` });
  const fromFile = await readResourceFiles(['in/fleet.yaml'], { cwd: folder, stdin: noStdin });
  assert.deepEqual(
    fromFile.resources.map(({ spec }) => spec),
    [
      { machine: { module: join(folder, 'in/machine.ts') } },
      { workload: { command: ['x'], directory: join(folder, 'in') } },
    ],
  );
  const fromStdin = await readResourceFiles(['-'], {
    cwd: folder,
    async *stdin() {
      yield machine.slice(0, 10);
      yield machine.slice(10);
    },
  });
  assert.deepEqual(fromStdin.resources[0]?.spec, { machine: { module: join(folder, 'machine.ts') } });
});

test('absent fields get the defaults of the schema, so that the digest is of the meaning', async (t) => {
  const folder = await folderWith(t, {
    'short.yaml': tenant('acme'),
    'long.yaml': '# a comment\nname: acme\nkind: Tenant\nspec:\n  jurisdiction: jp\n  users: 1\n  tier: standard\n',
    'other.yaml': 'kind: Tenant\nname: acme\nspec: { jurisdiction: np }\n',
  });
  const read = async (file: string) => readResourceFiles([file], { cwd: folder, stdin: noStdin });
  assert.deepEqual((await read('short.yaml')).resources[0]?.spec, { jurisdiction: 'jp', users: 1, tier: 'standard' });
  assert.notEqual((await read('short.yaml')).sha256, (await read('other.yaml')).sha256);
});

test('a file as large as one apply may be is read, a larger one and an endless input are refused', async (t) => {
  const start = `${tenant('acme')}# `;
  const fits = `${start}${'x'.repeat(fileBytesMax - start.length)}`;
  const folder = await folderWith(t, { 'fits.yaml': fits, 'above.yaml': `${fits}x` });
  assert.deepEqual((await readResourceFiles(['fits.yaml'], { cwd: folder, stdin: noStdin })).problems, []);
  const above = await readResourceFiles(['above.yaml'], { cwd: folder, stdin: noStdin });
  assert.match(above.problems[0]?.message ?? '', /larger than 16 MiB/);
  const endless = await readResourceFiles(['-'], {
    cwd: folder,
    async *stdin() {
      for (;;) yield '#'.repeat(1024 * 1024);
    },
  });
  assert.match(endless.problems[0]?.message ?? '', /larger than 16 MiB/);
});

test('references are followed up to a bound, so that a few lines cannot fill the memory', () => {
  const within = `kind: Tenant\nname: a\nspec: { jurisdiction: &j jp, tier: *j }\n`;
  assert.deepEqual(problemsOf(within), []);
  const bomb = Array.from({ length: 12 }, (_, i) => `l${i + 1}: &l${i + 1} [${`*l${i},`.repeat(10)}]`).join('\n');
  assert.match(problemsOf(`l0: &l0 [x]\n${bomb}\n`)[0]?.remedy ?? '', new RegExp(`at most ${aliasesMax}`));
});

test('nesting without end and bytes that are no text are problems, not crashes', async (t) => {
  assert.equal(problemsOf('['.repeat(20_000)).length > 0, true);
  assert.equal(problemsOf(`a: ${'{a: '.repeat(20_000)}`).length > 0, true);
  const folder = await folderWith(t, { 'binary.yaml': new Uint8Array([0xff, 0xfe, 0x00]) });
  const { problems } = await readResourceFiles(['binary.yaml', '.'], { cwd: folder, stdin: noStdin });
  assert.match(problems[0]?.message ?? '', /not text in UTF-8/);
});

test('whatever is done to a good file, the outcome is resources or problems with a place, never a crash', () => {
  const good = [
    tenant('acme'),
    "kind: Blueprint\nname: b\nspec: { workload: { command: ['x'], env: { A: 'b' } } }\n",
  ].join('---\n');
  const piece = fc.oneof(
    fc.string(),
    fc.constantFrom(
      '\t',
      '- ',
      ': ',
      '---\n',
      '&a ',
      '*a',
      '!!set ',
      '{',
      ']',
      '"',
      '|',
      '<<: ',
      '%YAML 1.1\n',
      '__proto__: ',
      '\0',
      '\u{1F600}',
    ),
  );
  fc.assert(
    fc.property(fc.nat(good.length), fc.nat(20), piece, piece, (at, cut, first, second) => {
      const text = good.slice(0, at) + first + good.slice(at + cut) + second;
      const problems: FileProblem[] = [];
      const loaded = parseResources(text, 'f.yaml', '/f', problems);
      assert.ok(loaded.length > 0 || problems.length > 0);
      for (const problem of problems) {
        assert.ok(problem.message !== '' && problem.remedy !== '');
        assert.ok(problem.line === undefined || problem.line >= 1);
      }
    }),
    { numRuns: 1500 },
  );
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const problems: FileProblem[] = [];
      const text = JSON.stringify({ kind: 'Cell', name: 'a', spec: value });
      assert.ok(parseResources(text, 'f.yaml', '/f', problems).length + problems.length > 0);
    }),
    { numRuns: 500 },
  );
});
