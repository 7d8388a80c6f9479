import { test } from 'node:test';
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict';
import * as fc from 'fast-check';
import { Feed, feedBounds, type FeedBounds, type FeedEffect, type FeedInput, type FeedRecord } from './feed.ts';

/** A captured state is, for these tests, the position after which it was taken. */
type State = number;

/** A log of records, and a replica that checks what it is told: nothing is missing, doubled or out of order. */
class World {
  readonly feed: Feed<State>;
  readonly last = new Map<string, number>();
  readonly held = new Map<string, number>();
  readonly wanted: string[] = [];
  readonly compared: string[] = [];
  batches: (readonly (FeedEffect<State> & { type: 'send' })['entries'][number][])[] = [];
  position = 0;
  applied = 0;

  constructor(bounds: Partial<FeedBounds> = {}) {
    const isAfter = (state: State, { instance, head }: FeedRecord) => head === `${instance} ${state}`;
    this.feed = new Feed(isAfter, { ...feedBounds, ...bounds });
  }

  step(input: FeedInput<State>): void {
    for (const effect of this.feed.step(input)) {
      if (effect.type === 'send') this.batches.push(effect.entries);
      else this.wanted.push(effect.instance);
    }
    ok(this.batches.length <= 1, 'one batch at a time');
  }

  publish(instance: string, units = 10): void {
    this.step({ type: 'publish', records: [this.record(instance, units)] });
  }

  record(instance: string, units = 10): FeedRecord {
    this.position += 1;
    const previous = this.last.get(instance) ?? 0;
    this.last.set(instance, this.position);
    const head = `${instance} ${this.position}`;
    return { instance, position: this.position, previous, head, payload: 'x'.repeat(Math.max(0, units - head.length)) };
  }

  /** The serving side answers the oldest request for a capture. */
  capture(): void {
    const instance = this.wanted.shift();
    if (instance === undefined) return;
    const position = this.last.get(instance) ?? 0;
    const captured = { position, units: 10, state: position };
    this.step({ type: 'captured', instance, captured });
  }

  /** The replica does its batch. */
  work(): void {
    const batch = this.batches.shift();
    if (batch === undefined) return;
    for (const entry of batch) {
      switch (entry.type) {
        case 'record': {
          const { instance, position, previous } = entry.record;
          strictEqual(this.held.get(instance) ?? 0, previous, 'no record is missing or comes twice');
          this.held.set(instance, position);
          this.applied += 1;
          break;
        }
        case 'state':
          strictEqual(entry.state, entry.position);
          this.held.set(entry.instance, entry.position);
          break;
        case 'compare':
          this.compared.push(entry.instance);
          this.held.delete(entry.instance);
          break;
        default:
          this.held.delete(entry.instance);
      }
    }
    this.step({ type: 'done' });
  }

  settle(): void {
    while (this.batches.length > 0 || this.wanted.length > 0) {
      this.capture();
      this.work();
    }
  }
}

const action = fc.oneof(
  { weight: 12, arbitrary: fc.record({ type: fc.constant('publish'), who: fc.nat(5) }) },
  { weight: 5, arbitrary: fc.record({ type: fc.constant('work'), who: fc.constant(0) }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('capture'), who: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom('lost', 'ready', 'drifted', 'astray'), who: fc.nat(5) }) },
);

test('whatever happens, the replica gets the records of each instance that it holds without a gap', () => {
  const small = { queuedRecordsMax: 6, queuedUnitsMax: 60, batchRecordsMax: 3, instancesMax: 3, wantedMax: 2 };
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const world = new World(small);
      world.step({ type: 'ready' });
      let alive = true;
      for (const { type, who } of actions) {
        const instance = `tenant-${who}`;
        if (type === 'publish') world.publish(instance);
        else if (type === 'work') world.work();
        else if (type === 'capture') world.capture();
        else if (type === 'lost') {
          alive = false;
          world.batches = [];
          world.wanted.length = 0;
          world.held.clear();
          world.step({ type: 'lost' });
        } else if (type === 'ready') {
          if (!alive) world.step({ type: 'ready' });
          alive = true;
        } else if (type === 'drifted') {
          const position = world.last.get(instance) ?? 0;
          world.step({ type: 'drifted', instance, position, state: position });
        }
        ok(world.feed.waiting <= small.queuedRecordsMax);
        ok(world.feed.following <= small.instancesMax);
      }
      if (!alive) world.step({ type: 'ready' });
      world.settle();
      ok(world.applied + world.feed.skipped <= world.position);
    }),
    { numRuns: 2_000 },
  );
});

test('an instance is followed from its first record, and one that is not new from a capture', () => {
  const world = new World();
  world.publish('old');
  world.step({ type: 'ready' });
  world.publish('new');
  world.publish('old');
  strictEqual(world.feed.skipped, 2);
  deepStrictEqual(world.wanted, ['old']);
  world.settle();
  world.publish('old');
  world.publish('new');
  world.settle();
  strictEqual(world.applied, 3);
  strictEqual(world.feed.skipped, 2);
  strictEqual(world.feed.captures, 1);
});

