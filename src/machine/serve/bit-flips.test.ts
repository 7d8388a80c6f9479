import { closeSync, cpSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { hash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ok, strictEqual } from 'node:assert/strict';
import { recordAt } from '../../../test/machine/records.ts';
import { Fault } from '../../kernel/fault.ts';
import { createIfMissing, logFiles, type LogFiles } from './log/files.ts';
import { LogProof } from './log/proof.ts';
import { LogWriter } from './log/writer.ts';
import type { Mark } from './log/mark.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-flips-'));
after(() => rmSync(root, { recursive: true, force: true }));
const identity = { owner: 'test/log', mustExist: true };
const records = 10_000;
const soak = process.env['CELLWRIGHT_SOAK'] === '1';
/** Byte positions that are tried in each file, every bit of each. */
const bytesTried = soak ? 500 : 6;
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

function randomFrom(from: number): (below: number) => number {
  let state = from;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const closedLog = logFiles(join(root, 'closed'));
const killedLog = logFiles(join(root, 'killed'));
let checkpoint: Mark;

before(() => {
  createIfMissing(closedLog, { ...identity, mustExist: false });
  let writer = opened();
  checkpoint = writer.last;
  while (writer.last.position < records) {
    if (writer.last.position === records - 500) {
      checkpoint = writer.last;
      // The last records rest in the write-ahead log of a process that was killed, and nothing else.
      writer.close();
      writer = opened();
    }
    const first = writer.last.position + 1;
    const batch = Array.from({ length: 50 }, (_, i) => recordAt(first + i));
    writer.append(
      batch.map(({ head }) => head),
      batch.map(({ payload }) => payload),
    );
  }
  cpSync(closedLog.folder, killedLog.folder, { recursive: true });
  writer.close();
  ok(statSync(killedLog.wal).size > 100_000);
});

function opened(): LogWriter {
  const proof = new LogProof(closedLog, { ...identity, mustExist: false });
  while (proof.next() !== undefined);
  const end = proof.end();
  proof.close();
  return new LogWriter(closedLog, end, identity.owner);
}

/** What is handed out, from the first record or from the checkpoint on, as one hash. */
function read(files: LogFiles, from: Mark | undefined): string {
  const proof = new LogProof(files, identity, { from });
  try {
    const texts: string[] = [String(proof.start.position)];
    for (let page = proof.read(1_000); page.length > 0; page = proof.read(1_000)) {
      for (const { position, head, payload } of page) texts.push(`${position} ${head} ${payload}`);
    }
    texts.push(String(proof.end().last.position));
    return hash('sha256', texts.join('\n'));
  } finally {
    proof.close();
  }
}

/** Flips every bit of some bytes of a file, in place, and each time proves the log. */
function flipAll(files: LogFiles, file: string, from: Mark | undefined, random: (below: number) => number) {
  const tally = { detected: 0, harmless: 0 };
  const whole = read(files, from);
  const { size } = statSync(file);
  const handle = openSync(file, 'r+');
  const original = readFileSync(file);
  const byte = Buffer.alloc(1);
  try {
    for (let i = 0; i < bytesTried; i++) {
      // Every fourth is in the head of the file or of a page, where each byte means something.
      const at =
        i % 4 === 0 ? Math.min(size - 1, random(Math.ceil(size / 16_384)) * 16_384 + random(128)) : random(size);
      for (let bit = 0; bit < 8; bit++) {
        readSync(handle, byte, 0, 1, at);
        byte[0] = (byte[0] ?? 0) ^ (1 << bit);
        writeSync(handle, byte, 0, 1, at);
        try {
          strictEqual(read(files, from), whole, `SEED=${seed}: bit ${bit} of byte ${at} of ${file} was served`);
          tally.harmless += 1;
        } catch (thrown) {
          if (!(thrown instanceof Fault)) throw thrown;
          ok(['log-damaged', 'folder-newer', 'folder-older', 'folder-foreign'].includes(thrown.code), thrown.code);
          tally.detected += 1;
        } finally {
          byte[0] = (byte[0] ?? 0) ^ (1 << bit);
          writeSync(handle, byte, 0, 1, at);
        }
      }
    }
  } finally {
    closeSync(handle);
  }
  ok(readFileSync(file).equals(original), 'only reading happened');
  return tally;
}

for (const [what, files, names] of [
  ['a log that was closed', closedLog, ['database', 'mark']],
  ['a log whose process was killed', killedLog, ['database', 'wal', 'mark']],
] as const) {
  for (const name of names) {
    test(`every flipped bit of sampled bytes of the ${name} of ${what} is detected or harmless, never served`, (t) => {
      t.diagnostic(`SEED=${seed}`);
      const random = randomFrom(seed);
      const whole = flipAll(files, files[name], undefined, random);
      const tail = flipAll(files, files[name], checkpoint, random);
      t.diagnostic(`${JSON.stringify(whole)}, from a checkpoint on ${JSON.stringify(tail)}`);
      // One whole slot of the mark is enough.
      if (name !== 'mark') ok(whole.detected > 0);
    });
  }
}
