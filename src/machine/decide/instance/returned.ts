import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import { nearest } from '../../../protocol/nearest.ts';
import { AmbientUsed } from './handling.ts';
import type { EventEntry, Outcome } from '../log/record.ts';
import { isPlainObject, isThenable, messageOf } from '../state/value.ts';

/** How many events one command may return. */
export const eventsPerCommandMax = 10_000;

/** How long the texts of a refusal may be, in UTF-16 code units. */
export const refusalBounds = { codeLengthMax: 128, messageLengthMax: 65_536, fieldLengthMax: 1_024 } as const;

const RefusedSchema = Type.Object({ code: Type.String(), message: Type.String(), field: Type.Optional(Type.String()) });
const refusedShape = Compile(RefusedSchema);

/** What a command returned: its refusal as it can be recorded, or its events, whose data is not checked yet. */
export function returnedBy(who: string, returned: unknown): Outcome {
  const decided = settled(returned, who);
  if (!isPlainObject(decided) || !('refused' in decided)) return { kind: 'accepted', events: eventsOf(who, decided) };
  const { code, message, field } = refusedOf(decided['refused']);
  return { kind: 'refused', code: 'command-refused', message, reason: code, field };
}

/** Each part is read once: a getter may answer differently the second time. */
function refusedOf(value: unknown): Static<typeof RefusedSchema> {
  const { code, message, field } = isPlainObject(value) ? value : {};
  const refused: unknown = field === undefined ? { code, message } : { code, message, field };
  if (!refusedShape.Check(refused)) {
    throw new TypeError('a refusal has a code and a message, and may have a field; each is a string');
  }
  const { codeLengthMax, messageLengthMax, fieldLengthMax } = refusalBounds;
  if (
    refused.code.length > codeLengthMax ||
    refused.message.length > messageLengthMax ||
    (refused.field ?? '').length > fieldLengthMax
  ) {
    throw new RangeError(
      `the code of a refusal has at most ${codeLengthMax} characters, its message ${messageLengthMax}, its field ${fieldLengthMax}`,
    );
  }
  return refused;
}

function eventsOf(who: string, decided: unknown): readonly EventEntry[] {
  if (!Array.isArray(decided)) {
    const what = decided === undefined ? 'nothing' : decided === null ? 'null' : `a value of type ${typeof decided}`;
    throw new TypeError(`${who} returned ${what}; return an array of events, [] for none, or ctx.refuse(…)`);
  }
  const { length } = decided;
  if (length > eventsPerCommandMax) {
    throw new RangeError(`a command may return ${eventsPerCommandMax} events, not ${length}`);
  }
  const events: EventEntry[] = [];
  let promised = false;
  for (let i = 0; i < length; i++) {
    const event: unknown = decided[i];
    const { type, data } = isPlainObject(event) ? event : {};
    if (hearsPromise(event) || hearsPromise(data)) promised = true;
    // To the end, even if one is wrong: each promise must be heeded, or its rejection would end the process.
    events.push({ type: typeof type === 'string' ? type : '', data });
  }
  if (promised) throw new TypeError(`${who} returned an event that is or holds a promise; ${synchronous}`);
  if (events.some(({ type }) => type === '')) {
    throw new TypeError(`${who} returned something that is no event; an event is { type, data }`);
  }
  return events;
}

const synchronous =
  'handlers are synchronous, because replay could not wait for the same: wait before the command, and give it as input what came of that';

/** What a handler returned, unless it is a promise. */
export function settled(value: unknown, who: string): unknown {
  if (!hearsPromise(value)) return value;
  throw new TypeError(`${who} returned a promise; ${synchronous}`);
}

/** Whether it is a promise. Then its rejection is heard, so that the command fails and not the process. */
function hearsPromise(value: unknown): boolean {
  if (!isThenable(value)) return false;
  const ignored = (): void => {};
  value.then(ignored, ignored);
  return true;
}

/** How many names a message lists. */
const namesToldMax = 12;

/** That a machine has no such event, and which one was meant. */
export function eventUnknown(machine: string, type: string, known: readonly string[]): TypeError {
  const near = nearest(type, known);
  const named = known.slice(0, namesToldMax).join(', ') + (known.length > namesToldMax ? ', …' : '');
  const hint = near !== undefined ? `did you mean ${near}?` : known.length === 0 ? 'it has none' : `it has ${named}`;
  return new TypeError(`${machine} has no event ${type.slice(0, 64)}; ${hint}`);
}

/** A handler that another one led to failed: the message says which. */
export class HandlerFailed extends Error {
  override readonly name = 'HandlerFailed';

  constructor(who: string, thrown: unknown) {
    // What is ambient says already whom it refused.
    super(thrown instanceof AmbientUsed ? thrown.message : `${who}: ${saidBy(thrown)}`, { cause: thrown });
  }
}

/** For what our own checks throw: their faults say already what is wrong. */
export function asHandlerFault(thrown: unknown, what: string): Fault {
  return thrown instanceof Fault ? thrown : handlerFault(thrown, what);
}

/** For what a handler throws, a fault of ours included: only the runtime speaks with the runtime's codes. */
export function handlerFault(thrown: unknown, what: string): Fault {
  return fault('handler-failed', `${what}: ${saidBy(thrown)}`, { cause: thrown });
}

/** What was thrown, in words, and what to do about it where an engine's words do not say. */
function saidBy(thrown: unknown): string {
  const message = messageOf(thrown);
  const frozen =
    thrown instanceof TypeError && /read only property|not extensible|Cannot delete property/.test(message);
  return frozen
    ? `${message}; what handlers are given is frozen: copy it first, as in { ...value, changed: true }`
    : message;
}
