import { Agent, request } from 'undici';
import { limits } from '../protocol/limits.ts';
import type { Status } from '../protocol/status.ts';

/** Pushes a status at once when told that it changed, and every limits.statusIntervalMs. Failures are silent: status is not needed to serve. */
export function pushStatus(options: {
  readonly controlUrl: string;
  readonly token: string;
  readonly read: () => Status;
}): { changed(): void; stop(): void } {
  const agent = new Agent({ connect: { timeout: limits.statusIntervalMs } });
  const stopped = new AbortController();
  let pushing = false;
  let changedMeanwhile = false;

  async function push(): Promise<void> {
    if (pushing) {
      changedMeanwhile = true;
      return;
    }
    pushing = true;
    try {
      do {
        changedMeanwhile = false;
        const response = await request(new URL('/v1/agents/status', options.controlUrl), {
          method: 'POST',
          dispatcher: agent,
          signal: AbortSignal.any([stopped.signal, AbortSignal.timeout(limits.statusStaleMs)]),
          headers: { authorization: `Bearer ${options.token}`, 'content-type': 'application/json' },
          body: JSON.stringify(options.read()),
        });
        await response.body.dump();
      } while (changedMeanwhile && !stopped.signal.aborted);
    } catch {
      // The next interval says it again; whoever needs it to be heard reads silence as unknown.
    } finally {
      pushing = false;
    }
  }

  const interval = setInterval(() => void push(), limits.statusIntervalMs);
  void push();
  return {
    changed: () => {
      if (!stopped.signal.aborted) void push();
    },
    stop() {
      clearInterval(interval);
      stopped.abort();
      void agent.destroy();
    },
  };
}
