import type { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { commitBounds } from '../decide/log/commit.ts';

/** An answer that waits until what it observed is durable. One of the three is called, once. */
export interface Waiting {
  release(): void;
  /** It saw what was taken back, because the disk is full. */
  refuse(): void;
  /** Nobody knows whether what it saw is on disk. */
  abandon(): void;
}

interface Waits<Answer> {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (reason: unknown) => void;
  readonly answer: Answer;
  /** What its abandonment means: a read did nothing, a command may have been done. */
  readonly stopped: 'log-stopped' | 'outcome-unknown';
  /** The answer in place of the one that may not leave; may throw. */
  readonly otherwise: (reason: Fault) => Answer;
}

export class WaitingAnswer<Answer> implements Waiting {
  readonly #waits: Waits<Answer>;

  constructor(waits: Waits<Answer>) {
    this.#waits = waits;
  }

  release(): void {
    this.#waits.resolve(this.#waits.answer);
  }

  refuse(): void {
    this.#settle(fullFault());
  }

  abandon(): void {
    this.#settle(stoppedFault(this.#waits.stopped));
  }

  #settle(reason: Fault): void {
    const { resolve, reject, otherwise } = this.#waits;
    try {
      resolve(otherwise(reason));
    } catch (thrown) {
      reject(thrown);
    }
  }
}

export function stoppedFault(code: 'log-stopped' | 'outcome-unknown'): Fault {
  return code === 'log-stopped'
    ? fault(code, 'The log stopped after a write error; the process restarts, so repeat the request', {
        retryAfterMs: 1_000,
      })
    : fault(code, 'The log stopped while the command was written; repeat it with the same Idempotency-Key', {
        retryAfterMs: 1_000,
      });
}

export function fullFault(): Fault {
  const message = 'The disk of the log is full: nothing was changed, and nothing can be until there is room';
  return fault('log-full', message, { retryAfterMs: commitBounds.probeEveryMs });
}
