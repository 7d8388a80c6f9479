import { existsSync, readdirSync } from 'node:fs';

/** `npm run bench NAME`: runs one comparison; its last line is one JSON object. */
const name = process.argv[2] ?? '';
const known = readdirSync(new URL('.', import.meta.url), { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && existsSync(new URL(`${entry.name}/run.ts`, import.meta.url)))
  .map((entry) => entry.name);

if (known.includes(name)) {
  await import(new URL(`${name}/run.ts`, import.meta.url).href);
} else {
  console.error(`usage: npm run bench NAME, with NAME one of: ${known.join(', ')}`);
  process.exitCode = 2;
}
