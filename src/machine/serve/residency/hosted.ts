import type { Instance } from '../../decide/instance/instance.ts';
import { approximateBytes, type Resident } from '../../decide/residency/residency.ts';

/** Names one instance of a machine in a log: a tenant, or `$name` for the process's own. */
export type InstanceName = string;

/** Records after which a resident instance is measured again. */
const measureEvery = 64;
/** Rows of each table that stand for the rest when an instance is measured. */
const sampledRows = 2;

/** An instance in memory. */
export class Hosted implements Resident {
  readonly instance: Instance;
  /** Position of its last record, durable or not: what every answer about it has observed. */
  position: number;
  /** Its records that are not durable yet. */
  pending = 0;
  usedAt = 0;
  bytes = 0;
  #unmeasured = 0;
  #items = 0;

  constructor(instance: Instance, position: number) {
    this.instance = instance;
    this.position = position;
    this.#weigh();
  }

  get name(): InstanceName {
    return this.instance.name;
  }

  get busy(): boolean {
    return this.pending > 0;
  }

  /** Rows of all tables. */
  get rows(): number {
    let rows = 0;
    for (const table of this.instance.rows.values()) rows += table.size;
    return rows;
  }

  /** Rows and remembered keys, when it was last measured. */
  get items(): number {
    return this.#items;
  }

  /** Measures it anew, if enough happened since. Returns by how many bytes it grew. */
  measure(): number {
    this.#unmeasured += 1;
    if (this.#unmeasured < measureEvery) return 0;
    this.#unmeasured = 0;
    const before = this.bytes;
    this.#weigh();
    return this.bytes - before;
  }

  #weigh(): void {
    const { rows: tables, keysSize: keys } = this.instance;
    let rows = 0;
    let units = 0;
    for (const table of tables.values()) {
      if (table.size === 0) continue;
      rows += table.size;
      units += meanUnits(table.values()) * table.size;
    }
    this.#items = rows + keys.count;
    this.bytes = approximateBytes({ rows, keys: keys.count, units: units + keys.units });
  }
}

function meanUnits(rows: Iterator<unknown, undefined>): number {
  let units = 0;
  for (let i = 0; i < sampledRows; i++) {
    const row = rows.next();
    if (row.done === true) return i === 0 ? 0 : units / i;
    units += JSON.stringify(row.value).length;
  }
  return units / sampledRows;
}
