import * as fc from 'fast-check';
import { isPlainObject, type PlainObject } from '../machine/decide/state/value.ts';

/**
 * Random values that fit a schema, tuned for machines: texts come from a few names, so that one command meets what
 * another left, and now and then from what events said before, so that commands find ids that the machine made.
 */

/** Stands for the `nth` text that events of the run held under `property`; `settle` puts one in its place. */
class Said {
  readonly property: string;
  readonly nth: number;

  constructor(property: string, nth: number) {
    this.property = property;
    this.nth = nth;
  }

  [fc.toStringMethod](): string {
    return `said(${this.property}, ${this.nth})`;
  }
}

/** A schema that values cannot be made of; whoever calls says for which command, and what to do. */
export class NoArbitrary extends Error {
  override readonly name = 'NoArbitrary';
}

const names = ['a', 'b', 'c', 'd'] as const;
/** Nesting of generated lists and objects inside schemas without a type. */
const freeDepthMax = 2;

/** Texts that events of one run held, by the property that held them. */
export class Heard {
  readonly #texts = new Map<string, string[]>();

  listen(value: unknown, property = ''): void {
    if (typeof value === 'string') {
      const texts = this.#texts.get(property) ?? [];
      texts.push(value);
      this.#texts.set(property, texts);
    } else if (Array.isArray(value)) {
      for (const item of value) this.listen(item, property);
    } else if (isPlainObject(value)) {
      for (const [name, item] of Object.entries(value)) this.listen(item, name);
    }
  }

  /** The value with a text for each place that refers to one. */
  settle(value: unknown): unknown {
    if (value instanceof Said) {
      const texts = this.#texts.get(value.property) ?? [];
      return texts[texts.length - 1 - (value.nth % Math.max(1, texts.length))] ?? names[value.nth % names.length];
    }
    if (Array.isArray(value)) return value.map((item) => this.settle(item));
    if (!isPlainObject(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, this.settle(item)]));
  }
}

/**
 * An arbitrary of a schema; throws NoArbitrary if there is none. Not every value fits (a text may break a format that is
 * unknown here), so whoever uses one checks it.
 */
export function arbitraryOf(schema: unknown, property = ''): fc.Arbitrary<unknown> {
  if (!isPlainObject(schema)) throw new NoArbitrary('a schema is not an object');
  const { const: only, type } = schema;
  if ('const' in schema) return fc.constant(only);
  const choices = itemsOf(schema['enum']);
  if (choices !== undefined && choices.length > 0) return fc.constantFrom(...choices);
  const either = itemsOf(schema['anyOf']) ?? itemsOf(schema['oneOf']);
  if (either !== undefined) return fc.oneof(...either.map((each) => arbitraryOf(each, property)));
  const all = itemsOf(schema['allOf']);
  if (all !== undefined) return fc.tuple(...all.map((each) => arbitraryOf(each, property))).map(merged);
  const types = itemsOf(type);
  if (types !== undefined) return fc.oneof(...types.map((each) => arbitraryOf({ ...schema, type: each }, property)));
  switch (type) {
    case 'string':
      return textOf(schema, property);
    case 'integer':
      return integerOf(schema);
    case 'number':
      return numberOf(schema);
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array':
      return listOf(schema, property);
    case 'object':
      return objectOf(schema);
    case undefined:
      break;
    default:
      throw new NoArbitrary(`a value of type ${JSON.stringify(type)} cannot be made`);
  }
  const unknown = Object.keys(schema).find((word) => word === '$ref' || word === 'not' || word === 'if');
  if (unknown !== undefined) throw new NoArbitrary(`no value can be made from ${unknown}`);
  return fc.jsonValue({ maxDepth: freeDepthMax });
}

function itemsOf(value: unknown): readonly unknown[] | undefined {
  return Array.isArray(value) ? value : undefined;
}

/** What fits all parts of an intersection, if they are objects. */
function merged(parts: readonly unknown[]): unknown {
  if (!parts.every(isPlainObject)) return parts[0];
  return Object.fromEntries(parts.flatMap((part) => Object.entries(part)));
}

function whole(value: unknown, otherwise: number): number {
  return typeof value === 'number' ? value : otherwise;
}

function textOf(schema: PlainObject, property: string): fc.Arbitrary<unknown> {
  const { pattern, format } = schema;
  const said = fc.nat(7).map((nth): unknown => new Said(property, nth));
  if (typeof pattern === 'string') return fc.oneof(fc.stringMatching(new RegExp(pattern)), said);
  if (typeof format === 'string') return fc.oneof(formatted(format), said);
  const minLength = whole(schema['minLength'], 0);
  const maxLength = whole(schema['maxLength'], Math.max(40, minLength));
  const short = fc.constantFrom(...names.map((name) => name.padEnd(minLength, name).slice(0, maxLength)));
  return fc.oneof(
    { weight: 6, arbitrary: short },
    { weight: 6, arbitrary: said },
    { weight: 1, arbitrary: fc.string({ minLength, maxLength: Math.min(maxLength, minLength + 8), unit: 'binary' }) },
    { weight: 1, arbitrary: fc.constantFrom('x'.repeat(minLength), 'x'.repeat(Math.min(maxLength, 10_000))) },
  );
}

