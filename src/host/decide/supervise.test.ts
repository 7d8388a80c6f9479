import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { Problem } from '../../protocol/problem.ts';
import {
  initialSupervision,
  isRunning,
  restartDelayMs,
  restartDelayMsMax,
  restartDelayMsMin,
  settledMsToForget,
  step,
  type Supervision,
  type SupervisionEffect,
  type SupervisionInput,
} from './supervise.ts';

const problem: Problem = { type: '', title: '', status: 503, code: 'log-damaged', detail: 'x', reaction: 'operator' };

/** A machine whose effects are performed in memory. */
class Machine {
  state: Supervision;
  readonly running = new Map<string, number>();
  readonly timers = new Map<string, SupervisionEffect & { type: 'set-timer' }>();
  readonly log: string[] = [];
  persisted: readonly string[] = [];
  atMs = 0;

  constructor(held: readonly string[] = []) {
    this.state = initialSupervision(held);
    this.persisted = held;
  }

  take(input: SupervisionInput): this {
    const { state, effects } = step(this.state, input);
    this.state = state;
    for (const effect of effects) this.#perform(effect);
    return this;
  }
  want(...names: string[]): this {
    return this.take({ type: 'desired', processes: names.map((name) => ({ name, state: 'wanted' })) });
  }
  exit(name: string): this {
    const run = this.running.get(name);
    assert.ok(run !== undefined, `${name} runs`);
    this.running.delete(name);
    return this.take({ type: 'exited', name, run, atMs: this.atMs });
  }
  say(name: string, message: (SupervisionInput & { type: 'message' })['message']): this {
    return this.take({ type: 'message', name, run: this.running.get(name) ?? -1, atMs: this.atMs, message });
  }
  fire(name: string, timer: 'restart' | 'kill'): this {
    const set = this.timers.get(`${timer} ${name}`);
    assert.ok(set, `the ${timer} timer of ${name} is set`);
    this.timers.delete(`${timer} ${name}`);
    return this.take({ type: 'timer', name, timer, run: set.run });
  }
  delayMs(name: string): number {
    const after = this.timers.get(`restart ${name}`)?.after;
    assert.ok(typeof after === 'object', `${name} waits for its restart`);
    return after.delayMs;
  }
  phase(name: string): string | undefined {
    return this.state.processes.get(name)?.phase;
  }

  #perform(effect: SupervisionEffect): void {
    switch (effect.type) {
      case 'start':
        assert.ok(!this.running.has(effect.name), 'H2: one instance at a time');
        assert.ok(!this.persisted.includes(effect.name), 'H3: nothing that is held on disk starts');
        this.running.set(effect.name, effect.run);
        break;
      case 'set-timer':
        this.timers.set(`${effect.timer} ${effect.name}`, effect);
        break;
      case 'clear-timer':
        this.timers.delete(`${effect.timer} ${effect.name}`);
        break;
      case 'persist-held':
        this.persisted = effect.names;
        break;
      case 'signal':
        assert.equal(this.running.get(effect.name), effect.run, 'only an instance that runs is signalled');
        break;
    }
    this.log.push(effect.type === 'signal' ? `${effect.signal} ${effect.name}` : effect.type);
  }
}

