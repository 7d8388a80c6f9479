import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/**
 * `npm run soak`: the tests whose size is a parameter, at full length, one after the
 * other. Names may be given to run some only: `npm run soak kill-cell`.
 */
const sized = [
  'load',
  'kill-cell',
  'static-stability',
  'restart',
  'damage',
  'same-hash',
  'crash',
  'power-loss',
  'bit-flips',
  'runtime',
  'state/file',
];
/** Those that stand in `test/machine`. */
const ofTheMachine = new Set(['same-hash']);
/** Those that stand beside the code of the log. */
const ofTheLog = new Set(['crash', 'power-loss', 'bit-flips', 'runtime', 'state/file']);

const chosen = process.argv.length > 2 ? process.argv.slice(2) : sized;
const files = chosen.map((name) => {
  if (ofTheLog.has(name)) return fileURLToPath(new URL(`../../src/machine/serve/${name}.test.ts`, import.meta.url));
  return fileURLToPath(new URL(`../${ofTheMachine.has(name) ? 'machine' : 'e2e'}/${name}.test.ts`, import.meta.url));
});
const child = spawn(
  process.execPath,
  [...process.execArgv, '--test', '--test-concurrency=1', '--test-reporter=spec', ...files],
  {
    stdio: 'inherit',
    env: { ...process.env, CELLWRIGHT_SOAK: '1' },
  },
);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
child.once('exit', (code) => (process.exitCode = code ?? 1));