function formatted(format: string): fc.Arbitrary<unknown> {
  switch (format) {
    case 'email':
      return fc.constantFrom('ann@example.com', 'bob@example.com');
    case 'uuid':
      return fc.constantFrom('0199d1a0-0000-7000-8000-000000000001', '0199d1a0-0000-7000-8000-000000000002');
    case 'date-time':
      return fc.constantFrom('2026-01-31T23:59:59Z', '2028-02-29T00:00:00.500Z');
    case 'date':
      return fc.constantFrom('2026-01-31', '2028-02-29');
    case 'time':
      return fc.constantFrom('00:00:00Z', '23:59:59Z');
    case 'uri':
    case 'url':
      return fc.constantFrom('https://example.com/', 'https://example.com/a?b=c#d');
    case 'ipv4':
      return fc.constantFrom('127.0.0.1', '10.0.0.255');
    case 'ipv6':
      return fc.constantFrom('::1', '2001:db8::1');
    default:
      return fc.string({ maxLength: 20 });
  }
}

/** Mostly near the lower end, where sums and limits are still understood by whoever reads a counterexample. */
function integerOf(schema: PlainObject): fc.Arbitrary<unknown> {
  const step = whole(schema['multipleOf'], 1);
  const above = whole(schema['exclusiveMinimum'], Number.NaN) + 1;
  const below = whole(schema['exclusiveMaximum'], Number.NaN) - 1;
  const min = Math.ceil(whole(schema['minimum'], Number.isNaN(above) ? Number.MIN_SAFE_INTEGER : above) / step);
  const max = Math.floor(whole(schema['maximum'], Number.isNaN(below) ? Number.MAX_SAFE_INTEGER : below) / step);
  if (min > max) throw new NoArbitrary('no integer lies between its bounds');
  const near = min > Number.MIN_SAFE_INTEGER ? min : Math.min(-3, max);
  return fc
    .oneof(
      { weight: 6, arbitrary: fc.integer({ min: near, max: Math.min(max, near + 10) }) },
      { weight: 1, arbitrary: fc.maxSafeInteger().map((far) => Math.min(max, Math.max(min, far))) },
      { weight: 1, arbitrary: fc.constantFrom(min, max) },
    )
    .map((units) => units * step);
}

function numberOf(schema: PlainObject): fc.Arbitrary<unknown> {
  const min = whole(schema['minimum'], whole(schema['exclusiveMinimum'], -Number.MAX_VALUE));
  const max = whole(schema['maximum'], whole(schema['exclusiveMaximum'], Number.MAX_VALUE));
  const wide = fc.double({ min, max, noNaN: true, noDefaultInfinity: true });
  return fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: -3, max: 10 }).map((near) => Math.min(max, Math.max(min, near))) },
    { weight: 1, arbitrary: wide },
  );
}

function listOf(schema: PlainObject, property: string): fc.Arbitrary<unknown> {
  const { items } = schema;
  const parts = itemsOf(items);
  if (parts !== undefined) return fc.tuple(...parts.map((each) => arbitraryOf(each, property)));
  const minLength = whole(schema['minItems'], 0);
  const maxLength = Math.min(whole(schema['maxItems'], Number.POSITIVE_INFINITY), minLength + 4);
  const item = arbitraryOf(items ?? {}, property);
  return schema['uniqueItems'] === true
    ? fc.uniqueArray(item, { minLength, maxLength, comparator: 'SameValueZero' })
    : fc.array(item, { minLength, maxLength });
}

function objectOf(schema: PlainObject): fc.Arbitrary<unknown> {
  const { properties, required, patternProperties, additionalProperties } = schema;
  if (!isPlainObject(properties)) {
    const [values] = isPlainObject(patternProperties) ? Object.values(patternProperties) : [additionalProperties];
    if (!isPlainObject(values)) return fc.constant({});
    return fc.dictionary(fc.constantFrom(...names), arbitraryOf(values), { maxKeys: 3 });
  }
  const fields = Object.fromEntries(Object.entries(properties).map(([name, each]) => [name, arbitraryOf(each, name)]));
  // What has a default may be left out as well.
  const requiredKeys = Object.keys(properties).filter((name) => {
    const each = properties[name];
    return Array.isArray(required) && required.includes(name) && !(isPlainObject(each) && 'default' in each);
  });
  return fc.record(fields, { requiredKeys, noNullPrototype: true });
}
