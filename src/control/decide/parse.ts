import type { TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { assert } from '../../kernel/assert.ts';
import { fault } from '../../protocol/errors.ts';
import type { Fault } from '../../kernel/fault.ts';
import { kinds, ResourceSchema, schemaOf, type Kind, type Resource } from '../../protocol/resources.ts';
import { schemaProblems } from '../../protocol/schema-problems.ts';
import { applyItemsMax } from './tables.ts';

/** Input of the control API, parsed once (rules I1 to I5): a fault names the field and what is expected there. */

/** A resource as in a file, with defaults filled in. `address` is what the URL says it is; it may then leave out kind and name. */
export function parseResource(
  value: unknown,
  path = '',
  address?: { readonly kind: Kind; readonly name: string },
): Resource {
  if (!isObject(value)) {
    throw fault('resource-invalid', `${path === '' ? 'The body' : path} must be an object with kind, name and spec.`, {
      field: path,
    });
  }
  const given: Readonly<Record<string, unknown>> = { ...address, ...value };
  const kindField = join(path, 'kind');
  const kind = kinds.find((each) => each === given['kind']);
  if (kind === undefined) {
    const what =
      given['kind'] === undefined
        ? `${kindField} is missing`
        : `${kindField} ${JSON.stringify(given['kind'])} is not known`;
    throw fault('kind-unknown', `${what}; known kinds are ${kinds.join(', ')}.`, { field: kindField });
  }
  for (const field of ['kind', 'name'] as const) {
    if (address === undefined || given[field] === address[field]) continue;
    throw fault(
      'resource-invalid',
      `${join(path, field)} is ${JSON.stringify(given[field])}, but the address says ${address[field]}. Make them equal, or leave it out.`,
      { field: join(path, field) },
    );
  }
  const filled = Value.Default(schemaOf[kind], Value.Clone(given));
  const [problem] = schemaProblems(schemaOf[kind], filled);
  if (problem !== undefined) {
    const title = typeof given['name'] === 'string' ? `${kind} ${given['name']}` : kind;
    const field = join(path, fieldOf(problem.path));
    throw fault('resource-invalid', `${title}: ${field} ${problem.message}; ${sentence(problem.remedy)}`, { field });
  }
  assert(Value.Check(ResourceSchema, filled), 'what fits the schema of its kind is a resource');
  return filled;
}

/** The items of an apply: as many as one apply may hold, each parsed. Fields are named `items[3].spec.…`. */
export function parseApply(body: unknown): { readonly items: Resource[]; readonly dryRun: boolean } {
  const items = isObject(body) ? body['items'] : undefined;
  if (!isObject(body) || !Array.isArray(items)) {
    throw fault('resource-invalid', 'The body must be an object with items, a list of resources.', { field: 'items' });
  }
  for (const field of Object.keys(body)) {
    if (field === 'items' || field === 'dryRun') continue;
    throw fault('resource-invalid', `${field} is not known here; known are items, dryRun.`, { field });
  }
  const dryRun = body['dryRun'] ?? false;
  if (typeof dryRun !== 'boolean')
    throw fault('resource-invalid', 'dryRun must be true or false.', { field: 'dryRun' });
  if (items.length > applyItemsMax) {
    throw fault(
      'resource-invalid',
      `items holds ${items.length} resources, at most ${applyItemsMax} can be applied at once. Apply them in parts.`,
      {
        field: 'items',
      },
    );
  }
  return { items: items.map((item: unknown, index) => parseResource(item, `items[${index}]`)), dryRun };
}

/** Any other document against its schema. */
export function invalidDocument(schema: TSchema, value: unknown): Fault {
  const [problem] = schemaProblems(schema, value);
  const field = fieldOf(problem?.path ?? []);
  const what = problem === undefined ? 'does not fit.' : `${problem.message}; ${sentence(problem.remedy)}`;
  return fault('input-invalid', `${field === '' ? 'The body' : field} ${what}`, { field });
}

function sentence(text: string): string {
  return /[.?]$/.test(text) ? text : `${text}.`;
}

function fieldOf(at: readonly string[]): string {
  return at.reduce((field, step) => (/^\d+$/.test(step) ? `${field}[${step}]` : join(field, step)), '');
}

function join(path: string, field: string): string {
  return path === '' ? field : field === '' ? path : `${path}.${field}`;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
