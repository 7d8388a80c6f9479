import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';

const root = mkdtempSync(join(tmpdir(), 'cellwright-full-'));
after(() => rmSync(root, { recursive: true, force: true }));
const child = join(import.meta.dirname, '../../../test/machine/full-disk-child.ts');
const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--conditions=cellwright-source'];
/** A small disk that ends with the process: in a namespace of its own, so that it needs no privilege. */
const mount = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"';
const mounts = spawnSync('unshare', ['-rm', 'sh', '-c', mount, 'sh', '64k', root, 'true']).status === 0;
const missing = mounts ? false : 'no small disk can be mounted here: allow user namespaces (unshare -rm) to run this';

interface Report {
  readonly accepted: number;
  readonly byTenant: readonly number[];
  readonly codes: readonly string[];
  readonly stops: readonly string[];
  readonly whileFull: readonly number[];
  readonly refusedWhileFull: readonly string[];
  readonly attempts: number;
  readonly afterwards: readonly number[];
  readonly reopened: readonly number[];
}

async function fill(sizeBytes: number, ballastBytes: number): Promise<Report> {
  const disk = join(root, `disk-${sizeBytes}`);
  mkdirSync(disk);
  const sh = ['-rm', 'sh', '-c', mount, 'sh'];
  const { stdout } = await promisify(execFile)('unshare', [
    ...sh,
    String(sizeBytes),
    disk,
    ...node,
    child,
    disk,
    String(ballastBytes),
  ]);
  const report: unknown = JSON.parse(stdout);
  return report as Report;
}

test(
  'on a full disk commands are refused as not done, reads go on, and commands too once there is room, without a restart',
  { skip: missing },
  async (t) => {
    for (const [sizeBytes, ballastBytes] of [
      [3_000_000, 1_500_000],
      [6_000_000, 2_000_000],
    ] as const) {
      const report = await fill(sizeBytes, ballastBytes);
      t.diagnostic(`${sizeBytes} bytes: ${JSON.stringify({ ...report, files: undefined })}`);
      deepStrictEqual(report.stops, []);
      deepStrictEqual(report.codes, ['log-full'], 'nobody was told that the outcome is unknown');
      deepStrictEqual(report.refusedWhileFull, ['log-full', 'log-full', 'log-full']);
      ok(report.accepted > 100);
      // Each tenant took one more afterwards, and the first the one that found room.
      const [acme = 0, bolt = 0, coop = 0] = report.byTenant;
      deepStrictEqual(report.whileFull, [acme - 2, bolt - 1, coop - 1], 'what is read is what was acknowledged');
      deepStrictEqual(report.afterwards, report.byTenant);
      deepStrictEqual(report.reopened, report.byTenant, 'nothing that was refused came back, nothing is lost');
      strictEqual(report.accepted, acme + bolt + coop);
    }
  },
);
