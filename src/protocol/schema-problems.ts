import type { TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { nearest } from './nearest.ts';

/** One thing wrong with a value: where, what is expected there, and what to do. */
export interface FieldProblem {
  /** Keys from the top of the resource to the field. */
  readonly path: readonly string[];
  readonly message: string;
  readonly remedy: string;
}

type Raised = ReturnType<typeof Value.Errors>[number];

/** Every way in which a value does not fit a schema, in words, in the order of the schema. O(size of value). */
export function schemaProblems(schema: TSchema, value: unknown): readonly FieldProblem[] {
  const errors = [...Value.Errors(schema, value)];
  const choices = errors.filter((error) => error.keyword === 'anyOf').map((error) => choiceOf(schema, value, error));
  const seen = new Set<string>();
  return withoutMisspelt(
    errors.flatMap((error) => {
      const choice = choices.find(({ at }) => error.schemaPath === at || error.schemaPath.startsWith(`${at}/anyOf/`));
      if (choice === undefined) return wordsOf(schema, value, error);
      if (choice.taken !== undefined) {
        return error.schemaPath.startsWith(choice.taken) ? wordsOf(schema, value, error) : [];
      }
      if (seen.has(choice.at)) return [];
      seen.add(choice.at);
      return [choice.problem];
    }),
  );
}

/** A field that is there under a misspelt name is not missing as well. */
function withoutMisspelt(problems: readonly Raw[]): readonly FieldProblem[] {
  const meant = new Set(problems.flatMap(({ path, meant }) => (meant === undefined ? [] : [sibling(path, meant)])));
  return problems
    .filter(({ path, isMissing }) => isMissing !== true || !meant.has(path.join('/')))
    .map(({ path, message, remedy }) => ({ path, message, remedy }));
}

function sibling(path: readonly string[], name: string): string {
  return [...path.slice(0, -1), name].join('/');
}

interface Raw extends FieldProblem {
  readonly isMissing?: true;
  /** Of a field that does not exist: the one that was most likely meant. */
  readonly meant?: string | undefined;
}

interface Choice {
  /** Schema path of the union. */
  readonly at: string;
  /** Schema path of the alternative that the value means, if it means exactly one. */
  readonly taken: string | undefined;
  readonly problem: FieldProblem;
}

/** Which alternative of a union is meant: the one whose required fields are there. */
function choiceOf(schema: TSchema, value: unknown, error: Raised): Choice {
  const at = error.schemaPath;
  const union = lookUp(schema, at);
  const alternatives = isRecord(union) && Array.isArray(union['anyOf']) ? union['anyOf'] : [];
  const given = valueAt(value, error.instancePath);
  const keys = isRecord(given) ? Object.keys(given) : [];
  const required = alternatives.map((alternative: unknown) =>
    isRecord(alternative) && Array.isArray(alternative['required']) ? alternative['required'].map(String) : [],
  );
  const meant = required.flatMap((names, index) => (names.some((name) => keys.includes(name)) ? [index] : []));
  const [only] = meant;
  const options = required.map((names) => names.join(' and '));
  const message =
    meant.length > 1
      ? `must have only one of ${options.join(', ')}, but has ${meant.map((index) => options[index]).join(' and ')}`
      : isRecord(given)
        ? `must have one of ${options.join(', ')}, but has ${keys.length === 0 ? 'no field' : keys.slice(0, 5).join(', ')}`
        : `must be a mapping with one of ${options.join(', ')}, but ${shown(given)}`;
  const misspelt = meant.length === 0 ? keys.map((key) => nearest(key, options)).find(isString) : undefined;
  const remedy =
    meant.length > 1
      ? 'remove all but one'
      : misspelt === undefined
        ? `add one of ${options.join(', ')}`
        : `did you mean ${misspelt}?`;
  return {
    at,
    taken: meant.length === 1 ? `${at}/anyOf/${only}/`.replace(/\/$/, '') : undefined,
    problem: { path: pathOf(error.instancePath), message, remedy },
  };
}

function wordsOf(schema: TSchema, value: unknown, error: Raised): readonly Raw[] {
  const path = pathOf(error.instancePath);
  const here = lookUp(schema, error.schemaPath);
  const given = valueAt(value, error.instancePath);
  switch (error.keyword) {
    case 'boolean':
    case 'anyOf':
    case 'propertyNames':
      return []; // Said better by additionalProperties, by the alternative that is meant, and by the name itself.
    case 'required':
      return error.params.requiredProperties.map((name) => missing(here, path, name));
    case 'additionalProperties':
      return error.params.additionalProperties.map((name) => unknownField(here, path, name));
    default: {
      if (error.schemaPath.endsWith('/propertyNames')) {
        const name = path.at(-1) ?? '';
        return [{ path, message: `cannot be named so: ${name} ${error.message}`, remedy: 'choose another name' }];
      }
      const expected = expectation(here);
      return [{ path, message: `must be ${expected}, but ${shown(given)}`, remedy: remedyFor(here, given) }];
    }
  }
}

/** What to write for a field that people forget, by its name. */
const examples: Readonly<Record<string, string>> = {
  jurisdiction: 'jurisdiction: jp',
  blueprint: 'blueprint: orders',
  capacity: 'capacity: { users: 1000 }',
  users: 'users: 1000',
  command: "command: ['node', 'server.js']",
  module: 'module: ./machine.ts',
  name: 'name: acme',
};
const why: Readonly<Record<string, string>> = {
  jurisdiction: 'say where the data may rest',
  capacity: 'say how many users fit',
};

function missing(schema: unknown, path: readonly string[], name: string): Raw {
  const example = examples[name] ?? `${name}: …`;
  const reason = why[name];
  return {
    path: [...path, name],
    isMissing: true,
    message: `is missing; must be ${expectation(property(schema, name))}`,
    remedy: `${reason === undefined ? 'add it' : reason}, for example ${example}`,
  };
}

/** Habits from other tools that have another place here. */
const habits: Readonly<Record<string, string>> = {
  apiVersion: 'remove it: a resource has only kind, name and spec',
  metadata: 'put name beside kind: a resource has only kind, name and spec',
  status: 'remove it: the control plane fills it in',
  version: 'remove it: the control plane fills it in',
};

function unknownField(schema: unknown, path: readonly string[], name: string): Raw {
  const properties = isRecord(schema) ? schema['properties'] : undefined;
  const names = isRecord(properties) ? Object.keys(properties) : [];
  const meant = nearest(name, names);
  const remedy =
    meant !== undefined
      ? `did you mean ${meant}?`
      : ((path.length === 0 ? habits[name] : undefined) ?? `remove it; the fields here are ${names.join(', ')}`);
  return { path: [...path, name], meant, message: 'is not a field that exists', remedy };
}

/** What a schema wants, as a person would say it. */
function expectation(schema: unknown): string {
  if (!isRecord(schema)) return 'something else';
  const { type, minimum, maximum, pattern, description, minLength, maxLength, minItems, maxItems } = schema;
  if ('const' in schema) return `"${String(schema['const'])}"`;
  if (type === 'string' && typeof pattern === 'string') {
    return typeof description === 'string' ? `a ${lowerFirst(description)}` : `text that matches ${pattern}`;
  }
  if (type === 'string') return bounded('text', minLength, maxLength, 'characters');
  if (type === 'integer') return `a whole number from ${String(minimum)} to ${String(maximum)}`;
  if (type === 'array') return bounded('a list', minItems, maxItems, 'entries');
  if (type === 'object') {
    const properties = schema['properties'];
    const names = isRecord(properties) ? Object.keys(properties) : [];
    return names.length === 0 ? 'a mapping of names to texts' : `a mapping with ${names.join(', ')}`;
  }
  return typeof description === 'string' ? lowerFirst(description) : 'something else';
}

function bounded(what: string, min: unknown, max: unknown, unit: string): string {
  if (typeof min === 'number' && typeof max === 'number') return `${what} of ${min} to ${max} ${unit}`;
  if (typeof max === 'number') return `${what} of at most ${max} ${unit}`;
  if (typeof min === 'number' && min > 0) return `${what} of at least ${min} ${unit}`;
  return what;
}

function remedyFor(schema: unknown, given: unknown): string {
  const type = isRecord(schema) ? schema['type'] : undefined;
  if (type === 'string' && (typeof given === 'number' || typeof given === 'boolean')) {
    return `put quotes around it: '${String(given)}'`;
  }
  if (type === 'string' && typeof given === 'string') {
    const cleaned = given
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-+|-+$/g, '');
    const pattern = isRecord(schema) && typeof schema['pattern'] === 'string' ? schema['pattern'] : undefined;
    if (pattern !== undefined && cleaned.length <= 63 && cleaned !== given && new RegExp(pattern).test(cleaned)) {
      return `write it as ${cleaned}`;
    }
    return pattern === '^/' ? `write it as /${given.slice(0, 60)}` : 'shorten or correct it';
  }
  if (type === 'integer' && typeof given === 'string' && /^\d[\d_, ]*$/.test(given)) {
    return `write it without quotes: ${given.replaceAll(/\D/g, '')}`;
  }
  if (type === 'integer') return 'write a whole number, for example 1000';
  if (type === 'array') return "write a list, for example ['node', 'server.js']";
  if (type === 'object') return 'indent its fields below it';
  if (given === null || given === undefined) return 'write a value after the colon';
  return 'correct the value';
}

