import { assert } from '../../../kernel/assert.ts';
import { SystemTables, isSystemName } from '../state/effects.ts';
import type { Machine } from '../definition/machine.ts';
import type { EventEntry, LogRecord } from '../log/record.ts';
import { eventUnknown, HandlerFailed, settled } from './returned.ts';
import { TableSet } from '../state/tables.ts';
import { messageOf, type PlainObject } from '../state/value.ts';

/**
 * What events do: the tables of one instance, its timers and its outbox. Nothing is decided here, so it is the same when a
 * command runs and when its record is replayed.
 */
export class Evolution {
  readonly tables: TableSet;
  readonly system: SystemTables;
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.tables = new TableSet(machine.tables);
    this.system = new SystemTables(this.tables, machine);
  }

  /** The data of an event as it is recorded. */
  parse(type: string, data: unknown): unknown {
    const event = this.#machine.events.get(type);
    if (event === undefined) throw this.#unknown(type);
    try {
      return event.parse(data);
    } catch (thrown) {
      throw new TypeError(`the data of event ${type} does not fit: ${messageOf(thrown)}`, { cause: thrown });
    }
  }

  /** Applies event number `seq`, which was just decided and parsed. Returns the state hash after it. */
  decided(type: string, data: unknown, seq: number, nowMs: number): string {
    this.system.begin(seq, nowMs, true);
    this.#apply(type, data);
    return this.tables.hash;
  }

  /** Applies event number `seq`, which `record` holds. Returns the state hash after it. */
  recorded({ machineVersion, now }: LogRecord, event: EventEntry, seq: number): string {
    const { versions, version } = this.#machine;
    this.system.begin(seq, now, false);
    if (isSystemName(event.type)) {
      this.#apply(event.type, event.data);
    } else if (machineVersion === version || !versions.upcasts) {
      this.#apply(event.type, this.parse(event.type, event.data));
    } else {
      for (const { type, data } of versions.present(machineVersion, event)) this.#apply(type, this.parse(type, data));
    }
    return this.tables.hash;
  }

  /** Takes back what was not kept. `hash` is what the state hash was before it. */
  undo(hash: string): void {
    this.tables.undo();
    assert(this.tables.hash === hash, 'a command that changes nothing leaves the hash exactly as it was');
  }

  /** Puts a row back that was kept, in a state that is empty otherwise. */
  load(table: string, row: PlainObject): void {
    this.system.open(table);
    this.tables.load(table, row);
  }

  #apply(type: string, data: unknown): void {
    if (isSystemName(type)) {
      this.tables.evolve(() => this.system.apply(type, data));
      return;
    }
    const event = this.#machine.events.get(type);
    if (event === undefined) throw this.#unknown(type);
    try {
      const returned = this.tables.evolve(() => event.evolve(this.tables.writers, data, this.system.handle));
      this.system.assertWhole();
      settled(returned, 'it');
    } catch (thrown) {
      throw new HandlerFailed(`event ${type}`, thrown);
    }
  }

  #unknown(type: string): TypeError {
    return eventUnknown(this.#machine.name, type, [...this.#machine.events.keys()]);
  }
}
