/** DRAFT of the seam: to be implemented; exported names and shapes stay. */

/** Who speaks to the control plane: a person with all rights, or one process with its own only. */
export type Principal =
  | { readonly role: 'admin' }
  | { readonly role: 'agent'; readonly kind: 'host' | 'router' | 'cell'; readonly name: string };

/** A bearer token derived from the fleet's secret (HMAC), so that the control plane stores none. */
export declare function issueToken(secret: Uint8Array, principal: Principal): string;
/** Whose token it is, or undefined if it was not derived from this secret. Compares in constant time. */
export declare function readToken(secret: Uint8Array, token: string): Principal | undefined;
