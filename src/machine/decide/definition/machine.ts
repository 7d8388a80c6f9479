import type { Static, TObject, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { assert } from '../../../kernel/assert.ts';
import { fault } from '../../../protocol/errors.ts';
import type {
  CommandContext,
  Effects,
  Indexes,
  MachineDefinition,
  NoIndexes,
  OrdinalsOf,
  RowChange,
  Schemas,
  TableDefinition,
  TableView,
  TableWriter,
  Tables,
} from './define.ts';
import { watched } from '../instance/handling.ts';
import type { IndexShape } from '../state/indexes.ts';
import type { TableShape } from '../state/tables.ts';
import { copyPlain, isPlainObject, NotPlain, type PlainObject } from '../state/value.ts';
import { versionsOf, type MachineVersions, type Upcasters, type VersionedEvent } from './versions.ts';

type Views = Readonly<Record<string, TableView<PlainObject>>>;
type Writers = Readonly<Record<string, TableWriter<PlainObject>>>;

/** One command, event or query without its types: the schema that checked the input stands for them. */
export interface CompiledCommand {
  readonly input: TSchema;
  /** The input as the command sees it: copied, frozen, defaults filled in. Fault `input-invalid` names the field. */
  readonly parse: (input: unknown) => unknown;
  readonly decide: (state: Views, input: unknown, ctx: CommandContext) => unknown;
}
export interface CompiledEvent {
  readonly data: TSchema;
  readonly parse: (data: unknown) => unknown;
  readonly evolve: (state: Writers, data: unknown, effects: Effects) => unknown;
}
export interface CompiledQuery {
  readonly input: TSchema;
  /** As for commands; texts are converted first, because an address carries only text. */
  readonly parse: (input: unknown) => unknown;
  readonly answer: (state: Views, input: unknown) => unknown;
}
export interface CompiledInvariant {
  readonly name: string;
  /** It reports and does not refuse. */
  readonly shadow: boolean;
  /** Tables whose changes it is about; undefined for all. */
  readonly on: ReadonlySet<string> | undefined;
  readonly holds: (state: Views, changed: readonly RowChange[]) => unknown;
}

const mark = Symbol.for('cellwright.machine');

/** A machine as the runtime holds it: checked once, its schemas compiled, its types erased. */
export interface Machine {
  readonly [mark]: 1;
  readonly name: string;
  readonly version: number;
  readonly tables: readonly TableShape[];
  readonly commands: ReadonlyMap<string, CompiledCommand>;
  readonly events: ReadonlyMap<string, CompiledEvent>;
  readonly queries: ReadonlyMap<string, CompiledQuery>;
  readonly invariants: readonly CompiledInvariant[];
  readonly versions: MachineVersions;
}

/** Whether a value, such as the export of a module, was made by `machine`, also by another copy of this package. */
export function isMachine(value: unknown): value is Machine {
  return typeof value === 'object' && value !== null && mark in value && value[mark] === 1;
}

/** A definition seen without its types. Methods, because their parameters may then be wider than declared. */
interface ErasedDefinition {
  readonly name: string;
  readonly version: number;
  readonly tables: Readonly<
    Record<string, { readonly schema: TSchema; readonly key: string; readonly indexes?: Indexes }>
  >;
  readonly commands: Readonly<
    Record<string, { readonly input: TSchema; decide(state: Views, input: unknown, ctx: CommandContext): unknown }>
  >;
  readonly events: Readonly<
    Record<
      string,
      {
        readonly data: TSchema;
        evolve(state: Writers, data: unknown, effects: Effects): unknown;
        readonly upcast?: Upcasters;
      }
    >
  >;
  readonly queries?: Readonly<
    Record<string, { readonly input: TSchema; answer(state: Views, input: unknown): unknown }>
  >;
  readonly invariants?: Readonly<
    Record<
      string,
      | ((state: never, changed: readonly RowChange[]) => boolean)
      | {
          readonly holds: (state: never, changed: readonly RowChange[]) => boolean;
          readonly shadow?: boolean;
          readonly on?: readonly string[];
        }
    >
  >;
  readonly retired?: Readonly<
    Record<string, { readonly lastVersion: number; into(data: PlainObject): readonly VersionedEvent[] }>
  >;
  readonly changes?: Readonly<Record<number, string>>;
}
interface ErasedInvariant {
  holds(state: Views, changed: readonly RowChange[]): unknown;
}

/**
 * A table of rows that fit `schema`, found by their string property `key`. `indexes` name other orders, each by one or more
 * properties that hold texts, numbers, booleans or null, or are missing: `{ indexes: { item: ['item'] } }` is read by
 * `state.orders.by.item.scan({ equals: ['nut'] })`.
 */
export function table<
  Schema extends TObject,
  const Key extends keyof Static<Schema> & string,
  const By extends Indexes<OrdinalsOf<Static<Schema>>> = NoIndexes,
>(schema: Schema, options: { readonly key: Key; readonly indexes?: By }): TableDefinition<Schema, Key, NoInfer<By>> {
  return { schema, ...options };
}

const namePattern = /^[A-Za-z][A-Za-z0-9_-]{0,62}$/;

/**
 * Makes a machine of its definition: compiles every schema once and checks the names. Throws a
 * fault `machine-unloadable` that names what is wrong with the definition.
 */
export function machine<T extends Tables, E extends Schemas, C extends Schemas, Q extends Schemas>(
  definition: MachineDefinition<T, E, C, Q>,
): Machine;
export function machine(definition: ErasedDefinition): Machine {
  const { name, version } = definition;
  checkName('name', name);
  if (!Number.isInteger(version) || version < 1) {
    throw fault('machine-unloadable', `Machine ${name}: version must be a whole number from 1, not ${version}`, {
      field: 'version',
    });
  }
  for (const kind of ['tables', 'commands', 'events', 'queries', 'invariants', 'retired'] as const) {
    for (const each of Object.keys(definition[kind] ?? {})) checkName(`${kind}.${each}`, each);
  }
  const entries = <V>(record: Readonly<Record<string, V>> | undefined): readonly (readonly [string, V])[] =>
    Object.entries(record ?? {});
  return Object.freeze({
    [mark]: 1,
    name,
    version,
    tables: entries(definition.tables).map(([each, { schema, key, indexes }]) =>
      tableShape(each, schema, { key, indexes: indexesOf(each, schema, key, indexes ?? {}) }),
    ),
    commands: new Map(
      entries(definition.commands).map(([each, command]) => [
        each,
        {
          input: command.input,
          parse: parser(command.input, false),
          decide: watched(`command ${each}`, (state: Views, input: unknown, ctx: CommandContext) =>
            command.decide(state, input, ctx),
          ),
        },
      ]),
    ),
    events: new Map(
      entries(definition.events).map(([each, event]) => [
        each,
        {
          data: event.data,
          // A property of the data may be computed when it is read.
          parse: watched(`the data of event ${each}`, parser(event.data, false)),
          evolve: watched(`event ${each}`, (state: Writers, data: unknown, effects: Effects) =>
            event.evolve(state, data, effects),
          ),
        },
      ]),
    ),
    queries: new Map(
      entries(definition.queries).map(([each, query]) => [
        each,
        {
          input: query.input,
          parse: parser(query.input, true),
          answer: watched(`query ${each}`, (state: Views, input: unknown) => query.answer(state, input)),
        },
      ]),
    ),
    invariants: entries(definition.invariants).map(([each, given]) => {
      const { holds, shadow = false, on } = typeof given === 'function' ? { holds: given } : given;
      const invariant: ErasedInvariant = { holds };
      const unknown = on?.find((each) => !(each in definition.tables));
      if (unknown !== undefined) {
        const field = `invariants.${each}.on`;
        throw fault('machine-unloadable', `${field}: there is no table ${unknown}`, { field });
      }
      return {
        name: each,
        shadow,
        on: on === undefined ? undefined : new Set(on),
        holds: watched(`invariant ${each}`, (state: Views, changed: readonly RowChange[]) =>
          invariant.holds(state, changed),
        ),
      };
    }),
    versions: versionsOf(definition),
  } satisfies Machine);
}

function checkName(field: string, name: string): void {
  if (namePattern.test(name)) return;
  throw fault(
    'machine-unloadable',
    `${field}: "${name}" cannot be a name; use a letter, then up to 62 letters, digits, _ or -`,
    { field },
  );
}

function tableShape(name: string, schema: TSchema, options: Pick<TableShape, 'key' | 'indexes'>): TableShape {
  const validator = Compile(schema);
  return {
    name,
    ...options,
    fits: (row) => validator.Check(row),
    misfit: (row) => {
      const { field, message } = firstError(validator.Errors(row));
      return `${field} ${message}`;
    },
  };
}

/** The indexes of a table, each with the key as its last property, so that no two rows stand at one place. */
function indexesOf(table: string, schema: TSchema, key: string, indexes: Indexes): readonly IndexShape[] {
  const known: unknown = 'properties' in schema ? schema.properties : undefined;
  return Object.entries(indexes).map(([name, properties]) => {
    const field = `tables.${table}.indexes.${name}`;
    checkName(field, name);
    const unknown = properties.find((property) => isPlainObject(known) && !(property in known));
    if (properties.length === 0 || unknown !== undefined) {
      const what = unknown === undefined ? 'names no property to order by' : `rows have no property ${unknown}`;
      throw fault('machine-unloadable', `${field}: ${what}`, { field });
    }
    return { name, properties: properties.includes(key) ? properties : [...properties, key] };
  });
}

function parser(schema: TSchema, fromText: boolean): (value: unknown) => unknown {
  const validator = Compile(schema);
  const fills = hasDefault(schema);
  return (value) => {
    let plain: unknown;
    try {
      plain = copyPlain(value === undefined ? {} : value, !fills && !fromText);
    } catch (error) {
      if (!(error instanceof NotPlain)) throw error;
      throw fault('input-invalid', error.message, { field: fieldOf(error.path), cause: error });
    }
    if (fromText) plain = validator.Convert(plain);
    if (fills) plain = validator.Default(plain);
    if (!validator.Check(plain)) {
      const { field, message } = firstError(validator.Errors(plain));
      throw fault('input-invalid', `${field === '' ? 'The input' : field} ${message}`, { field });
    }
    return fills || fromText ? copyPlain(plain, true) : plain;
  };
}

function firstError(errors: readonly { readonly instancePath: string; readonly message: string }[]): {
  readonly field: string;
  readonly message: string;
} {
  // The last one says most: a property too many is reported as "schema is false" before it is named.
  const error = errors.find(({ message }) => message !== 'schema is false') ?? errors[0];
  assert(error !== undefined, 'a value that does not fit its schema has at least one error');
  return { field: fieldOf(error.instancePath), message: error.message };
}

function fieldOf(pointer: string): string {
  return pointer.replace(/^\//, '').replaceAll('/', '.');
}

/** Filling in defaults costs more than checking, so schemas without any are spared it. */
function hasDefault(schema: unknown): boolean {
  if (typeof schema !== 'object' || schema === null) return false;
  if (!Array.isArray(schema) && isPlainObject(schema) && 'default' in schema) return true;
  return Object.values(schema).some(hasDefault);
}
