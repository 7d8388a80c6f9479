import { assert } from './assert.ts';

/**
 * First in, first out, with two bounds: how many entries, and how large they are together. Whoever
 * pushes asks `admits` first and decides what to do at the bound; nothing is dropped in silence.
 * All operations are O(1) amortised.
 */
export class BoundedQueue<Entry> {
  readonly entriesMax: number;
  readonly sizeMax: number;
  #entries: Entry[] = [];
  #sizes: number[] = [];
  #head = 0;
  #size = 0;

  constructor(bounds: { readonly entriesMax: number; readonly sizeMax: number }) {
    assert(bounds.entriesMax > 0 && bounds.sizeMax > 0, 'a queue that can hold nothing would refuse everything');
    this.entriesMax = bounds.entriesMax;
    this.sizeMax = bounds.sizeMax;
  }

  get length(): number {
    return this.#entries.length - this.#head;
  }

  /** Sum of the sizes of what is in it, in the unit that the pushes used. */
  get size(): number {
    return this.#size;
  }

  /** Whether one more entry fits. An empty queue takes an entry of any size, or a large one could never pass. */
  get admits(): boolean {
    return this.length === 0 || (this.length < this.entriesMax && this.#size < this.sizeMax);
  }

  push(entry: Entry, size: number): void {
    assert(this.admits, 'the queue is at its bound; ask `admits` before pushing');
    this.#entries.push(entry);
    this.#sizes.push(size);
    this.#size += size;
  }

  /** Removes and returns up to `count` of the oldest entries. */
  take(count: number): readonly Entry[] {
    const end = Math.min(this.#entries.length, this.#head + count);
    const taken = this.#entries.slice(this.#head, end);
    for (let i = this.#head; i < end; i++) this.#size -= this.#sizes[i] ?? 0;
    this.#head = end;
    if (this.#head * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#sizes = this.#sizes.slice(this.#head);
      this.#head = 0;
    }
    return taken;
  }
}
