import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Fault } from '../kernel/fault.ts';
import { fault } from '../protocol/errors.ts';
import { loadMachine } from '../machine/serve/traps/load-machine.ts';
import { ambientIn } from './ambient-rules.ts';
import { isRule, type Found, type Rule } from './finding.ts';
import { placesOf } from './scopes.ts';
import { stateIn } from './state-rules.ts';
import { formIn } from './syntax-rules.ts';
import { parseModule, type Module } from './syntax.ts';

/** Bounds of one check: beyond them it ends with a fault. */
export const checkBounds = { modulesMax: 1_000, moduleSizeMaxBytes: 4 * 1024 * 1024 } as const;

/** What was found in one place of one module. Lines and columns start at 1. */
export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly rule: Rule;
  /** `error`: two runs may differ. `warning`: they may, and only a person can tell. */
  readonly severity: 'error' | 'warning';
  readonly message: string;
  readonly instead: string;
}

export interface CheckOptions {
  /** The export that is the machine; undefined if none of the files need be one. */
  readonly exported: string;
}

export interface Checked {
  /** Absolute paths, in the order in which they were reached. */
  readonly files: readonly string[];
  /** In the order of files, lines and columns. */
  readonly findings: readonly Finding[];
}

/**
 * Reads a machine's module and the modules that it imports by path, and finds what two runs may do differently. A
 * module without errors is then loaded, so that `machine()` can refuse what it refuses.
 * Faults: `file-unreadable`, `limit-exceeded`. O(size of the modules).
 */
export async function checkMachine(path: string, { exported }: CheckOptions): Promise<Checked> {
  const entry = resolve(path);
  const files = [entry];
  const findings: Finding[] = [];
  for (const file of files) {
    const { imports, ...rest } = checkModule(file, readModule(file, path));
    findings.push(...rest.findings);
    for (const next of imports) {
      if (files.includes(next.file)) continue;
      if (isFile(next.file)) files.push(next.file);
      else findings.push(next.missing);
    }
    if (files.length > checkBounds.modulesMax) {
      throw fault('limit-exceeded', `${path} imports more than ${checkBounds.modulesMax} modules`, { field: path });
    }
  }
  if (!findings.some(({ rule, severity }) => severity === 'error' && (rule === 'import' || rule === 'syntax'))) {
    findings.push(...(await refusalOf(entry, exported)));
  }
  return { files, findings };
}

function readModule(file: string, named: string): string {
  try {
    const sizeBytes = statSync(file).size;
    if (sizeBytes > checkBounds.moduleSizeMaxBytes) {
      const message = `${file} has ${sizeBytes} bytes, more than the ${checkBounds.moduleSizeMaxBytes} that are checked`;
      throw fault('limit-exceeded', message, { field: file });
    }
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    if (thrown instanceof Fault) throw thrown;
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw fault('file-unreadable', `${file} cannot be read: ${why}`, { field: named, cause: thrown });
  }
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

interface Import {
  readonly file: string;
  /** What to say if there is no such file. */
  readonly missing: Finding;
}

/** Checks the text of one module; the imports are those by path. */
export function checkModule(
  file: string,
  text: string,
): { readonly findings: readonly Finding[]; readonly imports: readonly Import[] } {
  let module: Module;
  try {
    module = parseModule(file, text);
  } catch (thrown) {
    return { findings: [unparsable(file, thrown)], imports: [] };
  }
  const places = placesOf(module.program);
  const found = places.flatMap((place) => [...ambientIn(place), ...formIn(place)]);
  found.push(...stateIn(places));
  const findings = allowed(
    module,
    found.map((each) => findingOf(file, each)),
  );
  return { findings: findings.sort((a, b) => a.line - b.line || a.column - b.column), imports: importsOf(module) };
}

function findingOf(file: string, { node, ...found }: Found): Finding {
  const { rule, severity, message, instead } = found;
  return {
    file,
    line: node.loc?.start.line ?? 1,
    column: (node.loc?.start.column ?? 0) + 1,
    rule,
    severity,
    message,
    instead,
  };
}

function unparsable(file: string, thrown: unknown): Finding {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  const [, said = text, line = '1', column = '0'] = /^([\s\S]*?) \((\d+):(\d+)\)$/.exec(text) ?? [];
  return {
    file,
    line: Number(line),
    column: Number(column) + 1,
    rule: 'syntax',
    severity: 'error',
    message: said.trim().split('\n')[0] ?? said,
    instead: 'write it as a module in JavaScript, or in TypeScript whose types can be erased',
  };
}

function importsOf({ file, program }: Module): readonly Import[] {
  const imports: Import[] = [];
  for (const node of program.body) {
    if (
      node.type !== 'ImportDeclaration' &&
      node.type !== 'ExportAllDeclaration' &&
      node.type !== 'ExportNamedDeclaration'
    ) {
      continue;
    }
    const specifier = node.source?.value;
    if (typeof specifier !== 'string' || !/^(?:\.{1,2}\/|\/|file:)/.test(specifier)) continue;
    if (specifier.endsWith('.json')) continue;
    const target = specifier.startsWith('file:') ? fileURLToPath(specifier) : resolve(dirname(file), specifier);
    const missing = findingOf(file, {
      node,
      rule: 'import',
      severity: 'error',
      message: `import of ${specifier}, which is no file`,
      instead: 'write the name of the file, with its ending',
    });
    imports.push({ file: target, missing });
  }
  return imports;
}

interface Allowance {
  readonly line: number;
  readonly column: number;
  readonly rule: string;
  readonly reason: string;
  used: boolean;
}

/**
 * Takes out what `// cellwright-allow RULE: reason` accepts, on its own line or on the next, and says of each such
 * comment that accepts nothing why not.
 */
function allowed({ file, comments }: Module, findings: readonly Finding[]): Finding[] {
  const allowances: Allowance[] = comments.flatMap(({ value, loc }) => {
    const match = /^\s*cellwright-allow(?:\s+([\w-]+))?\s*(?::\s*([\s\S]*))?$/.exec(value);
    if (match === null) return [];
    const [, rule = '', reason = ''] = match;
    const { line = 1, column = 0 } = loc?.start ?? {};
    return [{ line, column: column + 1, rule, reason: reason.trim(), used: false }];
  });
  const rest = findings.filter(({ line, rule }) => {
    const accepting = allowances.filter(
      (each) => each.rule === rule && each.reason !== '' && (each.line === line || each.line === line - 1),
    );
    for (const each of accepting) each.used = true;
    return accepting.length === 0;
  });
  for (const { line, column, rule, reason, used } of allowances) {
    if (used) continue;
    const message = !isRule(rule)
      ? `cellwright-allow names no rule${rule === '' ? '' : `: "${rule}" is none`}`
      : reason === ''
        ? `cellwright-allow ${rule} gives no reason`
        : `cellwright-allow ${rule} accepts nothing`;
    const instead = 'write // cellwright-allow RULE: reason on the line of the finding or before it, or take it away';
    rest.push({ file, line, column, rule: 'allow', severity: 'warning', message, instead });
  }
  return rest;
}

/** What `machine()` or the loading of the module refuses. */
async function refusalOf(module: string, exported: string): Promise<readonly Finding[]> {
  try {
    await loadMachine({ module, export: exported });
    return [];
  } catch (thrown) {
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    const instead = 'correct the definition';
    return [{ file: module, line: 1, column: 1, rule: 'machine', severity: 'error', message, instead }];
  }
}
