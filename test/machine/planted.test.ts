import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { checkMachine } from '../../src/check/check.ts';

const run = promisify(execFile);
const folder = fileURLToPath(new URL('./planted/', import.meta.url));
const child = fileURLToPath(new URL('./planted-child.ts', import.meta.url));
const page = new URL('../../docs/determinism.md', import.meta.url);

/** One machine that changes what every machine of its process sees comes last. */
const names = readdirSync(folder)
  .map((file) => file.replace(/\.ts$/, ''))
  .sort((a, b) => Number(a === 'prototype') - Number(b === 'prototype') || (a < b ? -1 : 1));

interface Outcome {
  readonly load?: string;
  readonly failed?: readonly string[];
  readonly drift?: boolean;
}

/** What happens in a process of its own, which knows nothing of the one before. */
async function happens(
  phase: string,
  machines: readonly string[],
  logs: string,
  env: NodeJS.ProcessEnv = {},
): Promise<ReadonlyMap<string, Outcome>> {
  const pairs = machines.flatMap((name) => {
    mkdirSync(join(logs, name), { recursive: true });
    return [join(folder, `${name}.ts`), join(logs, name)];
  });
  const { stdout } = await run(process.execPath, [...process.execArgv, child, phase, ...pairs], {
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, ...env },
    maxBuffer: 16 * 1024 * 1024,
  });
  const lines = stdout.trim().split('\n');
  strictEqual(lines.length, machines.length, `every machine has an outcome: ${stdout}`);
  return new Map(machines.map((name, i) => [name, JSON.parse(lines[i] ?? '') as Outcome]));
}

function whatIsPlanted(name: string): string {
  return /\/\*\* Planted: (.*) \*\//.exec(readFileSync(join(folder, `${name}.ts`), 'utf8'))?.[1] ?? '';
}

function ranAs({ load, failed = [] }: Outcome): string {
  if (load !== undefined) return 'does not load';
  if (failed.length === 0) return '—';
  return failed.some((message) => message.includes(' used ')) ? 'trapped' : 'refused';
}

function drifted(outcome: Outcome | undefined): string {
  return outcome === undefined ? '' : outcome.drift === true ? 'drift' : '—';
}

test('docs/determinism.md says of every planted machine which layer catches it', async () => {
  const logs = mkdtempSync(join(tmpdir(), 'cellwright-planted-'));
  try {
    const checked = new Map<string, string>();
    for (const name of names) {
      const { findings } = await checkMachine(join(folder, `${name}.ts`), { exported: 'default' });
      const found = [...new Set(findings.filter(({ rule }) => rule !== 'machine').map(({ rule }) => `\`${rule}\``))];
      checked.set(name, found.join(', ') || '—');
    }
    const trial = await happens('trial', names, logs);
    const running = names.filter((name) => ranAs(trial.get(name) ?? {}) === '—');
    const served = await happens('serve', running, logs);
    for (const name of running) {
      // All that is left is the log itself: no snapshot, and no quarantine.
      for (const file of readdirSync(join(logs, name))) {
        if (!file.startsWith('log.')) rmSync(join(logs, name, file), { recursive: true });
      }
    }
    const elsewhere = { PLANTED: 'elsewhere', TZ: 'Asia/Tokyo', LC_ALL: 'tr_TR.UTF-8' };
    const again = await happens('again', running, logs, elsewhere);
    const rows = names.map((name) => {
      const cells = [
        `\`${name}\``,
        whatIsPlanted(name).replaceAll('|', '\\|'),
        checked.get(name),
        ranAs(trial.get(name) ?? {}),
        drifted(served.get(name)),
        drifted(again.get(name)),
      ];
      return cells.join(' | ');
    });
    const text = readFileSync(page, 'utf8');
    const [before = '', rest = ''] = text.split('<!-- planted: begin -->\n');
    const [table = '', after = ''] = rest.split('<!-- planted: end -->');
    const documented = [...table.matchAll(/^\| (`.*) \|$/gm)].map(([, row = '']) =>
      row.replaceAll(/ *\| */g, ' | ').trim(),
    );
    if (process.env['UPDATE_GOLDEN'] === '1') {
      const head =
        '\n| machine | planted | `check` | at the first commands | replica | next start |\n| --- | --- | --- | --- | --- | --- |\n';
      const made = `${head}${rows.map((row) => `| ${row} |\n`).join('')}\n`;
      writeFileSync(page, `${before}<!-- planted: begin -->\n${made}<!-- planted: end -->${after}`);
      return;
    }
    deepStrictEqual(
      documented,
      rows.map((row) => row.replaceAll(/ *\| */g, ' | ').trim()),
      'UPDATE_GOLDEN=1 writes the table anew',
    );
  } finally {
    rmSync(logs, { recursive: true, force: true });
  }
});

test('at least fifteen kinds are planted, and each is named', () => {
  ok(names.length >= 15);
  deepStrictEqual(
    names.filter((name) => whatIsPlanted(name) === ''),
    [],
  );
});
