/**
 * How many refusals without an idempotency key an instance records in one second of recorded time: they are there to be
 * decided again by another version, and a client that repeats one in a loop must not fill the log.
 */
export const refusalsPerSecondMax = 10;

/** Which refusals of an instance are recorded. No part of its state: replay takes what is there. */
export class RefusalRate {
  #second = -1;
  #recorded = 0;
  /** Refusals since the last record of the instance that were not recorded; the next record says how many. */
  skipped = 0;

  /** Whether one more may be recorded at this time; counts it if so. */
  mayRecord(nowMs: number): boolean {
    const second = Math.floor(nowMs / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#recorded = 0;
    }
    if (this.#recorded >= refusalsPerSecondMax) return false;
    this.#recorded += 1;
    return true;
  }
}
