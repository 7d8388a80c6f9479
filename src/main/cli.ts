import { readFileSync } from 'node:fs';
import { runProgram } from '../cli/program.ts';
import { processTerminal } from '../cli/terminal.ts';

/** The command line. Wires the verbs to the host, which only `up` needs. */
const packageFile = new URL('../../package.json', import.meta.url);

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // `cellwright get cells | head -1`: whoever reads has had enough.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
// Nobody reads the progress: no reason not to go on, nor to leave a fleet unstopped.
process.stderr.on('error', () => undefined);

process.exitCode = await runProgram(process.argv.slice(2), {
  terminal: processTerminal(),
  version: versionOf(readFileSync(packageFile, 'utf8')),
  loadUp: async () => (await import('./up.ts')).up,
  loadOwnMachines: async () => [
    (await import('../cell/decide/ownership.ts')).ownershipMachine,
    (await import('../control/decide/fleet.ts')).fleetMachine,
  ],
});

function versionOf(text: string): string {
  return /"version":\s*"([^"]+)"/.exec(text)?.[1] ?? 'unknown';
}
