import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fault } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { isFolderFree, openDataFolder, type DataFolder } from '../../process/folder.ts';
import { endLeftWorkload } from '../../process/left-workload.ts';
import { controlName, folderOf, routerName } from './children.ts';

/** Processes of a host that was killed end within `orphanLifeMsMax`; a little more, for a busy machine. */
const orphanWaitMsMax = limits.orphanLifeMsMax + 2_000;
const lookEveryMs = 50;

/**
 * Opens and locks the data folder of a fleet, and waits until the processes of a host that was
 * killed are gone: they still write there, and hold its ports. A workload whose guardian was killed as
 * well is ended here, because its cell may not start again.
 * Faults: those of `openDataFolder`.
 */
export async function openFleetFolder(data: string): Promise<DataFolder> {
  const folder = await openDataFolder(data, 'fleet');
  try {
    await orphansGone(folder.path);
    for (const name of await cellsOn(folder.path)) {
      // A cell whose record is damaged says so itself when it starts.
      await endLeftWorkload(folderOf(folder.path, name)).catch(() => undefined);
    }
  } catch (thrown) {
    folder.release();
    throw thrown;
  }
  return folder;
}

async function cellsOn(data: string): Promise<readonly string[]> {
  return readdir(join(data, 'cells')).catch(() => []);
}

async function orphansGone(data: string): Promise<void> {
  const cells = await cellsOn(data);
  const folders = [controlName, routerName, ...cells].map((name) => folderOf(data, name));
  const deadlineMs = performance.now() + orphanWaitMsMax;
  for (;;) {
    const taken = folders.find((path) => !isFolderFree(path));
    if (taken === undefined) return;
    if (performance.now() > deadlineMs) {
      throw fault('folder-in-use', `${taken} is still in use by a process of an earlier host. End that process.`, {
        field: taken,
      });
    }
    await delay(lookEveryMs);
  }
}
