import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Fault } from '../../kernel/fault.ts';
import { copyAttemptsMax, copyLog } from './log-copy.ts';

const folder = mkdtempSync(join(tmpdir(), 'cellwright-copy-'));
after(() => rmSync(folder, { recursive: true, force: true }));
/** Copies are made here, where no other test makes any. */
process.env['TMPDIR'] = folder;
const wal = join(folder, 'log.db-wal');
writeFileSync(join(folder, 'log.db'), 'pages');
writeFileSync(join(folder, 'log.mark'), 'mark');

/** A write-ahead log begins anew while the database is copied, this many times. */
function overtaken(times: number): { readonly copy: () => ReturnType<typeof copyLog>; readonly copied: string[] } {
  let left = times;
  const copied: string[] = [];
  writeFileSync(wal, `salt 0 ${'x'.repeat(32)}`);
  const copyFile = (from: string, to: string): void => {
    if (!existsSync(from)) return;
    copied.push(from.slice(folder.length + 1));
    copyFileSync(from, to);
    if (!from.endsWith('log.db') || left === 0) return;
    left -= 1;
    writeFileSync(wal, `salt ${left + 1} ${'x'.repeat(32)}`);
  };
  return { copy: () => copyLog(folder, copyFile), copied };
}

function copiesLeft(): readonly string[] {
  return readdirSync(folder).filter((name) => name.startsWith('cellwright-log-'));
}

test('the mark is copied before the database, and that before its write-ahead log', () => {
  const { copy, copied } = overtaken(0);
  const { files, remove } = copy();
  assert.deepEqual(copied, ['log.mark', 'log.db', 'log.db-wal']);
  assert.ok(existsSync(files.wal));
  remove();
  assert.equal(existsSync(files.folder), false);
});

test('a copy that was overtaken is made again, a bounded number of times', () => {
  overtaken(copyAttemptsMax - 1)
    .copy()
    .remove();
  for (const times of [copyAttemptsMax, copyAttemptsMax + 1]) {
    const before = copiesLeft();
    assert.throws(overtaken(times).copy, (error) => error instanceof Fault && error.code === 'log-busy');
    assert.deepEqual(copiesLeft(), before, 'what was copied in vain is taken away');
  }
});
