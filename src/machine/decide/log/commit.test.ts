import { test } from 'node:test';
import { deepStrictEqual, ok, strictEqual, throws } from 'node:assert/strict';
import * as fc from 'fast-check';
import { admits, commitBounds, commitState, step, type CommitEffect } from './commit.ts';

type Effect = CommitEffect<number, string>;

test('no answer ever leaves before what it observed is durable, and in the end every answer leaves once', () => {
  const moves = fc.array(
    fc.constantFrom('append', 'append', 'observe', 'flush', 'durable', 'full', 'wanted', 'space', 'failed'),
    { maxLength: 60, size: 'max' },
  );
  fc.assert(
    fc.property(moves, fc.infiniteStream(fc.nat()), (inputs, picks) => {
      const state = commitState<number, string>(0);
      const observedAt = new Map<string, number>();
      const left = new Set<string>();
      let onDisk = 0;
      let writing: number | undefined;
      let failed = false;
      let nowMs = 0;
      let probes = 0;
      const see = (effects: readonly Effect[]): void => {
        for (const effect of effects) {
          if (effect.type === 'write') {
            strictEqual(writing, undefined, 'one batch at a time');
            deepStrictEqual(effect.entries[0], onDisk + 1, 'no gap between batches');
            strictEqual(effect.entries.at(-1), effect.upTo);
            writing = effect.upTo;
          }
          if (effect.type === 'probe') probes += 1;
          if (effect.type === 'rollback') {
            strictEqual(effect.position, onDisk, 'what is durable stays');
            strictEqual(state.appended, onDisk, 'everything else is gone');
            deepStrictEqual(effect.entries.at(0), onDisk + 1, 'all of it is told');
          }
          if (effect.type === 'release' || effect.type === 'abandon' || effect.type === 'refuse') {
            for (const token of effect.tokens) {
              ok(!left.has(token), 'an answer leaves once');
              left.add(token);
              if (effect.type === 'abandon') ok(failed);
              else if (effect.type === 'refuse')
                ok((observedAt.get(token) ?? 0) > onDisk, 'what is durable is answered');
              else ok(!failed && (observedAt.get(token) ?? Infinity) <= onDisk, 'an answer left too early');
            }
          }
        }
      };
      let tokens = 0;
      const play = (input: string): void => {
        if (input === 'append' && admits(state, 'write') === 'yes') {
          const position = state.appended + 1;
          see(step(state, { type: 'append', position, units: 1, entry: position }));
        } else if (input === 'observe') {
          const position = (picks.next().value ?? 0) % (state.appended + 1);
          const token = `${(tokens += 1)}`;
          observedAt.set(token, position);
          see(step(state, { type: 'observe', position, token }));
        } else if (input === 'flush') {
          see(step(state, { type: 'flush' }));
        } else if (input === 'durable' && writing !== undefined) {
          onDisk = writing;
          writing = undefined;
          see(step(state, { type: 'durable', position: onDisk }));
        } else if (input === 'full' && writing !== undefined && !failed) {
          writing = undefined;
          see(step(state, { type: 'full' }));
          strictEqual(admits(state, 'write'), 'full');
          strictEqual(admits(state, 'read'), 'yes');
        } else if (input === 'wanted') {
          see(step(state, { type: 'wanted', nowMs: (nowMs += 600) }));
        } else if (input === 'space' && probes > 0) {
          probes = 0;
          see(step(state, { type: 'space', room: (picks.next().value ?? 0) % 2 === 0 }));
        } else if (input === 'failed' && (picks.next().value ?? 0) % 4 === 0) {
          failed = true;
          see(step(state, { type: 'failed' }));
        }
      };
      inputs.forEach(play);
      for (let i = 0; i < 3; i++) ['flush', 'durable'].forEach(play);
      strictEqual(left.size, observedAt.size);
    }),
    { numRuns: 500 },
  );
});

test('what arrives while a batch is in flight goes with the next one, all together', () => {
  const state = commitState<number, string>(0);
  const append = (position: number): void => {
    step(state, { type: 'append', position, units: 1, entry: position });
  };
  append(1);
  deepStrictEqual(step(state, { type: 'flush' }), [{ type: 'write', upTo: 1, entries: [1] }]);
  append(2);
  append(3);
  deepStrictEqual(step(state, { type: 'flush' }), []);
  deepStrictEqual(step(state, { type: 'durable', position: 1 }), [
    { type: 'publish', entries: [1] },
    { type: 'release', tokens: [] },
    { type: 'write', upTo: 3, entries: [2, 3] },
  ]);
});

