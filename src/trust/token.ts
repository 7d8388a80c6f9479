import { createHmac, timingSafeEqual } from 'node:crypto';
import { assert } from '../kernel/assert.ts';
import { isCellName } from '../protocol/names.ts';

/** Who speaks to the control plane: a person with all rights, or one process with its own only. */
export type Principal =
  | { readonly role: 'admin' }
  | { readonly role: 'agent'; readonly kind: 'host' | 'router' | 'cell'; readonly name: string };

/** Bytes of a fleet's secret: as long as the output of its HMAC. */
export const secretBytes = 32;
/** Longer texts are refused before any hashing: the longest token has about 120 characters. */
const tokenLengthMax = 256;
const scheme = 'cw1';

/** A bearer token derived from the fleet's secret (HMAC), so that the control plane stores none. */
export function issueToken(secret: Uint8Array, principal: Principal): string {
  assert(secret.length >= secretBytes, 'a short secret would make every token of the fleet guessable');
  const claim = claimOf(principal);
  return `${claim}.${seal(secret, claim).toString('base64url')}`;
}

/** Whose token it is, or undefined if it was not derived from this secret. Compares in constant time. */
export function readToken(secret: Uint8Array, token: string): Principal | undefined {
  if (token.length > tokenLengthMax) return undefined;
  const end = token.lastIndexOf('.');
  if (end < 0) return undefined;
  const claim = token.slice(0, end);
  const given = Buffer.from(token.slice(end + 1), 'base64url');
  const expected = seal(secret, claim);
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
  return principalOf(claim);
}

function claimOf(principal: Principal): string {
  if (principal.role === 'admin') return `${scheme}.admin`;
  assert(isCellName(principal.name), 'a name with a dot could be read as another claim');
  return `${scheme}.${principal.kind}.${principal.name}`;
}

function principalOf(claim: string): Principal | undefined {
  const [given, kind, name, ...rest] = claim.split('.');
  if (given !== scheme || rest.length > 0) return undefined;
  if (kind === 'admin' && name === undefined) return { role: 'admin' };
  if (name === undefined) return undefined;
  if (kind === 'host' || kind === 'router' || kind === 'cell') return { role: 'agent', kind, name };
  return undefined;
}

function seal(secret: Uint8Array, claim: string): Buffer {
  return createHmac('sha256', secret).update(claim).digest();
}
