import { stringify } from 'yaml';
import type { Condition } from '../../protocol/resources.ts';
import { fault } from '../../protocol/errors.ts';
import { askControl, connectionTo } from '../client.ts';
import { exitCodes } from '../failure.ts';
import { eventsSearchedMax, newestEvents } from '../history.ts';
import { ExplanationSchema, explanationText, type Explanation } from './explain.ts';
import { conditionsOf, ItemSchema, type Item } from '../items.ts';
import { paintState, table, type Column } from '../output.ts';
import { readTargets } from '../resource-types.ts';
import { eventColumns, stateOf, subjectOf } from '../tables.ts';
import { printable, type Colors, type Terminal } from '../terminal.ts';

/** Newest events of a resource that are shown. */
export const eventsShownMax = 10;

/** `describe`: each named resource in sections a person can read. */
export async function runDescribe(
  terminal: Terminal,
  words: readonly string[],
  options: { readonly data: string },
): Promise<number> {
  const targets = readTargets(words);
  const connection = await connectionTo(terminal, options.data);
  let shown = 0;
  for (const { type, names } of targets) {
    if (type.kind === undefined) throw fault('usage', `${type.plural} cannot be described; use get ${type.plural}.`);
    if (names.length === 0)
      throw fault('usage', `Name the ${type.singular}: cellwright describe ${type.singular} NAME.`);
    for (const name of names) {
      const item = await askControl(connection, { path: `/v1/${type.plural}/${encodeURIComponent(name)}` }, ItemSchema);
      const subject = `${type.singular}/${name}`;
      const { items } = await newestEvents(connection, eventsSearchedMax);
      const events = items.filter((event) => subjectOf(event) === subject).slice(-eventsShownMax);
      if (shown++ > 0) terminal.out.write('\n');
      const placement =
        type.plural === 'tenants'
          ? await askControl(
              connection,
              { path: `/v1/tenants/${encodeURIComponent(name)}/explanation` },
              ExplanationSchema,
            )
          : undefined;
      terminal.out.write(describeText(item, { events, placement }, terminal.nowMs(), terminal.out.colors));
    }
  }
  return exitCodes.done;
}

/** What is known of a resource beside its item. */
export interface DescribeExtra {
  readonly events: readonly unknown[];
  readonly placement: Explanation | undefined;
}

/** A resource as sections: head, spec, status, placement, conditions, events. */
export function describeText(item: Item, extra: DescribeExtra, nowMs: number, colors: Colors): string {
  const { events, placement } = extra;
  const state = stateOf(item);
  const head = [
    line('Name', colors.bold(printable(item.name))),
    line('Kind', item.kind),
    ...(state === '' ? [] : [line('State', paintState(printable(state), colors))]),
    ...(item.version === undefined ? [] : [line('Version', String(item.version))]),
  ].join('');
  const sections = [
    section('Spec', block(item.spec), colors),
    section('Status', block(statusRest(item.status)), colors),
  ];
  if (placement !== undefined) sections.push(section('Placement', explanationText(placement, nowMs, colors), colors));
  const conditions = conditionsOf(item);
  if (conditions.length > 0) sections.push(section('Conditions', table(conditionColumns, conditions, colors), colors));
  sections.push(
    section('Events', events.length === 0 ? 'none\n' : table(eventColumns(nowMs, true), events, colors), colors),
  );
  return head + sections.join('');
}

const conditionColumns: readonly Column<Condition>[] = [
  { title: 'TYPE', text: ({ type }) => type },
  { title: 'STATUS', text: ({ status }) => status, paint: paintState },
  { title: 'REASON', text: ({ reason }) => reason },
  { title: 'MESSAGE', text: ({ message }) => message },
];

function line(title: string, text: string): string {
  return `${`${title}:`.padEnd(12)}${text}\n`;
}

function section(title: string, text: string, colors: Colors): string {
  if (text === '') return '';
  const indented = text
    .replace(/\n$/, '')
    .split('\n')
    .map((row) => `  ${row}`.trimEnd())
    .join('\n');
  return `${colors.bold(`${title}:`)}\n${indented}\n`;
}

function block(value: unknown): string {
  if (value === undefined || value === null) return '';
  const text = printable(stringify(value, { lineWidth: 0, aliasDuplicateObjects: false }));
  return text === '{}\n' ? '' : text;
}

/** What has a section of its own is left out of the status. */
function statusRest(status: unknown): unknown {
  if (typeof status !== 'object' || status === null) return status;
  return Object.fromEntries(Object.entries(status).filter(([key]) => key !== 'conditions' && key !== 'state'));
}
