import { join } from 'node:path';
import type { Fault } from '../../kernel/fault.ts';
import { CellDesiredSchema, type CellDesired } from '../../protocol/desired.ts';
import { fault } from '../../protocol/errors.ts';
import type { CellName, FleetId } from '../../protocol/names.ts';
import { asFault } from '../../protocol/problem.ts';
import { SignedSchema, type Signed } from '../../protocol/routing.ts';
import type { Condition } from '../../protocol/resources.ts';
import { readJsonFile, writeFileAtomically } from '../../process/folder.ts';
import type { Verifier } from '../../trust/signature.ts';

const desiredFile = 'desired.json';

/**
 * What the cell is to be, as the control plane signed it, kept on disk. The running process keeps
 * the blueprint it started with: a changed one waits for the next start, so that a bad change
 * never takes down every cell at once.
 */
export class KeptDesired {
  readonly #path: string;
  readonly #verifier: Verifier;
  readonly #who: { readonly fleet: FleetId; readonly cell: CellName };
  #newest: CellDesired | undefined;
  #running: CellDesired | undefined;

  constructor(folder: string, verifier: Verifier, who: { readonly fleet: FleetId; readonly cell: CellName }) {
    this.#path = join(folder, desiredFile);
    this.#verifier = verifier;
    this.#who = who;
  }

  /** What this process was started with; undefined until it is known. */
  get running(): CellDesired | undefined {
    return this.#running;
  }

  /** Reads the kept document. Returns why it cannot be used; the next one from the control plane replaces it. */
  async load(): Promise<Fault | undefined> {
    try {
      const signed = await readJsonFile(this.#path, SignedSchema);
      if (signed !== undefined) this.#newest = this.#verify(signed);
      this.#running = this.#newest;
      return undefined;
    } catch (thrown) {
      return asFault(thrown);
    }
  }

  /** Takes a document unless it is older than the newest. Throws `frame-refused` if it is not for this cell. */
  async take(signed: Signed): Promise<void> {
    const document = this.#verify(signed);
    const newest = this.#newest;
    if (newest !== undefined && !isNewer(document, newest)) return;
    await writeFileAtomically(this.#path, `${JSON.stringify(signed)}\n`);
    this.#newest = document;
    this.#running ??= document;
  }

  /** Whether the process runs the newest blueprint that it knows. */
  condition(): Condition {
    const type = 'BlueprintCurrent';
    const running = this.#running?.blueprint;
    const newest = this.#newest?.blueprint;
    if (running === undefined || newest === undefined) {
      return { type, status: 'Unknown', reason: 'NotKnownYet', message: 'No desired state has arrived yet.' };
    }
    const runs = `${running.name} of version ${running.version}`;
    if (running.name === newest.name && running.version === newest.version) {
      return { type, status: 'True', reason: 'Current', message: `The cell runs blueprint ${runs}.` };
    }
    const message = `The cell runs blueprint ${runs}; ${newest.name} of version ${newest.version} waits until it is restarted.`;
    return { type, status: 'False', reason: 'RestartNeeded', message };
  }

  #verify(signed: Signed): CellDesired {
    const document = this.#verifier.verify(signed, CellDesiredSchema);
    if (document.fleet === this.#who.fleet && document.cell === this.#who.cell) return document;
    throw fault(
      'frame-refused',
      `Desired state of cell ${document.cell} in fleet ${document.fleet} came to ${this.#who.cell}.`,
    );
  }
}

function isNewer(a: CellDesired, b: CellDesired): boolean {
  return a.generation > b.generation || (a.generation === b.generation && a.version > b.version);
}
