import { test } from 'node:test';
import { notStrictEqual, strictEqual } from 'node:assert/strict';
import { Value } from 'typebox/value';
import { RoutedCellSchema, RoutedTenantSchema } from './routing.ts';
import { hashTable, TableHash, TableSum } from './table-hash.ts';

const cell = (entry: object) => Value.Parse(RoutedCellSchema, entry);
const tenant = (entry: object) => Value.Parse(RoutedTenantSchema, entry);

const tokyo = cell({ name: 'tokyo-1', address: 'http://127.0.0.1:4001' });
const acme = tenant({ tenant: 'acme', cell: 'tokyo-1', epoch: 1 });

test('the texts of table hashes never change: routers keep them on disk', () => {
  strictEqual(hashTable({ cells: [], tenants: [] }), 'c1:00000000000000000000000000000000');
  strictEqual(hashTable({ cells: [tokyo], tenants: [acme] }), 'c1:98c86365ffc1b9fcaa9f33fe654187cf');
});

test('the hash depends on what the table says and not on the frames that built it', () => {
  const steps = new TableHash();
  steps.apply({ cells: [tokyo], tenants: [acme] });
  steps.apply({ cells: [], tenants: [tenant({ tenant: 'acme', cell: 'osaka-1', epoch: 3 })] });
  steps.apply({ cells: [cell({ name: 'tokyo-1', address: 'http://127.0.0.1:4009' })], tenants: [] });
  steps.apply({ cells: [], tenants: [tenant({ tenant: 'acme', epoch: 4, removed: true })] });
  strictEqual(
    steps.text,
    hashTable({
      cells: [cell({ name: 'tokyo-1', address: 'http://127.0.0.1:4009' })],
      tenants: [tenant({ tenant: 'acme', epoch: 4, removed: true })],
    }),
  );
});

test('every field of every kind of entry counts', () => {
  const variants = [
    { cells: [], tenants: [] },
    { cells: [tokyo], tenants: [] },
    { cells: [cell({ name: 'tokyo-1', address: 'http://127.0.0.1:4002' })], tenants: [] },
    { cells: [cell({ name: 'tokyo-1', removed: true })], tenants: [] },
    { cells: [], tenants: [acme] },
    { cells: [], tenants: [tenant({ tenant: 'acme', cell: 'tokyo-1', epoch: 2 })] },
    { cells: [], tenants: [tenant({ tenant: 'acme', cell: 'osaka-1', epoch: 1 })] },
    { cells: [], tenants: [tenant({ tenant: 'acme', epoch: 1, removed: true })] },
    { cells: [], tenants: [tenant({ tenant: 'acme', epoch: 2, removed: true })] },
  ];
  strictEqual(new Set(variants.map((entries) => hashTable(entries))).size, variants.length);
});

test('a sum without memory of entries agrees, and takes an entry back exactly', () => {
  const sum = new TableSum();
  sum.replaceCell(undefined, tokyo);
  const before = sum.text;
  sum.replaceTenant(undefined, acme);
  strictEqual(sum.text, hashTable({ cells: [tokyo], tenants: [acme] }));
  notStrictEqual(sum.text, before);
  sum.replaceTenant(acme, undefined);
  strictEqual(sum.text, before);
});
