import { paintState } from './output.ts';
import { printable, type Output } from './terminal.ts';

/** News while a fleet starts. */
export type StartNews =
  | { readonly type: 'held'; readonly names: readonly string[] }
  | {
      readonly type: 'process';
      readonly name: string;
      /** `starting`, `listening`, `serving`, `refusing`, `backing-off`, `failed`, … */
      readonly phase: string;
      readonly problem: { readonly detail: string } | undefined;
    }
  | { readonly type: 'applied'; readonly resources: number }
  | { readonly type: 'waiting'; readonly for: readonly string[] }
  | { readonly type: 'problem'; readonly problem: { readonly code: string; readonly detail: string } };

interface Entry {
  readonly state: string;
  readonly message: string | undefined;
  /** When it was first heard of, and when it got where it is. */
  readonly fromMs: number;
  readonly atMs: number;
}

const ended = new Set(['serving', 'refusing', 'ready', 'held', 'failed', 'running']);
/** Lines of the live list; more processes are counted below it. */
export const linesMax = 20;
const redrawIntervalMs = 100;

/**
 * Shows how a fleet starts: on a terminal a list that is redrawn in place, elsewhere a line for each change. Writes to
 * `output` only (standard error), so that standard output stays clean.
 */
export class Progress {
  readonly #output: Output;
  readonly #nowMs: () => number;
  readonly #entries = new Map<string, Entry>();
  readonly #startMs: number;
  #drawn = 0;
  #ended = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(output: Output, nowMs: () => number) {
    this.#output = output;
    this.#nowMs = nowMs;
    this.#startMs = nowMs();
  }

  take(news: StartNews): void {
    if (news.type === 'process') this.#enter(news.name, news.phase, news.problem?.detail);
    else if (news.type === 'held') for (const name of news.names) this.#enter(name, 'held', undefined);
    else if (news.type === 'applied') this.#note(`applied ${news.resources} resources`);
    else if (news.type === 'problem') this.#note(`${news.problem.code}: ${news.problem.detail}`);
    else this.#waitingFor(news.for);
  }

  #waitingFor(names: readonly string[]): void {
    for (const name of names)
      if (!this.#entries.has(name) && !name.includes(' ')) this.#enter(name, 'waiting', undefined);
    const others = names.filter((name) => name.includes(' '));
    if (others.length > 0) this.#note(`waiting for ${others.join(', ')}`);
  }

  #enter(name: string, state: string, message: string | undefined): void {
    const nowMs = this.#nowMs();
    const before = this.#entries.get(name);
    if (before?.state === state && before.message === message) return;
    this.#entries.set(name, { state, message, fromMs: before?.fromMs ?? nowMs, atMs: nowMs });
    if (!this.#isLive) {
      const { colors } = this.#output;
      const why = message === undefined ? '' : `: ${printable(message)}`;
      this.#output.write(`${seconds(nowMs - this.#startMs)} ${printable(name)} ${paintState(state, colors)}${why}\n`);
      return;
    }
    this.#redraw();
    this.#timer ??= setInterval(() => this.#redraw(), redrawIntervalMs).unref();
  }

  /** What belongs to no process: a line above the list. */
  #note(text: string): void {
    const line = `${seconds(this.#nowMs() - this.#startMs)} ${printable(text)}\n`;
    if (this.#isLive) this.#redraw(line);
    else this.#output.write(line);
  }

  /** Leaves the list as it is; what happens from now on is a line each. */
  end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    if (this.#isLive && this.#entries.size > 0) this.#redraw();
    this.#ended = true;
  }

  get #isLive(): boolean {
    return this.#output.isTTY && !this.#ended;
  }

  #redraw(above = ''): void {
    const lines = this.lines();
    const up = this.#drawn === 0 ? '' : `\u001B[${this.#drawn}A\u001B[J`;
    this.#output.write(up + above + lines.map((line) => `\r\u001B[2K${line}\n`).join(''));
    this.#drawn = lines.length;
  }

  /** The list as it would be drawn now. What is not ready comes first when there is not room for all. */
  lines(): readonly string[] {
    const { colors } = this.#output;
    const nowMs = this.#nowMs();
    const all = [...this.#entries];
    const shown =
      all.length <= linesMax
        ? all
        : [
            ...all.filter(([, { state }]) => !ended.has(state)),
            ...all.filter(([, { state }]) => ended.has(state)),
          ].slice(0, linesMax);
    const nameWidth = Math.max(...shown.map(([name]) => name.length));
    const stateWidth = Math.max(...shown.map(([, { state }]) => state.length));
    const lines = shown.map(([name, { state, message, fromMs, atMs }]) => {
      const isEnded = ended.has(state);
      const mark = !isEnded
        ? colors.yellow('…')
        : state === 'serving' || state === 'ready' || state === 'running'
          ? colors.green('✓')
          : colors.red('!');
      const time = seconds((isEnded ? atMs : nowMs) - fromMs);
      const why = message === undefined ? '' : `  ${colors.dim(printable(message).replaceAll('\n', ' ').slice(0, 60))}`;
      return `${mark} ${printable(name).padEnd(nameWidth)}  ${paintState(state, colors)}${' '.repeat(stateWidth - state.length)}  ${colors.dim(time)}${why}`;
    });
    if (shown.length < all.length) lines.push(colors.dim(`  and ${all.length - shown.length} more`));
    return lines;
  }
}

function seconds(ms: number): string {
  return `${(Math.max(0, ms) / 1000).toFixed(1).padStart(5)}s`;
}
