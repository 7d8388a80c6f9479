import { relative } from 'node:path';
import { checkMachine, type Finding } from '../../check/check.ts';
import { exitCodes, problemsShownMax } from '../failure.ts';
import { writeJson, type Format } from '../output.ts';
import { printable, type Output, type Terminal } from '../terminal.ts';

export interface CheckVerbOptions {
  readonly export: string;
  readonly output?: Format;
}

/** `check`: what in machines may differ between two runs. Ends with 1 if there is an error; warnings do not fail. */
export async function runCheck(
  terminal: Terminal,
  paths: readonly string[],
  options: CheckVerbOptions,
): Promise<number> {
  const { out } = terminal;
  const files = new Set<string>();
  const findings = new Map<string, Finding>();
  for (const path of paths) {
    const checked = await checkMachine(path, { exported: options.export });
    for (const file of checked.files) files.add(shown(terminal, file));
    for (const each of checked.findings) {
      const finding = { ...each, file: shown(terminal, each.file) };
      const { file, line, column, rule, message } = finding;
      findings.set([file, line, column, rule, message].join(' '), finding);
    }
  }
  const all = [...findings.values()];
  const errors = all.filter(({ severity }) => severity === 'error').length;
  if (options.output === 'json') writeJson(out, { ok: errors === 0, files: [...files], findings: all });
  else out.write(checkText(out, all, files.size, errors));
  return errors === 0 ? exitCodes.done : exitCodes.failed;
}

function shown({ cwd }: Terminal, file: string): string {
  const near = relative(cwd, file);
  return near.startsWith('..') ? file : near;
}

function checkText({ colors }: Output, findings: readonly Finding[], files: number, errors: number): string {
  const lines = findings.slice(0, problemsShownMax).map(({ file, line, column, rule, severity, message, instead }) => {
    const level = severity === 'error' ? colors.red('error') : colors.yellow('warning');
    const place = colors.cyan(printable(`${file}:${line}:${column}`));
    return `${place}: ${level} ${colors.bold(rule)}: ${printable(message)}\n  ${colors.green('→')} ${printable(instead)}\n`;
  });
  const hidden = findings.length - lines.length;
  const more = hidden > 0 ? `… and ${hidden} more.\n` : '';
  const warnings = findings.length - errors;
  const result =
    findings.length === 0
      ? `${colors.green('ok')}: nothing found`
      : `${errors === 0 ? colors.green('ok') : colors.red('failed')}: ${counted(errors, 'error')}, ${counted(warnings, 'warning')}`;
  return `${lines.join('')}${more}${result} in ${counted(files, 'file')}.\n`;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
