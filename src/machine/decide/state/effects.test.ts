import { test } from 'node:test';
import { deepStrictEqual, match, ok, strictEqual, throws } from 'node:assert/strict';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { effectLimits, retryAt } from './effects.ts';
import { Instance, type CommandAnswer } from '../instance/instance.ts';
import { machine, table } from '../definition/machine.ts';
import { openInMemory, type MemoryInstance } from '../instance/memory.ts';
import type { LogRecord } from '../log/record.ts';

const Empty = Type.Object({});
const Note = Type.Object({ id: Type.String(), text: Type.String() });
const Plan = Type.Object({ id: Type.String(), at: Type.Integer(), how: Type.String() });
const Sent = Type.Object({ topic: Type.String(), body: Type.Unknown(), times: Type.Integer() });
/** What the event `raw` does with effects that have no types. */
let raw: (effects: Untyped) => void = () => {};
type Untyped = Record<'schedule' | 'cancel' | 'send', (given: unknown) => unknown>;

const planner = machine({
  name: 'planner',
  version: 1,
  tables: { notes: table(Note, { key: 'id' }) },
  events: {
    noted: { data: Note, evolve: (state, note) => state.notes.insert(note) },
    planned: {
      data: Plan,
      evolve: (_, { id, at, how }, effects) =>
        effects.schedule({ id, at, command: 'due', input: { id, how, text: 'from a timer' } }),
    },
    dropped: { data: Type.Object({ id: Type.String() }), evolve: (_, { id }, effects) => effects.cancel(id) },
    sent: {
      data: Sent,
      evolve: (_, { topic, body, times }, effects) => {
        for (let i = 0; i < times; i++) effects.send({ topic, body });
      },
    },
    raw: { data: Empty, evolve: (_, __, effects) => raw(effects as unknown as Untyped) },
  },
  commands: {
    plan: { input: Plan, decide: (_, data) => [{ type: 'planned', data }] },
    planMany: {
      input: Type.Object({ first: Type.Integer(), count: Type.Integer() }),
      decide: (_, { first, count }) =>
        Array.from({ length: count }, (__, i) => ({
          type: 'planned' as const,
          data: { id: `timer ${first + i}`, at: 1_000, how: 'note' },
        })),
    },
    drop: { input: Type.Object({ id: Type.String() }), decide: (_, data) => [{ type: 'dropped', data }] },
    send: { input: Sent, decide: (_, data) => [{ type: 'sent', data }] },
    raw: { input: Empty, decide: () => [{ type: 'raw', data: {} }] },
    due: {
      input: Type.Object({ id: Type.String(), how: Type.String(), text: Type.String({ default: 'none' }) }),
      decide: (state, { id, how, text }, ctx) => {
        if (how === 'throw') throw new Error('on purpose');
        if (how === 'refuse') return ctx.refuse('not-now', `${id} is not wanted`, 'id');
        if (how === 'forever') return [{ type: 'planned', data: { id, at: ctx.now, how } }];
        if (how === 'again') return [{ type: 'planned', data: { id, at: ctx.now + 10, how: 'note' } }];
        const note = { id: how === 'break' ? 'bad' : `${id} at ${ctx.now} of ${state.notes.size}`, text };
        return [{ type: 'noted', data: note }];
      },
    },
  },
  invariants: { noneIsBad: (state) => !state.notes.has('bad') },
  queries: { notes: { input: Empty, answer: (state) => [...state.notes.scan()] } },
});

function typesOf(answers: readonly CommandAnswer[]): readonly string[] {
  return answers.flatMap((answer) =>
    answer.kind === 'accepted' ? answer.events.map(({ type }) => type) : ['rejected'],
  );
}
function plan(instance: MemoryInstance, id: string, at: number, how = 'note'): void {
  strictEqual(instance.execute('plan', { id, at, how }).kind, 'accepted');
}
function messageOf(answer: CommandAnswer): string {
  return answer.kind === 'rejected' ? answer.fault.message : 'accepted';
}

test('timers fire in the order of their times and then of their ids, each at its own time, and replay agrees', () => {
  const instance = openInMemory(planner);
  plan(instance, 'c', 30);
  plan(instance, 'b', 20);
  plan(instance, 'a', 20);
  deepStrictEqual(
    instance.timers().map(({ id, at, attempt }) => [id, at, attempt]),
    [
      ['a', 20, 0],
      ['b', 20, 0],
      ['c', 30, 0],
    ],
  );
  deepStrictEqual(instance.setNow(19), []);
  const fired = instance.setNow(40);
  deepStrictEqual(typesOf(fired), ['$timerFired', 'noted', '$timerFired', 'noted', '$timerFired', 'noted']);
  deepStrictEqual(
    (instance.query('notes') as readonly { readonly id: string }[]).map(({ id }) => id),
    ['a at 20 of 0', 'b at 20 of 1', 'c at 30 of 2'],
  );
  deepStrictEqual(instance.timers(), []);
  const copy = instance.replayed();
  deepStrictEqual([copy.stateHash, copy.seq], [instance.stateHash, instance.seq]);
});

