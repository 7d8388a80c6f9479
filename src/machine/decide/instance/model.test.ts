import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { NaiveMachine, type NaiveAnswer } from '../../../../test/machine/naive-machine.ts';
import {
  inputs,
  machineOf,
  shapes,
  type Input,
  type MachineShape,
  type Row,
} from '../../../../test/machine/random-machine.ts';
import { Instance, type CommandAnswer, type Decision } from './instance.ts';
import type { Machine } from '../definition/machine.ts';
import { decodeRecord, encodeRecord } from '../log/record.ts';
import { exportState, StateReader } from '../state/state.ts';

const keyBounds = { lifeMs: 5_000, countMax: 4, unitsMax: 1_000_000 };

type Step =
  | { readonly do: 'run'; readonly input: Input; readonly key: string | undefined }
  | { readonly do: 'again'; readonly nth: number }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'deliver' };

const key = fc.option(fc.constantFrom('k1', 'k2', 'k3', 'k4', 'k5', 'k6'), { nil: undefined });
const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('run' as const), input: inputs, key }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('again' as const), nth: fc.nat(3) }) },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 1_000, 5_000, 100_000) }),
    },
    { weight: 1, arbitrary: fc.constant({ do: 'deliver' as const }) },
  ),
  { maxLength: 30, size: 'max' },
);

/** Timers of one wait: what schedules itself at once would never end. */
const firingsMax = 50;

/** The runtime and the naive machine side by side, and an instance that follows by replaying the texts of records. */
class SideBySide {
  readonly #shape: MachineShape;
  readonly #machine: Machine;
  readonly #naive: NaiveMachine;
  readonly #follower: Instance;
  readonly #sent: { readonly input: Input; readonly key: string }[] = [];
  #instance: Instance;
  #nowMs = 1_000_000;
  #records = 0;

  constructor(shape: MachineShape) {
    this.#shape = shape;
    this.#machine = machineOf(shape);
    this.#naive = new NaiveMachine(shape, keyBounds);
    this.#instance = new Instance('tenant', this.#machine, keyBounds);
    this.#follower = new Instance('tenant', this.#machine, keyBounds);
  }

  perform(step: Step): void {
    switch (step.do) {
      case 'run':
        this.#run(step.input, step.key);
        if (step.key !== undefined) this.#sent.push({ input: step.input, key: step.key });
        break;
      case 'again': {
        const sent = this.#sent.at(-1 - step.nth);
        if (sent !== undefined) this.#run(sent.input, sent.key);
        break;
      }
      case 'wait':
        this.#wait(step.ms);
        break;
      default: {
        const [id] = this.#naive.messageIds;
        if (id === undefined) break;
        this.#naive.deliver(id);
        this.#record(this.#instance.messageDelivered(id, this.#nowMs));
      }
    }
    this.compare();
  }

  #run(input: Input, withKey: string | undefined): void {
    const request = { command: 'run', input, ...(withKey === undefined ? {} : { idempotencyKey: withKey }) };
    const decision = this.#instance.execute(request, this.#nowMs);
    const units = (): number => decision.record?.payload.length ?? Number.NaN;
    const { repeated, ...expected } = this.#naive.run(input, this.#nowMs, withKey, units);
    assert.deepEqual(saidBy(decision.answer), { ...expected, repeated });
    this.#record(decision);
  }

  #wait(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (let fired = 0; fired < firingsMax; fired++) {
      const timer = this.#naive.nextTimer();
      assert.equal(this.#instance.nextTimerMs, timer?.at);
      if (timer === undefined || timer.at > untilMs) break;
      this.#nowMs = Math.max(this.#nowMs, timer.at);
      const decision = this.#instance.fireTimer(this.#nowMs);
      assert.deepEqual(saidBy(decision.answer), { ...this.#naive.fire(this.#nowMs), repeated: false });
      this.#record(decision);
      this.compare();
    }
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  #record({ record }: Decision): void {
    if (record === undefined) return;
    this.#naive.forgetKeys(this.#nowMs);
    this.#records += 1;
    this.#follower.replay(decodeRecord(this.#records, encodeRecord(this.#records, this.#records - 1, record)));
  }

  /** Everything that can be seen of the three. */
  compare(): void {
    const { seq, stateHash, keysHash } = this.#naive;
    for (const instance of [this.#instance, this.#follower]) {
      assert.deepEqual([instance.seq, instance.stateHash, instance.keysHash], [seq, stateHash, keysHash]);
      for (const shape of this.#shape.tables) {
        const expected = this.#naive.rows(shape);
        assert.deepEqual(instance.query('rows', { table: shape.name }), expected);
        for (const [index, properties] of Object.entries(shape.indexes)) {
          const sorted = expected.toSorted((a, b) => compareBy(properties, a, b));
          assert.deepEqual(instance.query('rows', { table: shape.name, index }), sorted);
        }
      }
    }
  }

  /** Lets the instance leave memory and come back, as a tenant that is evicted, or moved, does. */
  reload(): void {
    const reader = new StateReader('tenant', this.#machine, keyBounds);
    for (const text of exportState(this.#instance)) reader.take(text);
    this.#instance = reader.finish();
    this.compare();
  }
}

function saidBy(answer: CommandAnswer): NaiveAnswer & { readonly repeated: boolean } {
  const { repeated } = answer;
  if (answer.kind === 'rejected') return { kind: 'refused', code: answer.fault.code, repeated };
  const { seq, events, stateHash } = answer;
  return { kind: 'accepted', seq, events: events.length, stateHash, repeated };
}

/** Missing before false before true; numbers by size; texts by code units; equals by the order that they have. */
function compareBy(properties: readonly string[], a: Row, b: Row): number {
  const ranked = (value: unknown): number | string => {
    if (value === undefined) return Number.NEGATIVE_INFINITY;
    return typeof value === 'boolean' ? Number(value) : (value as number | string);
  };
  for (const property of properties) {
    const [left, right] = [ranked(a[property]), ranked(b[property])];
    if (left === right) continue;
    if (left === Number.NEGATIVE_INFINITY) return -1;
    if (right === Number.NEGATIVE_INFINITY) return 1;
    return left < right ? -1 : 1;
  }
  return 0;
}

test('random machines do what a naive one does: answers, rows, order, hashes, keys, timers; and replay repeats it', () => {
  fc.assert(
    fc.property(shapes, steps, (shape, performed) => {
      const both = new SideBySide(shape);
      for (const step of performed) both.perform(step);
    }),
    { numRuns: 100 },
  );
});

test('a random machine that leaves memory and comes back after any step goes on as if it had not', () => {
  fc.assert(
    fc.property(shapes, steps, (shape, performed) => {
      const both = new SideBySide(shape);
      for (const step of performed) {
        both.perform(step);
        both.reload();
      }
    }),
    { numRuns: 30 },
  );
});
