import type { VersionComparison } from '../audit/serve/compare-versions.ts';
import { undeclared, type Came, type InstanceComparison, type VersionDifference } from '../audit/decide/against.ts';
import { timeText, valueText } from './history-text.ts';
import { printable, type Colors } from './terminal.ts';

/** Events of one command that are shown on each side. */
const eventsShownMax = 10;

/** What another version would have made of a log, in plain words; the summary comes last, where a terminal ends. */
export function comparisonText(comparison: VersionComparison, colors: Colors): string {
  const parts = comparison.list.map((instance) => instanceText(instance, colors));
  const hidden = comparison.differing - comparison.list.length;
  if (hidden > 0) parts.push(`and ${hidden} more tenants that differ\n`);
  return [...parts, summaryText(comparison, colors)].join('\n');
}

function instanceText(instance: InstanceComparison, colors: Colors): string {
  const { totals, differences } = instance;
  const total = undeclared(totals) + totals.statesDeclared;
  const lines = [
    colors.bold(printable(instance.instance)),
    ...differences.flatMap((each) => differenceLines(each, colors)),
  ];
  if (total > differences.length) lines.push(`  and ${total - differences.length} more`);
  return `${lines.join('\n')}\n`;
}

const kindWords: Readonly<Record<VersionDifference['kind'], string>> = {
  answer: 'another answer',
  events: 'other events',
  state: 'the same events lead to another state',
  history: 'the recorded events cannot be evolved; nothing after them was compared',
};

function differenceLines(difference: VersionDifference, colors: Colors): readonly string[] {
  const { kind, declared, position, seqBefore, now, command, input, key, recorded, present } = difference;
  const by = key === undefined ? '' : `, key ${printable(key)}`;
  const what = declared ? `${kindWords[kind]}, as the version declares` : kindWords[kind];
  return [
    `  record ${position} (after event ${seqBefore}, ${timeText(now)}${by}): ${printable(command)} ${valueText(input)}`,
    `    ${colors.yellow(what)}`,
    ...cameLines(recorded).map((line) => `    ${colors.red(`- ${line}`)}`),
    ...cameLines(present).map((line) => `    ${colors.green(`+ ${line}`)}`),
  ];
}

function cameLines(came: Came): readonly string[] {
  if (came.kind === 'refused') {
    const { code, reason, message, field } = came;
    const named = reason === undefined ? code : `${code} ${reason}`;
    return [printable(`${named}${field === undefined ? '' : ` (${field})`}: ${message}`)];
  }
  const events = came.events.slice(0, eventsShownMax).map(({ type, data }) => `${printable(type)} ${valueText(data)}`);
  const hidden = (came.eventsTotal ?? came.events.length) - events.length;
  if (hidden > 0) events.push(`and ${hidden} more events`);
  return [...(events.length === 0 ? ['no event'] : events), `state ${came.stateHash}`];
}

function summaryText(comparison: VersionComparison, colors: Colors): string {
  const { machine, recordedVersions, version, mode, instances, records, refusals, skipped, erased, totals } =
    comparison;
  const { differing } = comparison;
  const verdict =
    differing === 0
      ? colors.green('no difference')
      : comparison.undeclared === 0
        ? colors.yellow('only declared differences')
        : colors.red(`${comparison.undeclared} of ${instances} tenants differ`);
  const written = recordedVersions.length === 0 ? 'nothing' : `version ${recordedVersions.join(', ')}`;
  const lines = [
    `${printable(machine)}: recorded by ${written}, run against version ${version}, ${mode}: ${verdict}`,
    `  ${instances} tenants, ${records} commands (${refusals} of them refused)`,
  ];
  const counts: readonly (readonly [number, string])[] = [
    [totals.refusedNow, 'accepted then, refused now'],
    [totals.acceptedNow, 'refused then, accepted now'],
    [totals.refusedOtherwise, 'refused then and now, with other words'],
    [totals.events, 'accepted then and now, with other events'],
    [totals.states, 'other state, not declared'],
    [totals.statesDeclared, 'other state, as declared'],
    [totals.history, 'history that cannot be evolved'],
  ];
  for (const [count, words] of counts) if (count > 0) lines.push(`  ${words}: ${count}`);
  for (const { version: from, why } of comparison.changes) {
    lines.push(`  declared from version ${from} on: ${printable(why)}`);
  }
  if (skipped > 0) lines.push(`  refusals that came too fast to be recorded, and were not run: ${skipped}`);
  if (erased > 0) lines.push(`  tenants that were run only up to what was erased: ${erased}`);
  return `${lines.join('\n')}\n`;
}
