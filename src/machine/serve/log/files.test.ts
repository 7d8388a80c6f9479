import { constants, cpSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deepStrictEqual, ok, strictEqual, throws } from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { createIfMissing, logFiles, type LogFiles } from './files.ts';
import { LogProof } from './proof.ts';
import { LogWriter } from './writer.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-log-file-'));
after(() => rmSync(root, { recursive: true, force: true }));
const identity = { owner: 'test/log', mustExist: false };
let folders = 0;

function newFiles(): LogFiles {
  folders += 1;
  return logFiles(join(root, `log-${folders}`));
}

/** Proves the log to its end, as is done before it is opened for writing. */
function proven(files: LogFiles) {
  createIfMissing(files, identity);
  const proof = new LogProof(files, identity);
  while (proof.read(100).length === 100);
  const end = proof.end();
  proof.close();
  return end;
}

test('opening brings what a killed process left in the write-ahead log to the disk, before it is served', () => {
  const files = newFiles();
  const writer = new LogWriter(files, proven(files), identity.owner);
  writer.append(['head 1', 'head 2'], ['payload 1', 'payload 2']);
  // A copy of the files of a process that still runs is what its death would leave.
  const copy = newFiles();
  cpSync(files.folder, copy.folder, { recursive: true });
  writer.close();
  ok(statSync(copy.wal).size > 0);
  const recovered = new LogWriter(copy, proven(copy), identity.owner);
  strictEqual(statSync(copy.wal).size, 0, 'nothing rests in the page cache only');
  const alone = newFiles();
  cpSync(copy.folder, alone.folder, { recursive: true, filter: (from) => !/-(wal|shm)$/.test(from) });
  recovered.close();
  strictEqual(proven(alone).last.position, 2);
});

test('a log that changed between proof and opening is refused', () => {
  for (const sql of ["UPDATE record SET chain = 'other' WHERE position = 2", 'DELETE FROM record WHERE position = 2']) {
    const files = newFiles();
    const writer = new LogWriter(files, proven(files), identity.owner);
    writer.append(['head 1', 'head 2'], ['payload 1', 'payload 2']);
    writer.close();
    const end = proven(files);
    const database = new DatabaseSync(files.database);
    database.exec(sql);
    database.close();
    throws(
      () => new LogWriter(files, end, identity.owner),
      { code: 'log-damaged', message: /changed while it was being opened/ },
      identity.owner,
    );
  }
});

test(
  'the mark is open so that each write reaches the disk before it returns',
  { skip: process.platform !== 'linux' },
  () => {
    const files = newFiles();
    const writer = new LogWriter(files, proven(files), identity.owner);
    const flags = readdirSync('/proc/self/fd').flatMap((handle) => {
      try {
        if (readlinkSync(`/proc/self/fd/${handle}`) !== files.mark) return [];
        const info = readFileSync(`/proc/self/fdinfo/${handle}`, 'utf8');
        return [Number.parseInt(/^flags:\s*(\d+)/m.exec(info)?.[1] ?? '0', 8)];
      } catch {
        // The handle that read the folder is gone by now.
        return [];
      }
    });
    writer.close();
    strictEqual(flags.length, 1);
    strictEqual((flags[0] ?? 0) & constants.O_DSYNC, constants.O_DSYNC);
  },
);

test('from a checkpoint only the tail is read, and it must lead on from the checkpoint', () => {
  const files = newFiles();
  const writer = new LogWriter(files, proven(files), identity.owner);
  writer.append(['head 1', 'head 2'], ['payload 1', 'payload 2']);
  const { last } = writer;
  writer.append(['head 3'], ['payload 3']);
  writer.close();
  const proof = new LogProof(files, identity, { from: last });
  strictEqual(proof.start.position, 2);
  deepStrictEqual(proof.read(10), [{ position: 3, head: 'head 3', payload: 'payload 3' }]);
  strictEqual(proof.end().last.position, 3);
  proof.close();
  const database = new DatabaseSync(files.database);
  database.exec("UPDATE record SET payload = 'other' WHERE position = 3");
  database.close();
  const broken = new LogProof(files, identity, { from: last });
  throws(() => broken.read(10), { code: 'log-damaged', message: /Record 3 .* was changed/ });
  broken.close();
});

test('a checkpoint that the log does not hold is not believed: everything is read', () => {
  const files = newFiles();
  const writer = new LogWriter(files, proven(files), identity.owner);
  writer.append(['head 1', 'head 2'], ['payload 1', 'payload 2']);
  const { last } = writer;
  writer.close();
  for (const from of [
    { ...last, position: 1 },
    { ...last, position: 9 },
    { ...last, chain: 'f'.repeat(64) },
  ]) {
    const proof = new LogProof(files, identity, { from });
    strictEqual(proof.start.position, 0);
    strictEqual(proof.read(10).length, 2);
    strictEqual(proof.end().last.position, 2);
    proof.close();
  }
});

test('a record read by its position is proven by its digest', () => {
  const files = newFiles();
  const first = new LogWriter(files, proven(files), identity.owner);
  first.append(['head 1', 'head 2'], ['payload 1', 'payload 2']);
  const { last } = first;
  first.close();
  const database = new DatabaseSync(files.database);
  database.exec("UPDATE record SET payload = 'other' WHERE position = 1");
  database.close();
  const proof = new LogProof(files, identity, { from: last });
  const end = proof.end();
  proof.close();
  const writer = new LogWriter(files, end, identity.owner);
  strictEqual(writer.read([2])[0]?.payload, 'payload 2');
  throws(() => writer.read([1]), { code: 'log-damaged', message: /Record 1 .* was changed/ });
  writer.close();
});
