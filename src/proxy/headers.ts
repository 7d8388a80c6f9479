/** Names and values in turn, in the order, the case and the number in which they came. */
export type RawHeaders = readonly string[];

/**
 * Names that a reader may take for one of ours. CGI, WSGI, Rack and PHP read `_` in a header's name
 * as `-`, so both spellings are the same header to many an application. `name` in lower case.
 */
export function readsAs(name: string): string {
  return name.includes('_') ? name.replaceAll('_', '-') : name;
}

/** Decides whether a header, named in lower case, goes on. */
export type HeaderFilter = (name: string) => boolean;

/** RFC 9110, 7.6.1, and what proxies consume: these describe one connection and never go on. */
const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
]);
/** A sender could otherwise strip what frames or routes its message by naming it in Connection. */
const neverNamed: ReadonlySet<string> = new Set(['host', 'content-length']);
/** RFC 9110, 6.5.1: what frames, routes or authenticates a message is no trailer. */
const neverTrailing: ReadonlySet<string> = new Set([
  ...hopByHop,
  ...neverNamed,
  'authorization',
  'content-encoding',
  'content-type',
  'content-range',
  'cookie',
  'expect',
  'set-cookie',
  'trailer',
]);

/** All values of a header, in order. `name` in lower case. O(headers). */
export function valuesOf(raw: RawHeaders, name: string): readonly string[] {
  const values: string[] = [];
  for (let i = 0; i < raw.length; i += 2) if (raw[i]?.toLowerCase() === name) values.push(raw[i + 1] ?? '');
  return values;
}

/** The members of a comma-separated header, in lower case. */
export function membersOf(raw: RawHeaders, name: string): readonly string[] {
  return valuesOf(raw, name).flatMap((value) =>
    value
      .split(',')
      .map((member) => member.trim().toLowerCase())
      .filter((member) => member !== ''),
  );
}

/** The headers of a message that go on to the next connection. */
export function endToEnd(raw: RawHeaders, goesOn: HeaderFilter): string[] {
  const named = new Set(membersOf(raw, 'connection').filter((name) => !neverNamed.has(name)));
  return filtered(raw, (name) => !hopByHop.has(name) && !named.has(name) && goesOn(name));
}

/** The trailers of a message that go on, as pairs. */
export function endToEndTrailers(raw: RawHeaders, goesOn: HeaderFilter): [string, string][] {
  const kept = filtered(raw, (name) => !neverTrailing.has(name) && goesOn(name));
  const pairs: [string, string][] = [];
  for (let i = 0; i < kept.length; i += 2) pairs.push([kept[i] ?? '', kept[i + 1] ?? '']);
  return pairs;
}

function filtered(raw: RawHeaders, goesOn: HeaderFilter): string[] {
  const kept: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? '';
    if (goesOn(name.toLowerCase())) kept.push(name, raw[i + 1] ?? '');
  }
  return kept;
}
