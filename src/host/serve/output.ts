import { closeSync, mkdirSync, openSync } from 'node:fs';
import { copyFile, readdir, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';

/** A log file beyond this is copied to `NAME.log.1` (which it replaces) and emptied. */
export const logBytesMax = 16 * 1024 * 1024;
const lookEveryMs = 5_000;

/**
 * Where the output of processes goes. Each writes into its file itself, through a descriptor that
 * appends: lines survive the host, and a slow host slows no process down.
 */
export interface Outputs {
  /** A descriptor for one process to inherit. The caller closes its own end with `close`. */
  open(name: string): { readonly descriptor: number; close(): void };
  /** Bounds the files now. A process may write some lines between copy and truncation: these are lost. */
  bound(): Promise<void>;
  stop(): void;
}

export function openOutputs(folder: string, bytesMax: number = logBytesMax): Outputs {
  mkdirSync(folder, { recursive: true });

  async function bound(): Promise<void> {
    for (const name of await readdir(folder)) {
      if (!name.endsWith('.log')) continue;
      const file = join(folder, name);
      if ((await stat(file)).size <= bytesMax) continue;
      await copyFile(file, `${file}.1`);
      await truncate(file);
    }
  }

  // A log that cannot be bounded (a full disk, a removed folder) must not end the host.
  const looking = setInterval(() => void bound().catch(() => undefined), lookEveryMs);
  looking.unref();
  return {
    open(name) {
      const descriptor = openSync(join(folder, `${name}.log`), 'a', 0o600);
      return { descriptor, close: () => closeSync(descriptor) };
    },
    bound,
    stop: () => clearInterval(looking),
  };
}
