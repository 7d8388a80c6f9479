import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Type } from 'typebox';
import { FleetIdSchema, type FleetId } from '../../protocol/names.ts';
import { fault } from '../../protocol/errors.ts';
import { ensureFile, readJsonFile, writeFileAtomically } from '../../process/folder.ts';
import { ensureKeys } from '../../trust/signature.ts';
import { issueToken, readSecretFile, secretBytes } from '../../trust/token.ts';

/** What makes a fleet this one and no other: its id, the secret behind its tokens, its signing keys. */
export interface Identity {
  readonly fleet: FleetId;
  readonly secret: Uint8Array;
  readonly secretFile: string;
  readonly privateKeyFile: string;
  readonly publicKeyFile: string;
  readonly adminToken: string;
}

const FleetSchema = Type.Object({ fleet: FleetIdSchema });

/**
 * Reads the identity of the fleet in a data folder, or makes it. Whatever exists is kept: a new key
 * or id would make everything that was signed or kept before unreadable.
 * Fault `file-unreadable` if a part of it is damaged.
 */
export async function ensureIdentity(data: string): Promise<Identity> {
  const trust = join(data, 'trust');
  const fleetFile = join(trust, 'fleet.json');
  const secretFile = join(trust, 'secret');
  const keys = { privateKeyFile: join(trust, 'private.pem'), publicKeyFile: join(trust, 'public.pem') };

  if ((await readJsonFile(fleetFile, FleetSchema)) === undefined) {
    await writeFileAtomically(fleetFile, `${JSON.stringify({ fleet: randomUUID() })}\n`);
  }
  const known = await readJsonFile(fleetFile, FleetSchema);
  if (known === undefined)
    throw fault('file-unreadable', `${fleetFile} vanished while it was read.`, { field: fleetFile });
  await ensureKeys(keys);
  const secret = await ensureSecret(secretFile);
  const adminToken = issueToken(secret, { role: 'admin' });
  await ensureFile(join(data, 'token'), `${adminToken}\n`);
  return { fleet: known.fleet, secret, secretFile, ...keys, adminToken };
}

async function ensureSecret(file: string): Promise<Uint8Array> {
  if (!existsSync(file)) await writeFileAtomically(file, randomBytes(secretBytes).toString('hex'));
  return readSecretFile(file);
}
