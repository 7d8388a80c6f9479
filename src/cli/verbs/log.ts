import { resolve } from 'node:path';
import { machineOf, type LoadOwnMachines, type Machine } from '../../audit/serve/machines.ts';
import { verifyLog, type LogReport } from '../../audit/serve/verify-log.ts';
import type { Finding } from '../../audit/decide/finding.ts';
import { asFault } from '../../protocol/problem.ts';
import { exitCodes } from '../failure.ts';
import { logPlaces, type LogPlace } from '../log-place.ts';
import { writeJson, writeYaml, type Format } from '../output.ts';
import { ReadingProgress } from '../reading.ts';
import { printable, type Colors, type Terminal } from '../terminal.ts';

export interface VerifyArguments {
  readonly data: string;
  readonly process?: string | undefined;
  readonly folder?: string | undefined;
  readonly machine?: string | undefined;
  readonly export?: string | undefined;
  readonly replay: boolean;
  readonly output?: Format | undefined;
}

interface NamedReport extends LogReport {
  readonly name: string;
}

/** `log verify`: proves logs without their processes. Ends with 0 if all are proven, 1 if any is damaged. */
export async function runVerify(
  terminal: Terminal,
  loadOwnMachines: LoadOwnMachines,
  options: VerifyArguments,
): Promise<number> {
  const places = await logPlaces(terminal, options);
  const own = options.replay ? await loadOwnMachines() : [];
  const reports: NamedReport[] = [];
  for (const place of places) {
    const machines = options.replay ? [...own, ...(await machinesOf(terminal, place, options))] : [];
    const progress = new ReadingProgress(terminal.err, terminal.nowMs, `proving ${place.name}`);
    const report = verifyLog({
      folder: place.folder,
      owner: place.owner,
      machineNamed: (name) => machines.find((machine) => machine.name === name),
      onProgress: (where) => progress.take(where),
    });
    progress.end();
    reports.push({ name: place.name, ...report });
    if (options.output === undefined) {
      terminal.out.write(reportText({ name: place.name, ...report }, options.replay, terminal.out.colors));
    }
  }
  const proven = reports.every((report) => report.proven);
  if (options.output === 'json') writeJson(terminal.out, { proven, items: reports });
  else if (options.output === 'yaml') writeYaml(terminal.out, { proven, items: reports });
  return proven ? exitCodes.done : exitCodes.failed;
}

/** The machine that was named; else that of the blueprint, if it can be loaded: without it the rest is proven all the same. */
async function machinesOf(terminal: Terminal, place: LogPlace, options: VerifyArguments): Promise<readonly Machine[]> {
  const { machine: module, export: name } = options;
  if (module !== undefined) return [await machineOf(resolve(terminal.cwd, module), name)];
  if (place.source === undefined) return [];
  try {
    return [await machineOf(place.source.module, place.source.export)];
  } catch (thrown) {
    const { message } = asFault(thrown);
    terminal.err.write(`${printable(place.name)}: not replayed. ${printable(message)}\n`);
    return [];
  }
}

/** A report in plain words. */
export function reportText(report: NamedReport, replayed: boolean, colors: Colors): string {
  const { name, proven, folder, owner } = report;
  const verdict = proven ? colors.green('proven') : colors.red('damaged');
  const lines = [`${colors.bold(printable(name))}: ${verdict}`, `  folder     ${printable(folder)}`];
  if (owner !== '') lines.push(`  owner      ${printable(owner)}`);
  lines.push(`  records    ${recordsText(report)}`, `  answers    ${acknowledgedText(report)}`);
  lines.push(`  states     ${replayed ? replayText(report) : 'not replayed'}`);
  lines.push(`  state.db   ${cacheText(report)}`);
  for (const problem of report.cache.problems) lines.push(`  ${colors.yellow('!')} ${printable(problem)}`);
  for (const finding of report.findings) lines.push(...findingLines(finding, colors));
  const hidden = report.findingsTotal - report.findings.length;
  if (hidden > 0) lines.push(`  and ${hidden} more`);
  return `${lines.join('\n')}\n`;
}

function recordsText({ first, last, records, instances, erased, segments, removed }: LogReport): string {
  if (records === 0) return 'none';
  const archived = segments === 0 ? '' : `, with ${counted(segments, 'file')} of the archive`;
  const letGo = removed === 0 ? '' : `; those up to ${removed} were removed from the archive`;
  const gone = erased === 0 ? '' : `; ${erased} with an erased payload`;
  return `${records} (${first} to ${last}) of ${counted(instances, 'instance')}${archived}${gone}${letGo}`;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

function acknowledgedText({ acknowledged }: LogReport): string {
  return acknowledged === undefined ? 'nobody knows up to which record they left' : `left up to record ${acknowledged}`;
}

function replayText({ replayed, notReplayed }: LogReport): string {
  const { records, instances } = replayed;
  const parts =
    records === 0
      ? ['none replayed']
      : [`${counted(records, 'record')} of ${counted(instances, 'instance')} replayed, every hash compared`];
  if (notReplayed.erased > 0) parts.push(`${notReplayed.erased} more only up to what was erased`);
  if (notReplayed.damaged > 0) parts.push(`${notReplayed.damaged} more only up to the damage`);
  if (notReplayed.machines.length > 0) {
    parts.push(`not those of ${notReplayed.machines.join(', ')}: name its module with --machine`);
  }
  return printable(parts.join('; '));
}

function cacheText({ cache }: LogReport): string {
  const { checkpoint, snapshots, proven, problemsTotal } = cache;
  if (checkpoint === 0 && snapshots === 0 && problemsTotal === 0) return 'none';
  const parts = [
    `knows the log up to record ${checkpoint}`,
    snapshots === 0 ? 'no snapshots' : `${proven} of ${counted(snapshots, 'snapshot')} compared with their records`,
  ];
  if (problemsTotal > 0) {
    parts.push(`${counted(problemsTotal, 'problem')}, which the cell makes good from the log`);
  }
  return parts.join('; ');
}

function findingLines(finding: Finding, colors: Colors): readonly string[] {
  const { file, position, instance, message, expected, found } = finding;
  const where = [file, position === undefined ? '' : `record ${position}`, instance ?? ''].filter(
    (part) => part !== '',
  );
  return [
    `  ${colors.red('!')} ${colors.cyan(printable(where.join(', ')))}`,
    `    ${printable(message)}`,
    ...(expected === undefined ? [] : [`    expected ${printable(expected)}`]),
    ...(found === undefined ? [] : [`    found    ${printable(found)}`]),
  ];
}
