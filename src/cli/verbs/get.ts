import { Value } from 'typebox/value';
import { fault } from '../../protocol/errors.ts';
import { follow, type StreamEvent } from '../../follow/follow.ts';
import { askControl, askHost, connectionTo, controlAccess, ProcessListSchema, type Connection } from '../client.ts';
import { exitCodes } from '../failure.ts';
import { eventsListedMax, newestEvents } from '../history.ts';
import { ItemListSchema, ItemSchema, type Item } from '../items.ts';
import { headerLine, rowLine, table, widthsOf, writeJson, writeYaml, type Column, type Format } from '../output.ts';
import { readTargets, type Listed } from '../resource-types.ts';
import { columnsOf, eventColumns, processColumns, stateOf, visible } from '../tables.ts';
import { aborted, type Terminal } from '../terminal.ts';

type Resources = Exclude<Listed, 'events' | 'processes'>;

export interface GetOptions {
  readonly data: string;
  readonly output: Format;
  readonly watch: boolean;
}

/** `get`: one table a type; with names exactly those, and a fault if one is not there. */
export async function runGet(terminal: Terminal, words: readonly string[], options: GetOptions): Promise<number> {
  const targets = readTargets(words);
  const connection = await connectionTo(terminal, options.data);
  const several = targets.length > 1;
  if (options.watch && several) throw fault('usage', 'Watch one type at a time.', { field: '--watch' });
  const collected: unknown[] = [];
  for (const [index, { type, names }] of targets.entries()) {
    const { plural } = type;
    if (plural === 'processes') {
      refuseWatch(options, plural);
      const { items } = await askHost(connection, { path: '/v1/processes' }, ProcessListSchema);
      const shown = named(items, names, type.singular);
      if (isTable(options.output)) {
        separate(terminal, index);
        terminal.out.write(table(visible(processColumns, options.output === 'wide'), shown, terminal.out.colors));
      } else collect(terminal, options.output, shown, 'process', collected);
    } else if (plural === 'events') {
      refuseWatch(options, plural);
      if (names.length > 0) throw fault('usage', 'Events have no names; use describe to see those of one resource.');
      const page = await newestEvents(connection, eventsListedMax);
      const { items } = page;
      if (options.output === 'name') throw fault('usage', 'Events have no names.', { field: '--output' });
      if (isTable(options.output)) {
        separate(terminal, index);
        const columns = eventColumns(terminal.nowMs(), options.output === 'wide');
        terminal.out.write(table(columns, items, terminal.out.colors));
        if (page.version > items.length) terminal.err.write(`These are the newest of ${page.version} events.\n`);
      } else collected.push(...items);
    } else {
      const list = await listOf(connection, plural, names);
      if (options.watch) return watch(terminal, connection, plural, names, list, options.output);
      if (isTable(options.output)) {
        separate(terminal, index);
        writeTable(terminal, plural, list.items, options.output === 'wide');
      } else if (options.output === 'name') collect(terminal, 'name', list.items, type.singular, collected);
      else if (several || names.length > 0) collected.push(...list.items);
      else {
        writeValue(terminal, options.output, list);
        return exitCodes.done;
      }
    }
  }
  if (isTable(options.output) || options.output === 'name') return exitCodes.done;
  const single = targets.length === 1 && targets[0]?.names.length === 1;
  writeValue(terminal, options.output, single ? collected[0] : { items: collected });
  return exitCodes.done;
}

function separate(terminal: Terminal, index: number): void {
  if (index > 0) terminal.out.write('\n');
}

function isTable(format: Format): boolean {
  return format === 'table' || format === 'wide';
}

function writeValue(terminal: Terminal, format: Format, value: unknown): void {
  if (format === 'yaml') writeYaml(terminal.out, value);
  else writeJson(terminal.out, value);
}

function collect(
  terminal: Terminal,
  format: Format,
  items: readonly { readonly name: string }[],
  singular: string,
  collected: unknown[],
): void {
  if (format === 'name') for (const { name } of items) terminal.out.write(`${singular}/${name}\n`);
  else collected.push(...items);
}

function refuseWatch({ watch }: GetOptions, what: string): void {
  if (watch)
    throw fault('usage', `${what} cannot be watched; watch cells, tenants or blueprints.`, { field: '--watch' });
}

function named<T extends { readonly name: string }>(
  items: readonly T[],
  names: readonly string[],
  what: string,
): readonly T[] {
  if (names.length === 0) return items;
  return names.map((name) => {
    const found = items.find((item) => item.name === name);
    if (found === undefined) {
      throw fault(
        'resource-unknown',
        `There is no ${what} ${name}; there are ${items.map((item) => item.name).join(', ')}.`,
      );
    }
    return found;
  });
}

/** All items of a type, or exactly those named, each asked for alone so that a large fleet costs nothing. */
async function listOf(
  connection: Connection,
  plural: Resources,
  names: readonly string[],
): Promise<{ readonly items: readonly Item[]; readonly version: number }> {
  if (names.length === 0) return askControl(connection, { path: `/v1/${plural}` }, ItemListSchema);
  const items: Item[] = [];
  for (const name of names) {
    items.push(await askControl(connection, { path: `/v1/${plural}/${encodeURIComponent(name)}` }, ItemSchema));
  }
  return { items, version: 0 };
}

