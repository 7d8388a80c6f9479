import { Type } from 'typebox';
import { kinds, pluralOf, type Kind } from '../../protocol/resources.ts';
import { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { askControl, connectionTo, type Connection } from '../client.ts';
import { exitCodes, reportFailure } from '../failure.ts';
import { ItemSchema } from '../items.ts';
import type { Format } from '../output.ts';
import { qualified, readTargets } from '../resource-types.ts';
import type { Terminal } from '../terminal.ts';
import { readOrRefuse } from './apply.ts';

export interface DeleteOptions {
  readonly data: string;
  readonly filename: readonly string[];
  readonly dryRun: boolean;
  readonly output?: Format;
}

/** What is wrong with the fleet is said once, not for each resource. */
const ofTheFleet = new Set(['control-unreachable', 'fleet-not-running', 'unauthenticated', 'forbidden']);

interface Subject {
  readonly kind: Kind;
  readonly name: string;
}

/**
 * `delete`: one resource after another, what refers to others first. Stops nowhere: each that cannot be deleted is
 * reported, and the exit code is 1 if there was one.
 */
export async function runDelete(terminal: Terminal, words: readonly string[], options: DeleteOptions): Promise<number> {
  const subjects = await subjectsOf(terminal, words, options);
  const connection = await connectionTo(terminal, options.data);
  let code: number = exitCodes.done;
  for (const subject of subjects) {
    const text = qualified(subject.kind, subject.name);
    try {
      await remove(connection, subject, options.dryRun);
      const said =
        options.output === 'name' ? '' : ` ${terminal.out.colors.red('deleted')}${options.dryRun ? ' (dry run)' : ''}`;
      terminal.out.write(`${text}${said}\n`);
    } catch (thrown) {
      if (thrown instanceof Fault && ofTheFleet.has(thrown.code)) throw thrown;
      terminal.err.write(`${text}: `);
      code = reportFailure(terminal.err, thrown);
    }
  }
  return code;
}

async function subjectsOf(
  terminal: Terminal,
  words: readonly string[],
  { filename }: DeleteOptions,
): Promise<readonly Subject[]> {
  if (filename.length > 0) {
    if (words.length > 0) throw fault('usage', 'Name either resources or files with -f, not both.');
    return [...(await readOrRefuse(terminal, filename)).resources].reverse();
  }
  if (words.length === 0) throw fault('usage', 'Say what to delete: TYPE NAME, TYPE/NAME, or -f FILE.');
  const subjects = readTargets(words).flatMap(({ type, names }) => {
    const { kind } = type;
    if (kind === undefined) throw fault('usage', `${type.plural} cannot be deleted.`);
    if (names.length === 0) throw fault('usage', `Name the ${type.plural} to delete.`);
    return names.map((name) => ({ kind, name }));
  });
  return subjects.sort((a, b) => kinds.indexOf(b.kind) - kinds.indexOf(a.kind));
}

async function remove(connection: Connection, { kind, name }: Subject, dryRun: boolean): Promise<void> {
  const path = `/v1/${pluralOf[kind]}/${encodeURIComponent(name)}`;
  if (dryRun) await askControl(connection, { path }, ItemSchema);
  else await askControl(connection, { method: 'DELETE', path }, Type.Unknown());
}
