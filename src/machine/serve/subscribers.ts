import type { RecordedEvent } from '../decide/instance/instance.ts';
import type { LogRecord } from '../decide/log/record.ts';
import type { InstanceName } from './residency/hosted.ts';

/** One durable record with events, as subscribers and history see it. */
export interface Committed {
  readonly instance: InstanceName;
  readonly command: string;
  readonly input: unknown;
  /** Milliseconds since 1970, as the command saw it. */
  readonly now: number;
  readonly events: readonly RecordedEvent[];
  /** State hash after the last of the events. */
  readonly stateHash: string;
}

export function committed(record: LogRecord): Committed {
  const { instance, command, input, now, outcome, seqBefore, hashes } = record;
  const events =
    outcome.kind === 'accepted'
      ? outcome.events.map(({ type, data }, i) => ({ seq: seqBefore + i + 1, type, data }))
      : [];
  return { instance, command, input, now, events, stateHash: hashes[hashes.length - 1] ?? '' };
}

type Listener = (record: Committed) => void;

/** Who is told of the durable records of which instance, in memory or not. */
export class Subscribers {
  readonly #listeners = new Map<InstanceName, Set<Listener>>();

  /** Returns how to stop. */
  add(instance: InstanceName, listener: Listener): () => void {
    const listeners = this.#listeners.get(instance) ?? new Set();
    this.#listeners.set(instance, listeners);
    // A wrapper, so that one function may subscribe twice and stop once.
    const own: Listener = (record) => listener(record);
    listeners.add(own);
    return () => {
      listeners.delete(own);
      if (listeners.size === 0 && this.#listeners.get(instance) === listeners) this.#listeners.delete(instance);
    };
  }

  publish(record: LogRecord): void {
    if (this.#listeners.size === 0 || record.hashes.length === 1) return;
    const listeners = this.#listeners.get(record.instance);
    if (listeners === undefined) return;
    const event = committed(record);
    for (const listener of listeners) {
      try {
        listener(event);
      } catch (thrown) {
        // A listener's defect must neither hold back answers nor pass unseen.
        queueMicrotask(() => {
          throw thrown;
        });
      }
    }
  }
}