function writeTable(terminal: Terminal, plural: Resources, items: readonly Item[], wide: boolean): void {
  if (items.length === 0) {
    terminal.err.write(`There are no ${plural}. Add some: cellwright apply -f FILE\n`);
    return;
  }
  terminal.out.write(table(columnsOf(plural, wide), items, terminal.out.colors));
}

/** Rows that come later may be longer than the first; some room keeps the columns in line. */
const watchWidthMin = 12;

/**
 * Prints what is there, then every change until interrupted. The stream reconnects by itself; what it repeats after
 * a reconnect is not printed again, and what it no longer has is printed as deleted.
 */
async function watch(
  terminal: Terminal,
  connection: Connection,
  plural: Resources,
  names: readonly string[],
  first: { readonly items: readonly Item[]; readonly version: number },
  format: Format,
): Promise<number> {
  const { url, token } = await controlAccess(connection);
  const interrupted = terminal.interrupted();
  const printer = new WatchPrinter(terminal, plural, format, first.items, names);
  const following = follow({
    url: `${url}/v1/${plural}?watch=true`,
    token,
    // Each connection starts with all items: the control plane tells changes of a status only of items that it told.
    position: () => undefined,
    onEvent: (event) => printer.take(event),
    onLive: (live) => {
      if (!live) printer.restart();
    },
  });
  await aborted(interrupted);
  following.stop();
  return exitCodes.done;
}

/** Turns stream events into lines; separate from the stream so that its rules can be tested. */
export class WatchPrinter {
  readonly #terminal: Terminal;
  readonly #columns: readonly Column<Item>[];
  readonly #widths: readonly number[];
  readonly #format: Format;
  readonly #names: ReadonlySet<string>;
  readonly #singular: string;
  /** What was printed last of each item, to leave out repetitions. */
  readonly #printed = new Map<string, Item>();
  /** Items seen since the stream began from the start, until it says that it is complete. */
  #since: Set<string> | undefined = new Set();

  constructor(terminal: Terminal, plural: Resources, format: Format, first: readonly Item[], names: readonly string[]) {
    this.#terminal = terminal;
    this.#format = format;
    this.#names = new Set(names);
    this.#singular = plural.slice(0, -1);
    this.#columns = columnsOf(plural, format === 'wide');
    this.#widths = widthsOf(this.#columns, first).map((width) => Math.max(width, watchWidthMin));
    if (isTable(format)) terminal.out.write(headerLine(this.#columns, this.#widths, terminal.out.colors));
    for (const item of first) this.#put(item);
  }

  /** The stream begins again: what it does not repeat before it is complete is gone. */
  restart(): void {
    this.#since = new Set();
  }

  take(event: StreamEvent): void {
    if (event.type === 'reset') this.restart();
    else if (event.type === 'synced') this.#synced();
    else if (event.type === 'put' || event.type === 'delete') {
      const item = itemOf(event.data);
      if (item === undefined || (this.#names.size > 0 && !this.#names.has(item.name))) return;
      if (event.type === 'put') this.#put(item);
      else this.#delete(item.name);
    }
  }

  #synced(): void {
    const seen = this.#since;
    this.#since = undefined;
    if (seen === undefined) return;
    for (const name of [...this.#printed.keys()].filter((known) => !seen.has(known))) this.#delete(name);
  }

  #put(item: Item): void {
    this.#since?.add(item.name);
    const before = this.#printed.get(item.name);
    if (before !== undefined && this.#textOf(before) === this.#textOf(item)) return;
    this.#printed.set(item.name, item);
    this.#print('put', item);
  }

  #delete(name: string): void {
    const item = this.#printed.get(name);
    if (item === undefined) return;
    this.#printed.delete(name);
    this.#print('delete', { ...item, status: { state: 'deleted' } });
  }

  /** In a table only what it shows is a change; else everything is. */
  #textOf(item: Item): string {
    return isTable(this.#format) ? this.#columns.map((column) => column.text(item)).join('\0') : JSON.stringify(item);
  }

  #print(type: 'put' | 'delete', item: Item): void {
    const { out } = this.#terminal;
    if (isTable(this.#format)) out.write(rowLine(this.#columns, this.#widths, item, out.colors));
    else if (this.#format === 'name')
      out.write(`${this.#singular}/${item.name} ${type === 'put' ? stateOf(item) || 'put' : 'deleted'}\n`);
    else if (this.#format === 'yaml') {
      out.write('---\n');
      writeYaml(out, { type, item });
    } else out.write(`${JSON.stringify({ type, item })}\n`);
  }
}

function itemOf(data: string): Item | undefined {
  try {
    const value: unknown = JSON.parse(data);
    return Value.Check(ItemSchema, value) ? value : undefined;
  } catch {
    return undefined;
  }
}
