import { Type, type TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { assert } from '../../kernel/assert.ts';
import { fault } from '../../protocol/errors.ts';
import type { Fault } from '../../kernel/fault.ts';
import {
  BlueprintSpecSchema,
  kinds,
  ResourceSchema,
  schemaOf,
  type Kind,
  type Resource,
} from '../../protocol/resources.ts';
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
  const { spec } = given;
  if (kind === 'Blueprint' && isObject(spec) && !('machine' in spec) && !('workload' in spec)) {
    throw fault(
      'resource-invalid',
      `Blueprint ${String(given['name'])}: ${join(path, 'spec')} must hold either machine or workload.`,
      {
        field: join(path, 'spec'),
      },
    );
  }
  const filled = Value.Default(schemaOf[kind], Value.Clone(given));
  const error = firstError(schemaFor(kind, spec), filled);
  if (error !== undefined) {
    const title = typeof given['name'] === 'string' ? `${kind} ${given['name']}` : kind;
    const field = join(path, error.field);
    throw fault('resource-invalid', `${title}: ${field} ${error.expected}.`, { field });
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
  const error = firstError(schema, value);
  return fault(
    'input-invalid',
    `${error?.field === '' || error === undefined ? 'The body' : error.field} ${error?.expected ?? 'does not fit'}.`,
    {
      field: error?.field,
    },
  );
}

/** Of a blueprint's alternatives the one that is meant, so that errors speak of it alone. */
function schemaFor(kind: Kind, spec: unknown): TSchema {
  if (kind !== 'Blueprint' || !isObject(spec)) return schemaOf[kind];
  const [machine, workload] = BlueprintSpecSchema.anyOf;
  return Type.Object(
    { ...schemaOf.Blueprint.properties, spec: 'machine' in spec ? machine : workload },
    { additionalProperties: false },
  );
}

interface FieldError {
  readonly field: string;
  readonly expected: string;
}

function firstError(schema: TSchema, value: unknown): FieldError | undefined {
  // An unknown field is reported twice: as "schema is false", and by its object, which names it.
  const error = Value.Errors(schema, value).find(({ keyword }) => keyword !== 'boolean');
  if (error === undefined) return undefined;
  const at = error.instancePath.split('/').slice(1).map(unescapePointer);
  const here = schemaAt(schema, at);
  if (error.keyword === 'required') {
    const missing = error.params.requiredProperties[0] ?? '';
    const meaning = descriptionOf(schemaAt(schema, [...at, missing]));
    return { field: fieldOf([...at, missing]), expected: `is missing${meaning === undefined ? '' : ` (${meaning})`}` };
  }
  if (error.keyword === 'additionalProperties') {
    const unknown = error.params.additionalProperties[0] ?? '';
    const known = isObject(here) && isObject(here['properties']) ? Object.keys(here['properties']) : [];
    return {
      field: fieldOf([...at, unknown]),
      expected: `is not known here${known.length === 0 ? '' : `; known are ${known.join(', ')}`}`,
    };
  }
  const description = descriptionOf(here);
  const expected = error.keyword === 'pattern' && description !== undefined ? `must be ${description}` : error.message;
  return { field: fieldOf(at), expected };
}

function schemaAt(schema: unknown, at: readonly string[]): unknown {
  let here: unknown = schema;
  for (const step of at) {
    if (!isObject(here)) return undefined;
    const properties = here['properties'];
    here = isObject(properties) ? properties[step] : here['items'];
  }
  return here;
}

function descriptionOf(schema: unknown): string | undefined {
  return isObject(schema) && typeof schema['description'] === 'string' ? schema['description'] : undefined;
}

function fieldOf(at: readonly string[]): string {
  return at.reduce((field, step) => (/^\d+$/.test(step) ? `${field}[${step}]` : join(field, step)), '');
}

function join(path: string, field: string): string {
  return path === '' ? field : field === '' ? path : `${path}.${field}`;
}

function unescapePointer(step: string): string {
  return step.replaceAll('~1', '/').replaceAll('~0', '~');
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
