import { printable, type Output } from './terminal.ts';

const redrawIntervalMs = 100;
const lineIntervalMs = 5_000;

/** How far reading a log has come: one line that is redrawn on a terminal, elsewhere a line now and then. */
export class ReadingProgress {
  readonly #output: Output;
  readonly #nowMs: () => number;
  readonly #what: string;
  #saidMs: number;
  #drawn = false;

  constructor(output: Output, nowMs: () => number, what: string) {
    this.#output = output;
    this.#nowMs = nowMs;
    this.#what = printable(what);
    this.#saidMs = nowMs();
  }

  take({ position, last }: { readonly position: number; readonly last: number }): void {
    const nowMs = this.#nowMs();
    if (nowMs - this.#saidMs < (this.#output.isTTY ? redrawIntervalMs : lineIntervalMs)) return;
    this.#saidMs = nowMs;
    const text = `${this.#what}: record ${position} of ${last}`;
    this.#output.write(this.#output.isTTY ? `\r\u001B[2K${text}` : `${text}\n`);
    this.#drawn = true;
  }

  /** Takes the line away. */
  end(): void {
    if (this.#drawn && this.#output.isTTY) this.#output.write('\r\u001B[2K');
    this.#drawn = false;
  }
}
