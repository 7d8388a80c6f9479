import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { fault } from '../../../protocol/errors.ts';
import { watched } from '../instance/handling.ts';
import { copyPlain, isPlainObject, type PlainObject } from '../state/value.ts';

/**
 * How a machine reads what its older versions recorded. Events are never rewritten: each is brought to its
 * present form whenever it is replayed, and a changed `evolve` is declared, so that a difference nobody
 * declared is found. `docs/machine.md` explains it under "Versions".
 */

/** Brings the data of an event from one version to the next. Pure, like every handler. */
export type Upcaster = (data: PlainObject) => unknown;

/** Number n brings the data that version n recorded to the form of version n + 1. */
export type Upcasters = Readonly<Record<number, Upcaster>>;

/** An event type that the present version does not know any more. */
export interface RetiredEvent<Event> {
  /** The last version that recorded it. */
  readonly lastVersion: number;
  /** The present events that stand for it: one under another name, several, or none. */
  readonly into: (data: PlainObject) => readonly Event[];
}

/** An event as it was recorded, or as the present version would record it. */
export interface VersionedEvent {
  readonly type: string;
  readonly data: unknown;
}

/** What a machine knows of its older versions. */
export interface MachineVersions {
  /** Versions from which on `evolve` differs, ascending, each with the reason. */
  readonly changes: readonly { readonly version: number; readonly why: string }[];
  /** Whether anything at all was said: without it, records of older versions are replayed as they are. */
  readonly upcasts: boolean;
  /**
   * The present events that stand for one recorded by `version`; that event itself if nothing is to be done.
   * Throws what an upcaster throws, and TypeError if it returns what cannot be an event.
   */
  present(version: number, event: VersionedEvent): readonly VersionedEvent[];
  /**
   * Whether states that `version` evolved must be the same under the present version: no change is declared
   * between. If not, neither its state hashes nor its snapshots say anything about the present version.
   */
  agreesWith(version: number): boolean;
}

/** The parts of a machine's definition that speak of older versions, without their types. */
export interface VersionedDefinition {
  readonly name: string;
  readonly version: number;
  readonly events: Readonly<Record<string, { readonly upcast?: Upcasters }>>;
  readonly retired?: Readonly<
    Record<string, { readonly lastVersion: number; into(data: PlainObject): readonly VersionedEvent[] }>
  >;
  readonly changes?: Readonly<Record<number, string>>;
}

/**
 * An upcaster whose old form has a schema: `upcast: { 1: upcast(OldOrder, (order) => ({ … })) }`. Data that does not fit
 * makes the record unreadable, which replay reports as it does any other drift.
 */
export function upcast<Schema extends TSchema>(schema: Schema, to: (data: Static<Schema>) => unknown): Upcaster {
  const validator = Compile(schema);
  const fits = (data: unknown): data is Static<Schema> => validator.Check(data);
  return (data) => {
    if (!fits(data)) throw new TypeError('the recorded data does not fit the schema of its upcaster');
    return to(data);
  };
}

/** Checks what a definition says of older versions. Fault `machine-unloadable` names what is wrong with it. */
export function versionsOf(definition: VersionedDefinition): MachineVersions {
  const { name, version } = definition;
  const wrong = (field: string, what: string) =>
    fault('machine-unloadable', `Machine ${name}: ${field} ${what}`, { field });
  const upcasters = new Map<string, readonly { readonly from: number; readonly to: Upcaster }[]>();
  for (const [type, { upcast: steps = {} }] of Object.entries(definition.events)) {
    const list = Object.entries(steps).map(([text, to]) => ({ from: Number(text), to }));
    for (const { from } of list) {
      if (Number.isInteger(from) && from >= 1 && from < version) continue;
      throw wrong(`events.${type}.upcast`, `has a step from version ${from}; write one of 1 to ${version - 1}`);
    }
    if (list.length > 0)
      upcasters.set(
        type,
        list.sort((a, b) => a.from - b.from),
      );
  }
  const retired = new Map(Object.entries(definition.retired ?? {}));
  for (const [type, { lastVersion }] of retired) {
    if (Number.isInteger(lastVersion) && lastVersion >= 1 && lastVersion < version) continue;
    throw wrong(`retired.${type}.lastVersion`, `is ${lastVersion}; write one of 1 to ${version - 1}`);
  }
  const changes = Object.entries(definition.changes ?? {})
    .map(([text, why]) => ({ version: Number(text), why }))
    .sort((a, b) => a.version - b.version);
  for (const change of changes) {
    if (!Number.isInteger(change.version) || change.version < 2 || change.version > version) {
      throw wrong('changes', `names version ${change.version}; evolve can differ from a version of 2 to ${version} on`);
    }
    if (typeof change.why !== 'string' || change.why.trim() === '') {
      throw wrong(`changes.${change.version}`, 'gives no reason; say why evolve differs from that version on');
    }
  }
  const lastChange = changes.at(-1)?.version ?? 1;
  return Object.freeze({
    changes,
    upcasts: upcasters.size > 0 || retired.size > 0,
    agreesWith: (from: number) => from >= lastChange,
    present: watched('an upcaster', (from: number, event: VersionedEvent): readonly VersionedEvent[] => {
      const gone = retired.get(event.type);
      if (gone !== undefined && from <= gone.lastVersion) {
        return eventsOf(event.type, gone.into(frozen(event)));
      }
      const steps = upcasters.get(event.type);
      if (steps === undefined) return [event];
      let { data } = event;
      for (const step of steps) if (step.from >= from) data = step.to(frozen({ type: event.type, data }));
      return [{ type: event.type, data }];
    }),
  });
}

/** Recorded data as a handler sees it. */
function frozen({ type, data }: VersionedEvent): PlainObject {
  const plain = copyPlain(data, true);
  if (isPlainObject(plain)) return plain;
  throw new TypeError(`the data of event ${type} is not an object, which is all that an upcaster takes`);
}

function eventsOf(type: string, returned: unknown): readonly VersionedEvent[] {
  if (!Array.isArray(returned)) throw new TypeError(`retired event ${type} must become an array of events`);
  return returned.map((event: unknown) => {
    const { type: into, data } = isPlainObject(event) ? event : {};
    if (typeof into !== 'string') throw new TypeError(`retired event ${type} became something that is no event`);
    return { type: into, data };
  });
}
