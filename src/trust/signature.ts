import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  sign,
  verify,
  type KeyObject,
} from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Static, TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { fault } from '../protocol/errors.ts';
import { SignedSchema, type Signed } from '../protocol/routing.ts';
import { writeFileAtomically } from '../process/folder.ts';

export interface Signer {
  /** Serialises a document once and signs exactly those bytes. */
  sign(document: unknown): Signed;
}
export interface Verifier {
  /** The document inside, parsed with its schema. Fault `frame-refused` if key, signature or shape is wrong. */
  verify<S extends TSchema>(signed: unknown, schema: S): Static<S>;
}

const generate = promisify(generateKeyPair);

/**
 * Makes an Ed25519 pair (RFC 8032) if the private file is missing, which gets mode 0600. A public
 * file that is missing is derived from the private one, so a crash between the two does no harm.
 */
export async function ensureKeys(files: {
  readonly privateKeyFile: string;
  readonly publicKeyFile: string;
}): Promise<void> {
  if (!existsSync(files.privateKeyFile)) {
    const pair = await generate('ed25519');
    const pem = pair.privateKey.export({ type: 'pkcs8', format: 'pem' });
    await writeFileAtomically(files.privateKeyFile, pem);
  } else if (existsSync(files.publicKeyFile)) return;
  const publicKey = createPublicKey(readKeyFile(files.privateKeyFile, createPrivateKey));
  await writeFileAtomically(files.publicKeyFile, publicKey.export({ type: 'spki', format: 'pem' }));
}

/** Opens a private key file (PEM). Fault `file-unreadable` names the file. */
export function openSigner(privateKeyFile: string): Signer {
  const privateKey = readKeyFile(privateKeyFile, createPrivateKey);
  const key = keyIdentifier(createPublicKey(privateKey));
  return {
    sign(document) {
      const payload = JSON.stringify(document);
      return { payload, signature: sign(null, Buffer.from(payload), privateKey).toString('base64'), key };
    },
  };
}

/** Opens a public key file (PEM). Fault `file-unreadable` names the file. */
export function openVerifier(publicKeyFile: string): Verifier {
  const publicKey = readKeyFile(publicKeyFile, createPublicKey);
  const key = keyIdentifier(publicKey);
  return {
    verify(signed, schema) {
      if (!Value.Check(SignedSchema, signed)) throw refused('it is not a signed document');
      if (signed.key !== key) throw refused(`it is signed with key ${signed.key}, this fleet's key is ${key}`);
      const signature = Buffer.from(signed.signature, 'base64');
      if (!verify(null, Buffer.from(signed.payload), publicKey, signature)) throw refused('its signature is wrong');
      let document: unknown;
      try {
        document = JSON.parse(signed.payload);
      } catch (cause) {
        throw refused('its payload is not JSON', cause);
      }
      if (!Value.Check(schema, document)) {
        const error = Value.Errors(schema, document)[0];
        throw refused(`its shape is wrong at ${error?.instancePath ?? ''}/: ${error?.message ?? 'unknown'}`);
      }
      return document;
    },
  };
}

function refused(why: string, cause?: unknown) {
  return fault('frame-refused', `A signed document was refused: ${why}.`, { cause });
}

/** First 64 bits of the SHA-256 of the key's SPKI bytes: enough to tell keys of one fleet apart. */
function keyIdentifier(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex')
    .slice(0, 16);
}

function readKeyFile(file: string, parse: (pem: string) => KeyObject): KeyObject {
  try {
    const key = parse(readFileSync(file, 'utf8'));
    if (key.asymmetricKeyType !== 'ed25519') throw new Error(`the key is of type ${key.asymmetricKeyType}`);
    return key;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw fault('file-unreadable', `${file} does not hold an Ed25519 key: ${why}. Restore it from a backup.`, {
      field: file,
      cause,
    });
  }
}
