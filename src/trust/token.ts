import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { assert } from '../kernel/assert.ts';
import { fault } from '../protocol/errors.ts';
import { nameLengthMax } from '../protocol/names.ts';

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

/** The fleet's secret as its file holds it, byte for byte. Fault `file-unreadable` if it is not one. */
export async function readSecretFile(file: string): Promise<Uint8Array> {
  const secret = await readOrFault(file);
  if (secret.length >= secretBytes) return secret;
  throw fault('file-unreadable', `${file} is too short to be a fleet's secret. Restore it from a backup.`, {
    field: file,
  });
}

/** The token in a file that the host wrote. Fault `file-unreadable` if there is none. */
export async function readTokenFile(file: string): Promise<string> {
  return (await readOrFault(file)).toString().trim();
}

async function readOrFault(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw fault('file-unreadable', `${file} cannot be read: ${why}.`, { field: file, cause });
  }
}

function claimOf(principal: Principal): string {
  if (principal.role === 'admin') return `${scheme}.admin`;
  assert(
    principal.name.length <= nameLengthMax && /^[a-z0-9-]+$/.test(principal.name),
    'a name with a dot could be read as another claim',
  );
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
