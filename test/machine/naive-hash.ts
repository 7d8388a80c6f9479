/**
 * The hashes of `docs/log-format.md`, written again from that page alone and as plainly as can be: bytes in lists,
 * everything anew each time.
 */

/** MurmurHash3_x86_128, seed 0, as its author published it: over bytes, in blocks of 16. */
function murmur(bytes: readonly number[]): readonly [number, number, number, number] {
  const c = [0x239b961b, 0xab0e9789, 0x38b34ae5, 0xa1e38b93];
  const turns = [15, 16, 17, 18];
  const mixes = [19, 17, 15, 13];
  const adds = [0x561ccd1b, 0x0bcaa747, 0x96cd1c35, 0x32ac3b17];
  const h = [0, 0, 0, 0];
  const at = (list: readonly number[], i: number): number => list[i % 4] ?? 0;
  const turned = (x: number, by: number): number => ((x << by) | (x >>> (32 - by))) >>> 0;
  const scrambled = (k: number, lane: number): number =>
    Math.imul(turned(Math.imul(k, at(c, lane)) >>> 0, at(turns, lane)), at(c, lane + 1)) >>> 0;
  const word = (from: number, to: number): number => {
    let k = 0;
    for (let i = to - 1; i >= from; i--) k = k * 256 + (bytes[i] ?? 0);
    return k;
  };
  const whole = bytes.length - (bytes.length % 16);
  for (let block = 0; block < whole; block += 16) {
    for (let lane = 0; lane < 4; lane++) {
      let x = at(h, lane) ^ scrambled(word(block + 4 * lane, block + 4 * lane + 4), lane);
      x = (turned(x >>> 0, at(mixes, lane)) + at(h, lane + 1)) >>> 0;
      h[lane] = (Math.imul(x, 5) + at(adds, lane)) >>> 0;
    }
  }
  for (let lane = 0; lane < 4; lane++) {
    const from = whole + 4 * lane;
    const to = Math.min(bytes.length, from + 4);
    if (to > from) h[lane] = (at(h, lane) ^ scrambled(word(from, to), lane)) >>> 0;
  }
  const finished = (x: number): number => {
    let y = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    y = Math.imul(y ^ (y >>> 13), 0xc2b2ae35);
    return (y ^ (y >>> 16)) >>> 0;
  };
  let [h1 = 0, h2 = 0, h3 = 0, h4 = 0] = h.map((x) => (x ^ bytes.length) >>> 0);
  const spread = (): void => {
    h1 = (h1 + h2 + h3 + h4) >>> 0;
    h2 = (h2 + h1) >>> 0;
    h3 = (h3 + h1) >>> 0;
    h4 = (h4 + h1) >>> 0;
  };
  spread();
  [h1, h2, h3, h4] = [finished(h1), finished(h2), finished(h3), finished(h4)];
  spread();
  return [h1, h2, h3, h4];
}

function unit(value: number): readonly number[] {
  return [value & 0xff, value >>> 8];
}

function count(length: number): readonly number[] {
  return [...unit(length & 0xffff), ...unit(length >>> 16)];
}

function text(value: string): readonly number[] {
  const units = Array.from({ length: value.length }, (_, i) => unit(value.charCodeAt(i)));
  return [...count(value.length), ...units.flat()];
}

/** ECMAScript's order of sorted names: those that are whole numbers first, by size, then the others by code units. */
function inOrder(names: readonly string[]): readonly string[] {
  const isIndex = (name: string): boolean => /^(0|[1-9][0-9]*)$/.test(name) && Number(name) < 2 ** 32 - 1;
  const byUnits = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  return [
    ...names.filter(isIndex).sort((a, b) => Number(a) - Number(b)),
    ...names.filter((name) => !isIndex(name)).sort(byUnits),
  ];
}

function encoded(value: unknown): readonly number[] {
  if (value === null) return unit(0);
  if (typeof value === 'boolean') return unit(value ? 2 : 1);
  if (typeof value === 'number') {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value, true);
    return [...unit(3), ...new Uint8Array(view.buffer)];
  }
  if (typeof value === 'string') return [...unit(4), ...text(value)];
  if (Array.isArray(value)) return [...unit(5), ...count(value.length), ...value.flatMap(encoded)];
  const object = value as Readonly<Record<string, unknown>>;
  const names = inOrder(Object.keys(object));
  return [...unit(6), ...count(names.length), ...names.flatMap((name) => [...text(name), ...encoded(object[name])])];
}

/** Hash over entries, each a text and a value: the sum of their hashes. */
function hashOf(entries: Iterable<readonly [string, unknown]>): string {
  const sums = [0, 0, 0, 0];
  for (const [name, value] of entries) {
    murmur([...text(name), ...encoded(value)]).forEach((lane, i) => (sums[i] = ((sums[i] ?? 0) + lane) >>> 0));
  }
  return `c2:${sums.map((sum) => sum.toString(16).padStart(8, '0')).join('')}`;
}

/** The state hash of tables: name, property of the key, rows in any order. */
export function stateHashOf(
  tables: Iterable<{ readonly name: string; readonly key: string; readonly rows: readonly object[] }>,
): string {
  const entries: [string, unknown][] = [];
  for (const { name, key, rows } of tables) {
    for (const row of rows) entries.push([`${name.length}:${name}${key.length}:${key}`, row]);
  }
  return hashOf(entries);
}

export function keysHashOf(
  keys: Iterable<{ readonly key: string; readonly atMs: number; readonly seqBefore: number; readonly units: number }>,
): string {
  return hashOf([...keys].map(({ key, atMs, seqBefore, units }) => [key, [atMs, seqBefore, units]]));
}
