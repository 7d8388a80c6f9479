import * as fc from 'fast-check';
import type { Machine } from '../machine/decide/definition/machine.ts';
import { Broken, generalLaws, Run, type GeneralLaw, type Laws, type Tally, type Trace } from './run.ts';
import { stepOf, type Inputs, type Step } from './steps.ts';

const sayings = new Map<string, string>(Object.entries(generalLaws));

export interface LawOptions {
  /** Laws of one's own, by a name that says what holds. */
  readonly laws?: Laws;
  /** Arbitraries of fast-check for inputs of commands and queries, instead of what is made from their schemas. */
  readonly inputs?: Inputs;
  /** Commands and queries that are not tried, and general laws that do not hold for this machine. */
  readonly skip?: readonly (GeneralLaw | (string & {}))[];
  /** Commands that need not be accepted once: of any other one that is not, the laws would say nothing. */
  readonly mayNeverSucceed?: readonly string[];
  /** 100 unless told. */
  readonly runs?: number;
  /** Steps of one run: commands, repetitions, waiting, …; 40 unless told. */
  readonly stepsMax?: number;
  /** To run a counterexample again: both are printed with it. */
  readonly seed?: number;
  readonly path?: string;
}

/** What was tried, if every law held. */
export interface CheckedRuns {
  readonly runs: number;
  readonly seed: number;
  /** For each command and query, how often it came to what: `accepted`, a reason, or the code of an error. */
  readonly came: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** A law does not hold: `message` lists the steps that show it, as few as could be found, and how to run them again. */
export class LawBroken extends Error {
  override readonly name = 'LawBroken';
  readonly law: string;
  readonly seed: number;
  readonly path: string;

  constructor(law: string, seed: number, path: string, message: string) {
    super(message);
    this.law = law;
    this.seed = seed;
    this.path = path;
  }
}

/**
 * Runs random commands against `machine`, with keys, repetitions, passing time and timers, and checks after each step the
 * laws that hold for any machine (`generalLaws`) and those of `options.laws`. Throws LawBroken with a short list of steps
 * at the first that does not hold. Throws TypeError if inputs cannot be made, or if a command was never accepted.
 */
export function assertLaws(machine: Machine, options: LawOptions = {}): CheckedRuns {
  const { laws = {}, inputs = {}, runs = 100, stepsMax = 40, seed, path } = options;
  const skip = new Set<string>(options.skip ?? []);
  checkNames(machine, laws, options);
  const tally: Tally = new Map();
  const details = fc.check(
    fc.property(fc.array(stepOf(machine, inputs, skip), { maxLength: stepsMax, size: 'max' }), (steps) => {
      new Run(machine, laws, skip, tally).perform(steps);
    }),
    { numRuns: runs, ...(seed === undefined ? {} : { seed }), ...(path === undefined ? {} : { path }) },
  );
  if (details.failed) {
    const again = { seed: details.seed, path: details.counterexamplePath ?? '' };
    throw brokenLaw(machine, laws, skip, details.counterexample?.[0] ?? [], again, details.numShrinks);
  }
  if (path === undefined) checkAccepted(machine, tally, [...skip, ...(options.mayNeverSucceed ?? [])], runs);
  const came = [...tally].map(([name, counts]) => [name, Object.fromEntries(counts)] as const);
  return { runs: details.numRuns, seed: details.seed, came: Object.fromEntries(came) };
}

/** Runs the shortest counterexample once more, to tell what it came to. */
function brokenLaw(
  machine: Machine,
  laws: Laws,
  skip: ReadonlySet<string>,
  steps: readonly Step[],
  { seed, path }: { readonly seed: number; readonly path: string },
  shrinks: number,
): LawBroken {
  const run = new Run(machine, laws, skip, new Map());
  try {
    run.perform(steps);
  } catch (thrown) {
    if (!(thrown instanceof Broken)) throw thrown;
    const said = sayings.get(thrown.law);
    const lines = [
      `${machine.name} breaks the law ${thrown.law}${said === undefined ? '' : ` (${said})`}`,
      `  ${thrown.message}`,
      `after ${run.trace.length === 1 ? 'one step' : `${run.trace.length} steps`} (made shorter ${shrinks} times):`,
      ...run.trace.map(lineOf),
      `To run it again: assertLaws(machine, { seed: ${seed}, path: '${path}', … })`,
    ];
    return new LawBroken(thrown.law, seed, path, lines.join('\n'));
  }
  throw new Error('a law that was broken holds when the same steps run again: a handler is not deterministic');
}

function lineOf({ step, came }: Trace, index: number): string {
  return `${String(index + 1).padStart(4)}. ${step}${came === '' ? '' : `\n        → ${came}`}`;
}

function checkNames(machine: Machine, laws: Laws, { inputs = {}, skip = [], mayNeverSucceed = [] }: LawOptions): void {
  const known = new Set([...machine.commands.keys(), ...machine.queries.keys()]);
  for (const name of [...Object.keys(inputs), ...mayNeverSucceed]) {
    if (!known.has(name)) throw new TypeError(`${machine.name} has no command or query ${name}`);
  }
  for (const name of skip) {
    if (!known.has(name) && !Object.hasOwn(generalLaws, name)) {
      throw new TypeError(`${name} is neither a command or query of ${machine.name} nor a general law`);
    }
  }
  for (const name of Object.keys(laws)) {
    if (Object.hasOwn(generalLaws, name)) throw new TypeError(`${name} is the name of a general law`);
  }
}

/** A command that was never accepted shows nothing, and a test that shows nothing must not pass. */
function checkAccepted(machine: Machine, tally: Tally, exempt: readonly string[], runs: number): void {
  for (const name of machine.commands.keys()) {
    const counts = tally.get(name);
    if (exempt.includes(name) || (counts?.get('accepted') ?? 0) > 0) continue;
    const came = [...(counts ?? [])].map(([what, count]) => `${what} ${count} times`).join(', ');
    throw new TypeError(
      `In ${runs} runs ${name} was never accepted (${came === '' ? 'never tried' : came}), so nothing is known of it. ` +
        `Give more runs, or inputs: { ${name}: … }, or list it in mayNeverSucceed`,
    );
  }
}
