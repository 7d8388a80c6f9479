import type { Fault } from '../kernel/fault.ts';
import { fault } from '../protocol/errors.ts';
import { proxyBounds } from './bounds.ts';
import { membersOf, valuesOf, type RawHeaders } from './headers.ts';

/** The head of a request as the parser understood it. */
export interface RequestHead {
  readonly method: string;
  readonly target: string;
  readonly httpVersion: string;
  readonly rawHeaders: RawHeaders;
}

/** How the body of a request is framed: by its length in bytes, or in chunks. */
export type BodyFraming =
  | { readonly kind: 'none' }
  | { readonly kind: 'sized'; readonly bytes: number }
  | { readonly kind: 'chunked' };

export interface CheckedHead {
  /** Path and query, beginning with `/`, or `*`. */
  readonly path: string;
  readonly host: string | undefined;
  readonly framing: BodyFraming;
  /** The sender waits for a consent (100) before it sends the body. */
  readonly expectsConsent: boolean;
}

const hostPattern = /^(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?$/;
const lengthPattern = /^\d{1,15}$/;

/**
 * Refuses what two readers of HTTP could understand differently (RFC 9112, 3.2 and 6.3), beyond
 * what the parser refuses. Throws `request-malformed`, `head-too-large` or `method-not-allowed`.
 */
export function checkHead(head: RequestHead, headersMax: number = proxyBounds.headersMax): CheckedHead {
  const raw = head.rawHeaders;
  if (raw.length / 2 > headersMax) {
    throw fault('head-too-large', `The request has ${raw.length / 2} headers; send at most ${headersMax}.`);
  }
  if (head.method === 'CONNECT') throw fault('method-not-allowed', 'CONNECT is not offered here.');
  if (head.httpVersion !== '1.1' && head.httpVersion !== '1.0') {
    throw malformed(`HTTP/${head.httpVersion} is not spoken here; use HTTP/1.1`);
  }
  const host = hostOf(head);
  const framing = framingOf(head);
  const expectations = membersOf(raw, 'expect');
  if (expectations.some((member) => member !== '100-continue')) {
    throw malformed('Expect may only be 100-continue', 'expect');
  }
  return {
    path: pathOf(head, host),
    host,
    framing,
    expectsConsent: expectations.length > 0 && head.httpVersion === '1.1' && framing.kind !== 'none',
  };
}

function hostOf(head: RequestHead): string | undefined {
  const hosts = valuesOf(head.rawHeaders, 'host');
  if (hosts.length > 1) throw malformed('Host stands in the request more than once', 'host');
  const host = hosts[0];
  if (host === undefined) {
    if (head.httpVersion === '1.0') return undefined;
    throw malformed('Host is missing', 'host');
  }
  if (!hostPattern.test(host)) throw malformed('Host is not one name or address with an optional port', 'host');
  return host;
}

function framingOf(head: RequestHead): BodyFraming {
  const lengths = valuesOf(head.rawHeaders, 'content-length');
  const codings = valuesOf(head.rawHeaders, 'transfer-encoding');
  if (lengths.length > 0 && codings.length > 0) {
    throw malformed('Content-Length and Transfer-Encoding stand in the request together', 'content-length');
  }
  if (codings.length > 0) {
    if (codings.length > 1 || codings[0]?.toLowerCase() !== 'chunked' || head.httpVersion === '1.0') {
      throw malformed('Transfer-Encoding may only be chunked, once, in HTTP/1.1', 'transfer-encoding');
    }
    return { kind: 'chunked' };
  }
  const length = lengths[0];
  if (length === undefined) return { kind: 'none' };
  if (lengths.length > 1 || !lengthPattern.test(length)) {
    throw malformed('Content-Length is not one number without sign', 'content-length');
  }
  return length === '0' ? { kind: 'none' } : { kind: 'sized', bytes: Number(length) };
}

function pathOf(head: RequestHead, host: string | undefined): string {
  const { target } = head;
  if (target.startsWith('/')) return target;
  if (target === '*' && head.method === 'OPTIONS') return target;
  const [, authority = '', rest = ''] = /^http:\/\/([^/?#]+)(.*)$/i.exec(target) ?? [];
  if (authority === '' || authority.toLowerCase() !== host?.toLowerCase()) {
    throw malformed('The request target is neither a path nor an address of the host in Host');
  }
  return rest.startsWith('/') ? rest : `/${rest}`;
}

function malformed(why: string, field?: string): Fault {
  return fault('request-malformed', `${why}.`, { field });
}
