import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { exitCodes, reportFailure } from './failure.ts';
import type { Terminal } from './terminal.ts';
import { formats, type Format } from './output.ts';
import type { LoadOwnMachines } from '../audit/serve/machines.ts';
import type { ReplayMode } from '../audit/decide/against.ts';
import type { Up } from './verbs/up.ts';

export interface ProgramParts {
  readonly terminal: Terminal;
  readonly version: string;
  /** Starts a fleet. Loaded when needed, because it brings the whole host with it. */
  readonly loadUp: () => Promise<Up>;
  /** The machines of which cells and the control plane keep records of their own. */
  readonly loadOwnMachines: LoadOwnMachines;
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
interface LogOption {
  readonly folder?: string;
  readonly export?: string;
}
interface CellOption {
  readonly cell?: string;
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

function buildProgram({ terminal, version, loadUp, loadOwnMachines }: ProgramParts, outcome: Outcome): Command {
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
        '\nExit codes: 0 done; 1 failed; 2 wrong usage. diff, replay --against: 0 no difference, 1 differences, 2 an error.\n',
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

  withoutFleet(
    program,
    'check <file...>',
    'read machines for what could differ when their logs are replayed: clocks, locales, state outside tables',
    [
      ['cellwright check machine.ts', 'the machine and every module that it imports by path'],
      ['cellwright check shop.ts orders.ts --export machine', 'several, whose machines are the export "machine"'],
      ["cellwright check machine.ts -o json | jq -r '.findings[].rule'", 'for scripts'],
    ],
  )
    .option('--export <name>', 'which export of the module is the machine', 'default')
    .addOption(output(['json']))
    .addHelpText(
      'after',
      `To accept a finding, write on its line or on the one before:
  // cellwright-allow RULE: why it is no harm here

Ends with 0 if there are no errors (warnings may be), 1 if there are. docs/determinism.md lists the rules.`,
    )
    .action(async (files: string[], options: OutputOption & { export: string }) => {
      const { runCheck } = await import('./verbs/check.ts');
      outcome.code = await runCheck(terminal, files, options);
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

  const log = program
    .command('log')
    .description('prove that logs are whole and lead to the states that they say: verify')
    .helpCommand(false)
    .addHelpText('after', examples([['cellwright log verify', 'every cell and the control plane']]));
  verb(
    log,
    'verify [cell]',
    'prove the logs of a fleet, of one cell, or in a folder; it changes nothing, and cells may serve meanwhile',
    [
      ['cellwright log verify', 'every cell and the control plane'],
      ['cellwright log verify tokyo-1', 'one cell; every state hash too, with the machine of its blueprint'],
      ['cellwright log verify --folder /backup/tokyo-1 --machine machine.ts', 'a backup'],
      ['cellwright log verify tokyo-1 --no-replay', 'digests, chain and mark only, which is faster'],
    ],
  )
    .addOption(logFolder())
    .addOption(machineFile('--machine <file>', 'module of the machine that wrote it, if not the one of the blueprint'))
    .addOption(machineExport())
    .option('--no-replay', 'prove records only, not the states that they lead to')
    .addOption(output(['json', 'yaml']))
    .action(
      async (
        name: string | undefined,
        options: DataOption & OutputOption & LogOption & { readonly machine?: string; readonly replay: boolean },
      ) => {
        outcome.errorCode = exitCodes.usage;
        const { runVerify } = await import('./verbs/log.ts');
        outcome.code = await runVerify(terminal, loadOwnMachines, { ...options, process: name });
      },
    );

  verb(program, 'replay', 'show what happened to a tenant, how it was at any time, and what another version would do', [
    ['cellwright replay --cell tokyo-1', 'which tenants its log knows'],
    ['cellwright replay --cell tokyo-1 --tenant acme', 'the newest records of one tenant'],
    ['cellwright replay --cell tokyo-1 --tenant acme --at 17', 'its state after event 17, as YAML'],
    ['cellwright replay --cell tokyo-1 --tenant acme --at 2026-11-21T12:00:00Z', 'its state at a time'],
    ['cellwright replay --cell tokyo-1 --tenant acme --diff 17 20', 'what changed, and which commands did it'],
    ['cellwright replay --cell tokyo-1 --against new.ts', 'run what was recorded against another version'],
  ])
    .addOption(new Option('--cell <name>', 'whose log: a cell of the fleet, or control'))
    .addOption(logFolder())
    .addOption(machineFile('--machine <file>', 'module of the machine that wrote it, if not the one of the blueprint'))
    .addOption(machineExport())
    .option('--tenant <name>', 'which tenant; without it, all are listed, or compared')
    .option('--at <moment>', 'state of the tenant after event number MOMENT, or at a time with its zone')
    .option('--diff <moments...>', 'what differs between two such moments, the earlier one first')
    .addOption(
      machineFile(
        '--against <file>',
        'module of another version of the machine: what it would have answered otherwise',
      ),
    )
    .addOption(
      new Option(
        '--mode <mode>',
        'of --against. isolated: each input meets the recorded history; cumulative: what the other version made itself',
      )
        .choices(['isolated', 'cumulative'])
        .default('isolated'),
    )
    .addOption(
      new Option('--limit <count>', 'newest records that are listed').default(100).argParser(whole(1, 1_000_000)),
    )
    .addOption(output(['json', 'yaml', 'wide']))
    .action(
      async (
        options: DataOption &
          OutputOption &
          LogOption & {
            readonly cell?: string;
            readonly machine?: string;
            readonly tenant?: string;
            readonly at?: string;
            readonly diff?: readonly string[];
            readonly against?: string;
            readonly mode: ReplayMode;
            readonly limit: number;
          },
      ) => {
        if (options.against !== undefined) outcome.errorCode = exitCodes.usage;
        const { runReplay } = await import('./verbs/replay.ts');
        outcome.code = await runReplay(terminal, options);
      },
    );

  const quarantine = program
    .command('quarantine')
    .description('tenants that are refused because their state did not follow from their log: list, show, release')
    .helpCommand(false)
    .addHelpText(
      'after',
      examples([
        ['cellwright quarantine list', 'which tenants are refused'],
        ['cellwright quarantine show acme', 'why: the evidence'],
        ['cellwright quarantine release acme', 'serve it again, once the cause is gone'],
      ]),
    );
  const cellOption = (): Option => new Option('--cell <name>', 'only this cell');
  verb(quarantine, 'list', 'which tenants, since when and why', [['cellwright quarantine list', 'of every cell']])
    .addOption(cellOption())
    .addOption(output(['json', 'yaml']))
    .action(async (options: DataOption & OutputOption & CellOption) => {
      const { runQuarantineList } = await import('./verbs/quarantine.ts');
      outcome.code = await runQuarantineList(terminal, options);
    });
  verb(
    quarantine,
    'show <tenant>',
    'the evidence: record, event, hashes, and where the served state and the replayed one differ',
    [['cellwright quarantine show acme', 'as YAML']],
  )
    .addOption(cellOption())
    .addOption(output(['json', 'yaml']))
    .action(async (tenant: string, options: DataOption & OutputOption & CellOption) => {
      const { runQuarantineShow } = await import('./verbs/quarantine.ts');
      outcome.code = await runQuarantineShow(terminal, tenant, options);
    });
  verb(quarantine, 'release <tenant>', 'make its state again from the log, and serve it if every hash agrees', [
    ['cellwright quarantine release acme --cell tokyo-1', 'once the cause is gone; ends with 1 if it is not'],
  ])
    .addOption(cellOption())
    .action(async (tenant: string, options: DataOption & CellOption) => {
      const { runQuarantineRelease } = await import('./verbs/quarantine.ts');
      outcome.code = await runQuarantineRelease(terminal, tenant, options);
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
  return withoutFleet(program, usage, description, shown).option(
    '--data <folder>',
    'data folder of the fleet',
    defaultData,
  );
}

/** A verb that works on files alone. */
function withoutFleet(program: Command, usage: string, description: string, shown: readonly Example[]): Command {
  return program.command(usage).description(description).addHelpText('after', examples(shown));
}

function examples(shown: readonly Example[]): string {
  return `\nExamples:\n${shown.map(([command, meaning]) => `  $ ${command}\n      ${meaning}\n`).join('')}`;
}

function output(choices: readonly string[]): Option {
  return new Option('-o, --output <format>', 'how to print it').choices(choices);
}

function logFolder(): Option {
  return new Option('--folder <folder>', 'folder that holds log.db, of whatever fleet');
}

function machineFile(flags: string, description: string): Option {
  return new Option(flags, description);
}

function machineExport(): Option {
  return new Option('--export <name>', 'which export of the module is the machine').default(undefined, 'default');
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
