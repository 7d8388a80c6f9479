/** DRAFT of the seam: to be implemented; exported names and shapes stay. */
import type { Static, TSchema } from 'typebox';
import type { Logger } from 'pino';
import type { Fault } from '../kernel/fault.ts';
import type { ChildMessage } from '../protocol/supervision.ts';

/** What a supervised process can say and hear while it lives. */
export interface Life {
  readonly log: Logger;
  report(message: ChildMessage): void;
  /** Reports the fault, flushes the log, stops and exits. `never`: a restart would not help. */
  fail(reason: Fault, restart: 'backoff' | 'never'): void;
}
/** A part that can be stopped once; resolves when it let go of everything. */
export interface Stoppable {
  stop(): Promise<void>;
}
/**
 * The life of one supervised process: reads and locks its folder from the boot file in argv[2], starts, and stops on
 * SIGTERM, SIGINT, a `stop` message, or the end of the IPC channel (its host died), within limits.stopGraceMs.
 */
export declare function runProcess<S extends TSchema>(options: {
  readonly boot: S;
  readonly start: (boot: Static<S>, life: Life) => Promise<Stoppable>;
}): void;
