import { Type, type Static } from 'typebox';
import { fault } from '../../protocol/errors.ts';
import { askControl, connectionTo } from '../client.ts';
import { exitCodes } from '../failure.ts';
import { age, paintState, writeJson, writeYaml, type Format } from '../output.ts';
import { resourceType } from '../resource-types.ts';
import { printable, type Colors, type Terminal } from '../terminal.ts';

const Applied = Type.Object({ generation: Type.Integer(), version: Type.Integer() });

/** What `GET /v1/tenants/NAME/explanation` answers, as far as it is told here. */
export const ExplanationSchema = Type.Object({
  tenant: Type.String(),
  removed: Type.Boolean(),
  cell: Type.String(),
  epoch: Type.Integer(),
  since: Type.String(),
  /** Version of the fleet at which it was assigned: what cell and routers must have applied. */
  version: Type.Integer(),
  because: Type.String(),
  rejected: Type.Array(Type.Object({ cell: Type.String(), reason: Type.String(), detail: Type.String() })),
  rejectedCounts: Type.Record(Type.String(), Type.Integer()),
  served: Type.Boolean(),
  waitingFor: Type.Optional(Type.String()),
  reports: Type.Object({
    cell: Type.Union([
      Type.Object({
        state: Type.String(),
        process: Type.Optional(Type.String()),
        applied: Type.Union([Applied, Type.Null()]),
      }),
      Type.Null(),
    ]),
    routers: Type.Array(Type.Object({ name: Type.String(), applied: Applied })),
  }),
});
export type Explanation = Static<typeof ExplanationSchema>;

/** `explain tenant NAME`: where it lives, since when, why, what was rejected, and who reports what now. */
export async function runExplain(
  terminal: Terminal,
  type: string,
  name: string,
  options: { readonly data: string; readonly output?: Format },
): Promise<number> {
  if (resourceType(type).plural !== 'tenants') {
    throw fault('usage', `Only tenants can be explained; for the rest use: cellwright describe ${type} ${name}`);
  }
  const connection = await connectionTo(terminal, options.data);
  const path = `/v1/tenants/${encodeURIComponent(name)}/explanation`;
  const explanation = await askControl(connection, { path }, ExplanationSchema);
  if (options.output === 'json') writeJson(terminal.out, explanation);
  else if (options.output === 'yaml') writeYaml(terminal.out, explanation);
  else terminal.out.write(explanationText(explanation, terminal.nowMs(), terminal.out.colors));
  return exitCodes.done;
}

/** An explanation in plain words. */
export function explanationText(explanation: Explanation, nowMs: number, colors: Colors): string {
  const { removed, cell, epoch, because } = explanation;
  const tenant = colors.bold(printable(explanation.tenant));
  const where = removed
    ? `Tenant ${tenant} was removed; its data still rests in cell ${printable(cell)}, at epoch ${epoch}.`
    : `Tenant ${tenant} lives in cell ${colors.bold(printable(cell))} since ${sinceText(explanation, nowMs)}, at epoch ${epoch}.`;
  return [
    where,
    `It was placed there because ${printable(because)}.`,
    rejectedText(explanation, colors),
    ...(removed ? [] : [servedText(explanation, colors), reportText(explanation, colors)]),
    '',
  ].join('\n');
}

function sinceText({ since }: Explanation, nowMs: number): string {
  const ms = Date.parse(since);
  if (Number.isNaN(ms)) return printable(since);
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC (${age(ms, nowMs)} ago)`;
}

const reasonWords: Readonly<Record<string, string>> = {
  'no-room': 'it has no room',
  'less-free': 'less of it is free',
  'later-name': 'as much of it is free; names decide',
  'other-jurisdiction': 'the tenant may not live there',
  removed: 'it is gone',
};

function rejectedText({ rejected, rejectedCounts }: Explanation, colors: Colors): string {
  const total = Object.values(rejectedCounts).reduce((sum, count) => sum + count, 0);
  if (total === 0) return 'There was no other cell.';
  const lines = rejected.map(({ cell, reason, detail }) => {
    const why = reasonWords[reason] ?? printable(reason);
    return `  ${colors.yellow(printable(cell))}: ${why} (${printable(detail)})`;
  });
  if (total > rejected.length) lines.push(`  and ${total - rejected.length} more`);
  return [total === 1 ? 'One other cell was rejected:' : `${total} other cells were rejected:`, ...lines].join('\n');
}

function servedText({ served, waitingFor }: Explanation, colors: Colors): string {
  if (served) return `Its requests are ${colors.green('served')}.`;
  return `Its requests are ${colors.red('not served')}: it waits for ${printable(waitingFor ?? 'something unknown')}.`;
}

function reportText({ cell, version, reports }: Explanation, colors: Colors): string {
  const knows = (applied: { readonly version: number } | null): string =>
    applied === null
      ? 'has not reported'
      : applied.version >= version
        ? 'knows the tenant'
        : 'does not know the tenant yet';
  const owner = reports.cell;
  const held = owner?.process === undefined || owner.process === 'running' ? '' : `, process ${owner.process}`;
  const lines = [
    owner === null
      ? `  cell ${printable(cell)}: ${colors.yellow('nothing is known of it')}`
      : `  cell ${printable(cell)}: ${paintState(printable(owner.state), colors)}${printable(held)}, ${knows(owner.applied)}`,
    ...reports.routers.map(
      ({ name, applied }) => `  router ${printable(name)}: ${knows(applied)} (table version ${applied.version})`,
    ),
  ];
  if (reports.routers.length === 0) lines.push(`  ${colors.yellow('no router has reported lately')}`);
  return ['Reported now:', ...lines].join('\n');
}
