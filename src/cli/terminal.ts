import { isatty } from 'node:tty';
import picocolors from 'picocolors';
import { onParentGone } from '../process/parent.ts';

/** Colours of picocolors, or functions that change nothing. */
export type Colors = ReturnType<typeof picocolors.createColors>;

/** One output stream as the verbs see it: tests give their own. */
export interface Output {
  write(text: string): void;
  readonly isTTY: boolean;
  readonly colors: Colors;
}

/** Everything outside the program that a verb may touch, so that each can run in a test. */
export interface Terminal {
  /** What was asked for, and nothing else: safe to pipe. */
  readonly out: Output;
  /** Progress, hints and errors. */
  readonly err: Output;
  readonly stdin: () => AsyncIterable<Uint8Array | string>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly nowMs: () => number;
  /** Aborts when the user or the launcher ends a verb that would go on for ever. */
  readonly interrupted: () => AbortSignal;
}

/**
 * Whether to colour: FORCE_COLOR (unless it is 0), else NO_COLOR (https://no-color.org; the empty text says nothing),
 * else whether a person reads the stream.
 */
export function wantsColor(env: Readonly<Record<string, string | undefined>>, isTTY: boolean): boolean {
  const forced = env['FORCE_COLOR'];
  if (forced !== undefined && forced !== '') return forced !== '0' && forced !== 'false';
  const refused = env['NO_COLOR'];
  if (refused !== undefined && refused !== '') return false;
  return isTTY && env['TERM'] !== 'dumb';
}

/** The terminal of this process. */
export function processTerminal(): Terminal {
  return {
    out: outputOf(process.stdout),
    err: outputOf(process.stderr),
    stdin: () => process.stdin,
    env: process.env,
    cwd: process.cwd(),
    nowMs: () => Date.now(),
    interrupted: interruption,
  };
}

function outputOf(stream: NodeJS.WriteStream & { readonly fd: number }): Output {
  const isTTY = isatty(stream.fd);
  return {
    write: (text) => void stream.write(text),
    isTTY,
    colors: picocolors.createColors(wantsColor(process.env, isTTY)),
  };
}

/** The end of a verb that follows something: a signal, or the end of the launcher. */
function interruption(): AbortSignal {
  const controller = new AbortController();
  const end = (): void => controller.abort();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, end);
  onParentGone(end);
  return controller.signal;
}

/** Text that came from a file or another process must not move the cursor or colour the rest. */
export function printable(text: string): string {
  return text.replaceAll(/[^\P{Cc}\n\t]/gu, '�');
}

/** Resolves when the signal aborts, also if it has. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((done) => signal.addEventListener('abort', done, { once: true }));
}
