import { fault } from '../protocol/errors.ts';
import { type Kind, type Plural } from '../protocol/resources.ts';
import { nearest } from '../protocol/nearest.ts';

/** What `get` and `describe` can show: resources, what happened, and the processes of this machine. */
export type Listed = Plural | 'events' | 'processes';

interface ResourceType {
  readonly plural: Listed;
  readonly singular: string;
  readonly short: string;
  /** Absent if people do not write it in files. */
  readonly kind?: Kind;
}

export const resourceTypes: readonly ResourceType[] = [
  { plural: 'cells', singular: 'cell', short: 'c', kind: 'Cell' },
  { plural: 'tenants', singular: 'tenant', short: 't', kind: 'Tenant' },
  { plural: 'blueprints', singular: 'blueprint', short: 'bp', kind: 'Blueprint' },
  { plural: 'events', singular: 'event', short: 'ev' },
  { plural: 'processes', singular: 'process', short: 'ps' },
];

/** The type that a word names: plural, singular or short, in any case. Fault `usage` suggests the nearest. */
export function resourceType(word: string): ResourceType {
  const lowered = word.toLowerCase();
  const found = resourceTypes.find(
    ({ plural, singular, short }) => lowered === plural || lowered === singular || lowered === short,
  );
  if (found !== undefined) return found;
  const words = resourceTypes.flatMap(({ plural, singular }) => [plural, singular]);
  const meant = nearest(word, words);
  throw fault(
    'usage',
    `There is no resource "${word}". ${meant === undefined ? '' : `Did you mean ${meant}? `}Known are ${resourceTypes.map(({ plural }) => plural).join(', ')}.`,
  );
}

/** Reads `cell tokyo-1 osaka-1`, `cell/tokyo-1 tenant/acme` or a bare type (no names). Fault `usage`. */
export function readTargets(
  words: readonly string[],
): { readonly type: ResourceType; readonly names: readonly string[] }[] {
  const [first] = words;
  if (first === undefined) throw fault('usage', 'Say what: for example cells, or cell/tokyo-1.');
  if (!words.some((word) => word.includes('/'))) return [{ type: resourceType(first), names: words.slice(1) }];
  const targets: { type: ResourceType; names: string[] }[] = [];
  for (const word of words) {
    const slash = word.indexOf('/');
    const name = word.slice(slash + 1);
    if (slash < 1 || name === '' || name.includes('/')) {
      throw fault('usage', `"${word}" is not TYPE/NAME; write cell/tokyo-1 tenant/acme, or cell tokyo-1 osaka-1.`);
    }
    const type = resourceType(word.slice(0, slash));
    const known = targets.find((target) => target.type === type);
    if (known === undefined) targets.push({ type, names: [name] });
    else known.names.push(name);
  }
  return targets;
}

/** `cell/tokyo-1`, as every verb prints and takes it. */
export function qualified(kind: Kind, name: string): string {
  return `${kind.toLowerCase()}/${name}`;
}
