import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { exitCodes, reportFailure } from './failure.ts';
import type { Terminal } from './terminal.ts';
import { formats, type Format } from './output.ts';
import type { Up } from './verbs/up.ts';

export interface ProgramParts {
  readonly terminal: Terminal;
  readonly version: string;
  /** Starts a fleet. Loaded when needed, because it brings the whole host with it. */
  readonly loadUp: () => Promise<Up>;
}

export const defaultData = '.cellwright';
const defaultRouterPort = 8080;
const defaultControlPort = 7070;

interface DataOption {
  readonly data: string;
}
interface OutputOption {
  readonly output?: Format;
}
interface FileOption {
  readonly filename?: string[];
}

/**
 * Runs one command line (without program name) and says with which code to end: 0 done, 1 failed, 2 wrong usage;
 * `diff`: 0 no difference, 1 differences, 2 an error. Verbs are loaded when they run, so that each starts quickly.
 */
export async function runProgram(args: readonly string[], parts: ProgramParts): Promise<number> {
  const { terminal } = parts;
  const outcome: Outcome = { code: exitCodes.done };
  const program = buildProgram(parts, outcome);
  try {
    if (args.length === 0) {
      terminal.err.write(program.helpInformation());
      return exitCodes.usage;
    }
    await program.parseAsync([...args], { from: 'user' });
    return outcome.code;
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? exitCodes.done : exitCodes.usage;
    const code = reportFailure(terminal.err, thrown);
    return outcome.errorCode ?? code;
  }
}

interface Outcome {
  code: number;
  /** Instead of 1 and 2, for a verb whose 1 means something else. */
  errorCode?: number;
}

