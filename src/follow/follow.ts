import { setTimeout as delay } from 'node:timers/promises';
import { createParser } from 'eventsource-parser';
import { Agent, request } from 'undici';
import { limits } from '../protocol/limits.ts';

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

export interface FollowOptions {
  readonly url: string;
  readonly token: string;
  /** Position to resume from at each connect; undefined asks for everything. */
  readonly position: () => string | undefined;
  /** Called in order, one at a time. One that throws ends the connection; the next resumes from `position`. */
  readonly onEvent: (event: StreamEvent) => void | Promise<void>;
  readonly onLive?: (live: boolean) => void;
  /** Why a connection ended, for a log; following goes on. */
  readonly onProblem?: (reason: unknown) => void;
}

/** The event whose only meaning is that everything up to here has been sent. */
const beat = 'beat';

/**
 * Follows a stream of server-sent events (WHATWG HTML, 9.2) for ever: reconnects with backoff and
 * jitter, resumes with Last-Event-ID, and treats a stream from which nothing came for
 * `limits.streamStaleMs` as dead. Events are handed over in order, each awaited; nothing is read
 * meanwhile, so a slow follower holds at most one chunk and what the kernel buffers.
 *
 * `live` becomes true at the first `beat` of a connection, because only then is it known that
 * nothing is missing, and false as soon as the connection ends.
 */
export function follow(options: FollowOptions): Following {
  return new Follower(options);
}

class Follower implements Following {
  live = false;
  sinceMs = Date.now();
  readonly #options: FollowOptions;
  readonly #stopped = new AbortController();
  #connection = new AbortController();
  #fromTheStart = false;
  #failures = 0;

  constructor(options: FollowOptions) {
    this.#options = options;
    void this.#run();
  }

  resync(): void {
    this.#fromTheStart = true;
    this.#connection.abort(new Error('everything is asked for again'));
  }

  stop(): void {
    this.#stopped.abort();
    this.#connection.abort(this.#stopped.signal.reason);
    this.#setLive(false);
  }

  async #run(): Promise<void> {
    const agent = new Agent({
      connect: { timeout: limits.streamStaleMs },
      headersTimeout: limits.streamStaleMs,
      // The watchdog below bounds silence; undici's bound would also count the time of a slow follower.
      bodyTimeout: 0,
    });
    while (!this.#stopped.signal.aborted) {
      this.#connection = new AbortController();
      try {
        await this.#follow(agent, this.#connection);
      } catch (reason) {
        if (!this.#stopped.signal.aborted) this.#options.onProblem?.(reason);
      }
      this.#setLive(false);
      if (this.#stopped.signal.aborted) break;
      const delayMs = reconnectDelayMs(this.#failures, Math.random());
      this.#failures += 1;
      await delay(delayMs, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
    }
    await agent.destroy();
  }

  /** One connection, until it ends or something about it fails. */
  async #follow(agent: Agent, connection: AbortController): Promise<void> {
    const position = this.#fromTheStart ? undefined : this.#options.position();
    const response = await request(this.#options.url, {
      dispatcher: agent,
      signal: connection.signal,
      headers: {
        accept: 'text/event-stream',
        authorization: `Bearer ${this.#options.token}`,
        ...(position === undefined ? {} : { 'last-event-id': position }),
      },
    });
    if (response.statusCode !== 200) {
      // What it says besides is not read: nothing would bound the wait for it.
      response.body.on('error', () => undefined).destroy();
      throw new Error(`${this.#options.url} answered ${response.statusCode}`);
    }
    const events: StreamEvent[] = [];
    const parser = createParser({
      maxBufferSize: limits.frameBytesMax,
      onEvent: (event) => events.push({ type: event.event ?? 'message', id: event.id, data: event.data }),
      onError: (error) => {
        if (error.type === 'max-buffer-size-exceeded') connection.abort(error);
      },
    });
    const decoder = new TextDecoder();
    const watchdog = new Watchdog(() => connection.abort(new Error('the stream is silent')));
    try {
      const chunks: AsyncIterable<Uint8Array> = response.body;
      for await (const chunk of chunks) {
        watchdog.pause();
        parser.feed(decoder.decode(chunk, { stream: true }));
        for (const event of events.splice(0)) {
          if (connection.signal.aborted) break;
          await this.#options.onEvent(event);
          this.#failures = 0;
          this.#fromTheStart &&= connection.signal.aborted;
          if (event.type === beat && !connection.signal.aborted) this.#setLive(true);
        }
        watchdog.resume();
      }
    } finally {
      watchdog.pause();
      connection.abort();
    }
  }

  #setLive(live: boolean): void {
    if (this.live === live) return;
    this.live = live;
    this.sinceMs = Date.now();
    this.#options.onLive?.(live);
  }
}

/** Fires when nothing arrived for `limits.streamStaleMs`; paused while the follower itself is busy. */
class Watchdog {
  readonly #onSilence: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(onSilence: () => void) {
    this.#onSilence = onSilence;
    this.resume();
  }
  resume(): void {
    this.#timer = setTimeout(this.#onSilence, limits.streamStaleMs);
  }
  pause(): void {
    clearTimeout(this.#timer);
  }
}

/**
 * Delay before the next attempt, in milliseconds: exponential with full jitter above the least
 * delay (Brooker, "Exponential Backoff And Jitter"), so that followers do not come back as one.
 *
 * @param failures connections that ended since the last one that brought something
 * @param random in [0, 1)
 */
export function reconnectDelayMs(failures: number, random: number): number {
  const ceilingMs = Math.min(limits.reconnectDelayMsMax, limits.reconnectDelayMsMin * 2 ** Math.min(failures, 30));
  return Math.round(limits.reconnectDelayMsMin + random * (ceilingMs - limits.reconnectDelayMsMin));
}
export { pushStatus } from './status.ts';
