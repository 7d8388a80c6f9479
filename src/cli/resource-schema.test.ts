import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { ResourceSchema } from '../protocol/resources.ts';

/** JSON schema (2020-12) of one document of a resource file, for editors. */
const published = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  $id: 'https://cellwright.dev/resource.schema.json',
  title: 'Cellwright resource',
  ...ResourceSchema,
};

test('docs/resource.schema.json is what the protocol says (UPDATE_GOLDEN=1 writes it)', () => {
  const file = new URL('../../docs/resource.schema.json', import.meta.url);
  const text = `${JSON.stringify(published, undefined, 2)}\n`;
  if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(file, text);
  assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), JSON.parse(text));
});
