import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '../../kernel/fault.ts';
import { targetOf } from './target.ts';

const refusedWith = (code: string) => (thrown: unknown) => thrown instanceof Fault && thrown.code === code;

test('what a router stamped goes before what the client sent', () => {
  const target = targetOf({
    'cellwright-tenant': ['acme'],
    'cellwright-epoch': ['7'],
    'cellwright-cell': ['tokyo-1'],
    'x-tenant': ['other'],
  });
  assert.deepEqual(target, { tenant: 'acme', epoch: 7, cell: 'tokyo-1' });
});

test('who speaks to a cell directly names the tenant by header or subdomain', () => {
  assert.equal(targetOf({ 'x-tenant': ['acme'], host: ['127.0.0.1:8081'] }).tenant, 'acme');
  assert.equal(targetOf({ host: ['Acme.localhost:8081'] }).tenant, 'acme');
  assert.equal(targetOf({ host: ['acme.localhost'], 'x-tenant': ['acme'] }).tenant, 'acme');
});

test('a request without a tenant, with two, or with a malformed one is refused', () => {
  assert.throws(() => targetOf({ host: ['localhost'] }), refusedWith('tenant-missing'));
  assert.throws(() => targetOf({ host: ['a.localhost'], 'x-tenant': ['b'] }), refusedWith('tenant-ambiguous'));
  assert.throws(() => targetOf({ host: ['a.b.localhost'] }), refusedWith('tenant-malformed'));
  assert.throws(() => targetOf({ 'x-tenant': ['A_B'] }), refusedWith('tenant-malformed'));
  assert.throws(() => targetOf({ 'x-tenant': ['a', 'a'] }), refusedWith('request-malformed'));
});

test('an epoch or cell that is not well formed is refused', () => {
  for (const epoch of ['0', '-1', '1.5', '', '9'.repeat(16)]) {
    assert.throws(() => targetOf({ 'x-tenant': ['a'], 'cellwright-epoch': [epoch] }), refusedWith('request-malformed'));
  }
  assert.equal(targetOf({ 'x-tenant': ['a'], 'cellwright-epoch': ['9'.repeat(15)] }).epoch, 999_999_999_999_999);
  assert.throws(() => targetOf({ 'x-tenant': ['a'], 'cellwright-cell': ['B!'] }), refusedWith('request-malformed'));
});
