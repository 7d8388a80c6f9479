import { age, paintState, type Column } from './output.ts';
import type { ProcessItem } from './client.ts';
import { at, conditionsOf, numberAt, textAt, type Item } from './items.ts';
import type { Listed } from './resource-types.ts';
import type { Colors } from './terminal.ts';

const stateColumn: Column<Item> = { title: 'STATE', text: stateOf, paint: paintState };
const versionColumn: Column<Item> = {
  title: 'VERSION',
  text: ({ version }) => String(version ?? ''),
  wide: true,
  right: true,
};

function field(title: string, path: string, more: Partial<Column<Item>> = {}): Column<Item> {
  return { title, text: (item) => textAt(item, path) ?? '', ...more };
}

const nameColumn: Column<Item> = { title: 'NAME', text: ({ name }) => name };

const cellColumns: readonly Column<Item>[] = [
  nameColumn,
  stateColumn,
  field('JURISDICTION', 'spec.jurisdiction'),
  field('BLUEPRINT', 'spec.blueprint'),
  field('TENANTS', 'status.usage.tenants', { right: true }),
  {
    title: 'USERS',
    text: (item) => `${numberAt(item, 'status.usage.users') ?? 0}/${numberAt(item, 'spec.capacity.users') ?? '?'}`,
    paint: paintUsers,
    right: true,
  },
  field('REGION', 'spec.region', { wide: true }),
  field('ZONE', 'spec.zone', { wide: true }),
  field('ADDRESS', 'status.address', { wide: true }),
  versionColumn,
];

const tenantColumns: readonly Column<Item>[] = [
  nameColumn,
  field('CELL', 'status.assignment.cell'),
  stateColumn,
  field('JURISDICTION', 'spec.jurisdiction'),
  field('USERS', 'spec.users', { right: true }),
  field('TIER', 'spec.tier', { wide: true }),
  field('EPOCH', 'status.assignment.epoch', { wide: true, right: true }),
  versionColumn,
];

const blueprintColumns: readonly Column<Item>[] = [
  nameColumn,
  { title: 'RUNS', text: runsOf },
  field('CELLS', 'status.cells', { right: true }),
  { title: 'SOURCE', text: sourceOf, wide: true },
  versionColumn,
];

/** The columns of a type that `get` shows as items of the control plane. */
export function columnsOf(type: Exclude<Listed, 'events' | 'processes'>, wide: boolean): readonly Column<Item>[] {
  const columns = { cells: cellColumns, tenants: tenantColumns, blueprints: blueprintColumns }[type];
  return visible(columns, wide);
}

export function visible<Row>(columns: readonly Column<Row>[], wide: boolean): readonly Column<Row>[] {
  return columns.filter((column) => wide || column.wide === undefined);
}

export const processColumns: readonly Column<ProcessItem>[] = [
  { title: 'NAME', text: ({ name }) => name },
  { title: 'STATE', text: ({ state }) => state, paint: paintState },
  { title: 'PID', text: ({ pid }) => String(pid ?? ''), right: true },
  { title: 'RESTARTS', text: ({ restarts }) => String(restarts ?? 0), right: true },
  { title: 'ADDRESS', text: ({ url }) => url ?? '', wide: true },
  { title: 'PROBLEM', text: ({ problem }) => problem?.code ?? '', wide: true },
];

/** What happened to the fleet, oldest first. */
export function eventColumns(nowMs: number, wide: boolean): readonly Column<unknown>[] {
  return visible<unknown>(
    [
      { title: 'VERSION', text: (event) => textAt(event, 'version') ?? '', right: true },
      { title: 'AGE', text: (event) => eventAge(event, nowMs), right: true },
      { title: 'EVENT', text: (event) => textAt(event, 'type') ?? '' },
      { title: 'ON', text: subjectOf },
      {
        title: 'WHY',
        text: (event) => textAt(event, 'data.placement.because') ?? textAt(event, 'message') ?? '',
        wide: true,
      },
    ],
    wide,
  );
}

/** Milliseconds since 1970 of an event, or undefined. */
function eventMs(event: unknown): number | undefined {
  const text = textAt(event, 'at');
  const ms = text === undefined ? NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

function eventAge(event: unknown, nowMs: number): string {
  const ms = eventMs(event);
  return ms === undefined ? '' : age(ms, nowMs);
}

const subjects: readonly [prefix: string, kind: string][] = [
  ['blueprint', 'blueprint'],
  ['cell', 'cell'],
  ['tenant', 'tenant'],
];

/** `tenant/acme`: what an event is about, by its fields or by its type. */
export function subjectOf(event: unknown): string {
  const kind = textAt(event, 'kind')?.toLowerCase();
  const name = textAt(event, 'name') ?? textAt(event, 'data.name');
  if (name === undefined) return '';
  const type = textAt(event, 'type') ?? '';
  const found = kind ?? subjects.find(([prefix]) => type.startsWith(prefix))?.[1];
  return found === undefined ? name : `${found}/${name}`;
}

/** One word for how an item is: what it says itself, else what its conditions say. */
export function stateOf(item: Item): string {
  if (at(item, 'status.removed') === true) return 'removed';
  const process = textAt(item, 'status.process');
  if (process !== undefined && process !== 'running' && process !== 'starting') return process;
  const said = textAt(item, 'status.state');
  if (said !== undefined) return said;
  const served = conditionsOf(item).find(({ type }) => type === 'Served');
  if (served === undefined) return '';
  return served.status === 'True' ? 'serving' : served.reason.toLowerCase();
}

function runsOf(item: Item): string {
  if (at(item, 'spec.machine') !== undefined) return 'machine';
  return at(item, 'spec.workload') === undefined ? '' : 'workload';
}

function sourceOf(item: Item): string {
  const command = at(item, 'spec.workload.command');
  return textAt(item, 'spec.machine.module') ?? (Array.isArray(command) ? command.join(' ') : '');
}

function paintUsers(text: string, colors: Colors, item: Item): string {
  const share = (numberAt(item, 'status.usage.users') ?? 0) / (numberAt(item, 'spec.capacity.users') ?? Infinity);
  return share >= 1 ? colors.red(text) : share >= 0.8 ? colors.yellow(text) : text;
}
