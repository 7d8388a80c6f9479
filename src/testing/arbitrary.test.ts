import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { arbitraryOf, Heard, NoArbitrary } from './arbitrary.ts';

const schemas = {
  text: Type.String({ minLength: 2, maxLength: 5 }),
  pattern: Type.String({ pattern: '^[A-Z]{2}-[0-9]{1,3}$' }),
  email: Type.String({ format: 'email' }),
  uuid: Type.String({ format: 'uuid' }),
  time: Type.String({ format: 'date-time' }),
  integer: Type.Integer({ minimum: -2, exclusiveMaximum: 50, multipleOf: 5 }),
  above: Type.Integer({ exclusiveMinimum: 7 }),
  number: Type.Number({ minimum: 0, maximum: 1 }),
  literal: Type.Literal('only'),
  enum: Type.Enum(['small', 'large']),
  union: Type.Union([Type.Literal('x'), Type.Integer(), Type.Null()]),
  intersection: Type.Intersect([Type.Object({ a: Type.Integer() }), Type.Object({ b: Type.Boolean() })]),
  list: Type.Array(Type.Integer(), { minItems: 1, maxItems: 3, uniqueItems: true }),
  tuple: Type.Tuple([Type.String(), Type.Integer()]),
  record: Type.Record(Type.String(), Type.Integer()),
  free: Type.Unknown(),
  object: Type.Object(
    { id: Type.String(), note: Type.Optional(Type.String()), nested: Type.Object({ deep: Type.Boolean() }) },
    { additionalProperties: false },
  ),
};

for (const [name, schema] of Object.entries(schemas)) {
  test(`values made from a schema fit it: ${name}`, () => {
    const validator = Compile(schema);
    const heard = new Heard();
    const made = fc.sample(arbitraryOf(schema), { numRuns: 300, seed: 1 }).map((value) => heard.settle(value));
    const fit = made.filter((value) => validator.Check(value));
    // Where a text is under a rule, a text that events said takes its place now and then, and need not fit.
    assert.ok(
      fit.length > 120,
      `${fit.length} of ${made.length} fit, among the others ${JSON.stringify(made.find((value) => !validator.Check(value)))}`,
    );
    assert.ok(
      new Set(fit.map((value) => JSON.stringify(value))).size > (schema === schemas.literal ? 0 : 1),
      'all are alike',
    );
  });
}

test('integers come near their lower bound, at both bounds, and between', () => {
  const made = new Set(
    fc.sample(arbitraryOf(Type.Integer({ minimum: 1, maximum: 1_000_000 })), { numRuns: 500, seed: 1 }),
  );
  for (const expected of [1, 2, 3, 1_000_000]) assert.ok(made.has(expected), `${expected} was never made`);
});

test('optional properties, and those with a default, are left out now and then', () => {
  const schema = Type.Object({ a: Type.Optional(Type.Integer()), b: Type.Integer({ default: 3 }), c: Type.Integer() });
  const made = fc.sample(arbitraryOf(schema), { numRuns: 100, seed: 1 }) as readonly Record<string, unknown>[];
  for (const name of ['a', 'b']) {
    assert.ok(made.some((value) => name in value) && made.some((value) => !(name in value)), name);
  }
  assert.ok(made.every((value) => 'c' in value));
});

test('a text that events said takes its place by the name of its property', () => {
  const heard = new Heard();
  heard.listen({ id: 'made-7', list: [{ id: 'made-8' }], note: 'other' });
  const schema = Type.Object({ id: Type.String({ pattern: '^made-' }) });
  const made = fc
    .sample(arbitraryOf(schema), { numRuns: 100, seed: 1 })
    .map((value) => JSON.stringify(heard.settle(value)));
  assert.ok(made.includes('{"id":"made-7"}') && made.includes('{"id":"made-8"}'));
  assert.ok(!made.includes('{"id":"other"}'));
});

test('a schema that no value can be made of says so', () => {
  for (const schema of [
    { not: {} },
    { $ref: 'Other' },
    Type.Integer({ minimum: 5, maximum: 4 }),
    { type: 'function' },
    7,
  ]) {
    assert.throws(() => arbitraryOf(schema), NoArbitrary);
  }
});
