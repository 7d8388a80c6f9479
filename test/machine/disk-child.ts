import { writeSync } from 'node:fs';
import { createIfMissing, logFiles } from '../../src/machine/serve/log/files.ts';
import { LogProof } from '../../src/machine/serve/log/proof.ts';
import { leaveFailure, recover } from '../../src/machine/serve/log/recovery.ts';
import { LogWriter } from '../../src/machine/serve/log/writer.ts';
import { erasureAt, instances, recordAt } from './records.ts';

/**
 * Opens a log, appends batches in its main thread and writes the last position of each to stdout once it is
 * acknowledged: `disk-child.ts FOLDER BATCHES`. Whoever traces its system calls knows what was on the disk by then.
 */
const [folder = '', batches = '0'] = process.argv.slice(2);
const identity = { owner: 'test/log', mustExist: false };
const files = logFiles(folder);
function finish(steps: Generator<undefined>): void {
  while (steps.next().done !== true);
}
recover(files, identity);
createIfMissing(files, identity);
const proof = new LogProof(files, identity);
while (proof.read(1_000).length === 1_000);
const end = proof.end();
proof.close();
const writer = new LogWriter(files, end, identity.owner);
try {
  writeSync(1, `open ${end.last.position}\n`);
  for (let i = 0; i < Number(batches); i++) {
    const first = writer.last.position + 1;
    const records = Array.from({ length: 1 + (i % 5) * 7 }, (_, n) => recordAt(first + n));
    writer.append(
      records.map(({ head }) => head),
      records.map(({ payload }) => payload),
    );
    writeSync(1, `ack ${writer.last.position}\n`);
    writer.maintain(25);
    if (i === 8) finish(writer.archive(writer.last.position - 20, {}));
    if (i === 12) {
      const position = writer.last.position + 1;
      const { head, payload } = erasureAt(position, position - instances);
      writer.append([head], [payload]);
      writeSync(1, `ack ${position}\n`);
      finish(writer.erase());
      writeSync(1, `erased ${position}\n`);
    }
    if (i === 13) finish(writer.archive(writer.last.position - 10, { bytesMax: 1 }));
  }
  writer.close();
} catch (thrown) {
  leaveFailure(files, thrown);
  writeSync(1, `failed\n`);
  process.exit(3);
}
