import { Type } from 'typebox';
import { readJsonFile, writeFileAtomically } from '../../process/folder.ts';

const ServedSchema = Type.Object({ served: Type.Array(Type.String()) });

/**
 * Which processes with a log once served here (rule H11). Kept apart from their logs, so that a log
 * that is gone with its whole folder is told from one that never was.
 */
export interface Served {
  has(name: string): boolean;
  /** Remembers that a process served; takes effect at once, and is written soon. */
  note(name: string): void;
  /** Resolves once all that was noted is on disk; rejects if it could not be written. What failed is tried again here. */
  kept(): Promise<void>;
}

/** Reads the file; it does not exist before anything served. Fault `file-unreadable` if it is damaged. */
export async function openServed(file: string, onProblem: (thrown: unknown) => void): Promise<Served> {
  const names = new Set((await readJsonFile(file, ServedSchema))?.served);
  let writtenSize = names.size;
  let writing: Promise<void> = Promise.resolve();

  async function write(): Promise<void> {
    // Names are only ever added, so as many names are the same names.
    const { size } = names;
    if (size === writtenSize) return;
    await writeFileAtomically(file, `${JSON.stringify({ served: [...names].toSorted() })}\n`);
    writtenSize = size;
  }
  function kept(): Promise<void> {
    const written = writing.then(write);
    writing = written.catch(() => undefined);
    return written;
  }
  return {
    has: (name) => names.has(name),
    note(name) {
      names.add(name);
      if (names.size !== writtenSize) kept().catch(onProblem);
    },
    kept,
  };
}
