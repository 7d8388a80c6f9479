import type { FastifyRequest } from 'fastify';
import { fault } from '../../protocol/errors.ts';
import { readToken, type Principal } from '../../trust/token.ts';

/**
 * Who may ask what (rules Z1 to Z4): everybody what is open, an administrator everything, an agent
 * only what is its own. An address that says nothing is for administrators.
 */
export type Access =
  | 'open'
  | 'admin'
  /** Any process of the fleet. */
  | 'agents'
  /** The process whose name is the parameter `name` of the address. */
  | { readonly own: 'cell' | 'host' };

declare module 'fastify' {
  interface FastifyContextConfig {
    access?: Access;
  }
  interface FastifyRequest {
    /** Undefined on open addresses only. */
    principal: Principal | undefined;
  }
}

/** The principal of a request, or a fault: `unauthenticated` without a good token, `forbidden` with another's. */
export function admit(request: FastifyRequest, secret: Uint8Array): Principal | undefined {
  const access = request.routeOptions.config.access ?? 'admin';
  if (access === 'open') return undefined;
  const token = /^Bearer ([\x21-\x7e]+)$/i.exec(request.headers.authorization ?? '')?.[1];
  const principal = token === undefined ? undefined : readToken(secret, token);
  if (principal === undefined) {
    throw fault(
      'unauthenticated',
      `${token === undefined ? 'The request has no bearer token' : 'The bearer token is not of this fleet'}. ` +
        'Send "authorization: Bearer TOKEN" with the token from the file `token` in the data folder of the fleet.',
      { field: 'authorization' },
    );
  }
  if (principal.role === 'admin' || access === 'agents') return principal;
  const isOwn = access !== 'admin' && access.own === principal.kind && nameIn(request.params) === principal.name;
  if (!isOwn) {
    throw fault(
      'forbidden',
      `The token of ${principal.kind} ${principal.name} may follow its own stream, read /v1/routing and report its own status. ` +
        'Use the token of an administrator.',
      { field: 'authorization' },
    );
  }
  return principal;
}

function nameIn(params: unknown): string | undefined {
  if (typeof params !== 'object' || params === null || !('name' in params)) return undefined;
  return typeof params.name === 'string' ? params.name : undefined;
}
