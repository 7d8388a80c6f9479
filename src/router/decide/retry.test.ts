import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { Value } from 'typebox/value';
import { CellNameSchema } from '../../protocol/names.ts';
import { limits } from '../../protocol/limits.ts';
import { nextStep, parseAssignment, repeatsMax, settleDelayMs, type Outcome, type Progress } from './retry.ts';

const owner = (cell: string, epoch: number) => ({ cell: Value.Parse(CellNameSchema, cell), epoch });
const start: Progress = {
  method: 'POST',
  replayable: true,
  followed: owner('tokyo-1', 3),
  table: owner('tokyo-1', 3),
  hops: 0,
  repeats: 0,
  elapsedMs: 0,
};
const codeAfter = (outcome: Outcome, progress: Partial<Progress> = {}): string => {
  const next = nextStep(outcome, { ...start, ...progress });
  return next.kind === 'answer' ? next.code : next.kind;
};
const newer: Outcome = { kind: 'not-owner', assignment: owner('osaka-1', 4) };
const lost: Outcome = { kind: 'ambiguous', timedOut: false };

test('R1 an answer is passed on', () => assert.equal(codeAfter({ kind: 'answered' }), 'relay'));

test('R2 a newer assignment is followed, at most hopsMax times, and only if the request can be sent again', () => {
  assert.deepEqual(nextStep(newer, start), { kind: 'follow', owner: owner('osaka-1', 4) });
  assert.equal(codeAfter(newer, { hops: limits.hopsMax - 1 }), 'follow');
  assert.equal(codeAfter(newer, { hops: limits.hopsMax }), 'assignment-unsettled');
  assert.equal(codeAfter(newer, { replayable: false }), 'assignment-unsettled');
});

test('R3 the newest of what the gate said and what the table says now is followed', () => {
  const table = owner('kyoto-1', 5);
  assert.deepEqual(nextStep(newer, { ...start, table }), { kind: 'follow', owner: table });
  assert.deepEqual(nextStep({ kind: 'not-owner', assignment: undefined }, { ...start, table }), {
    kind: 'follow',
    owner: table,
  });
});

test('R4 an assignment that is not newer is not followed: the cell is asked again within the bound', () => {
  for (const epoch of [2, 3]) {
    const outcome: Outcome = { kind: 'not-owner', assignment: owner('osaka-1', epoch) };
    assert.equal(codeAfter(outcome), 'wait');
    assert.equal(codeAfter(outcome, { elapsedMs: limits.settleWaitMsMax }), 'assignment-unsettled');
  }
});

test('R5 a cell that is behind is offered frames; one that starts is asked again; both within settleWaitMsMax', () => {
  assert.deepEqual(nextStep({ kind: 'cell-behind' }, start), {
    kind: 'wait',
    delayMs: settleDelayMs,
    offerFrames: true,
  });
  assert.deepEqual(nextStep({ kind: 'cell-not-ready' }, start), {
    kind: 'wait',
    delayMs: settleDelayMs,
    offerFrames: false,
  });
  const atBound = limits.settleWaitMsMax - settleDelayMs;
  assert.equal(codeAfter({ kind: 'cell-behind' }, { elapsedMs: atBound }), 'wait');
  assert.equal(codeAfter({ kind: 'cell-behind' }, { elapsedMs: atBound + 1 }), 'assignment-unsettled');
  assert.equal(codeAfter({ kind: 'cell-not-ready' }, { elapsedMs: atBound + 1 }), 'cell-not-ready');
});

test('R6 if nothing was sent the answer is 503 at once', () => {
  assert.equal(codeAfter({ kind: 'never-connected' }), 'cell-unreachable');
  assert.equal(codeAfter({ kind: 'never-connected' }, { method: 'GET' }), 'cell-unreachable');
});

test('R7 a write that may have been sent is never sent again', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'get', 'BREW'),
      fc.boolean(),
      fc.boolean(),
      fc.nat(3),
      fc.nat(2000),
      (method, replayable, timedOut, hops, elapsedMs) => {
        assert.equal(
          codeAfter({ kind: 'ambiguous', timedOut }, { method, replayable, hops, elapsedMs }),
          'outcome-unknown',
        );
      },
    ),
  );
});

test('R8 a read is repeated once on a fresh connection, not after a time-out', () => {
  assert.equal(codeAfter(lost, { method: 'GET' }), 'repeat');
  assert.equal(codeAfter(lost, { method: 'HEAD' }), 'repeat');
  assert.equal(codeAfter(lost, { method: 'GET', repeats: repeatsMax }), 'answer-cut');
  assert.equal(codeAfter(lost, { method: 'GET', replayable: false }), 'answer-cut');
  assert.equal(codeAfter({ kind: 'ambiguous', timedOut: true }, { method: 'GET' }), 'cell-timeout');
});

test('R9 a cell at its limit: 429', () => assert.equal(codeAfter({ kind: 'at-limit' }), 'limit-exceeded'));

test('an assignment is a cell and an epoch, and nothing else', () => {
  assert.deepEqual(parseAssignment('osaka-1 4'), owner('osaka-1', 4));
  for (const wrong of [
    undefined,
    '',
    'osaka-1',
    'osaka-1 0',
    'osaka-1 -1',
    'osaka-1 4 5',
    'Osaka 4',
    'osaka-1 4.5',
    'osaka-1 99999999999999999',
  ]) {
    assert.equal(parseAssignment(wrong), undefined, String(wrong));
  }
});
