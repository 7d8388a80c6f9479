import { assert } from '../../kernel/assert.ts';

/**
 * Ports that the host gives out lie below Linux's ephemeral range (32768 and up), so that no
 * outgoing connection takes the port of a cell between its death and its restart.
 */
export const portMin = 10_000;
export const portMax = 29_999;
/** Ports tried before the host gives up: a machine with so many taken in a row is not usual. */
export const portAttemptsMax = 200;

/** What a port is for → the port, as kept in `host/ports.json`. */
export type PortBook = Readonly<Record<string, number>>;

/**
 * The next port to try for a use that has none: the first from a random place on that is neither
 * promised to another use nor tried already; undefined when none is left. O(range) at worst.
 *
 * @param random in [0, 1); another place for each fleet, so that two fleets seldom meet
 */
export function nextPort(
  book: PortBook,
  tried: ReadonlySet<number>,
  random: number,
  range: { readonly min: number; readonly max: number } = { min: portMin, max: portMax },
): number | undefined {
  assert(random >= 0 && random < 1, 'a place outside of the range is no port');
  const promised = new Set(Object.values(book));
  const size = range.max - range.min + 1;
  const first = Math.floor(random * size);
  for (let offset = 0; offset < size; offset += 1) {
    const port = range.min + ((first + offset) % size);
    if (!promised.has(port) && !tried.has(port)) return port;
  }
  return undefined;
}
