import { test } from 'node:test';
import { deepStrictEqual, strictEqual, throws } from 'node:assert/strict';
import { BoundedQueue } from './queue.ts';

test('entries leave in the order in which they came', () => {
  const queue = new BoundedQueue<number>({ entriesMax: 10, sizeMax: 100 });
  for (let i = 0; i < 5; i++) queue.push(i, 1);
  deepStrictEqual(queue.take(2), [0, 1]);
  queue.push(5, 1);
  deepStrictEqual(queue.take(100), [2, 3, 4, 5]);
  strictEqual(queue.length, 0);
  strictEqual(queue.size, 0);
});

test('the bound on entries holds below, at and above', () => {
  const queue = new BoundedQueue<number>({ entriesMax: 2, sizeMax: 100 });
  queue.push(1, 1);
  strictEqual(queue.admits, true);
  queue.push(2, 1);
  strictEqual(queue.admits, false);
  throws(() => queue.push(3, 1), /at its bound/);
  queue.take(1);
  strictEqual(queue.admits, true);
});

test('the bound on size holds, and an empty queue takes an entry of any size', () => {
  const queue = new BoundedQueue<number>({ entriesMax: 10, sizeMax: 10 });
  queue.push(1, 9);
  strictEqual(queue.admits, true);
  queue.push(2, 1);
  strictEqual(queue.admits, false);
  queue.take(2);
  queue.push(3, 1000);
  strictEqual(queue.admits, false);
});
