import { Fault } from '../kernel/fault.ts';
import type { FileProblem } from './resource-file.ts';
import { printable, type Output } from './terminal.ts';

/** Files that cannot be applied, with everything that is wrong in them. */
export class FilesRefused extends Error {
  override readonly name = 'FilesRefused';
  readonly problems: readonly FileProblem[];

  constructor(problems: readonly FileProblem[]) {
    super(`${problems.length} problems in files`);
    this.problems = problems;
  }
}

/** Exit codes that scripts rely on. */
export const exitCodes = { done: 0, failed: 1, usage: 2 } as const;

/** More problems than a person reads are counted instead of printed. */
export const problemsShownMax = 1_000;

/** Writes what went wrong and what to do, and says with which code to end. */
export function reportFailure(err: Output, thrown: unknown): number {
  const { colors } = err;
  if (thrown instanceof FilesRefused) {
    err.write(problemText(err, thrown.problems));
    return exitCodes.failed;
  }
  if (thrown instanceof Fault) {
    const field = thrown.field === undefined || thrown.message.includes(thrown.field) ? '' : ` (${thrown.field})`;
    err.write(`${colors.red('error')} ${colors.bold(thrown.code)}${printable(field)}: ${printable(thrown.message)}\n`);
    return thrown.code === 'usage' ? exitCodes.usage : exitCodes.failed;
  }
  const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  err.write(`${colors.red('error')} ${colors.bold('internal')}: a mistake in cellwright itself; please report it.\n`);
  err.write(`${colors.dim(printable(text))}\n`);
  return exitCodes.failed;
}

/** Every problem on two lines: where and what, then the remedy. */
export function problemText({ colors }: Output, problems: readonly FileProblem[]): string {
  const lines = problems.slice(0, problemsShownMax).map((problem) => {
    const { file, line, column, document, resource, field, message, remedy } = problem;
    const at = [file, line, column].filter((part) => part !== undefined).join(':');
    const inside = [document === undefined ? undefined : `document ${document}`, resource].filter(
      (part) => part !== undefined,
    );
    const where = inside.length === 0 ? '' : ` ${colors.dim(`(${printable(inside.join(', '))})`)}`;
    const what = field === undefined ? printable(message) : `${colors.bold(printable(field))} ${printable(message)}`;
    return `${colors.cyan(printable(at))}${where}: ${what}\n  ${colors.green('→')} ${printable(remedy)}\n`;
  });
  const hidden = problems.length - lines.length;
  const files = new Set(problems.map(({ file }) => file)).size;
  const count = `${problems.length} ${problems.length === 1 ? 'problem' : 'problems'} in ${files} ${files === 1 ? 'file' : 'files'}`;
  const more = hidden > 0 ? `… and ${hidden} more.\n` : '';
  return `${lines.join('')}${more}${colors.red('error')}: ${count}; nothing was changed.\n`;
}
