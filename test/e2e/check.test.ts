import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check } from './check.ts';
import type { Entry, Final, Operation, Outcome } from './history.ts';

/** A suite that stays green against a broken fleet is broken: each case here breaks one promise. */

let clock = 0;
function entry(operation: Operation, outcome: Outcome): Entry {
  const began = (clock += 1);
  const ended = (clock += 1);
  return { tenant: 'acme', operation, outcome, cell: 'tokyo', began, ended, beganMs: began, endedMs: ended };
}
const add = (key: string, outcome: Outcome): Entry =>
  entry({ kind: 'write', key, write: { kind: 'addStock', item: 'tea', quantity: 5 } }, outcome);
const place = (key: string, id: string, outcome: Outcome): Entry =>
  entry({ kind: 'write', key, write: { kind: 'placeOrder', id, item: 'tea', quantity: 2 } }, outcome);
const accepted = (seq: number, stateHash = `hash-${seq}`): Outcome => ({ kind: 'accepted', seq, events: 1, stateHash });
const shown = (seq: number, stateHash = `hash-${seq}`): Entry =>
  entry({ kind: 'state' }, { kind: 'state', seq, epoch: 1, stateHash });
const unknown: Outcome = { kind: 'failed', status: 502, code: 'outcome-unknown', retryAfter: undefined };
const refused: Outcome = { kind: 'refused', status: 409, code: 'command-refused' };
const order = (id: string): Final['orders'][number] => ({ id, item: 'tea', quantity: 2 });

function final(seq: number, stock: number, ids: readonly string[]): Final {
  return { seq, stateHash: `hash-${seq}`, stock: [{ item: 'tea', quantity: stock }], orders: ids.map(order) };
}
function violations(history: readonly Entry[], end: Final): readonly string[] {
  return check(history, new Map([['acme', end]])).violations;
}

describe('the checker of histories', () => {
  it('accepts a history in which everything is as promised', () => {
    const history = [
      add('a', accepted(1)),
      place('b', 'o1', unknown),
      shown(2),
      place('b', 'o1', accepted(2)),
      place('b', 'o1', accepted(2)),
      place('c', 'o1', refused),
      entry({ kind: 'orders' }, { kind: 'orders', rows: [order('o1')] }),
      entry({ kind: 'stock' }, { kind: 'stock', rows: [{ item: 'tea', quantity: 3 }] }),
    ];
    assert.deepEqual(violations(history, final(2, 3, ['o1'])), []);
  });

  const broken: readonly (readonly [string, readonly Entry[], Final, RegExp])[] = [
    ['a lost write', [add('a', accepted(1)), add('b', accepted(2))], final(1, 5, []), /lost/],
    [
      'a write that was lost and whose place was taken',
      [add('a', accepted(1)), add('b', accepted(1))],
      final(1, 5, []),
      /given to/,
    ],
    ['a write applied twice', [add('a', accepted(1))], final(2, 10, []), /applied twice/],
    [
      'a repeat that was applied again',
      [add('a', accepted(1)), add('a', accepted(2))],
      final(2, 10, []),
      /answered in 2 ways/,
    ],
    [
      'an order that is missing',
      [add('a', accepted(1)), place('b', 'o1', accepted(2))],
      final(2, 3, []),
      /orders: found/,
    ],
    [
      'an order that is listed twice',
      [add('a', accepted(1)), place('b', 'o1', accepted(2))],
      final(2, 3, ['o1', 'o1']),
      /listed twice/,
    ],
    ['a stock that differs', [add('a', accepted(1))], final(1, 6, []), /stock: found/],
    ['two hashes at one sequence', [add('a', accepted(1)), shown(1, 'another')], final(1, 5, []), /two state hashes/],
    ['a read of what is gone later', [add('a', accepted(1)), shown(3, 'hash-3')], final(1, 5, []), /had been shown/],
    [
      'a read that goes back',
      [add('a', accepted(1)), add('b', accepted(2)), shown(1)],
      final(2, 10, []),
      /after seq 2/,
    ],
    [
      'a write that goes back',
      [shown(2), add('a', accepted(1)), add('b', accepted(2))],
      final(2, 10, []),
      /after seq 2/,
    ],
    ['an open write that nobody settled', [add('a', unknown)], final(0, 0, []), /never answered/],
    ['an accepted order without stock', [place('a', 'o1', accepted(1))], final(1, -2, ['o1']), /forbids/],
    ['a refusal without a reason', [add('a', accepted(1)), place('b', 'o1', refused)], final(1, 5, []), /no state/],
    [
      'a query of a state that never was',
      [add('a', accepted(1)), entry({ kind: 'stock' }, { kind: 'stock', rows: [{ item: 'tea', quantity: 4 }] })],
      final(1, 5, []),
      /no state/,
    ],
    [
      'a query that misses what had been acknowledged',
      [add('a', accepted(1)), place('b', 'o1', accepted(2)), entry({ kind: 'orders' }, { kind: 'orders', rows: [] })],
      final(2, 3, ['o1']),
      /no state/,
    ],
  ];
  for (const [name, history, end, expected] of broken) {
    it(`catches ${name}`, () => {
      assert.match(violations(history, end).join('\n'), expected);
    });
  }
});
