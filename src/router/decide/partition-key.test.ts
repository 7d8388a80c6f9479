import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nameLengthMax } from '../../protocol/names.ts';
import { PartitionKeyReader } from './partition-key.ts';

const reader = new PartitionKeyReader({
  header: 'X-Tenant',
  subdomainOf: ['localhost', 'eu.example.com', 'example.com'],
});

function read(headers: string[], host?: string): string {
  const key = reader.read(headers, host);
  return key.kind === 'tenant' ? key.tenant : key.fault.code;
}

test('K1 the tenant is the value of the header, whatever the case of its name', () => {
  assert.equal(read(['x-TENANT', 'acme']), 'acme');
});

test('K2 or the label before a base; the longest base counts; port, case and a last dot do not', () => {
  assert.equal(read([], 'acme.localhost:8080'), 'acme');
  assert.equal(read([], 'ACME.EU.example.com.'), 'acme');
  assert.equal(read([], 'localhost:8080'), 'tenant-missing');
  assert.equal(read([], '[::1]:8080'), 'tenant-missing');
  assert.equal(read([], 'acmelocalhost'), 'tenant-missing');
});

test('K3 two sources must agree', () => {
  assert.equal(read(['x-tenant', 'acme'], 'acme.localhost'), 'acme');
  assert.equal(read(['x-tenant', 'acme'], 'bolt.localhost'), 'tenant-ambiguous');
  assert.equal(read(['x-tenant', 'acme'], 'elsewhere.org'), 'acme');
});

test('K4 a repeated header is refused, even with the same value', () => {
  assert.equal(read(['x-tenant', 'acme', 'X-Tenant', 'acme']), 'tenant-ambiguous');
});

test('K5 what is not a name is refused, at every bound', () => {
  for (const wrong of ['', 'Acme', '-a', 'a-', 'a.b', 'a,b', 'a b', 'ä', 'a'.repeat(nameLengthMax + 1)]) {
    assert.equal(read(['x-tenant', wrong]), 'tenant-malformed', wrong);
  }
  assert.equal(read(['x-tenant', 'a'.repeat(nameLengthMax)]), 'a'.repeat(nameLengthMax));
  assert.equal(read(['x-tenant', 'a']), 'a');
  assert.equal(read([], 'a.b.localhost'), 'tenant-malformed');
  assert.equal(read(['x-tenant', 'acme'], '.localhost'), 'tenant-malformed');
});

test('K6 without a tenant the request is refused, never sent to a default', () => {
  assert.equal(read(['accept', '*/*'], 'localhost'), 'tenant-missing');
});
