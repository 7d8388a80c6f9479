/** Which instance has something to do next. Each is in it once at most, with the time that was given last. */
export class DueQueue {
  readonly #due = new Map<string, number>();
  /** A binary heap by time; entries that are not as in `#due` any more are passed over. */
  #heap: { readonly instance: string; readonly atMs: number }[] = [];

  get size(): number {
    return this.#due.size;
  }

  /** Sets when an instance is due; undefined if it is not. O(log n) if that is new, else O(1). */
  set(instance: string, atMs: number | undefined): void {
    if (atMs === undefined) {
      this.#due.delete(instance);
      return;
    }
    if (this.#due.get(instance) === atMs) return;
    this.#due.set(instance, atMs);
    this.#push(instance, atMs);
    if (this.#heap.length > 2 * this.#due.size + 64) this.#rebuild();
  }

  /** When the next one is due; undefined if none is. */
  get nextMs(): number | undefined {
    this.#skip();
    return this.#heap[0]?.atMs;
  }

  /** Takes out the instance that is due first, if it is by `nowMs`. O(log n) amortised. */
  take(nowMs: number): string | undefined {
    this.#skip();
    const first = this.#heap[0];
    if (first === undefined || first.atMs > nowMs) return undefined;
    this.#pop();
    this.#due.delete(first.instance);
    return first.instance;
  }

  #skip(): void {
    for (let first = this.#heap[0]; first !== undefined; first = this.#heap[0]) {
      if (this.#due.get(first.instance) === first.atMs) return;
      this.#pop();
    }
  }

  #rebuild(): void {
    this.#heap = [];
    for (const [instance, atMs] of this.#due) this.#push(instance, atMs);
  }

  #push(instance: string, atMs: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push({ instance, atMs });
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      const [above, below] = [heap[parent], heap[at]];
      if (above === undefined || below === undefined || above.atMs <= below.atMs) return;
      heap[parent] = below;
      heap[at] = above;
      at = parent;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    heap[0] = last;
    let at = 0;
    for (;;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if ((heap[child]?.atMs ?? Number.POSITIVE_INFINITY) < (heap[least]?.atMs ?? 0)) least = child;
      }
      const [above, below] = [heap[at], heap[least]];
      if (least === at || above === undefined || below === undefined) return;
      heap[at] = below;
      heap[least] = above;
      at = least;
    }
  }
}
