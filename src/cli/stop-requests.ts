/** A terminal's Ctrl-C reaches this process from the terminal and again from the launcher: one wish, not two. */
export const sameWishMs = 700;

/**
 * Tells a first request to stop from a second one that means "at once". Requests within `sameWishMs` of the first
 * are the same wish, sent twice.
 */
export class StopRequests {
  #firstMs: number | undefined;

  /** What a request at this time asks for. */
  take(nowMs: number): 'stop' | 'repeated' | 'at-once' {
    if (this.#firstMs === undefined) {
      this.#firstMs = nowMs;
      return 'stop';
    }
    return nowMs - this.#firstMs < sameWishMs ? 'repeated' : 'at-once';
  }
}
