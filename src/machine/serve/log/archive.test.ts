import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deepStrictEqual, ok, strictEqual, throws } from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { erasureAt, recordAt } from '../../../../test/machine/records.ts';
import type { Archived, Retention } from './archive.ts';
import { createIfMissing, logFiles, type LogFiles, type StoredRecord } from './files.ts';
import { LogProof, type ProofOptions, type ProvenEnd } from './proof.ts';
import { LogWriter } from './writer.ts';
import type { Mark } from './mark.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-archive-'));
after(() => rmSync(root, { recursive: true, force: true }));
const identity = { owner: 'test/log', mustExist: false };
let folders = 0;

function newFiles(): LogFiles {
  folders += 1;
  return logFiles(join(root, `log-${folders}`));
}

function proven(
  files: LogFiles,
  options: ProofOptions = {},
): { readonly end: ProvenEnd; readonly records: readonly StoredRecord[]; readonly start: Mark } {
  const proof = new LogProof(files, identity, options);
  try {
    const records: StoredRecord[] = [];
    for (let page = proof.read(100); page.length > 0; page = proof.read(100)) records.push(...page);
    return { end: proof.end(), records, start: proof.start };
  } finally {
    proof.close();
  }
}

function opened(files: LogFiles, options: ProofOptions = {}): LogWriter {
  createIfMissing(files, identity);
  return new LogWriter(files, proven(files, options).end, identity.owner);
}

function append(writer: LogWriter, count: number): void {
  const first = writer.last.position + 1;
  const records = Array.from({ length: count }, (_, i) => recordAt(first + i));
  ok(
    writer.append(
      records.map(({ head }) => head),
      records.map(({ payload }) => payload),
    ) !== undefined,
  );
}

function finish<Result>(steps: Generator<undefined, Result>): Result {
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

function archive(writer: LogWriter, upTo: number, retention: Retention = {}): Archived {
  return finish(writer.archive(upTo, retention));
}

/** Appends the record that erases the instance of the record at a position; returns its own position. */
function recordErasure(writer: LogWriter, lastOfInstance: number): number {
  const position = writer.last.position + 1;
  const { head, payload } = erasureAt(position, lastOfInstance);
  writer.append([head], [payload]);
  return position;
}

/** Which files below a folder hold these bytes. */
function filesWith(folder: string, text: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => {
    const file = join(folder, name);
    return statSync(file).isFile() && readFileSync(file).includes(text);
  });
}

test('archived records leave the log, are read as before, and are proven with it from the first', () => {
  const files = newFiles();
  const writer = opened(files);
  for (let i = 0; i < 10; i++) append(writer, 30);
  deepStrictEqual(archive(writer, 205), { upTo: 192, removedUpTo: 0 });
  deepStrictEqual(archive(writer, 250), { upTo: 240, removedUpTo: 0 });
  deepStrictEqual(readdirSync(files.archive).toSorted(), [
    '000000000001-000000000192.db',
    '000000000193-000000000240.db',
  ]);
  for (const position of [1, 192, 193, 240, 241, 300]) {
    deepStrictEqual(writer.read([position]), [{ position, ...recordAt(position) }]);
  }
  strictEqual(writer.walk(300, 1_000).length, 60, 'back pointers lead through the archive');
  append(writer, 10);
  const { last } = writer;
  writer.close();
  const whole = proven(files);
  strictEqual(whole.records.length, 310);
  deepStrictEqual(
    whole.records,
    Array.from({ length: 310 }, (_, i) => ({ position: i + 1, ...recordAt(i + 1) })),
  );
  deepStrictEqual(proven(files, { from: last }).records, []);
  const again = opened(files, { from: last });
  deepStrictEqual(again.read([7]), [{ position: 7, ...recordAt(7) }]);
  again.close();
});

test('a missing, cut or changed segment is damage, named by its file and record', () => {
  const files = newFiles();
  const writer = opened(files);
  for (let i = 0; i < 6; i++) append(writer, 16);
  archive(writer, 40);
  archive(writer, 80);
  writer.close();
  const segment = join(files.archive, '000000000033-000000000080.db');
  const damages: readonly (readonly [string | undefined, RegExp])[] = [
    [undefined, /Record 33 of .*log.db is missing|ends at record 32/],
    [
      "UPDATE record SET payload = 'other' WHERE position = 40",
      /Record 40 of .*000000000033-000000000080\.db was changed/,
    ],
    ['UPDATE record SET payload = NULL WHERE position = 40', /Record 40 of .* lost what it said/],
    ['DELETE FROM record WHERE position = 50', /Record 50 of .*000000000033-000000000080\.db is missing/],
    ['DELETE FROM record WHERE position > 60', /ends at record 60|Record 61 of .* is missing/],
  ];
  const kept = readFileSync(segment);
  for (const [sql, message] of damages) {
    if (sql === undefined) rmSync(segment);
    else {
      const database = new DatabaseSync(segment);
      database.exec(sql);
      database.close();
    }
    throws(() => proven(files), { code: 'log-damaged', message });
    writeFileSync(segment, kept);
  }
  strictEqual(proven(files).records.length, 96);
});

test('a segment that a crash left before the log gave it up does not count, and is written again', () => {
  const files = newFiles();
  const writer = opened(files);
  for (let i = 0; i < 6; i++) append(writer, 16);
  writer.close();
  const before = newFiles();
  cpSync(files.folder, before.folder, { recursive: true });
  const archiving = opened(files);
  archive(archiving, 48);
  archiving.close();
  // The segment is there, and the log has its records still.
  cpSync(files.archive, before.archive, { recursive: true });
  strictEqual(proven(before).records.length, 96);
  const again = opened(before);
  strictEqual(archive(again, 70).upTo, 64);
  again.close();
  strictEqual(proven(before).records.length, 96);
});

