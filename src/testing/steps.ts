import * as fc from 'fast-check';
import type { Machine } from '../machine/decide/definition/machine.ts';
import { arbitraryOf, NoArbitrary } from './arbitrary.ts';

/** What happens to an instance in a random run. `input` may refer to what events will have said: see `Heard`. */
export type Step =
  | { readonly do: 'command'; readonly command: string; readonly input: unknown; readonly key: string | undefined }
  /** The `nth` last command that came with a key comes again, as from a client that got no answer. */
  | { readonly do: 'repeat'; readonly nth: number }
  | { readonly do: 'query'; readonly query: string; readonly input: unknown }
  /** Time passes, and timers that are due by then fire. */
  | { readonly do: 'wait'; readonly ms: number }
  /** The message that was sent first is taken out of the outbox. */
  | { readonly do: 'deliver' }
  /** The instance is exported, forgotten and made of what was exported. */
  | { readonly do: 'reload' };

export type Inputs = Readonly<Record<string, fc.Arbitrary<unknown>>>;

/** Few enough that one is used for two different commands now and then; most repetitions are steps of their own. */
const keys = Array.from({ length: 20 }, (_, i) => `key-${i}`);
const dayMs = 86_400_000;
/** Nothing, moments, and lives of keys and timers. */
const waitsMs = [1, 1_000, 60_000, dayMs - 1, dayMs, 30 * dayMs] as const;

function inputOf(what: string, name: string, schema: unknown, inputs: Inputs): fc.Arbitrary<unknown> {
  const own = inputs[name];
  if (own !== undefined) return own;
  try {
    return arbitraryOf(schema);
  } catch (thrown) {
    if (!(thrown instanceof NoArbitrary)) throw thrown;
    const message = `Inputs of ${what} ${name} cannot be made from its schema: ${thrown.message}; give inputs: { ${name}: … }`;
    throw new TypeError(message, { cause: thrown });
  }
}

/** Random steps for a machine. `inputs` stand in for what is made from the schemas of commands and queries. */
export function stepOf(machine: Machine, inputs: Inputs, skip: ReadonlySet<string>): fc.Arbitrary<Step> {
  const commands = [...machine.commands].filter(([name]) => !skip.has(name));
  if (commands.length === 0) throw new TypeError(`${machine.name} has no command that may be tried`);
  const key = fc.oneof(
    { weight: 2, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.constantFrom(...keys) },
  );
  const command = commands.map(([name, { input }]) =>
    fc
      .tuple(inputOf('command', name, input, inputs), key)
      .map(([given, withKey]): Step => ({ do: 'command', command: name, input: given, key: withKey })),
  );
  const queries = [...machine.queries].filter(([name]) => !skip.has(name));
  const query = queries.map(([name, { input }]) =>
    inputOf('query', name, input, inputs).map((given): Step => ({ do: 'query', query: name, input: given })),
  );
  const repeat = fc.nat(3).map((nth): Step => ({ do: 'repeat', nth }));
  const wait = fc.constantFrom(...waitsMs).map((ms): Step => ({ do: 'wait', ms }));
  return fc.oneof(
    { weight: 12, arbitrary: fc.oneof(...command) },
    ...(query.length > 0 ? [{ weight: 1, arbitrary: fc.oneof(...query) }] : []),
    { weight: 1, arbitrary: repeat },
    { weight: 2, arbitrary: wait },
    { weight: 1, arbitrary: fc.constant<Step>({ do: 'deliver' }) },
    { weight: 1, arbitrary: fc.constant<Step>({ do: 'reload' }) },
  );
}
