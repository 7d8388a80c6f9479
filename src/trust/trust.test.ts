import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { ensureKeys, openSigner, openVerifier } from './signature.ts';
import { issueToken, readSecretFile, readToken, secretBytes, type Principal } from './token.ts';

const folder = mkdtempSync(join(tmpdir(), 'cellwright-trust-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const files = (name: string) => ({
  privateKeyFile: join(folder, `${name}.private.pem`),
  publicKeyFile: join(folder, `${name}.public.pem`),
});
const Shape = Type.Object({ n: Type.Integer() });

describe('signed documents', () => {
  it('are read back as they were signed, byte for byte', async () => {
    const keys = files('a');
    await ensureKeys(keys);
    const signed = openSigner(keys.privateKeyFile).sign({ n: 1, text: 'é' });
    assert.equal(signed.payload, '{"n":1,"text":"é"}');
    assert.deepEqual(openVerifier(keys.publicKeyFile).verify(signed, Shape), { n: 1, text: 'é' });
    assert.equal(statSync(keys.privateKeyFile).mode & 0o777, 0o600);
  });

  it('are refused when a byte, the key or the shape is another', async () => {
    const [keys, others] = [files('b'), files('c')];
    await ensureKeys(keys);
    await ensureKeys(others);
    const verifier = openVerifier(keys.publicKeyFile);
    const signed = openSigner(keys.privateKeyFile).sign({ n: 1 });
    const refused = { code: 'frame-refused' };
    assert.throws(() => verifier.verify({ ...signed, payload: '{"n":2}' }, Shape), refused);
    assert.throws(() => verifier.verify({ ...signed, signature: '' }, Shape), refused);
    assert.throws(() => verifier.verify(openSigner(others.privateKeyFile).sign({ n: 1 }), Shape), refused);
    const forged = { ...openSigner(others.privateKeyFile).sign({ n: 1 }), key: signed.key };
    assert.throws(() => verifier.verify(forged, Shape), refused);
    assert.throws(() => verifier.verify(openSigner(keys.privateKeyFile).sign({ n: 'x' }), Shape), refused);
    assert.throws(() => verifier.verify('nothing', Shape), refused);
  });

  it('keep their key: an existing pair is never replaced, and a lost public half comes back', async () => {
    const keys = files('d');
    await ensureKeys(keys);
    const [privatePem, publicPem] = [
      readFileSync(keys.privateKeyFile, 'utf8'),
      readFileSync(keys.publicKeyFile, 'utf8'),
    ];
    unlinkSync(keys.publicKeyFile);
    await ensureKeys(keys);
    assert.equal(readFileSync(keys.privateKeyFile, 'utf8'), privatePem);
    assert.equal(readFileSync(keys.publicKeyFile, 'utf8'), publicPem);
  });

  it('name the file of a key that is none', () => {
    const file = join(folder, 'torn.pem');
    writeFileSync(file, '-----BEGIN');
    assert.throws(() => openVerifier(file), { code: 'file-unreadable', field: file });
  });
});

describe('tokens', () => {
  const secret = Buffer.alloc(secretBytes, 7);
  const principal: fc.Arbitrary<Principal> = fc.oneof(
    fc.constant<Principal>({ role: 'admin' }),
    fc.record(
      {
        role: fc.constant('agent' as const),
        kind: fc.constantFrom('host' as const, 'router' as const, 'cell' as const),
        name: fc.stringMatching(/^[a-z0-9-]{1,63}$/),
      },
      { noNullPrototype: true },
    ),
  );

  it('say whose they are to whoever has the secret, and nothing to others', () => {
    fc.assert(
      fc.property(principal, (whose) => {
        const token = issueToken(secret, whose);
        assert.deepEqual(readToken(secret, token), whose);
        assert.equal(readToken(Buffer.alloc(secretBytes, 8), token), undefined);
      }),
    );
  });

  it('are refused when anything in them was changed', () => {
    fc.assert(
      fc.property(principal, fc.nat(), fc.constantFrom('x', '.', 'A', ''), (whose, at, text) => {
        const token = issueToken(secret, whose);
        const place = at % token.length;
        const changed = token.slice(0, place) + text + token.slice(place + 1);
        // The last letter of base64url carries spare bits: another spelling of the same seal is the same seal.
        if (Buffer.from(changed.split('.').at(-1) ?? '', 'base64url').equals(sealOf(token))) return;
        assert.equal(readToken(secret, changed), undefined);
      }),
    );
    assert.equal(readToken(secret, ''), undefined);
    assert.equal(readToken(secret, 'x'.repeat(1_000_000)), undefined);
  });

  it('cannot be made for a name that could be read as another claim, nor with a short secret', () => {
    assert.throws(() => issueToken(secret, { role: 'agent', kind: 'cell', name: 'a.b' }), /another claim/);
    assert.throws(() => issueToken(Buffer.alloc(secretBytes - 1), { role: 'admin' }), /guessable/);
  });

  it('need a secret that is whole', async () => {
    const file = join(folder, 'secret');
    writeFileSync(file, 'short');
    await assert.rejects(readSecretFile(file), { code: 'file-unreadable', field: file });
    await assert.rejects(readSecretFile(join(folder, 'none')), { code: 'file-unreadable' });
  });

  function sealOf(token: string): Buffer {
    return Buffer.from(token.split('.').at(-1) ?? '', 'base64url');
  }
});
