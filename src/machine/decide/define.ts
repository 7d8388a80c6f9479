import type { Static, TObject, TSchema } from 'typebox';
import type { RetiredEvent, Upcasters } from './versions.ts';

/**
 * What the author of a machine writes. Plain objects, so that every type is inferred from the
 * schemas: no cast and no annotation in user code. `docs/machine.md` explains why handlers are
 * properties (`{ input, decide }`) and not calls.
 */

/**
 * Rows of one schema under one string key. A table is ordered unless `ordered` is false: `scan` visits its rows
 * in the order of keys, at O(log n) an insert or delete. Without it both are O(1), and `scan` throws.
 */
export interface TableDefinition<Schema extends TObject = TObject> {
  readonly schema: Schema;
  readonly key: keyof Static<Schema> & string;
  readonly ordered?: boolean;
}

export type Tables = Readonly<Record<string, TableDefinition>>;
export type Schemas = Readonly<Record<string, TSchema>>;

/** How much of a table `scan` visits, in the order of keys (by UTF-16 code units). */
export interface ScanRange {
  readonly from?: string;
  readonly after?: string;
  readonly limit?: number;
}

/** What a command, an invariant or a query may do with a table. Rows are frozen. */
export interface TableView<Row> {
  readonly size: number;
  get(key: string): Row | undefined;
  has(key: string): boolean;
  scan(range?: ScanRange): IterableIterator<Row>;
}

/** What an event may do: the only place where state changes. Each throws if it does not apply. */
export interface TableWriter<Row> extends TableView<Row> {
  insert(row: Row): void;
  update(key: string, change: Partial<Row>): void;
  upsert(row: Row): void;
  delete(key: string): void;
}

export type ViewOf<T extends Tables> = { readonly [K in keyof T]: TableView<Static<T[K]['schema']>> };
export type WriterOf<T extends Tables> = { readonly [K in keyof T]: TableWriter<Static<T[K]['schema']>> };

/** An event as a command returns it. */
export type EventOf<E extends Schemas> = {
  readonly [K in keyof E & string]: { readonly type: K; readonly data: Static<E[K]> };
}[keyof E & string];

/** A command's no: state stays as it was, the caller gets code and reason (409). */
export interface Refusal {
  readonly refused: { readonly code: string; readonly message: string; readonly field?: string };
}

export interface CommandContext {
  /** When the command was accepted, in milliseconds since 1970. Recorded, so replay sees the same. */
  readonly now: number;
  /** The instance: the tenant for whom the command runs. */
  readonly instance: string;
  /** Refuses the command: `return ctx.refuse('order-exists', 'Order 7 exists; choose another id')`. */
  refuse(code: string, message: string, field?: string): Refusal;
}

export interface CommandDefinition<T extends Tables, E extends Schemas, Input extends TSchema> {
  readonly input: Input;
  readonly decide: (state: ViewOf<T>, input: Static<Input>, ctx: CommandContext) => readonly EventOf<E>[] | Refusal;
}
export interface EventDefinition<T extends Tables, Data extends TSchema> {
  readonly data: Data;
  readonly evolve: (state: WriterOf<T>, data: Static<Data>) => void;
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

export interface MachineDefinition<T extends Tables, E extends Schemas, C extends Schemas, Q extends Schemas> {
  readonly name: string;
  readonly version: number;
  readonly tables: T;
  readonly events: { readonly [K in keyof E]: EventDefinition<NoInfer<T>, E[K]> };
  readonly commands: { readonly [K in keyof C]: CommandDefinition<NoInfer<T>, NoInfer<E>, C[K]> };
  readonly queries?: { readonly [K in keyof Q]: QueryDefinition<NoInfer<T>, Q[K]> };
  readonly invariants?: Readonly<Record<string, Invariant<NoInfer<T>>>>;
  /** Events that only older versions recorded. */
  readonly retired?: Readonly<Record<string, RetiredEvent<EventOf<NoInfer<E>>>>>;
  /** Versions from which on `evolve` leads to other states than before, each with the reason. */
  readonly changes?: Readonly<Record<number, string>>;
}