test('the queue admits records up to its bounds and no further, and is free again once they are written', () => {
  const state = commitState<number, string>(0);
  for (let position = 1; position < commitBounds.queuedRecordsMax; position++) {
    step(state, { type: 'append', position, units: 1, entry: position });
  }
  strictEqual(admits(state, 'write'), 'yes');
  const last = commitBounds.queuedRecordsMax;
  step(state, { type: 'append', position: last, units: 1, entry: last });
  strictEqual(admits(state, 'write'), 'busy');
  const [write] = step(state, { type: 'flush' });
  ok(write?.type === 'write' && write.entries.length === commitBounds.batchRecordsMax);
  strictEqual(admits(state, 'write'), 'yes');
});

test('the queue is bounded in size, and so are the answers that wait', () => {
  const large = commitState<number, string>(0);
  step(large, { type: 'append', position: 1, units: commitBounds.queuedUnitsMax, entry: 1 });
  strictEqual(admits(large, 'write'), 'busy');
  const many = commitState<number, string>(0);
  step(many, { type: 'append', position: 1, units: 1, entry: 1 });
  for (let i = 0; i < commitBounds.waitingMax; i++) {
    strictEqual(admits(many, 'write'), 'yes');
    step(many, { type: 'observe', position: 1, token: `${i}` });
  }
  strictEqual(admits(many, 'write'), 'busy');
});

test('after a failure nothing is admitted, written or released', () => {
  const state = commitState<number, string>(0);
  step(state, { type: 'append', position: 1, units: 1, entry: 1 });
  step(state, { type: 'observe', position: 1, token: 'a' });
  step(state, { type: 'flush' });
  deepStrictEqual(step(state, { type: 'failed' }), [{ type: 'abandon', tokens: ['a'] }]);
  strictEqual(admits(state, 'write'), 'stopped');
  deepStrictEqual(step(state, { type: 'durable', position: 1 }), []);
  deepStrictEqual(step(state, { type: 'observe', position: 0, token: 'b' }), [{ type: 'abandon', tokens: ['b'] }]);
  deepStrictEqual(step(state, { type: 'failed' }), []);
  throws(() => step(state, { type: 'append', position: 2, units: 1, entry: 2 }), /after the log stopped/);
});

test('a full disk takes back everything that is not durable, and refuses whoever saw it', () => {
  const state = commitState<number, string>(0);
  const append = (position: number, token: string): void => {
    step(state, { type: 'append', position, units: 1, entry: position });
    step(state, { type: 'observe', position, token });
  };
  append(1, 'a');
  step(state, { type: 'flush' });
  step(state, { type: 'durable', position: 1 });
  append(2, 'b');
  step(state, { type: 'flush' });
  append(3, 'c');
  deepStrictEqual(step(state, { type: 'full' }), [
    { type: 'rollback', position: 1, entries: [2, 3] },
    { type: 'refuse', tokens: ['b', 'c'] },
  ]);
  deepStrictEqual(step(state, { type: 'observe', position: 1, token: 'd' }), [{ type: 'release', tokens: ['d'] }]);
  throws(() => step(state, { type: 'append', position: 2, units: 1, entry: 2 }), /while the disk is full/);
  deepStrictEqual(step(state, { type: 'flush' }), []);
});

test('writes go on once a probe finds room, and probes are at least their pause apart and never two at once', () => {
  const state = commitState<number, string>(0);
  const wanted = (nowMs: number) => step(state, { type: 'wanted', nowMs });
  deepStrictEqual(wanted(0), [], 'a disk that is not full is not probed');
  step(state, { type: 'append', position: 1, units: 1, entry: 1 });
  step(state, { type: 'flush' });
  step(state, { type: 'full' });
  deepStrictEqual(wanted(10), [{ type: 'probe' }]);
  deepStrictEqual(wanted(10 + 5 * commitBounds.probeEveryMs), [], 'one is under way');
  step(state, { type: 'space', room: false });
  strictEqual(admits(state, 'write'), 'full');
  deepStrictEqual(wanted(9 + commitBounds.probeEveryMs), []);
  deepStrictEqual(wanted(10 + commitBounds.probeEveryMs), [{ type: 'probe' }]);
  step(state, { type: 'space', room: true });
  strictEqual(admits(state, 'write'), 'yes');
  step(state, { type: 'append', position: 1, units: 1, entry: 1 });
  deepStrictEqual(step(state, { type: 'flush' }), [{ type: 'write', upTo: 1, entries: [1] }]);
});
