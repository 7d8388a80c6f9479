import { resolve } from 'node:path';
import { compareVersions } from '../../audit/serve/compare-versions.ts';
import { machineOf, type Machine } from '../../audit/serve/machines.ts';
import { differenceBetween, listInstances, listRecords, stateAt, type Looked } from '../../audit/serve/travel.ts';
import type { ReplayMode } from '../../audit/decide/against.ts';
import type { Moment } from '../../audit/decide/timeline.ts';
import { fault } from '../../protocol/errors.ts';
import { comparisonText } from '../comparison-text.ts';
import { exitCodes } from '../failure.ts';
import { instancesText, recordsText, statesDifferText, stateDocument } from '../history-text.ts';
import { logPlace, type LogPlace } from '../log-place.ts';
import { writeJson, writeYaml, type Format } from '../output.ts';
import { ReadingProgress } from '../reading.ts';
import { printable, type Terminal } from '../terminal.ts';

export interface ReplayArguments {
  readonly data: string;
  readonly cell?: string | undefined;
  readonly folder?: string | undefined;
  readonly machine?: string | undefined;
  readonly export?: string | undefined;
  readonly tenant?: string | undefined;
  readonly at?: string | undefined;
  readonly diff?: readonly string[] | undefined;
  readonly against?: string | undefined;
  readonly mode: ReplayMode;
  readonly limit: number;
  readonly output?: Format | undefined;
}

/**
 * `replay`: what happened to a tenant, its state at a moment, what differs between two, and what another version of the
 * machine would have made of it. With `against` it ends with 1 if something would come out otherwise.
 */
export async function runReplay(terminal: Terminal, options: ReplayArguments): Promise<number> {
  checkChoice(options);
  const place = await logPlace(terminal, { data: options.data, process: options.cell, folder: options.folder });
  const progress = new ReadingProgress(terminal.err, terminal.nowMs, `reading ${place.name}`);
  const source: Source = {
    folder: place.folder,
    owner: place.owner,
    onProgress: (where: { readonly position: number; readonly last: number }) => progress.take(where),
  };
  try {
    return await runOn(terminal, options, place, source);
  } finally {
    progress.end();
  }
}

interface Source {
  readonly folder: string;
  readonly owner: string | undefined;
  readonly onProgress: (where: { readonly position: number; readonly last: number }) => void;
}

function checkChoice({ at, diff, against, tenant, machine, output }: ReplayArguments): void {
  const chosen = [
    at === undefined ? '' : '--at',
    diff === undefined ? '' : '--diff',
    against === undefined ? '' : '--against',
  ];
  const named = chosen.filter((each) => each !== '');
  if (named.length > 1) throw fault('usage', `Choose one of ${named.join(' and ')}.`, { field: named[1] });
  if ((at !== undefined || diff !== undefined) && tenant === undefined) {
    throw fault('usage', `${named[0]} looks at one tenant: name it with --tenant.`, { field: '--tenant' });
  }
  if (diff !== undefined && diff.length !== 2) {
    throw fault('usage', '--diff takes two moments: a sequence or a time each, the earlier one first.', {
      field: '--diff',
    });
  }
  if (machine !== undefined && against !== undefined) {
    throw fault('usage', '--against names the machine already; leave --machine out.', { field: '--machine' });
  }
  if (output === 'name') throw fault('usage', 'replay prints json, yaml or wide.', { field: '--output' });
}

async function runOn(terminal: Terminal, options: ReplayArguments, place: LogPlace, source: Source): Promise<number> {
  const { tenant, at, diff, against, output, limit } = options;
  const { colors } = terminal.out;
  const wide = output === 'wide';
  if (against !== undefined) {
    const machine = await machineOf(resolve(terminal.cwd, against), options.export);
    const comparison = compareVersions({ ...source, machine, mode: options.mode, instance: tenant });
    write(terminal, output, comparison, () => comparisonText(comparison, colors));
    return comparison.undeclared === 0 ? exitCodes.done : exitCodes.failed;
  }
  if (tenant === undefined) {
    const { result } = told(terminal, listInstances(source));
    write(terminal, output, { items: result.map(withTime) }, () => instancesText(result, wide, colors));
    return exitCodes.done;
  }
  if (at === undefined && diff === undefined) {
    const { result } = told(terminal, listRecords({ ...source, instance: tenant, limit }));
    const document = { ...result, records: result.records.map(withTime) };
    write(terminal, output, document, () => recordsText(result, wide, colors));
    return exitCodes.done;
  }
  const machine = await machineFor(terminal, options, place);
  const travelled = { ...source, machine, instance: tenant };
  if (diff !== undefined) {
    const [from, to] = [momentOf(diff[0] ?? '', '--diff'), momentOf(diff[1] ?? '', '--diff')];
    if (isAfter(from, to)) throw fault('usage', 'Name the earlier of the two moments first.', { field: '--diff' });
    const { result } = told(terminal, differenceBetween({ ...travelled, from, to }));
    const document = { tenant, ...result, from: withTime(result.from), to: withTime(result.to) };
    write(terminal, output, document, () => statesDifferText(tenant, result, colors));
    return exitCodes.done;
  }
  const { result } = told(terminal, stateAt({ ...travelled, at: momentOf(at ?? '', '--at') }));
  const document = stateDocument(tenant, machine, result);
  if (output === 'json') writeJson(terminal.out, document);
  else writeYaml(terminal.out, document);
  return exitCodes.done;
}

function write(terminal: Terminal, output: Format | undefined, document: unknown, text: () => string): void {
  if (output === 'json') writeJson(terminal.out, document);
  else if (output === 'yaml') writeYaml(terminal.out, document);
  else terminal.out.write(text());
}

/** Damage beside what was asked for is said, and does not stop it. */
function told<Result>(terminal: Terminal, looked: Looked<Result>): Looked<Result> {
  const [first] = looked.warnings;
  if (first !== undefined) {
    const more = looked.warnings.length > 1 ? ` and ${looked.warnings.length - 1} more` : '';
    terminal.err.write(
      `${terminal.err.colors.yellow('warning')}: the log is damaged elsewhere (${printable(first.message)}${more}); look at cellwright log verify\n`,
    );
  }
  return looked;
}

async function machineFor(terminal: Terminal, options: ReplayArguments, place: LogPlace): Promise<Machine> {
  if (options.machine !== undefined) return machineOf(resolve(terminal.cwd, options.machine), options.export);
  if (place.source !== undefined) return machineOf(place.source.module, place.source.export);
  throw fault('usage', `Nothing in ${place.folder} says which machine it runs; name its module with --machine.`, {
    field: '--machine',
  });
}

function momentOf(text: string, field: string): Moment {
  if (/^\d{1,15}$/.test(text)) return { seq: Number(text) };
  const timeMs = /^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+-]\d{2}:?\d{2}))?$/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(timeMs)) return { timeMs };
  const message = `"${text}" is no moment; write a sequence (17), or a time with its zone (2026-11-21T12:00:00Z).`;
  throw fault('usage', message, { field });
}

function isAfter(from: Moment, to: Moment): boolean {
  if ('seq' in from && 'seq' in to) return from.seq > to.seq;
  return 'timeMs' in from && 'timeMs' in to && from.timeMs > to.timeMs;
}

/** Adds the time as people and programs write it; `now` stays, exact. */
function withTime<Row extends { readonly now: number }>(row: Row): Row & { readonly at: string | null } {
  return { ...row, at: row.now === 0 ? null : new Date(row.now).toISOString() };
}