/** What stands there now, short enough for a line. */
function shown(given: unknown): string {
  if (given === null || given === undefined) return 'is empty';
  if (Array.isArray(given)) return given.length === 0 ? 'is an empty list' : `is a list of ${given.length}`;
  if (isRecord(given)) return 'is a mapping';
  const text = typeof given === 'string' ? JSON.stringify(given) : scalarText(given);
  return `is ${text.length > 60 ? `${text.slice(0, 57)}…` : text}`;
}

function property(schema: unknown, name: string): unknown {
  const properties = isRecord(schema) ? schema['properties'] : undefined;
  return isRecord(properties) ? properties[name] : undefined;
}

function lookUp(schema: unknown, pointer: string): unknown {
  let here: unknown = schema;
  for (const key of pathOf(pointer.replace(/^#/, ''))) {
    here = Array.isArray(here) ? here[Number(key)] : isRecord(here) ? here[key] : undefined;
  }
  return here;
}

function valueAt(value: unknown, pointer: string): unknown {
  return lookUp(value, pointer);
}

/** Keys of a JSON pointer (RFC 6901). */
function pathOf(pointer: string): readonly string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function isString(value: unknown): value is string {
  return typeof value === 'string';
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function scalarText(value: unknown): string {
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint'
    ? String(value)
    : 'unreadable';
}
