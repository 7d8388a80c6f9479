import { stringify } from 'yaml';
import { Value } from 'typebox/value';
import { kinds, pluralOf, schemaOf, type Resource } from '../../protocol/resources.ts';
import { askControl, connectionTo, type Connection } from '../client.ts';
import { exitCodes } from '../failure.ts';
import { ItemListSchema, ItemSchema, type Item } from '../items.ts';
import { lineDiff } from '../line-diff.ts';
import { qualified } from '../resource-types.ts';
import { Fault } from '../../kernel/fault.ts';
import { printable, type Colors, type Terminal } from '../terminal.ts';
import { readOrRefuse } from './apply.ts';

/** More names than this are looked up in one list instead of one by one. */
const singleLookUpsMax = 16;

/** `diff`: what apply would change. Exit code 1 if something differs. */
export async function runDiff(
  terminal: Terminal,
  options: { readonly data: string; readonly filename: readonly string[] },
): Promise<number> {
  const { resources } = await readOrRefuse(terminal, options.filename);
  const connection = await connectionTo(terminal, options.data);
  const existing = await existingOf(connection, resources);
  let differs = false;
  for (const resource of resources) {
    const text = resourceDiff(existing.get(qualified(resource.kind, resource.name)), resource, terminal.out.colors);
    if (text === '') continue;
    differs = true;
    terminal.out.write(text);
  }
  return differs ? exitCodes.failed : exitCodes.done;
}

async function existingOf(connection: Connection, resources: readonly Resource[]): Promise<ReadonlyMap<string, Item>> {
  const found = new Map<string, Item>();
  for (const kind of kinds) {
    const names = resources.filter((resource) => resource.kind === kind).map(({ name }) => name);
    if (names.length === 0) continue;
    const path = `/v1/${pluralOf[kind]}`;
    const items =
      names.length > singleLookUpsMax
        ? (await askControl(connection, { path }, ItemListSchema)).items
        : await Promise.all(names.map((name) => itemOrNothing(connection, `${path}/${name}`)));
    for (const item of items) if (item !== undefined) found.set(qualified(kind, item.name), item);
  }
  return found;
}

async function itemOrNothing(connection: Connection, path: string): Promise<Item | undefined> {
  try {
    return await askControl(connection, { path }, ItemSchema);
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.code === 'resource-unknown') return undefined;
    throw thrown;
  }
}

/** Unified diff of one resource, or '' if apply would leave it unchanged. Defaults are filled in on both sides. */
export function resourceDiff(before: Item | undefined, after: Resource, colors: Colors): string {
  const old = before === undefined ? '' : yamlOf({ kind: after.kind, name: after.name, spec: before.spec }, after.kind);
  const lines = lineDiff(old, yamlOf(after, after.kind));
  if (lines === '') return '';
  const subject = qualified(after.kind, after.name);
  const head = [
    before === undefined ? '--- (does not exist)' : `--- ${subject} in the fleet`,
    `+++ ${subject} in the file`,
  ];
  return (
    [...head.map((line) => colors.bold(line)), ...lines.split('\n').map((line) => paint(printable(line), colors))].join(
      '\n',
    ) + '\n'
  );
}

function paint(line: string, colors: Colors): string {
  if (line.startsWith('+')) return colors.green(line);
  if (line.startsWith('-')) return colors.red(line);
  return line.startsWith('@@') ? colors.cyan(line) : line;
}

/** Keys sorted, so that only meaning differs. */
function yamlOf(value: unknown, kind: keyof typeof schemaOf): string {
  const filled = Value.Default(schemaOf[kind], structuredClone(value));
  return stringify(filled, { lineWidth: 0, aliasDuplicateObjects: false, sortMapEntries: true });
}
