import { reservedRoot } from '../../protocol/carry.ts';

/**
 * Whether a path leads to what is Cellwright's own, however it is written: percent-encoded, with dot
 * segments, empty segments or backslashes. Decoded once, as RFC 3986, 2.4 has it: what is encoded
 * twice is a name of the application. O(length).
 */
export function isReservedPath(target: string): boolean {
  // Nearly every path ends here.
  if (!/%|cellwright/i.test(target)) return false;
  const [path = ''] = target.split(/[?#]/, 1);
  const decoded = path.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  const segments: string[] = [];
  for (const segment of decoded.split(/[/\\]/)) {
    if (segment === '..') segments.pop();
    else if (segment !== '' && segment !== '.') segments.push(segment);
  }
  return `/${segments[0] ?? ''}`.toLowerCase() === reservedRoot;
}