test('a timer is state: it changes the hash, is taken back with its command, and the same id replaces it', () => {
  const instance = openInMemory(planner);
  const empty = instance.stateHash;
  plan(instance, 'a', 20);
  const planned = instance.stateHash;
  ok(planned !== empty);
  raw = (effects) => {
    effects.cancel('a');
    effects.send({ topic: 't', body: 1 });
    throw new Error('after effects');
  };
  strictEqual(instance.execute('raw', {}).kind, 'rejected');
  strictEqual(instance.stateHash, planned);
  deepStrictEqual([instance.timers().length, instance.messages().length], [1, 0]);
  plan(instance, 'a', 50);
  deepStrictEqual(
    instance.timers().map(({ at }) => at),
    [50],
  );
  instance.execute('drop', { id: 'a' });
  instance.execute('drop', { id: 'never' });
  strictEqual(instance.stateHash, empty);
  strictEqual(instance.replayed().stateHash, empty);
});

test('a command that is refused or breaks an invariant uses its timer up, and the event says why', () => {
  for (const [how, code, reason] of [
    ['refuse', 'command-refused', 'not-now'],
    ['break', 'invariant-violated', 'noneIsBad'],
  ] as const) {
    const instance = openInMemory(planner);
    const before = instance.stateHash;
    plan(instance, 'a', 20, how);
    const [answer] = instance.setNow(20);
    ok(answer?.kind === 'accepted' && answer.events.length === 1);
    const data = answer.events[0]?.data as { id: string; refused: { code: string; reason: string; message: string } };
    deepStrictEqual([data.id, data.refused.code, data.refused.reason], ['a', code, reason]);
    deepStrictEqual(instance.timers(), []);
    strictEqual(instance.stateHash, before);
    strictEqual(instance.replayed().stateHash, before);
  }
});

test('a command that fails keeps its timer, which comes again later each time, up to an hour', () => {
  const instance = openInMemory(planner);
  plan(instance, 'a', 1_000, 'throw');
  const [failed] = instance.setNow(1_000);
  ok(failed?.kind === 'accepted');
  deepStrictEqual(failed.events, [
    {
      seq: 2,
      type: '$timerFailed',
      data: {
        id: 'a',
        attempt: 1,
        nextAt: 2_000,
        message: 'Command due of timer a failed and changed nothing: on purpose',
      },
    },
  ]);
  const times = [2_000];
  for (let attempt = 2; attempt <= 16; attempt++) {
    const [timer] = instance.timers();
    strictEqual(timer?.at, times.at(-1));
    strictEqual(timer?.attempt, attempt - 1);
    instance.setNow(timer?.at ?? 0);
    times.push(instance.timers()[0]?.at ?? 0);
  }
  const delays = times.slice(1).map((at, i) => at - (times[i] ?? 0));
  deepStrictEqual(delays.slice(0, 3), [2_000, 4_000, 8_000]);
  deepStrictEqual(delays.slice(-2), [effectLimits.retryDelayMsMax, effectLimits.retryDelayMsMax]);
  strictEqual(retryAt(0, 1_000_000), effectLimits.retryDelayMsMax);
  strictEqual(instance.replayed().stateHash, instance.stateHash);
});

test('a timer may plan itself anew; one that never ends is stopped in memory with its name', () => {
  const instance = openInMemory(planner);
  plan(instance, 'a', 20, 'again');
  instance.setNow(29);
  deepStrictEqual(
    instance.timers().map(({ at }) => at),
    [30],
  );
  instance.setNow(30);
  deepStrictEqual(instance.timers(), []);
  plan(instance, 'b', 40, 'forever');
  throws(() => instance.setNow(40), /10000 timers fired and timer b is due still/);
});

test('what fires is recorded with its timer, and firing when nothing is due does nothing', () => {
  const instance = new Instance('t', planner);
  instance.execute({ command: 'plan', input: { id: 'a', at: 20, how: 'note' } }, 0);
  strictEqual(instance.nextTimerMs, 20);
  const early = instance.fireTimer(19);
  deepStrictEqual(
    [early.record, early.answer.kind, early.answer.kind === 'accepted' && early.answer.events],
    [undefined, 'accepted', []],
  );
  const { record } = instance.fireTimer(25);
  deepStrictEqual(
    [record?.command, record?.input, record?.context, record?.now, record?.key],
    ['due', { id: 'a', how: 'note', text: 'from a timer' }, { timer: 'a' }, 25, undefined],
  );
  strictEqual(instance.nextTimerMs, undefined);
});

