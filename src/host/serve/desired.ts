import { join } from 'node:path';
import { SignedSchema, type Signed } from '../../protocol/routing.ts';
import { HostDesiredSchema, type HostDesired } from '../../protocol/desired.ts';
import { fault } from '../../protocol/errors.ts';
import { asFault } from '../../protocol/problem.ts';
import type { Fault } from '../../kernel/fault.ts';
import { follow, type Following } from '../../follow/follow.ts';
import { readJsonFile, writeFileAtomically } from '../../process/folder.ts';
import type { Verifier } from '../../trust/signature.ts';

/** The one host of a machine's fleet. */
export const hostName = 'local';

export interface DesiredOptions {
  readonly folder: string;
  readonly fleet: string;
  readonly verifier: Verifier;
  readonly onDesired: (desired: HostDesired) => void;
  readonly onProblem: (reason: Fault) => void;
}

/** Which cells this machine runs: kept on disk as it was signed, and brought up to date by the control plane. */
export class KeptDesired {
  readonly #options: DesiredOptions;
  readonly #file: string;
  #current: HostDesired | undefined;

  constructor(options: DesiredOptions) {
    this.#options = options;
    this.#file = join(options.folder, 'desired.json');
  }

  get current(): HostDesired | undefined {
    return this.#current;
  }

  /**
   * Takes what is on disk. A file that is damaged is said and left alone: the control plane sends
   * the document again, and until then it is not known which cells run here.
   */
  async load(): Promise<void> {
    try {
      const signed = await readJsonFile(this.#file, SignedSchema);
      if (signed !== undefined) this.#take(signed);
    } catch (thrown) {
      const reason = asFault(thrown);
      const text = `${this.#file} cannot be used (${reason.message}) Cells start once the control plane has sent it again.`;
      this.#options.onProblem(fault('file-unreadable', text, { field: this.#file, cause: reason }));
    }
  }

  /** Follows the control plane for ever. What it sends is on disk before it takes effect. */
  follow(controlUrl: string, token: string): Following {
    return follow({
      url: new URL(`/v1/agents/hosts/${hostName}?watch=true`, controlUrl).href,
      token,
      position: () => undefined,
      onEvent: async (event) => {
        if (event.type !== 'desired') return;
        try {
          await this.#receive(JSON.parse(event.data));
        } catch (thrown) {
          this.#options.onProblem(asFault(thrown));
          throw thrown;
        }
      },
    });
  }

  async #receive(signed: unknown): Promise<void> {
    const desired = this.#read(signed);
    if (!this.#isNewer(desired)) return;
    await writeFileAtomically(this.#file, `${JSON.stringify(signed)}\n`);
    this.#current = desired;
    this.#options.onDesired(desired);
  }

  #take(signed: Signed): void {
    this.#current = this.#read(signed);
    this.#options.onDesired(this.#current);
  }

  #read(signed: unknown): HostDesired {
    const desired = this.#options.verifier.verify(signed, HostDesiredSchema);
    if (desired.fleet !== this.#options.fleet || desired.host !== hostName) {
      throw fault(
        'frame-refused',
        `Desired state for host ${desired.host} of fleet ${desired.fleet} is not for this one.`,
      );
    }
    return desired;
  }

  /** The same version again changes nothing; an older one is a repeat of the past. */
  #isNewer({ generation, version }: HostDesired): boolean {
    const current = this.#current;
    if (current === undefined || generation !== current.generation) return generation > (current?.generation ?? 0);
    return version > current.version;
  }
}
