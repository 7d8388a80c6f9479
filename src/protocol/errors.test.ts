import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { errorTable } from './errors.ts';

test('docs/errors.md lists exactly the rows of the error table', () => {
  const text = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
  const documented = [...text.matchAll(/^\| `([^`]+)` *\| *(\d+) *\| *([a-z-]+) *\| *(.*?) *\|$/gm)].map(
    ([, code, status, reaction, title]) => [code, { status: Number(status), reaction, title }],
  );
  assert.deepEqual(documented, Object.entries(errorTable));
});