test('messages are in the order of sending, wait until they were delivered, and a second delivery is no event', () => {
  const instance = openInMemory(planner, { nowMs: 7 });
  for (let i = 0; i < 12; i++) instance.execute('send', { topic: 'mail', body: { i }, times: i === 3 ? 11 : 1 });
  const messages = instance.messages();
  strictEqual(messages.length, 22);
  deepStrictEqual(messages[0], { id: '0000000000000001-000000', topic: 'mail', body: { i: 0 }, at: 7 });
  strictEqual(messages[13]?.id, '0000000000000004-000010');
  const ids = messages.map(({ id }) => id);
  deepStrictEqual(ids, ids.toSorted());
  strictEqual(new Set(ids).size, ids.length);
  instance.delivered(ids[1] ?? '');
  const { seq } = instance;
  instance.delivered(ids[1] ?? '');
  instance.delivered('never');
  strictEqual(instance.seq, seq);
  deepStrictEqual(
    instance.messages().map(({ id }) => id),
    ids.filter((_, i) => i !== 1),
  );
  const copy = instance.replayed();
  deepStrictEqual([copy.stateHash, copy.messages()], [instance.stateHash, instance.messages()]);

  const paged = new Instance('t', planner);
  paged.execute({ command: 'send', input: { topic: 'mail', body: 1, times: 5 } }, 0);
  const [, second] = paged.messages();
  deepStrictEqual(
    [...paged.messages({ after: second?.id, limit: 2 })].map(({ id }) => id.slice(-1)),
    ['2', '3'],
  );
  const delivered = paged.messageDelivered(second?.id ?? '', 5);
  deepStrictEqual([delivered.record?.command, delivered.record?.input], ['$deliver', { id: second?.id }]);
});

test('whatever is scheduled, sent, cancelled and fired, replay leads to the same hash and so does deciding again', () => {
  const names = fc.constantFrom('a', 'b', 'c');
  const step = fc.oneof(
    fc.record({
      do: fc.constant('plan'),
      id: names,
      at: fc.integer({ min: 0, max: 5_000 }),
      how: fc.constantFrom('note', 'throw', 'refuse', 'break', 'again'),
    }),
    fc.record({ do: fc.constant('drop'), id: names }),
    fc.record({ do: fc.constant('send'), topic: names, body: fc.jsonValue(), times: fc.integer({ min: 0, max: 3 }) }),
    fc.record({ do: fc.constant('fire'), after: fc.integer({ min: 0, max: 2_000 }) }),
    fc.record({ do: fc.constant('deliver'), which: fc.nat(3) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const instance = new Instance('t', planner);
      const [replica, again] = [new Instance('t', planner), new Instance('t', planner)];
      let nowMs = 0;
      for (const each of steps) {
        const records: (LogRecord | undefined)[] = [];
        if ('after' in each) {
          nowMs += each.after;
          for (let i = 0; i < 20 && (instance.nextTimerMs ?? Infinity) <= nowMs; i++) {
            records.push(instance.fireTimer(nowMs).record);
          }
        } else if ('which' in each) {
          const id = [...instance.messages()][each.which]?.id ?? 'none';
          records.push(instance.messageDelivered(id, nowMs).record);
        } else {
          const { do: command, ...input } = each;
          records.push(instance.execute({ command, input }, nowMs).record);
        }
        for (const record of records) {
          if (record === undefined) continue;
          replica.replay(record);
          again.executeAgain(record);
        }
        for (const one of [replica, again]) {
          deepStrictEqual(
            [one.stateHash, one.seq, one.nextTimerMs],
            [instance.stateHash, instance.seq, instance.nextTimerMs],
          );
        }
      }
      deepStrictEqual([...replica.timers()], [...instance.timers()]);
      deepStrictEqual([...replica.messages()], [...instance.messages()]);
    }),
    { numRuns: 150 },
  );
});

