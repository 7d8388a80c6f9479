import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { assert } from '../../../kernel/assert.ts';
import type { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import type { Effects } from '../definition/define.ts';
import type { Machine } from '../definition/machine.ts';
import type { IndexedWriter, TableSet, TableShape } from './tables.ts';
import { canonical, copyPlain, messageOf } from './value.ts';

/** Bounds of what an instance may have set off and not done yet. Lengths in UTF-16 code units. */
export const effectLimits = {
  timersMax: 100_000,
  messagesMax: 100_000,
  timerIdLengthMax: 255,
  topicLengthMax: 255,
  /** Of the input of a timer and of the body of a message, as JSON. */
  unitsMax: 65_536,
  /** A timer whose command fails comes again after the first of these; it doubles up to the second. */
  retryDelayMsMin: 1_000,
  retryDelayMsMax: 3_600_000,
} as const;

const strict = { additionalProperties: false };
const Count = Type.Integer({ minimum: 0 });

const TimerSchema = Type.Object(
  {
    id: Type.String({ minLength: 1, maxLength: effectLimits.timerIdLengthMax }),
    at: Count,
    command: Type.String(),
    input: Type.Unknown(),
    attempt: Count,
  },
  strict,
);
/** A command that will run. `input` is what the event gave, `attempt` how often the command has failed. */
export type Timer = Static<typeof TimerSchema>;

const MessageSchema = Type.Object(
  {
    id: Type.String(),
    topic: Type.String({ minLength: 1, maxLength: effectLimits.topicLengthMax }),
    body: Type.Unknown(),
    at: Count,
  },
  strict,
);
/** A message that waits for delivery. `at` is when it was sent, in milliseconds since 1970. */
export type Message = Static<typeof MessageSchema>;

const RefusedSchema = Type.Object(
  {
    code: Type.String(),
    message: Type.String(),
    reason: Type.Optional(Type.String()),
    field: Type.Optional(Type.String()),
  },
  strict,
);
/** The events that the runtime itself records, by type. No event of a machine can have such a name. */
export const systemEventSchemas = {
  /** The timer is gone. `refused` says why its command came to nothing. */
  $timerFired: Type.Object({ id: Type.String(), refused: Type.Optional(RefusedSchema) }, strict),
  /** The command failed; the timer comes again at `nextAt`. */
  $timerFailed: Type.Object({ id: Type.String(), attempt: Count, nextAt: Count, message: Type.String() }, strict),
  $messageDelivered: Type.Object({ id: Type.String() }, strict),
} as const;

const timers = Compile(TimerSchema);
const messages = Compile(MessageSchema);
const fired = Compile(systemEventSchemas.$timerFired);
const failed = Compile(systemEventSchemas.$timerFailed);
const delivered = Compile(systemEventSchemas.$messageDelivered);

function misfitOf(validator: {
  readonly Errors: (row: unknown) => readonly { instancePath: string; message: string }[];
}) {
  return (row: unknown): string => {
    const [error] = validator.Errors(row);
    return error === undefined ? '' : `${error.instancePath.slice(1)} ${error.message}`.trim();
  };
}
const timerTable: TableShape = {
  name: '$timers',
  key: 'id',
  indexes: [{ name: 'due', properties: ['at', 'id'] }],
  fits: (row) => timers.Check(row),
  misfit: misfitOf(timers),
};
const outboxTable: TableShape = {
  name: '$outbox',
  key: 'id',
  indexes: [],
  fits: (row) => messages.Check(row),
  misfit: misfitOf(messages),
};

/** Whether an event, or a table, is the runtime's own. */
export function isSystemName(name: string): boolean {
  return name.startsWith('$');
}

/** When a timer comes again whose command has failed `attempt` times. */
export function retryAt(nowMs: number, attempt: number): number {
  const { retryDelayMsMin, retryDelayMsMax } = effectLimits;
  return nowMs + Math.min(retryDelayMsMax, retryDelayMsMin * 2 ** Math.min(attempt - 1, 30));
}

/**
 * The timers and the outbox of one instance: tables like any other, which exist from their first row on. What goes wrong
 * in an effect fails the event, also if its handler catches it: replay, which checks no bounds, would go another way.
 */
export class SystemTables {
  /** What `evolve` gets. */
  readonly handle: Effects;
  readonly #tables: TableSet;
  readonly #machine: Machine;
  #timers: IndexedWriter | undefined;
  #outbox: IndexedWriter | undefined;
  #seq = 0;
  #nowMs = 0;
  #sent = 0;
  #deciding = false;
  #failure: unknown;
  /** Why the instance can take no more, if that is what failed the event. */
  full: Fault | undefined;

  constructor(tables: TableSet, machine: Machine) {
    this.#tables = tables;
    this.#machine = machine;
    this.handle = new Handle(this);
  }

  /** The event that runs next: its number, its time, and whether it is decided now or was long ago. */
  begin(seq: number, nowMs: number, deciding: boolean): void {
    this.#seq = seq;
    this.#nowMs = nowMs;
    this.#deciding = deciding;
    this.#sent = 0;
    this.#failure = undefined;
    this.full = undefined;
  }

  /** Throws what went wrong in an effect, whatever the handler made of it. */
  assertWhole(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  schedule(given: unknown): void {
    this.#attempt(() => {
      const plain = copyPlain(given, true);
      const timer = { ...(typeof plain === 'object' ? plain : {}), attempt: 0 };
      const table = (this.#timers ??= this.#tables.addTable(timerTable));
      if (!timers.Check(timer))
        throw new TypeError(`effects.schedule takes { id, at, command, input }: ${timerTable.misfit(timer)}`);
      if (this.#deciding) this.#checkTimer(timer, table);
      table.upsert(timer);
    });
  }

  cancel(id: unknown): void {
    this.#attempt(() => {
      if (typeof id !== 'string') throw new TypeError('effects.cancel takes the id of a timer, a string');
      if (this.#timers?.has(id) === true) this.#timers.delete(id);
    });
  }

  send(given: unknown): string {
    return this.#attempt(() => {
      const plain = copyPlain(given, true);
      const id = `${String(this.#seq).padStart(16, '0')}-${String(this.#sent).padStart(6, '0')}`;
      const message = { ...(typeof plain === 'object' ? plain : {}), id, at: this.#nowMs };
      const table = (this.#outbox ??= this.#tables.addTable(outboxTable));
      if (!messages.Check(message))
        throw new TypeError(`effects.send takes { topic, body }: ${outboxTable.misfit(message)}`);
      if (this.#deciding) {
        checkSize(message.body, `The body of a message to ${message.topic}`);
        if (table.size >= effectLimits.messagesMax) {
          throw this.#isFull(`has ${table.size} messages that were not delivered yet, which is as many as it may have`);
        }
      }
      this.#sent += 1;
      table.insert(message);
      return id;
    });
  }

  /** Applies one of the runtime's own events. Must run within `TableSet.evolve`. */
  apply(type: string, data: unknown): void {
    if (type === '$timerFired' && fired.Check(data)) this.#require(this.#timers, type).delete(data.id);
    else if (type === '$timerFailed' && failed.Check(data)) {
      this.#require(this.#timers, type).update(data.id, { at: data.nextAt, attempt: data.attempt });
    } else if (type === '$messageDelivered' && delivered.Check(data)) this.#require(this.#outbox, type).delete(data.id);
    else throw new TypeError(`${type} is no event that this version knows, or its data does not fit`);
  }

  /** When the next timer is due; undefined if there is none. O(log n). */
  get nextTimerMs(): number | undefined {
    return this.nextTimer?.at;
  }

  /** The timer that is due first, of several by id. O(log n). */
  get nextTimer(): Timer | undefined {
    if (this.#timers === undefined || this.#timers.size === 0) return undefined;
    const [row] = this.#timers.by['due']?.scan({ limit: 1 }) ?? [];
    return timers.Check(row) ? row : undefined;
  }

  timer(id: string): Timer | undefined {
    const row = this.#timers?.get(id);
    return timers.Check(row) ? row : undefined;
  }

  /** Timers in the order in which they are due. */
  *timers(): IterableIterator<Timer> {
    for (const row of this.#timers?.by['due']?.scan() ?? []) if (timers.Check(row)) yield row;
  }

  hasMessage(id: string): boolean {
    return this.#outbox?.has(id) === true;
  }

  /** Messages in the order of sending. */
  *messages(range: {
    readonly after?: string | undefined;
    readonly limit?: number | undefined;
  }): IterableIterator<Message> {
    for (const row of this.#outbox?.scan(range) ?? []) if (messages.Check(row)) yield row;
  }

  /** The table of that name, made if it is not there yet: for rows that were kept elsewhere. */
  open(table: string): void {
    if (table === timerTable.name) this.#timers ??= this.#tables.addTable(timerTable);
    if (table === outboxTable.name) this.#outbox ??= this.#tables.addTable(outboxTable);
  }

  #require(table: IndexedWriter | undefined, type: string): IndexedWriter {
    if (table !== undefined) return table;
    throw new TypeError(`${type} is of a timer or message that is not there`);
  }

  #checkTimer({ id, command: name, input }: Timer, table: IndexedWriter): void {
    const command = this.#machine.commands.get(name);
    if (command === undefined) {
      throw new TypeError(`timer ${id} cannot run command ${name}, which ${this.#machine.name} does not have`);
    }
    checkSize(input, `The input of timer ${id}`);
    try {
      command.parse(input);
    } catch (thrown) {
      throw new TypeError(`the input of timer ${id} does not fit command ${name}: ${messageOf(thrown)}`, {
        cause: thrown,
      });
    }
    if (table.size >= effectLimits.timersMax && !table.has(id)) {
      throw this.#isFull(`has ${table.size} timers, which is as many as it may have`);
    }
  }

  #isFull(what: string): Fault {
    this.full = fault('effects-full', `This instance ${what}; repeat the request when there are fewer`, {
      retryAfterMs: 5_000,
    });
    return this.full;
  }

  #attempt<Result>(effect: () => Result): Result {
    try {
      this.assertWhole();
      return effect();
    } catch (thrown) {
      this.#failure ??= thrown ?? new TypeError('an effect failed');
      throw thrown;
    }
  }
}

/** Only the three methods: whatever else the runtime does with these tables is no business of a handler. */
class Handle implements Effects {
  readonly #system: SystemTables;

  constructor(system: SystemTables) {
    this.#system = system;
  }

  schedule(timer: unknown): void {
    this.#system.schedule(timer);
  }

  cancel(id: unknown): void {
    this.#system.cancel(id);
  }

  send(message: unknown): string {
    return this.#system.send(message);
  }
}

function checkSize(value: unknown, what: string): void {
  const { length } = canonical(value);
  assert(length > 0, 'every value has a text');
  if (length <= effectLimits.unitsMax) return;
  throw new RangeError(`${what} comes to ${length} characters, more than ${effectLimits.unitsMax}`);
}
