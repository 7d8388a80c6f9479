import { test } from 'node:test';
import { deepStrictEqual, ok, strictEqual, throws } from 'node:assert/strict';
import * as fc from 'fast-check';
import { orders } from '../../../../examples/orders/machine.ts';
import { Directory } from '../residency/directory.ts';
import { DueQueue } from '../residency/due.ts';
import { Instance } from '../instance/instance.ts';
import { approximateBytes, residencyBounds, snapshotDue, toEvict } from '../residency/residency.ts';
import { encodeState, exportState, importState, StateMismatch, type CapturedState } from './state.ts';

function filled(items: readonly string[]): Instance {
  const instance = new Instance('acme', orders);
  items.forEach((item, i) => {
    const input = { item, quantity: 1 + (i % 3) };
    const key = i % 2 === 0 ? { idempotencyKey: `key-${i}` } : {};
    instance.execute({ command: 'addStock', input, ...key }, 1_000 + i);
    instance.execute({ command: 'placeOrder', input: { id: `order-${i}`, item, quantity: 1 } }, 1_000 + i);
  });
  return instance;
}

test('an exported state comes back with the same events, hashes, keys and answers, and goes on alike', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ minLength: 1, maxLength: 8, unit: 'binary' }), { maxLength: 40 }), (items) => {
      const instance = filled(items);
      const copy = importState('acme', orders, exportState(instance));
      deepStrictEqual([copy.seq, copy.stateHash, copy.keysHash], [instance.seq, instance.stateHash, instance.keysHash]);
      deepStrictEqual([...copy.keyEntries()], [...instance.keyEntries()]);
      deepStrictEqual(copy.query('stock', {}), instance.query('stock', {}));
      deepStrictEqual(exportState(copy).length, exportState(instance).length);
      const again = { command: 'addStock', input: { item: items[0] ?? 'nut', quantity: 1 }, idempotencyKey: 'key-0' };
      deepStrictEqual(copy.execute(again, 9_000), instance.execute(again, 9_000));
      strictEqual(copy.stateHash, instance.stateHash);
    }),
  );
});

test('a text that was changed, left out, repeated or put elsewhere makes the whole state refused', () => {
  const texts = exportState(filled(Array.from({ length: 3_000 }, (_, i) => `item-${i}`)));
  ok(texts.length > 5, `${texts.length} texts`);
  for (let i = 0; i < texts.length; i++) {
    const text = texts[i] ?? '';
    const middle = Math.floor(text.length / 2);
    const digit = text.slice(middle).search(/\d/) + middle;
    const changed = text.slice(0, digit) + String((Number(text[digit]) + 1) % 10) + text.slice(digit + 1);
    const variants = [texts.with(i, changed), texts.toSpliced(i, 1), texts.toSpliced(i, 0, text), texts.slice(0, i)];
    for (const variant of variants) throws(() => importState('acme', orders, variant), StateMismatch, `text ${i}`);
  }
  throws(() => importState('bolt', orders, texts), StateMismatch);
  throws(() => importState('acme', { ...orders, name: 'other' }, texts), StateMismatch);
});

test('the least recently used leave, until nine tenths of the limit are in use; busy ones and the newest stay', () => {
  const bounds = { ...residencyBounds, residentBytesMax: 100 };
  const residents = [5, 3, 1, 4, 2].map((usedAt) => ({ usedAt, bytes: 25, busy: usedAt === 1 }));
  deepStrictEqual(
    toEvict(residents, bounds).map(({ usedAt }) => usedAt),
    [2, 3],
  );
  deepStrictEqual(toEvict(residents.slice(0, 4), bounds), [], 'at the limit nobody leaves');
  deepStrictEqual(toEvict([{ usedAt: 1, bytes: 1_000, busy: false }], bounds), []);
  strictEqual(approximateBytes({ rows: 0, keys: 0, units: 0 }) > 0, true);
});

test('a snapshot is due above the least number of records, and above half the rows', () => {
  const bounds = { ...residencyBounds, snapshotRecordsMin: 10 };
  deepStrictEqual(
    [
      snapshotDue(10, 0, bounds),
      snapshotDue(11, 0, bounds),
      snapshotDue(100, 100, bounds),
      snapshotDue(101, 100, bounds),
    ],
    [false, true, false, true],
  );
});

test('what is due comes out in order of time, each once, with the time that was set last', () => {
  const change = fc.record({
    instance: fc.constantFrom('a', 'b', 'c', 'd'),
    at: fc.option(fc.nat(50), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 200 }), fc.nat(50), (changes, nowMs) => {
      const queue = new DueQueue();
      const model = new Map<string, number>();
      for (const { instance, at } of changes) {
        queue.set(instance, at);
        if (at === undefined) model.delete(instance);
        else model.set(instance, at);
      }
      strictEqual(queue.size, model.size);
      const taken: string[] = [];
      for (let each = queue.take(nowMs); each !== undefined; each = queue.take(nowMs)) taken.push(each);
      const due = [...model].filter(([, at]) => at <= nowMs);
      deepStrictEqual(taken.toSorted(), due.map(([instance]) => instance).toSorted());
      const times = taken.map((instance) => model.get(instance) ?? 0);
      deepStrictEqual(
        times,
        times.toSorted((a, b) => a - b),
      );
    }),
  );
});

test('rows or keys that are not those of the hashes are refused, however well their texts were written', () => {
  const state = filled(['nut', 'bolt']).capture();
  const tables = state.tables.map(([name, rows]) => [name, rows.slice(1)] as const);
  const read = (forged: CapturedState) => (): unknown => importState('acme', orders, encodeState(forged));
  throws(read({ ...state, tables }), /its rows are/);
  throws(read({ ...state, keys: [] }), /its keys are/);
});

test('a record must name the one before it: one that was left out is noticed even if it changed no state', () => {
  const directory = new Directory();
  const record = {
    instance: 'acme',
    machine: 'orders',
    machineVersion: 1,
    seqBefore: 0,
    hashes: ['c2:0'],
    keysHash: 'c2:0',
  };
  const rest = { now: 1, keysForgotten: 0, command: 'c', input: {}, key: undefined, context: {}, payload: '' };
  const outcome = { kind: 'accepted', events: [] } as const;
  const placed = (position: number, previous: number) => ({ ...record, ...rest, outcome, position, previous });
  strictEqual(directory.misfit(placed(1, 0), 'c2:0'), undefined);
  directory.follow(record, 1, 'none');
  strictEqual(directory.misfit(placed(3, 1), 'c2:0'), undefined);
  ok(directory.misfit(placed(3, 2), 'c2:0')?.includes('that 2 came before it, not 1'));
  ok(directory.misfit({ ...placed(3, 1), seqBefore: 1 }, 'c2:0')?.includes('after event 1'));
  ok(directory.misfit({ ...placed(3, 1), hashes: ['c2:1'] }, 'c2:0')?.includes('from state'));
});
