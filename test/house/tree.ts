import { readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The checkout as house rules see it: files that git tracks or would track, with their text. */
export const root: string = fileURLToPath(new URL('../../', import.meta.url));

export interface TextFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

const textEndings = /\.(ts|js|json|md|yaml|yml|html|css)$|^bin\/cellwright$|^\.ci\/run$/;

/** Paths of everything that git tracks or would track. */
export function tracked(): readonly string[] {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  return [...new Set(listed.split('\0'))].filter((path) => path !== '');
}

export function files(pattern: RegExp = textEndings): readonly TextFile[] {
  return tracked()
    .filter((path) => textEndings.test(path) && pattern.test(path) && path !== 'package-lock.json')
    .flatMap((path) => {
      const text = readOrNothing(path);
      return text === undefined ? [] : [{ path, text, lines: text.split('\n') }];
    });
}

/** A file that git lists may have been deleted in the work tree. */
function readOrNothing(path: string): string | undefined {
  try {
    return readFileSync(`${root}/${path}`, 'utf8');
  } catch {
    return undefined;
  }
}

/** Every line that matches, as `path:line: text`: what a rule that bans something reports. */
export function offences(of: readonly TextFile[], pattern: RegExp): readonly string[] {
  return of.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
}
