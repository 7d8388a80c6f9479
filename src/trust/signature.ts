/** DRAFT of the seam: to be implemented; exported names and shapes stay. */
import type { Static, TSchema } from 'typebox';
import type { Signed } from '../protocol/routing.ts';

export interface Signer {
  /** Serialises a document once and signs exactly those bytes. */
  sign(document: unknown): Signed;
}
export interface Verifier {
  /** The document inside, parsed with its schema. Fault `frame-refused` if key, signature or shape is wrong. */
  verify<S extends TSchema>(signed: unknown, schema: S): Static<S>;
}
/** Makes an Ed25519 pair if the files are missing; the private one gets mode 0600. */
export declare function ensureKeys(files: {
  readonly privateKeyFile: string;
  readonly publicKeyFile: string;
}): Promise<void>;
export declare function openSigner(privateKeyFile: string): Signer;
export declare function openVerifier(publicKeyFile: string): Verifier;