test('records that a capture holds already are not sent again', () => {
  const world = new World();
  world.publish('old');
  world.step({ type: 'ready' });
  // The first is durable and asks for a capture, which holds the second too.
  const first = world.record('old');
  const second = world.record('old');
  world.step({ type: 'publish', records: [first] });
  world.settle();
  world.step({ type: 'publish', records: [second] });
  world.settle();
  strictEqual(world.applied, 0);
  world.publish('old');
  world.settle();
  strictEqual(world.applied, 1);
});

test('a capture of what never came to be durable is not used', () => {
  const world = new World();
  world.publish('old');
  world.step({ type: 'ready' });
  const first = world.record('old');
  const second = world.record('old');
  world.step({ type: 'publish', records: [first] });
  world.settle();
  // The second was taken back, and a record with another content has its position now.
  world.step({ type: 'publish', records: [{ ...second, head: 'something else' }] });
  world.settle();
  strictEqual(world.feed.captures, 1);
  strictEqual(world.held.get('old'), second.position);
  world.publish('old');
  world.settle();
  strictEqual(world.applied, 1);
});

test('at its bound the queue is left out as a whole, and the instances start again from captures', () => {
  for (const extra of [-1, 0, 1]) {
    const world = new World({ queuedRecordsMax: 100, batchRecordsMax: 10 });
    world.step({ type: 'ready' });
    world.publish('a');
    for (let i = 0; i < 100 + extra; i++) world.publish('b');
    strictEqual(world.feed.fellBehind, extra > 0 ? 1 : 0);
    strictEqual(world.feed.skipped, extra > 0 ? 101 : 0);
    world.settle();
    world.publish('b');
    world.settle();
    strictEqual(world.held.get('b'), world.last.get('b'));
  }
});

test('text counts as well as records', () => {
  for (const extra of [-1, 0, 1]) {
    const world = new World({ queuedUnitsMax: 100 });
    world.step({ type: 'ready' });
    world.publish('a');
    world.publish('b', 99 + extra);
    world.publish('b', 1);
    strictEqual(world.feed.fellBehind, extra > 0 ? 1 : 0);
  }
});

test('beyond the bound of instances the least recently used is forgotten', () => {
  const world = new World({ instancesMax: 2 });
  world.step({ type: 'ready' });
  for (const instance of ['a', 'b', 'a', 'c']) world.publish(instance);
  world.settle();
  deepStrictEqual([...world.held.keys()].sort(), ['a', 'c']);
  strictEqual(world.feed.following, 2);
});

test('beyond the bound of their text as well, but never the one just used', () => {
  const world = new World({ instanceUnitsMax: 100 });
  world.step({ type: 'ready' });
  world.publish('a', 60);
  world.publish('b', 60);
  world.publish('c', 1_000);
  world.settle();
  deepStrictEqual([...world.held.keys()], ['c']);
});

test('captures cost no more text than records bring', () => {
  const world = new World({ captureCreditMax: 15 });
  for (const instance of ['a', 'b', 'c']) world.publish(instance);
  world.step({ type: 'ready' });
  for (const instance of ['a', 'b', 'c']) world.publish(instance, 1);
  world.settle();
  strictEqual(world.feed.captures, 2);
  // Each record is worth its text.
  world.publish('d', 10);
  world.settle();
  strictEqual(world.feed.captures, 3);
});

test('a drifted instance is compared once the replica has what the serving side had', () => {
  const world = new World();
  world.step({ type: 'ready' });
  world.publish('a');
  world.settle();
  const late = world.record('a');
  world.step({ type: 'drifted', instance: 'a', position: late.position, state: late.position });
  world.settle();
  deepStrictEqual(world.compared, []);
  world.step({ type: 'publish', records: [late] });
  world.settle();
  deepStrictEqual(world.compared, ['a']);
  strictEqual(world.feed.following, 0);
});

test('a record that does not fit leaves no gap in an instance that the replica holds and of which nothing waits', () => {
  const world = new World({ queuedRecordsMax: 4, batchRecordsMax: 1 });
  world.step({ type: 'ready' });
  world.publish('held');
  world.publish('a');
  world.work();
  for (const instance of ['b', 'c', 'd', 'e']) world.publish(instance);
  world.publish('held');
  strictEqual(world.feed.fellBehind, 1);
  world.publish('held');
  world.settle();
  world.publish('held');
  world.settle();
  strictEqual(world.held.get('held'), world.last.get('held'));
});

test('however many instances are forgotten, the queue has room to say so', () => {
  const world = new World({
    queuedRecordsMax: 6,
    queuedUnitsMax: 60,
    batchRecordsMax: 3,
    instancesMax: 3,
    wantedMax: 2,
  });
  world.step({ type: 'ready' });
  for (const instance of ['f', 'a', 'd']) world.publish(instance);
  world.step({ type: 'drifted', instance: 'c', position: 0, state: 0 });
  for (const instance of ['b', 'e', 'g', 'h', 'i', 'j']) world.publish(instance);
  world.settle();
  ok(world.held.size <= 3);
});

test('what is forgotten from outside leaves the replica too', () => {
  const world = new World();
  world.step({ type: 'ready' });
  world.publish('a');
  world.settle();
  world.publish('a');
  world.step({ type: 'forget', instance: 'a' });
  world.settle();
  deepStrictEqual([...world.held.keys()], []);
});
