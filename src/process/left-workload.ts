import { join } from 'node:path';
import { Type } from 'typebox';
import { endProcesses } from './descendants.ts';
import { readJsonFile, writeFileAtomically } from './folder.ts';

/** In a cell's folder: written before its workload starts, so that whoever comes next finds what was left behind. */
const recordFile = 'workload.json';
const RecordSchema = Type.Object({ instance: Type.String({ minLength: 1 }) });

export async function recordWorkload(cellFolder: string, instance: string): Promise<void> {
  await writeFileAtomically(join(cellFolder, recordFile), JSON.stringify({ instance }));
}

/** Ends at once what the last workload of a cell left running, if nobody looks after it any more. Fault `file-unreadable`. */
export async function endLeftWorkload(cellFolder: string): Promise<void> {
  const left = await readJsonFile(join(cellFolder, recordFile), RecordSchema);
  if (left !== undefined) await endProcesses({ instance: left.instance, group: undefined }, 0);
}
