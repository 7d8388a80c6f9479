import type { Static, TObject, TSchema } from 'typebox';
import type { RetiredEvent, Upcasters } from './versions.ts';

/**
 * What the author of a machine writes. Plain objects, so that every type is inferred from the
 * schemas: no cast and no annotation in user code. `docs/machine.md` explains why handlers are
 * properties (`{ input, decide }`) and not calls.
 */

/** What rows can be ordered by. In this order: missing, null, false, true, numbers, texts (by UTF-16 code units). */
export type Ordinal = string | number | boolean | null | undefined;

/** The properties of a row that an index may order by. */
export type OrdinalsOf<Row> = { [K in keyof Row & string]-?: Row[K] extends Ordinal ? K : never }[keyof Row & string];

/** Indexes by name, each the properties that it orders by, the first one first. */
export type Indexes<Property extends string = string> = Readonly<Record<string, readonly Property[]>>;
/** No index: nothing can be read from `by`. */
// oxlint-disable-next-line typescript/no-generated-empty-object-type -- an object without properties is what is meant
export type NoIndexes = Readonly<Record<never, never>>;

/**
 * Rows of one schema under one string key. `scan` visits them in the order of keys. An order, of keys or of an index, is
 * made when it is first scanned, in O(n log n); from then on it costs O(log n) a change, and about 12 bytes a row.
 */
export interface TableDefinition<
  Schema extends TObject = TObject,
  Key extends string = string,
  By extends Indexes = NoIndexes,
> {
  readonly schema: Schema;
  readonly key: Key;
  readonly indexes?: By;
}

export type Tables = Readonly<Record<string, TableDefinition<TObject, string, Indexes>>>;
export type Schemas = Readonly<Record<string, TSchema>>;

/**
 * How much of a table `scan` visits, in the order of keys (by UTF-16 code units), or from the last key to the first if
 * `descending`. `from` and `to` are visited themselves, `after` and `before` are not.
 */
export interface ScanRange {
  readonly from?: string | undefined;
  readonly after?: string | undefined;
  readonly to?: string | undefined;
  readonly before?: string | undefined;
  readonly descending?: boolean | undefined;
  readonly limit?: number | undefined;
}

/**
 * How much of an index `scan` visits: the rows whose first properties equal `equals`, and of those the part between
 * bounds over the properties that follow. A bound may stop early: `from: ['nut']` begins with the first row of `nut`,
 * `after: ['nut']` follows the last one. `descending` goes the other way, also over the bounds.
 */
export interface IndexRange<Equal, Bound> {
  readonly equals?: Equal | undefined;
  readonly from?: Bound | undefined;
  readonly after?: Bound | undefined;
  readonly to?: Bound | undefined;
  readonly before?: Bound | undefined;
  readonly descending?: boolean | undefined;
  readonly limit?: number | undefined;
}

/** The first so many values of a tuple. */
type Prefix<Values extends readonly unknown[]> = Values extends readonly [infer First, ...infer Rest]
  ? readonly [] | readonly [First, ...Prefix<Rest>]
  : readonly [];
/** What follows the first values. */
type Following<Values extends readonly unknown[], First extends readonly unknown[]> = First extends readonly [
  unknown,
  ...infer MoreFirst,
]
  ? Values extends readonly [unknown, ...infer Rest]
    ? Following<Rest, MoreFirst>
    : readonly []
  : Values;

/** Rows in the order of some of their properties; among equals in the order of keys, which is each index's last property. */
export interface IndexView<Row, Values extends readonly unknown[] = readonly Ordinal[]> {
  /** O(log n) to begin with, O(1) a row. The table must not change while it is scanned. */
  scan<const Equal extends readonly [] | Prefix<Values> = readonly []>(
    range?: IndexRange<Equal, Prefix<Following<Values, Equal>>>,
  ): IterableIterator<Row>;
}

/** The properties of an index: those that it names, then the key, unless it is among them. */
type WithKey<Properties extends readonly string[], Key extends string> = Key extends Properties[number]
  ? Properties
  : readonly [...Properties, Key];
type ValuesOf<Row, Properties extends readonly string[]> = {
  [I in keyof Properties]: Properties[I] extends keyof Row ? Row[Properties[I]] : never;
};
type IndexViews<Row, Key extends string, By extends Indexes> = {
  readonly [I in keyof By]: IndexView<Row, ValuesOf<Row, WithKey<By[I], Key>>>;
};

/** What a command, an invariant or a query may do with a table. Rows are frozen. */
export interface TableView<Row, By = NoIndexes> {
  readonly size: number;
  /** The indexes of the table: `state.orders.by.item.scan({ equals: ['nut'] })`. */
  readonly by: By;
  get(key: string): Row | undefined;
  has(key: string): boolean;
  scan(range?: ScanRange): IterableIterator<Row>;
}

/** What an event may do: the only place where state changes. Each throws if it does not apply. */
export interface TableWriter<Row, By = NoIndexes> extends TableView<Row, By> {
  insert(row: Row): void;
  update(key: string, change: Partial<Row>): void;
  upsert(row: Row): void;
  delete(key: string): void;
}

type ByOf<T> =
  T extends TableDefinition<infer Schema, infer Key, infer By> ? IndexViews<Static<Schema>, Key, By> : never;
