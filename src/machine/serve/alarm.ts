import type { DirectoryEntry } from '../decide/residency/directory.ts';
import { DueQueue } from '../decide/residency/due.ts';
import type { InstanceName } from './residency/hosted.ts';

/** Bounds of when timers are looked at. */
export const alarmBounds = {
  /** The clock is looked at this often while any timer is set, because it may be set forward. */
  checkMsMax: 1_000,
  /** Instances whose timers fire at the same time; the others follow. */
  firingMax: 64,
  /** Before a timer that could not be fired is tried again. */
  retryMs: 1_000,
} as const;

/**
 * Fires the timers of all instances, in memory or not, with one timer of the process. An instance of which it is not
 * known when its next timer is due, because only its records were seen, is looked at as soon as possible.
 */
export class Alarm {
  readonly #due = new DueQueue();
  readonly #nowMs: () => number;
  readonly #fire: (instance: InstanceName) => Promise<boolean>;
  readonly #firing = new Set<InstanceName>();
  #timeout: NodeJS.Timeout | undefined;
  #timeoutAtMs = Number.POSITIVE_INFINITY;
  #stopped = false;

  /** `fire` does what is due of an instance, and resolves with false if it could not. */
  constructor(nowMs: () => number, fire: (instance: InstanceName) => Promise<boolean>) {
    this.#nowMs = nowMs;
    this.#fire = fire;
  }

  /** Takes what the directory says of an instance now. O(1) unless it changed. */
  follow({ instance, nextTimer }: Pick<DirectoryEntry, 'instance' | 'nextTimer'>): void {
    if (nextTimer === 'none' && this.#due.size === 0) return;
    this.#due.set(instance, nextTimer === 'none' ? undefined : nextTimer === 'unknown' ? 0 : nextTimer);
    this.#arm();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timeout);
  }

  #arm(): void {
    const next = this.#due.nextMs;
    if (next === undefined || this.#stopped || next >= this.#timeoutAtMs) return;
    clearTimeout(this.#timeout);
    this.#timeoutAtMs = next;
    const delayMs = Math.min(Math.max(next - this.#nowMs(), 0), alarmBounds.checkMsMax);
    this.#timeout = setTimeout(() => this.#check(), delayMs).unref();
  }

  #check(): void {
    this.#timeoutAtMs = Number.POSITIVE_INFINITY;
    const nowMs = this.#nowMs();
    while (this.#firing.size < alarmBounds.firingMax && !this.#stopped) {
      const instance = this.#due.take(nowMs);
      if (instance === undefined) break;
      this.#firing.add(instance);
      const ended = (fired: boolean): void => {
        this.#firing.delete(instance);
        if (!fired) this.#due.set(instance, this.#nowMs() + alarmBounds.retryMs);
        this.#arm();
      };
      this.#fire(instance).then(ended, () => ended(false));
    }
    if (this.#firing.size < alarmBounds.firingMax) this.#arm();
  }
}