test('a timer that could not run, and whatever else is no effect, fails its event in plain words, also if that is caught', () => {
  const instance = openInMemory(planner);
  const before = instance.stateHash;
  const timer = { id: 'a', at: 1, command: 'due', input: { id: 'a', how: 'note' } };
  const long = 'x'.repeat(effectLimits.unitsMax);
  const wrong: readonly (readonly [(effects: Untyped) => unknown, RegExp])[] = [
    [
      (e) => e.schedule({ ...timer, command: 'nothing' }),
      /timer a cannot run command nothing, which planner does not have/,
    ],
    [(e) => e.schedule({ ...timer, input: { id: 7 } }), /the input of timer a does not fit command due: /],
    [
      (e) => e.schedule({ ...timer, at: 1.5 }),
      /effects.schedule takes \{ id, at, command, input \}: at must be integer/,
    ],
    [
      (e) => e.schedule({ ...timer, id: 'i'.repeat(effectLimits.timerIdLengthMax + 1) }),
      /id must not have more than 255/,
    ],
    [
      (e) => e.schedule({ ...timer, input: { ...timer.input, text: long } }),
      /input of timer a comes to \d+ characters, more than 65536/,
    ],
    [(e) => e.schedule(7), /effects.schedule takes/],
    [(e) => e.cancel(7), /effects.cancel takes the id/],
    [(e) => e.send({ topic: '', body: 1 }), /effects.send takes \{ topic, body \}: topic must/],
    [(e) => e.send({ topic: 't' }), /effects.send takes/],
    [(e) => e.send({ topic: 't', body: Number.NaN }), /NaN/],
    [(e) => e.send({ topic: 't', body: long }), /body of a message to t comes to \d+ characters/],
  ];
  for (const [act, message] of wrong) {
    raw = act;
    match(messageOf(instance.execute('raw', {})), message);
    match(messageOf(instance.execute('raw', {})), /^Command raw failed and changed nothing: event raw: /);
    raw = (effects) => {
      try {
        act(effects);
      } catch {
        // A handler may do that; the event must fail all the same, or replay would go another way.
      }
    };
    match(messageOf(instance.execute('raw', {})), message);
    strictEqual(instance.stateHash, before);
  }
  raw = (effects) => {
    effects.schedule({ ...timer, id: 'i'.repeat(effectLimits.timerIdLengthMax) });
    effects.send({ topic: 't', body: 'x'.repeat(effectLimits.unitsMax - 2) });
  };
  strictEqual(instance.execute('raw', {}).kind, 'accepted');
});

test('effects that were kept beyond their event do nothing and say so', () => {
  const instance = openInMemory(planner);
  let kept: Untyped | undefined;
  raw = (effects) => {
    kept = effects;
  };
  instance.execute('raw', {});
  const before = instance.stateHash;
  throws(() => kept?.send({ topic: 't', body: 1 }), /outside an event/);
  throws(() => kept?.schedule({ id: 'a', at: 1, command: 'due', input: { id: 'a', how: 'note' } }), /outside an event/);
  strictEqual(instance.stateHash, before);
  raw = () => {};
  strictEqual(instance.execute('raw', {}).kind, 'accepted');
});

test('an instance holds timers and messages up to its bounds; above them it says so, and goes on when there are fewer', () => {
  const { timersMax, messagesMax } = effectLimits;
  const instance = openInMemory(planner);
  for (let first = 0; first < timersMax; first += 10_000) {
    strictEqual(instance.execute('planMany', { first, count: 10_000 }).kind, 'accepted');
  }
  const full = instance.execute('plan', { id: 'more', at: 1, how: 'note' });
  ok(full.kind === 'rejected' && full.fault.code === 'effects-full');
  match(full.fault.message, /has 100000 timers/);
  plan(instance, 'timer 0', 5_000);
  instance.execute('drop', { id: 'timer 1' });
  plan(instance, 'more', 5_000);

  strictEqual(instance.execute('send', { topic: 't', body: 0, times: messagesMax }).kind, 'accepted');
  const [first] = instance.messages();
  const crowded = instance.execute('send', { topic: 't', body: 0, times: 1 });
  ok(crowded.kind === 'rejected' && crowded.fault.code === 'effects-full');
  instance.delivered(first?.id ?? '');
  strictEqual(instance.execute('send', { topic: 't', body: 0, times: 1 }).kind, 'accepted');
});

test('what was scheduled once is replayed whatever commands there are then; a timer without one waits for the version that has it', () => {
  const instance = new Instance('t', planner);
  const { record } = instance.execute({ command: 'plan', input: { id: 'a', at: 5, how: 'note' } }, 0);
  ok(record !== undefined);
  const commands = new Map(planner.commands);
  commands.delete('due');
  const without = new Instance('t', { ...planner, commands });
  without.replay(record);
  strictEqual(without.stateHash, instance.stateHash);
  const failed = without.fireTimer(5);
  ok(failed.record?.outcome.kind === 'accepted');
  deepStrictEqual(
    failed.record.outcome.events.map(({ type }) => type),
    ['$timerFailed'],
  );
  strictEqual(without.nextTimerMs, 5 + effectLimits.retryDelayMsMin);
});
