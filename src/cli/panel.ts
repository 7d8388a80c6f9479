import type { Resource } from '../protocol/resources.ts';
import { tenantHeader } from '../protocol/headers.ts';
import { table } from './output.ts';
import { printable, type Colors } from './terminal.ts';

/** What the panel needs of a fleet. */
export interface PanelFleet {
  readonly router: string;
  readonly control: string;
  readonly cells: readonly { readonly name: string; readonly url: string }[];
  readonly held: readonly string[];
  readonly problems: readonly { readonly code: string; readonly detail: string; readonly process?: string }[];
}

/** What is shown once a fleet is ready: where it is, what to try, how to stop it. */
export function panel(fleet: PanelFleet, items: readonly Resource[], data: string, colors: Colors): string {
  const ready =
    fleet.problems.length === 0
      ? colors.green('The fleet is ready.')
      : colors.yellow('The fleet is up, but not whole.');
  const parts = [
    `${ready}\n\n`,
    `  ${'router'.padEnd(9)}${colors.cyan(fleet.router)}   requests with an ${tenantHeader} header go here\n`,
    `  ${'control'.padEnd(9)}${colors.cyan(fleet.control)}   token in ${printable(data)}/token\n\n`,
    indent(cellTable(fleet, items, colors)),
    problemLines(fleet, colors),
    `\nTry:\n${tryLines(fleet, items, data)
      .map((line) => `  ${colors.bold(line)}\n`)
      .join('')}`,
    '\nCtrl-C stops everything; the data stays.\n',
  ];
  return parts.join('');
}

interface Named {
  readonly name: string;
}

function cellTable({ cells, held }: PanelFleet, items: readonly Resource[], colors: Colors): string {
  if (cells.length === 0) return 'no cells yet: cellwright apply -f FILE\n';
  const jurisdictions = new Map(
    items.flatMap((item) => (item.kind === 'Cell' ? [[String(item.name), String(item.spec.jurisdiction)]] : [])),
  );
  return table(
    [
      { title: 'CELL', text: ({ name }: Named) => name },
      { title: 'JURISDICTION', text: ({ name }) => jurisdictions.get(name) ?? '' },
      { title: 'TENANTS', text: ({ name }) => tenantsIn(jurisdictions.get(name), items) },
      ...(cells.some(({ name }) => held.includes(name))
        ? [{ title: 'HELD', text: ({ name }: Named) => (held.includes(name) ? 'yes' : 'no') }]
        : []),
    ],
    cells,
    colors,
  );
}

const tenantsNamedMax = 3;

/** Tenants of the file that may live in a jurisdiction: where each lives is the control plane's choice. */
function tenantsIn(jurisdiction: string | undefined, items: readonly Resource[]): string {
  const names = items.flatMap((item) =>
    item.kind === 'Tenant' && item.spec.jurisdiction === jurisdiction ? [item.name] : [],
  );
  const more = names.length - tenantsNamedMax;
  return names.length === 0
    ? ''
    : `${names.slice(0, tenantsNamedMax).join(', ')}${more > 0 ? ` and ${more} more` : ''} (${jurisdiction})`;
}

function problemLines({ held, problems }: PanelFleet, colors: Colors): string {
  const lines = problems.map(
    ({ code, detail, process }) =>
      `\n${colors.red(code)}${process === undefined ? '' : ` ${printable(process)}`}: ${printable(detail)}\n`,
  );
  const others = held.filter((name) => name === 'control' || name === 'router');
  return [
    ...lines,
    ...others.map((name) => `\n${name} is ${colors.yellow('held')} down; let it up: cellwright start ${name}\n`),
  ].join('');
}

/** Three commands that work as they stand. */
function tryLines({ router }: PanelFleet, items: readonly Resource[], data: string): readonly string[] {
  const tenant = items.find(({ kind }) => kind === 'Tenant')?.name ?? 'TENANT';
  const isMachine = items.some((item) => item.kind === 'Blueprint' && 'machine' in item.spec);
  const folder = data === '.cellwright' ? '' : ` --data ${data}`;
  return [
    `curl -s ${router}${isMachine ? '/state' : '/'} -H '${tenantHeader}: ${tenant}'`,
    `cellwright get tenants${folder}`,
    `cellwright explain tenant ${tenant}${folder}`,
  ];
}

function indent(text: string): string {
  return text.replaceAll(/^(?=.)/gm, '  ');
}