function buildProgram({ terminal, version, loadUp }: ProgramParts, outcome: Outcome): Command {
  const program = new Command('cellwright');
  program
    .description('Turns one multi-tenant application into a fleet of small, sovereign cells and keeps them that way.')
    .version(version, '-V, --version', 'print the version')
    .helpCommand('help [verb]', 'print how a verb is used')
    .helpOption('-h, --help', 'print this help')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out.write(text),
      writeErr: (text) => terminal.err.write(text),
      getOutHelpWidth: () => helpWidth,
      getErrHelpWidth: () => helpWidth,
    })
    .showHelpAfterError('Try --help for how it is used.')
    .addHelpText(
      'after',
      examples([
        ['cellwright up examples/orders/fleet.yaml', 'start a fleet on this machine'],
        ['cellwright get cells', 'what is there, and how it is'],
        ['cellwright explain tenant acme', 'where a tenant lives, and why'],
        ['cellwright apply -f fleet.yaml', 'make the fleet as the file says'],
      ]) +
        '\nEnvironment:\n' +
        '  CELLWRIGHT_CONTROL     address of the control plane (else from DATA/endpoints.json)\n' +
        '  CELLWRIGHT_TOKEN       its bearer token (else from DATA/token)\n' +
        '  NO_COLOR, FORCE_COLOR  colours off, or on\n' +
        '\nExit codes: 0 done; 1 failed; 2 wrong usage. diff: 0 no difference, 1 differences, 2 an error.\n',
    );

  verb(program, 'up [fleet-file]', 'start a fleet on this machine, in the foreground', [
    ['cellwright up examples/orders/fleet.yaml', 'start with what the file says'],
    ['cellwright up', 'start again with what is in the data folder'],
    ['cellwright up fleet.yaml --data /tmp/two --router-port 8081 --control-port 7071', 'a second fleet beside it'],
    ['cellwright up fleet.yaml --fresh -o json', 'start empty; one line of JSON when ready'],
  ])
    .addOption(port('--router-port <port>', 'where applications are reached', defaultRouterPort))
    .addOption(port('--control-port <port>', 'where the control plane listens', defaultControlPort))
    .option('--fresh', 'start empty: forget everything in the data folder', false)
    .addOption(output(['json']))
    .action(
      async (
        file: string | undefined,
        options: DataOption & OutputOption & { routerPort: number; controlPort: number; fresh: boolean },
      ) => {
        const { runUp } = await import('./verbs/up.ts');
        outcome.code = await runUp(terminal, loadUp, { ...options, file });
      },
    );

  for (const action of ['stop', 'start'] as const) {
    verb(
      program,
      `${action} <process...>`,
      action === 'stop'
        ? 'hold processes down: control, router, or a cell by its name'
        : 'let processes up again, and wait until they serve',
      action === 'stop'
        ? [
            ['cellwright stop control', 'applications do not notice'],
            ['cellwright stop tokyo-1', 'its tenants get 503 until it is started'],
          ]
        : [['cellwright start control tokyo-1', 'both, one after the other']],
    ).action(async (names: string[], options: DataOption) => {
      const { runProcesses } = await import('./verbs/processes.ts');
      outcome.code = await runProcesses(terminal, action, names, options);
    });
  }

  verb(program, 'get <type> [names...]', 'list cells, tenants, blueprints, events or processes', [
    ['cellwright get cells', 'all cells'],
    ['cellwright get tenant acme -o yaml', 'one tenant, as a file would have it'],
    ['cellwright get cell/tokyo-1 tenant/acme', 'several types at once'],
    ['cellwright get tenants --watch', 'and what changes from now on'],
    ["cellwright get tenants -o json | jq -r '.items[].name'", 'for scripts'],
  ])
    .addOption(output(formats))
    .option('-w, --watch', 'go on with every change until interrupted', false)
    .action(async (type: string, names: string[], options: DataOption & OutputOption & { watch: boolean }) => {
      const { runGet } = await import('./verbs/get.ts');
      outcome.code = await runGet(terminal, [type, ...names], { ...options, output: options.output ?? 'table' });
    });

  verb(program, 'describe <type> [names...]', 'everything about one thing: spec, status, placement, recent events', [
    ['cellwright describe cell tokyo-1', 'one cell'],
    ['cellwright describe tenant/acme', 'one tenant'],
  ]).action(async (type: string, names: string[], options: DataOption) => {
    const { runDescribe } = await import('./verbs/describe.ts');
    outcome.code = await runDescribe(terminal, [type, ...names], options);
  });

  verb(program, 'apply', 'make the fleet as files say: all of it, or nothing', [
    ['cellwright apply -f fleet.yaml', 'one file'],
    ['cellwright apply -f fleet/ -f more.yaml', 'a folder and a file'],
    ['cellwright apply -f fleet.yaml --dry-run', 'only say what would change'],
    ['generate | cellwright apply -f -', 'from standard input'],
  ])
    .addOption(filename(true))
    .option('--dry-run', 'say what would happen; change nothing', false)
    .addOption(output(['json', 'yaml', 'name']))
    .action(async (options: DataOption & OutputOption & FileOption & { dryRun: boolean }) => {
      const { runApply } = await import('./verbs/apply.ts');
      outcome.code = await runApply(terminal, { ...options, filename: options.filename ?? [] });
    });

  verb(program, 'diff', 'what apply would change, as a unified diff', [
    ['cellwright diff -f fleet.yaml', 'ends with 0 if nothing differs, 1 if something does, 2 on an error'],
  ])
    .addOption(filename(true))
    .action(async (options: DataOption & FileOption) => {
      outcome.errorCode = exitCodes.usage;
      const { runDiff } = await import('./verbs/diff.ts');
      outcome.code = await runDiff(terminal, { ...options, filename: options.filename ?? [] });
    });

  verb(program, 'delete [type] [names...]', 'remove resources by type and name, or those of files', [
    ['cellwright delete tenant acme', 'one tenant'],
    ['cellwright delete cell/tokyo-1 tenant/acme', 'several types at once'],
    ['cellwright delete -f fleet.yaml --dry-run', 'only say what would be removed'],
  ])
    .addOption(filename(false))
    .option('--dry-run', 'say what would happen; change nothing', false)
    .addOption(output(['name']))
    .action(
      async (
        type: string | undefined,
        names: string[],
        options: DataOption & OutputOption & FileOption & { dryRun: boolean },
      ) => {
        const { runDelete } = await import('./verbs/delete.ts');
        const words = type === undefined ? [] : [type, ...names];
        outcome.code = await runDelete(terminal, words, { ...options, filename: options.filename ?? [] });
      },
    );

  verb(program, 'explain <type> <name>', 'why something is as it is, in plain words', [
    ['cellwright explain tenant acme', 'where it lives, since when, why, and what was rejected'],
  ])
    .addOption(output(['json', 'yaml']))
    .action(async (type: string, name: string, options: DataOption & OutputOption) => {
      const { runExplain } = await import('./verbs/explain.ts');
      outcome.code = await runExplain(terminal, type, name, options);
    });

  verb(program, 'logs <process>', 'the last lines of a process: control, router, or a cell by its name', [
    ['cellwright logs control', 'the last 100 lines'],
    ['cellwright logs tokyo-1 --follow', 'and what comes from now on'],
  ])
    .option('-f, --follow', 'go on until interrupted', false)
    .addOption(new Option('-n, --lines <count>', 'how many lines').default(100).argParser(whole(0, 1_000_000)))
    .action(async (name: string, options: DataOption & { follow: boolean; lines: number }) => {
      const { runLogs } = await import('./verbs/logs.ts');
      outcome.code = await runLogs(terminal, name, options);
    });

  program
    .command('version')
    .description('print the version')
    .action(() => terminal.out.write(`${version}\n`));
  return program;
}

const helpWidth = 100;

type Example = readonly [command: string, meaning: string];

function verb(program: Command, usage: string, description: string, shown: readonly Example[]): Command {
  return program
    .command(usage)
    .description(description)
    .option('--data <folder>', 'data folder of the fleet', defaultData)
    .addHelpText('after', examples(shown));
}

function examples(shown: readonly Example[]): string {
  return `\nExamples:\n${shown.map(([command, meaning]) => `  $ ${command}\n      ${meaning}\n`).join('')}`;
}

function output(choices: readonly string[]): Option {
  return new Option('-o, --output <format>', 'how to print it').choices(choices);
}

function filename(required: boolean): Option {
  const option = new Option('-f, --filename <path>', 'file, folder or - for standard input; may be repeated').argParser(
    (path: string, before: string[] | undefined) => [...(before ?? []), path],
  );
  return required ? option.makeOptionMandatory() : option;
}

const portMax = 65_535;

function port(flags: string, description: string, normally: number): Option {
  return new Option(flags, description).default(normally).argParser(whole(0, portMax));
}

function whole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d{1,9}$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`Write a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}