test('retention removes the oldest segments, by size or by age, and only if asked to', () => {
  const files = newFiles();
  const writer = opened(files);
  for (let i = 0; i < 8; i++) append(writer, 16);
  for (const upTo of [32, 64, 96]) archive(writer, upTo);
  strictEqual(readdirSync(files.archive).length, 3);
  const bytes = (name: string): number => statSync(join(files.archive, name)).size;
  const [, second = '', third = ''] = readdirSync(files.archive).toSorted();
  const both = bytes(second) + bytes(third);
  deepStrictEqual(archive(writer, 0, { bytesMax: both }), { upTo: 96, removedUpTo: 32 });
  deepStrictEqual(archive(writer, 0, { bytesMax: both }), { upTo: 96, removedUpTo: 32 });
  // Record 64 was recorded at 1,064.
  deepStrictEqual(archive(writer, 0, { keptSinceMs: 1_064 }), { upTo: 96, removedUpTo: 32 });
  deepStrictEqual(archive(writer, 0, { keptSinceMs: 1_065 }), { upTo: 96, removedUpTo: 64 });
  throws(() => writer.read([64]), { code: 'history-erased' });
  strictEqual(writer.read([65]).length, 1);
  const { last } = writer;
  writer.close();
  strictEqual(proven(files).start.position, 64);
  strictEqual(proven(files, { from: last }).start.position, 128);
});

test('an erased instance leaves no byte of what its records said in any file, and the chain is proven as before', () => {
  const files = newFiles();
  const writer = opened(files);
  // Payloads of many sizes, pages that were rewritten, a part in the archive, evidence of a failure, a long WAL.
  for (let i = 0; i < 12; i++) append(writer, 25);
  archive(writer, 120);
  for (let i = 0; i < 4; i++) append(writer, 25);
  mkdirSync(files.evidence);
  cpSync(files.database, join(files.evidence, 'log.db'));
  const last = 398;
  const erasure = recordErasure(writer, last);
  append(writer, 3);
  const saying = (position: number): string => JSON.parse(recordAt(position).payload.slice(3))[1].text.slice(0, 60);
  ok(filesWith(files.folder, saying(393)).length > 0);
  deepStrictEqual(finish(writer.erase()), [{ instance: 'tenant-3', position: erasure, pending: true }]);
  for (let position = 3; position <= last; position += 5) {
    // A text of its own: `393 393 …`, which no other record holds.
    const text = position < 100 ? recordAt(position).payload : saying(position);
    deepStrictEqual(filesWith(files.folder, text), [], `record ${position}`);
  }
  ok(!existsSync(files.evidence));
  throws(() => writer.read([393]), { code: 'history-erased' });
  throws(() => writer.read([8]), { code: 'history-erased' });
  deepStrictEqual(writer.read([394, 9]), [
    { position: 394, ...recordAt(394) },
    { position: 9, ...recordAt(9) },
  ]);
  deepStrictEqual(finish(writer.erase()), [], 'once');
  writer.close();
  const { records, end } = proven(files);
  strictEqual(end.last.position, 404);
  strictEqual(records.length, 404 - 80);
  deepStrictEqual(
    records.filter(({ head }) => head.includes('tenant-3')).map(({ position }) => position),
    [erasure, 403],
  );
});

test('an erasure that was interrupted is worked off after the next opening, and no record of it is handed out meanwhile', () => {
  const files = newFiles();
  const writer = opened(files);
  for (let i = 0; i < 60; i++) append(writer, 25);
  recordErasure(writer, 1_498);
  writer.erase().next();
  writer.close();
  const { records } = proven(files);
  deepStrictEqual(
    records.filter(({ head }) => head.includes('tenant-3')).map(({ position }) => position),
    [1_501],
  );
  const again = opened(files);
  deepStrictEqual(again.erased, [{ instance: 'tenant-3', position: 1_501, pending: true }]);
  strictEqual(archive(again, 1_000).upTo, 0, 'what is to be erased is not archived before');
  strictEqual(finish(again.erase()).length, 1);
  deepStrictEqual(again.erased, [{ instance: 'tenant-3', position: 1_501, pending: false }]);
  again.close();
});

test('a payload that is missing without an erasure is damage, and so is one that was lost after it', () => {
  const files = newFiles();
  const writer = opened(files);
  for (let i = 0; i < 4; i++) append(writer, 25);
  recordErasure(writer, 98);
  finish(writer.erase());
  append(writer, 10);
  writer.close();
  const kept = readFileSync(files.database);
  for (const position of [7, 108]) {
    const database = new DatabaseSync(files.database);
    database.exec(`UPDATE record SET payload = NULL WHERE position = ${position}`);
    database.close();
    throws(() => proven(files), {
      code: 'log-damaged',
      message: new RegExp(`Record ${position} of .* lost what it said`),
    });
    writeFileSync(files.database, kept);
  }
  // The note without the record that makes it true.
  const database = new DatabaseSync(files.database);
  database.exec(
    "UPDATE record SET payload = NULL WHERE position = 7; INSERT INTO meta VALUES ('erased tenant-2', '50')",
  );
  database.close();
  throws(() => proven(files), {
    code: 'log-damaged',
    message: /Record 7 of .* lost what it said, and tenant-2 was never erased/,
  });
});
