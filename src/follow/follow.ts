/** DRAFT of the seam: to be implemented; exported names and shapes stay. */
import type { Status } from '../protocol/status.ts';

/** One server-sent event of the control plane. */
export interface StreamEvent {
  readonly type: string;
  readonly id: string | undefined;
  readonly data: string;
}
export interface Following {
  /** Whether the stream is up and beating: what is not in it does not exist. */
  readonly live: boolean;
  /** When `live` last changed, in milliseconds since 1970. */
  readonly sinceMs: number;
  /** Drops the position and asks for everything again, e.g. after a gap or a hash that differs. */
  resync(): void;
  stop(): void;
}
/**
 * Follows a stream for ever: reconnects with backoff and jitter, resumes with Last-Event-ID, and treats a stream
 * without a beat for limits.streamStaleMs as dead. `onEvent` is called in order, one at a time (awaited).
 */
export declare function follow(options: {
  readonly url: string;
  readonly token: string;
  /** Position to resume from at each connect; undefined asks for everything. */
  readonly position: () => string | undefined;
  readonly onEvent: (event: StreamEvent) => void | Promise<void>;
  readonly onLive?: (live: boolean) => void;
}): Following;
/** Pushes a status at once when told that it changed, and every limits.statusIntervalMs. Failures are silent: status is not needed to serve. */
export declare function pushStatus(options: {
  readonly controlUrl: string;
  readonly token: string;
  readonly read: () => Status;
}): { changed(): void; stop(): void };