describe('supervision', () => {
  it('H1: starts what is wanted, and starts it again when it exits', () => {
    const machine = new Machine().want('a');
    assert.equal(machine.phase('a'), 'starting');
    machine.exit('a');
    assert.equal(machine.phase('a'), 'backing-off');
    machine.fire('a', 'restart');
    assert.ok(machine.running.has('a'));
    assert.equal(machine.state.processes.get('a')?.restarts, 1);
  });

  it('H2: starts again only after the exit of the instance before', () => {
    const machine = new Machine().want('a').take({ type: 'hold', name: 'a' }).take({ type: 'release', name: 'a' });
    assert.equal(machine.phase('a'), 'stopping');
    machine.exit('a');
    assert.equal(machine.phase('a'), 'starting');
  });

  it('H3: never starts what is held, also when an earlier host was told so', () => {
    const machine = new Machine(['a']).want('a', 'b');
    assert.deepEqual([...machine.running.keys()], ['b']);
    machine.take({ type: 'release', name: 'a' });
    assert.ok(machine.running.has('a'));
    assert.deepEqual(machine.persisted, []);
  });

  it('H3: writes a hold down before it stops the process', () => {
    const machine = new Machine().want('a').take({ type: 'hold', name: 'a' });
    assert.ok(machine.log.indexOf('persist-held') < machine.log.indexOf('SIGTERM a'));
    assert.deepEqual(machine.persisted, ['a']);
  });

  it('H4: doubles the delay up to its most', () => {
    const machine = new Machine().want('a');
    const delays = Array.from({ length: 8 }, () => {
      machine.exit('a');
      const delayMs = machine.delayMs('a');
      machine.fire('a', 'restart');
      return delayMs;
    });
    assert.deepEqual(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    assert.equal(restartDelayMs(0), restartDelayMsMin);
    assert.equal(restartDelayMs(1_000_000), restartDelayMsMax);
  });

  for (const [settledMs, expected] of [
    [settledMsToForget - 1, 200],
    [settledMsToForget, 100],
    [settledMsToForget + 1, 100],
  ] as const) {
    it(`H4: after ${settledMs} ms settled the next delay is ${expected} ms`, () => {
      const machine = new Machine().want('a').exit('a').fire('a', 'restart');
      machine.say('a', { type: 'settled', state: 'serving' });
      machine.atMs += settledMs;
      machine.say('a', { type: 'settled', state: 'serving' }).exit('a');
      assert.equal(machine.delayMs('a'), expected);
    });
  }

  it('H5: leaves down what says that a restart would not help, until a person starts it', () => {
    const machine = new Machine().want('a').say('a', { type: 'fatal', problem, restart: 'never' }).exit('a').want('a');
    assert.equal(machine.phase('a'), 'failed');
    assert.deepEqual(machine.state.processes.get('a')?.problem, problem);
    machine.take({ type: 'release', name: 'a' });
    assert.equal(machine.phase('a'), 'starting');
  });

  it('H5: restarts after a backoff what says that a restart may help', () => {
    const machine = new Machine().want('a').say('a', { type: 'fatal', problem, restart: 'backoff' }).exit('a');
    assert.equal(machine.delayMs('a'), 100);
  });

  it('H6: kills what does not stop, and what said it would exit and does not', () => {
    const stopped = new Machine().want('a').take({ type: 'hold', name: 'a' }).fire('a', 'kill');
    assert.equal(stopped.log.at(-1), 'SIGKILL a');
    const fatal = new Machine().want('a').say('a', { type: 'fatal', problem, restart: 'backoff' }).fire('a', 'kill');
    assert.equal(fatal.log.at(-1), 'SIGKILL a');
  });

  it('H7: stops what is retired and keeps what is not mentioned', () => {
    const machine = new Machine().want('a', 'b').want('b').take({ type: 'desired', processes: [] });
    assert.deepEqual([...machine.running.keys()], ['a', 'b']);
    machine.take({ type: 'desired', processes: [{ name: 'a', state: 'retired' }] }).exit('a');
    assert.equal(machine.phase('a'), 'down');
    assert.equal(machine.phase('b'), 'starting');
  });

  it('H8: stops everything at shut-down and starts nothing more', () => {
    const machine = new Machine().want('a', 'b').exit('b').take({ type: 'shut-down' });
    assert.equal(machine.timers.has('restart b'), false);
    machine.exit('a').want('c').take({ type: 'release', name: 'b' });
    assert.equal(machine.running.size, 0);
  });

  it('H9: ignores news of an earlier instance', () => {
    const machine = new Machine().want('a').exit('a').fire('a', 'restart');
    const before = machine.state;
    machine.take({ type: 'exited', name: 'a', run: 1, atMs: 0 });
    machine.take({ type: 'message', name: 'a', run: 1, atMs: 0, message: { type: 'settled', state: 'serving' } });
    machine.take({ type: 'timer', name: 'a', timer: 'kill', run: 1 });
    assert.deepEqual(machine.state, before);
  });

  it('H10: a start ends the wait and forgets the failures', () => {
    const machine = new Machine().want('a').exit('a').fire('a', 'restart').exit('a');
    machine.take({ type: 'release', name: 'a' });
    assert.equal(machine.phase('a'), 'starting');
    assert.equal(machine.timers.has('restart a'), false);
    machine.exit('a');
    assert.equal(machine.delayMs('a'), 100);
  });

  it('takes any order of news: one instance each, nothing held starts, all that is wanted runs in the end', () => {
    const names = ['a', 'b', 'c'];
    const name = fc.constantFrom(...names);
    const event = fc.oneof(
      fc.record({ kind: fc.constantFrom('want', 'retire', 'hold', 'release', 'exit', 'fire', 'kill'), name }),
      fc.record({ kind: fc.constantFrom('serving', 'fatal', 'never', 'stale', 'pass'), name }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), fc.array(name), (events, held) => {
        const machine = new Machine([...new Set(held)]);
        const wanted = new Set<string>();
        for (const { kind, name: of } of events) {
          apply(machine, kind, of);
          if (kind === 'want') wanted.add(of);
          if (kind === 'retire') wanted.delete(of);
          for (const process of machine.state.processes.values()) {
            assert.equal(isRunning(process), machine.running.has(process.name), 'the state knows what runs');
          }
        }
        for (const each of names) {
          // Whatever is stopping ends; whatever waits gets its turn.
          if (machine.phase(each) === 'stopping') machine.exit(each);
          if (machine.phase(each) === 'backing-off') machine.fire(each, 'restart');
          const mayRun = wanted.has(each) && !machine.persisted.includes(each) && machine.phase(each) !== 'failed';
          assert.equal(machine.running.has(each), mayRun, `H1: ${each} runs if and only if it may`);
        }
        machine.take({ type: 'shut-down' });
        for (const each of names) if (machine.running.has(each)) machine.exit(each);
        assert.equal(machine.running.size, 0, 'H8: nothing is left');
      }),
      { numRuns: 300 },
    );
  });
});

function apply(machine: Machine, kind: string, name: string): void {
  const runs = machine.running.has(name);
  if (kind === 'want') machine.want(name);
  else if (kind === 'retire') machine.take({ type: 'desired', processes: [{ name, state: 'retired' }] });
  else if (kind === 'hold' || kind === 'release') machine.take({ type: kind, name });
  else if (kind === 'exit' && runs) machine.exit(name);
  else if (kind === 'fire' && machine.timers.has(`restart ${name}`)) machine.fire(name, 'restart');
  else if (kind === 'kill' && machine.timers.has(`kill ${name}`)) machine.fire(name, 'kill').exit(name);
  else if (kind === 'serving') machine.say(name, { type: 'settled', state: 'serving' });
  else if (kind === 'fatal' || kind === 'never') {
    machine.say(name, { type: 'fatal', problem, restart: kind === 'never' ? 'never' : 'backoff' });
  } else if (kind === 'stale') machine.take({ type: 'exited', name, run: 0, atMs: 0 });
  else machine.atMs += 1_000;
}
