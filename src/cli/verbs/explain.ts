import { Type } from 'typebox';
import { fault } from '../../protocol/errors.ts';
import { askControl, connectionTo } from '../client.ts';
import { exitCodes } from '../failure.ts';
import { at, numberAt, textAt } from '../items.ts';
import { age, writeJson, writeYaml, type Format } from '../output.ts';
import { resourceType } from '../resource-types.ts';
import { eventMs } from '../tables.ts';
import { printable, type Colors, type Terminal } from '../terminal.ts';

/** `explain tenant NAME`: where it lives, since when, why, what was rejected, and who reports what now. */
export async function runExplain(
  terminal: Terminal,
  type: string,
  name: string,
  options: { readonly data: string; readonly output?: Format },
): Promise<number> {
  if (resourceType(type).plural !== 'tenants') {
    throw fault('usage', `Only tenants can be explained; for the rest use describe ${type} ${name}.`);
  }
  const connection = await connectionTo(terminal, options.data);
  const path = `/v1/tenants/${encodeURIComponent(name)}/explanation`;
  const explanation = await askControl(connection, { path }, Type.Object({}));
  if (options.output === 'json') writeJson(terminal.out, explanation);
  else if (options.output === 'yaml') writeYaml(terminal.out, explanation);
  else terminal.out.write(explanationText(name, explanation, terminal.nowMs(), terminal.out.colors));
  return exitCodes.done;
}

const rejectionWords: Readonly<Record<string, string>> = {
  'no-room': 'no room',
  'less-free': 'less free',
  'other-jurisdiction': 'another jurisdiction',
  removed: 'removed from the fleet',
};

/** An explanation as a paragraph and a list of what was rejected. */
export function explanationText(name: string, explanation: unknown, nowMs: number, colors: Colors): string {
  const cell = textAt(explanation, 'cell');
  const lines = [
    cell === undefined
      ? `Tenant ${colors.bold(name)} lives nowhere.`
      : `Tenant ${colors.bold(name)} lives in cell ${colors.green(printable(cell))}${sinceText(explanation, nowMs)}.`,
  ];
  const because = textAt(explanation, 'placement.because');
  if (because !== undefined) lines.push(`Why: ${printable(because)}.`);
  const rejected = at(explanation, 'placement.rejected');
  const listed: readonly unknown[] = Array.isArray(rejected) ? rejected : [];
  const total = rejectedTotal(explanation, listed.length);
  if (total === 0) lines.push('No other cell was there to choose from.');
  else {
    lines.push(`Rejected ${total === 1 ? 'was one cell' : `were ${total} cells`}:`);
    for (const one of listed) lines.push(rejectedLine(one, colors));
    if (total > listed.length) lines.push(`  and ${total - listed.length} more`);
  }
  return `${lines.join('\n')}\n${reportText(explanation, nowMs, colors)}`;
}

function sinceText(explanation: unknown, nowMs: number): string {
  const epoch = textAt(explanation, 'epoch');
  const ms = numberAt(explanation, 'sinceMs') ?? eventMs(explanation) ?? eventMs(at(explanation, 'since'));
  const when =
    ms === undefined
      ? ''
      : ` since ${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC (${age(ms, nowMs)})`;
  return `${when}${epoch === undefined ? '' : `, at epoch ${epoch}`}`;
}

function rejectedTotal(explanation: unknown, listed: number): number {
  const counts = at(explanation, 'placement.rejectedCounts');
  if (typeof counts !== 'object' || counts === null) return listed;
  return Object.values(counts).reduce((sum: number, count) => sum + (typeof count === 'number' ? count : 0), 0);
}

function rejectedLine(one: unknown, colors: Colors): string {
  const reason = textAt(one, 'reason') ?? '';
  const detail = textAt(one, 'detail');
  const why = `${rejectionWords[reason] ?? reason}${detail === undefined ? '' : `: ${detail}`}`;
  return `  ${colors.yellow(printable(textAt(one, 'cell') ?? '?'))}  ${printable(why)}`;
}

function reportText(explanation: unknown, nowMs: number, colors: Colors): string {
  const reports = at(explanation, 'reports');
  if (!Array.isArray(reports) || reports.length === 0) return '';
  const lines = reports.map((report: unknown) => {
    const who = [textAt(report, 'kind'), textAt(report, 'name')].filter((part) => part !== undefined).join(' ');
    const ms = numberAt(report, 'atMs');
    const when = ms === undefined ? '' : ` ${colors.dim(`(${age(ms, nowMs)} ago)`)}`;
    return `  ${printable(who)}: ${printable(textAt(report, 'state') ?? textAt(report, 'message') ?? 'unknown')}${when}`;
  });
  return `Now reported:\n${lines.join('\n')}\n`;
}
