import type { InstanceLine, InstanceRecords } from '../audit/serve/travel.ts';
import type { Machine } from '../audit/serve/machines.ts';
import type { RecordLine } from '../audit/decide/record-line.ts';
import type { CausedDifference, Cause, Standing, StatesDiffer, StateThen } from '../audit/decide/timeline.ts';
import { table, type Column } from './output.ts';
import { visible } from './tables.ts';
import { printable, type Colors } from './terminal.ts';

/** How much of a value stands in a line; -o json has the rest. */
const valueLengthMax = 300;

/** A value on one line, cut where it would be too long. */
export function valueText(value: unknown): string {
  const text = printable(JSON.stringify(value) ?? 'nothing').replaceAll('\n', ' ');
  return text.length <= valueLengthMax ? text : `${text.slice(0, valueLengthMax)}… (${text.length} characters)`;
}

export function timeText(nowMs: number): string {
  return new Date(nowMs).toISOString();
}

const instanceColumns: readonly Column<InstanceLine>[] = [
  { title: 'TENANT', text: ({ instance }) => instance },
  { title: 'EVENTS', text: ({ seq }) => String(seq), right: true },
  { title: 'RECORDS', text: ({ records }) => String(records), right: true },
  { title: 'LAST', text: ({ now }) => timeText(now) },
  { title: 'MACHINE', text: ({ machine }) => machine, wide: true },
  { title: 'VERSION', text: ({ machineVersion }) => String(machineVersion), wide: true, right: true },
  { title: 'POSITION', text: ({ position }) => String(position), wide: true, right: true },
];

export function instancesText(instances: readonly InstanceLine[], wide: boolean, colors: Colors): string {
  return instances.length === 0 ? 'The log is empty.\n' : table(visible(instanceColumns, wide), instances, colors);
}

const recordColumns: readonly Column<RecordLine>[] = [
  { title: 'POSITION', text: ({ position }) => String(position), right: true },
  { title: 'TIME', text: ({ now }) => timeText(now) },
  { title: 'EVENTS', text: eventNumbers, right: true },
  { title: 'COMMAND', text: ({ said }) => said?.command ?? '(erased)' },
  { title: 'CAME TO', text: cameTo, paint: paintCameTo },
  { title: 'KEY', text: ({ said }) => said?.key ?? '', wide: true },
  { title: 'INPUT', text: ({ said }) => (said === undefined ? '' : valueText(said.input)), wide: true },
  { title: 'STATE HASH', text: ({ stateHash }) => stateHash, wide: true },
];

export function recordsText({ records, total }: InstanceRecords, wide: boolean, colors: Colors): string {
  const hidden = total - records.length;
  const more = hidden > 0 ? `${hidden} older records are not shown; --limit shows more.\n` : '';
  return table(visible(recordColumns, wide), records, colors) + more;
}

function eventNumbers({ seqBefore, seqAfter }: RecordLine): string {
  if (seqAfter === seqBefore) return '';
  return seqAfter === seqBefore + 1 ? String(seqAfter) : `${seqBefore + 1}–${seqAfter}`;
}

function cameTo({ said }: RecordLine): string {
  if (said === undefined) return '(erased)';
  const { outcome, skipped } = said;
  const before = skipped === undefined ? '' : ` (${skipped} refusals before it were not recorded)`;
  switch (outcome.kind) {
    case 'accepted':
      return (outcome.events.length === 0 ? 'nothing' : counted(outcome.events)) + before;
    case 'refused':
      return `refused: ${outcome.reason ?? outcome.code}${before}`;
    default:
      return `upgraded from version ${outcome.fromVersion}`;
  }
}

/** `orderPlaced, stockAdded ×3` */
function counted(types: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const type of types) counts.set(type, (counts.get(type) ?? 0) + 1);
  return [...counts].map(([type, count]) => (count === 1 ? type : `${type} ×${count}`)).join(', ');
}

function paintCameTo(text: string, colors: Colors, { said }: RecordLine): string {
  return said?.outcome.kind === 'refused' ? colors.yellow(text) : text;
}

/** A state as `--at` prints it. */
export function stateDocument(tenant: string, machine: Machine, state: StateThen): unknown {
  const { seq, position, now, stateHash, tables } = state;
  return {
    tenant,
    machine: machine.name,
    version: machine.version,
    seq,
    at: now === 0 ? null : timeText(now),
    position,
    stateHash,
    tables,
  };
}

/** A difference in plain words: each row with what changed, and below it the commands that did it. */
export function statesDifferText(tenant: string, differ: StatesDiffer, colors: Colors): string {
  const { total, rows, complete } = differ;
  const head = `${colors.bold(printable(tenant))} from ${standingText(differ.from)} to ${standingText(differ.to)}`;
  const sum = `${total.extra} added, ${total.missing} removed, ${total.changed} changed`;
  const lines = rows.flatMap((row) => ['', ...rowLines(row, colors)]);
  const hidden = total.extra + total.missing + total.changed - rows.length;
  if (hidden > 0) lines.push('', `and ${hidden} more rows`);
  else if (!complete) lines.push('', 'Some values are cut.');
  return `${[head, `rows: ${sum}`, ...lines].join('\n')}\n`;
}

function standingText({ seq, now }: Standing): string {
  return seq === 0 ? 'the beginning' : `event ${seq} (${timeText(now)})`;
}

function rowLines(row: CausedDifference, colors: Colors): readonly string[] {
  const name = printable(`${row.table} ${row.key}`);
  const causes = row.causes.map((cause) => `    ${colors.dim(causeText(cause))}`);
  const hidden = row.causesTotal - row.causes.length;
  if (hidden > 0) causes.unshift(`    ${colors.dim(`${hidden} older commands`)}`);
  switch (row.kind) {
    case 'extra':
      return [colors.green(`+ ${name}`), `    ${shownText(row.to)}`, ...causes];
    case 'missing':
      return [colors.red(`- ${name}`), `    ${shownText(row.from)}`, ...causes];
    default:
      return [
        colors.yellow(`~ ${name}`),
        ...row.fields.map(({ path, from, to }) => `    ${printable(path)}: ${shownText(from)} → ${shownText(to)}`),
        ...causes,
      ];
  }
}

type Shown = CausedDifference extends infer Row ? (Row extends { readonly to: infer To } ? To : never) : never;

function shownText(shown: Shown): string {
  if ('absent' in shown) return 'absent';
  return 'cut' in shown ? `${printable(shown.cut)}… (${shown.units} characters)` : valueText(shown.value);
}

function causeText({ command, input, key, event, seq, position, now }: Cause): string {
  const by = key === undefined ? '' : `, key ${key}`;
  return printable(
    `by ${command} ${valueText(input)} at ${timeText(now)} (event ${seq} ${event}, record ${position}${by})`,
  );
}
