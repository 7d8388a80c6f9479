import type { Socket } from 'node:net';
import { proxyBounds } from './bounds.ts';

/**
 * Joins two sockets both ways, with backpressure and half-close: an end is passed on while the
 * other direction goes on. An error, or silence in both directions for `idleTimeoutMs`, ends both.
 * Resolves when both are closed.
 */
export function tunnel(a: Socket, b: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let open = 2;
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.setTimeout(proxyBounds.idleTimeoutMs);
    from.on('timeout', () => {
      from.destroy();
      to.destroy();
    });
    from.on('error', () => to.destroy());
    from.on('close', (hadError) => {
      if (hadError || !from.readableEnded) to.destroy();
      open -= 1;
      if (open === 0) resolve();
    });
    from.pipe(to);
  }
  if (a.destroyed) b.destroy();
  if (b.destroyed) a.destroy();
  return promise;
}