export type ViewOf<T extends Tables> = { readonly [K in keyof T]: TableView<Static<T[K]['schema']>, ByOf<T[K]>> };
export type WriterOf<T extends Tables> = { readonly [K in keyof T]: TableWriter<Static<T[K]['schema']>, ByOf<T[K]>> };

/** A command that runs later: at most one timer has an id, and the same id replaces it. */
export type TimerOf<C extends Schemas> = {
  readonly [K in keyof C & string]: {
    readonly id: string;
    /** Milliseconds since 1970. What lies in the past is due at once. */
    readonly at: number;
    readonly command: K;
    readonly input: Static<C[K]>;
  };
}[keyof C & string];

/** What an event may set off beyond tables. It is state like the tables are: hashed, taken back, exported and moved. */
export interface Effects<C extends Schemas = Schemas> {
  /**
   * Has a command run at a time, or as soon after it as the cell can. Throws if the machine has no such command or the
   * input does not fit it.
   */
  schedule(timer: TimerOf<C>): void;
  /** Takes a timer back. One that has fired or never was is no error. */
  cancel(id: string): void;
  /**
   * Puts a message into the outbox, to be delivered at least once. Returns its id, by which a receiver tells a repetition;
   * ids are in the order of sending.
   */
  send(message: { readonly topic: string; readonly body: unknown }): string;
}

/** An event as a command returns it. */
export type EventOf<E extends Schemas> = {
  readonly [K in keyof E & string]: { readonly type: K; readonly data: Static<E[K]> };
}[keyof E & string];

/** A command's no: state stays as it was, the caller gets code and reason (409). */
export interface Refusal {
  readonly refused: { readonly code: string; readonly message: string; readonly field?: string };
}

export interface Random {
  /** From 0 up to, not including, 1; 53 random bits. */
  (): number;
  /** A whole number from `min` to `max`, both included, each as likely as the other. Both are safe integers, as is max − min + 1. */
  integer(min: number, max: number): number;
}

export interface CommandContext {
  /** When the command was accepted, in milliseconds since 1970. Recorded, so replay sees the same. */
  readonly now: number;
  /** The instance: the tenant for whom the command runs. */
  readonly instance: string;
  /** Random numbers. Where they begin is recorded, so the command can be decided again with the same ones. */
  readonly random: Random;
  /**
   * A new id: a UUID of version 7 (RFC 9562), so ids sort by `now`; those of one command also in the order in which they were
   * made. At most 131,072 a command.
   */
  readonly id: () => string;
  /** Refuses the command: `return ctx.refuse('order-exists', 'Order 7 exists; choose another id')`. */
  refuse(code: string, message: string, field?: string): Refusal;
}

export interface CommandDefinition<T extends Tables, E extends Schemas, Input extends TSchema> {
  readonly input: Input;
  readonly decide: (state: ViewOf<T>, input: Static<Input>, ctx: CommandContext) => readonly EventOf<E>[] | Refusal;
}
export interface EventDefinition<T extends Tables, Data extends TSchema, C extends Schemas = Schemas> {
  readonly data: Data;
  readonly evolve: (state: WriterOf<T>, data: Static<Data>, effects: Effects<C>) => void;
  /** Brings data that older versions recorded to the present schema, one version at a time. */
  readonly upcast?: Upcasters;
}
export interface QueryDefinition<T extends Tables, Input extends TSchema> {
  readonly input: Input;
  readonly answer: (state: ViewOf<T>, input: Static<Input>) => unknown;
}
/** What a table change did, as invariants see it. */
export interface RowChange {
  readonly table: string;
  readonly key: string;
}
/** True if it holds. Checked after every event; `changed` are the rows that the event touched. */
export type Invariant<T extends Tables> = (state: ViewOf<T>, changed: readonly RowChange[]) => boolean;
export interface InvariantDefinition<T extends Tables> {
  readonly holds: Invariant<T>;
  /** Reports that it would not hold, and lets the command succeed: for one that is new and not trusted yet. */
  readonly shadow?: boolean;
  /** Checked only after events that changed one of these tables; `changed` then tells of these alone. */
  readonly on?: readonly (keyof T & string)[];
}

export interface MachineDefinition<T extends Tables, E extends Schemas, C extends Schemas, Q extends Schemas> {
  readonly name: string;
  readonly version: number;
  readonly tables: T;
  readonly events: { readonly [K in keyof E]: EventDefinition<NoInfer<T>, E[K], NoInfer<C>> };
  readonly commands: { readonly [K in keyof C]: CommandDefinition<NoInfer<T>, NoInfer<E>, C[K]> };
  readonly queries?: { readonly [K in keyof Q]: QueryDefinition<NoInfer<T>, Q[K]> };
  readonly invariants?: Readonly<Record<string, Invariant<NoInfer<T>> | InvariantDefinition<NoInfer<T>>>>;
  /** Events that only older versions recorded. */
  readonly retired?: Readonly<Record<string, RetiredEvent<EventOf<NoInfer<E>>>>>;
  /** Versions from which on `evolve` leads to other states than before, each with the reason. */
  readonly changes?: Readonly<Record<number, string>>;
}
