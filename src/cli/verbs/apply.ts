import { Type } from 'typebox';
import { askControl, connectionTo } from '../client.ts';
import { exitCodes, FilesRefused } from '../failure.ts';
import { writeJson, writeYaml, type Format } from '../output.ts';
import { readResourceFiles, type ReadResources } from '../resource-file.ts';
import { fault } from '../../protocol/errors.ts';
import type { Terminal } from '../terminal.ts';

const ResultSchema = Type.Object({ kind: Type.String(), name: Type.String(), action: Type.String() });
export const ApplyAnswerSchema = Type.Object({ items: Type.Array(ResultSchema) });

export interface ApplyOptions {
  readonly data: string;
  readonly filename: readonly string[];
  readonly dryRun: boolean;
  readonly output?: Format;
}

/** `apply`: all files in one request, which the control plane takes whole or not at all. */
export async function runApply(terminal: Terminal, options: ApplyOptions): Promise<number> {
  const { resources } = await readOrRefuse(terminal, options.filename);
  const connection = await connectionTo(terminal, options.data);
  const answer = await askControl(
    connection,
    { method: 'POST', path: '/v1/apply', body: { items: resources, dryRun: options.dryRun } },
    ApplyAnswerSchema,
  );
  const { out } = terminal;
  if (options.output === 'json') writeJson(out, answer);
  else if (options.output === 'yaml') writeYaml(out, answer);
  else {
    for (const { kind, name, action } of answer.items) {
      const subject = `${kind.toLowerCase()}/${name}`;
      const word = paintAction(action, terminal);
      out.write(
        options.output === 'name' ? `${subject}\n` : `${subject} ${word}${options.dryRun ? ' (dry run)' : ''}\n`,
      );
    }
  }
  return exitCodes.done;
}

function paintAction(action: string, { out: { colors } }: Terminal): string {
  if (action === 'created') return colors.green(action);
  return action === 'unchanged' ? colors.dim(action) : colors.yellow(action);
}

/** Resources of files; throws with every problem if there is one. */
export async function readOrRefuse(terminal: Terminal, paths: readonly string[]): Promise<ReadResources> {
  if (paths.length === 0) throw fault('usage', 'Name a file: -f FILE.', { field: '--filename' });
  const read = await readResourceFiles(paths, { cwd: terminal.cwd, stdin: terminal.stdin });
  if (read.problems.length > 0) throw new FilesRefused(read.problems);
  return read;
}
