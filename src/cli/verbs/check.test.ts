import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import picocolors from 'picocolors';
import { golden } from '../../../test/golden/golden.ts';
import { runProgram } from '../program.ts';
import type { Output, Terminal } from '../terminal.ts';

const module = `import { machine, table, Type } from 'cellwright';
import { hostname } from 'node:os';

let count = 0;
const Row = Type.Object({ id: Type.String(), atMs: Type.Number() });

export default machine({
  name: 'shop',
  version: 1,
  tables: { rows: table(Row, { key: 'id' }) },
  events: { put: { data: Row, evolve: (state, row) => state.rows.upsert({ ...row, atMs: Date.now() }) } },
  commands: {
    put: {
      input: Type.Object({}),
      decide: () => {
        count += 1;
        console.log(hostname());
        return [{ type: 'put', data: { id: String(count), atMs: 2 ** 0.5 } }]; // cellwright-allow inexact-math: shown only
      },
    },
  },
});
`;

async function run(args: readonly string[], cwd: string) {
  const texts = { out: '', err: '' };
  const output = (name: 'out' | 'err'): Output => ({
    write: (text) => {
      texts[name] += text;
    },
    isTTY: false,
    colors: picocolors.createColors(false),
  });
  const terminal: Terminal = {
    out: output('out'),
    err: output('err'),
    stdin: async function* () {},
    env: {},
    cwd,
    nowMs: () => 0,
    interrupted: () => new AbortController().signal,
  };
  const notNeeded = () => Promise.reject(new Error('no fleet is needed'));
  const parts = { terminal, version: '0', loadUp: notNeeded, loadOwnMachines: notNeeded };
  const code = await runProgram(args, parts);
  return { code, ...texts };
}

test('check tells place, rule, reason and remedy, and its exit code tells whether there are errors', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cellwright-check-verb-'));
  try {
    writeFileSync(join(folder, 'machine.ts'), module);
    writeFileSync(
      join(folder, 'clean.js'),
      "import { machine } from 'cellwright';\nexport const shop = machine({ name: 'shop', version: 1, tables: {}, events: {}, commands: {} });\n",
    );
    const found = await run(['check', join(folder, 'machine.ts')], folder);
    assert.equal(found.code, 1);
    golden('cli/check.txt', found.out);
    const json: unknown = JSON.parse((await run(['check', join(folder, 'machine.ts'), '-o', 'json'], folder)).out);
    assert.ok(typeof json === 'object' && json !== null && 'ok' in json && 'findings' in json);
    assert.equal(json.ok, false);
    assert.equal(Array.isArray(json.findings) && json.findings.length, 4);
    const clean = await run(['check', join(folder, 'clean.js'), '--export', 'shop'], folder);
    assert.deepEqual([clean.code, clean.out], [0, 'ok: nothing found in 1 file.\n']);
    const none = await run(['check', join(folder, 'clean.js')], folder);
    assert.equal(none.code, 1);
    assert.match(none.out, /no export "default"/);
    const gone = await run(['check', join(folder, 'gone.ts')], folder);
    assert.equal(gone.code, 1);
    assert.match(gone.err, /file-unreadable/);
    assert.equal((await run(['check'], folder)).code, 2);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
