import type { Logger } from 'pino';
import type { QuarantineFolder } from '../../machine/serve/replica/quarantine.ts';

/** How often the folder is looked at, while there is a quarantine at all. */
const lookEveryMs = 500;

/**
 * Ends quarantines that an operator asks to end, by a file beside the evidence: whoever may write there may ask. Works
 * without the control plane, and for a request that was made while the cell was down.
 */
export class ReleaseDesk {
  readonly #quarantine: QuarantineFolder;
  readonly #prove: (instance: string) => Promise<void>;
  readonly #log: Pick<Logger, 'info' | 'error'>;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(
    quarantine: QuarantineFolder,
    prove: (instance: string) => Promise<void>,
    log: Pick<Logger, 'info' | 'error'>,
  ) {
    this.#quarantine = quarantine;
    this.#prove = prove;
    this.#log = log;
    this.#look();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #look(): void {
    void this.#answer().finally(() => {
      if (this.#stopped) return;
      this.#timer = setTimeout(() => this.#look(), lookEveryMs);
      this.#timer.unref();
    });
  }

  async #answer(): Promise<void> {
    try {
      for (const instance of this.#quarantine.requests()) {
        const released = await this.#quarantine.release(instance, () => this.#prove(instance));
        if (released) this.#log.info({ instance }, 'the quarantine is ended: every hash agrees');
        else {
          const reason = this.#quarantine.get(instance)?.releaseRefused?.reason ?? 'it is not quarantined';
          this.#log.error({ instance }, `the quarantine is not ended: ${reason}`);
        }
      }
    } catch (thrown) {
      this.#log.error({ err: thrown }, 'the quarantine folder could not be read');
    }
  }
}
