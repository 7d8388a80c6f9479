import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deepStrictEqual, strictEqual, throws } from 'node:assert/strict';
import { createMark, MarkWriter, readMark, slotBytes } from './mark.ts';

const folder = mkdtempSync(join(tmpdir(), 'cellwright-mark-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, 'log.mark');
const chainAt = (position: number): string => position.toString(16).padStart(64, '0');
const markAt = (position: number) => ({ position, chain: chainAt(position) });

test('the newest whole slot counts, and a torn newer one leaves the one before', () => {
  createMark(file, markAt(0));
  deepStrictEqual(readMark(file)?.mark, markAt(0));
  const writer = new MarkWriter(file, readMark(file)?.counter ?? 0);
  for (const position of [3, 7, 12]) writer.write(markAt(position));
  writer.close();
  const newest = readMark(file);
  deepStrictEqual(newest?.mark, markAt(12));
  const whole = readFileSync(file);
  const slot = ((newest?.counter ?? 0) % 2) * slotBytes;
  for (let at = slot; at < slot + slotBytes; at++) {
    const torn = Buffer.from(whole);
    torn[at] = (torn[at] ?? 0) ^ 1;
    writeFileSync(file, torn);
    deepStrictEqual(readMark(file)?.mark, markAt(7), `byte ${at}`);
  }
});

test('a mark without a whole slot is damage, one of a newer format says so, and no file is no mark', () => {
  writeFileSync(file, '');
  throws(() => readMark(file), { code: 'log-damaged', field: file });
  writeFileSync(file, 'cellwright-mark 2 anything');
  throws(() => readMark(file), { code: 'folder-newer', field: file });
  rmSync(file);
  strictEqual(readMark(file), undefined);
});
