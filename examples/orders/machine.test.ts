import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openInMemory } from 'cellwright';
import { assertLaws } from 'cellwright/testing';
import { orders } from './machine.ts';

test('an order takes stock, and gives it back when it is cancelled', () => {
  const shop = openInMemory(orders);
  shop.execute('addStock', { item: 'nut', quantity: 5 });
  shop.execute('placeOrder', { id: 'one', item: 'nut', quantity: 3 });
  assert.deepEqual(shop.query('stock'), [{ item: 'nut', quantity: 2 }]);
  shop.execute('cancelOrder', { id: 'one' });
  assert.deepEqual(shop.query('stock'), [{ item: 'nut', quantity: 5 }]);
});

test('random commands keep every law', () => {
  assertLaws(orders, {
    laws: {
      stockIsNeverNegative: ({ rows }) => rows('stock').every(({ quantity }) => Number(quantity) >= 0),
      ordersAreOfKnownItems: ({ rows, row }) =>
        rows('orders').every(({ item }) => row('stock', String(item)) !== undefined),
    },
  });
});
