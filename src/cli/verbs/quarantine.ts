import { setTimeout as delay } from 'node:timers/promises';
import { fault } from '../../protocol/errors.ts';
import {
  evidenceText,
  isReleaseRequested,
  quarantinedIn,
  requestRelease,
  type Quarantined,
} from '../../machine/serve/replica/quarantine.ts';
import { isFolderFree } from '../../process/folder.ts';
import { exitCodes } from '../failure.ts';
import { logPlaces, type LogPlace } from '../log-place.ts';
import { table, writeJson, writeYaml, type Column, type Format } from '../output.ts';
import { printable, type Terminal } from '../terminal.ts';

export interface QuarantineArguments {
  readonly data: string;
  readonly cell?: string | undefined;
  readonly output?: Format | undefined;
}

/** How long `release` waits for the cell's answer, which reads the tenant's whole history, and how often it looks. */
const answerWaitMs = 120_000;
const lookIntervalMs = 100;

interface Found extends Quarantined {
  readonly cell: string;
  readonly folder: string;
}

const columns: readonly Column<Found>[] = [
  { title: 'CELL', text: ({ cell }) => cell },
  { title: 'TENANT', text: ({ instance }) => instance },
  { title: 'SINCE', text: ({ at }) => at },
  { title: 'REASON', text: ({ reason }) => reason },
];

/** `quarantine list`: every tenant that is refused because its state drifted; read from the cells' folders. */
export async function runQuarantineList(terminal: Terminal, options: QuarantineArguments): Promise<number> {
  const found = await quarantined(terminal, options);
  const items = found.map(({ cell, instance, at, reason, file, releaseRefused }) => {
    return { cell, tenant: instance, since: at, reason, evidence: file, releaseRefused };
  });
  if (options.output === 'json') writeJson(terminal.out, { items });
  else if (options.output === 'yaml') writeYaml(terminal.out, { items });
  else if (found.length === 0) terminal.out.write('No tenant is quarantined.\n');
  else terminal.out.write(table(columns, found, terminal.out.colors));
  return exitCodes.done;
}

/** `quarantine show TENANT`: the evidence, as it was written. */
export async function runQuarantineShow(
  terminal: Terminal,
  tenant: string,
  options: QuarantineArguments,
): Promise<number> {
  const { folder, file } = await theOne(terminal, tenant, options);
  const text = evidenceText(folder, tenant) ?? '';
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw fault('file-unreadable', `${file} is not JSON; the tenant is quarantined all the same.`, {
      field: file,
      cause,
    });
  }
  if (options.output === 'json') writeJson(terminal.out, document);
  else writeYaml(terminal.out, document);
  return exitCodes.done;
}

/**
 * `quarantine release TENANT`: asks the cell to make the state again from its log; only if every hash agrees the tenant
 * is served again. Fault `tenant-quarantined` says why not.
 */
export async function runQuarantineRelease(
  terminal: Terminal,
  tenant: string,
  options: QuarantineArguments,
): Promise<number> {
  const { folder, cell, releaseRefused } = await theOne(terminal, tenant, options);
  requestRelease(folder, tenant);
  const { out } = terminal;
  const deadlineMs = performance.now() + answerWaitMs;
  while (isReleaseRequested(folder, tenant)) {
    if (isFolderFree(folder)) {
      out.write(`${printable(cell)} is not running. It looks again at ${printable(tenant)} when it starts.\n`);
      return exitCodes.done;
    }
    if (performance.now() > deadlineMs) {
      const message = `${cell} has not answered yet. It goes on; look at: cellwright quarantine list`;
      throw fault('control-unreachable', message, { field: cell });
    }
    await delay(lookIntervalMs);
  }
  const still = quarantinedIn(folder).find(({ instance }) => instance === tenant);
  if (still === undefined) {
    out.write(`${printable(tenant)} ${out.colors.green('served')}: every hash of its log agrees\n`);
    return exitCodes.done;
  }
  const refused = still.releaseRefused;
  const why = refused === undefined || refused.at === releaseRefused?.at ? still.reason : refused.reason;
  throw fault('tenant-quarantined', `${tenant} stays quarantined: ${why}`, { field: tenant });
}

async function quarantined(terminal: Terminal, options: QuarantineArguments): Promise<readonly Found[]> {
  const places = await logPlaces(terminal, { data: options.data, process: options.cell });
  return places.flatMap((place: LogPlace) =>
    quarantinedIn(place.folder).map((each) => ({ ...each, cell: place.name, folder: place.folder })),
  );
}

async function theOne(terminal: Terminal, tenant: string, options: QuarantineArguments): Promise<Found> {
  const found = (await quarantined(terminal, options)).filter(({ instance }) => instance === tenant);
  const [one, ...more] = found;
  if (one === undefined) {
    const where = options.cell === undefined ? 'any cell' : options.cell;
    throw fault('resource-unknown', `${tenant} is not quarantined in ${where}. See: cellwright quarantine list`, {
      field: tenant,
    });
  }
  if (more.length === 0) return one;
  const cells = found.map(({ cell }) => cell).join(', ');
  throw fault('usage', `${tenant} is quarantined in ${cells}; say which with --cell.`, { field: '--cell' });
}
