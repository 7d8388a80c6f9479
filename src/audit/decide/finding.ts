import { messageOf } from '../../machine/decide/state/value.ts';

/** One thing that is wrong with a log. */
export interface Finding {
  readonly kind:
    | 'page-damaged'
    | 'record-missing'
    | 'record-unreadable'
    | 'payload-changed'
    | 'payload-missing'
    | 'chain-broken'
    | 'mark-unreadable'
    | 'mark-missing'
    | 'mark-differs'
    | 'log-cut'
    | 'link-broken'
    | 'time-reversed'
    | 'state-differs';
  readonly file: string;
  /** Position of the record, or of the last of those among which it is. */
  readonly position?: number;
  readonly instance?: string;
  /** What was found, in words that name record and file. */
  readonly message: string;
  readonly expected?: string;
  readonly found?: string;
}

/** Findings that are listed; more are counted. */
export const findingsListedMax = 100;
const textLengthMax = 300;

/** Keeps the first findings and counts all. */
export class Findings {
  readonly #listed: Finding[] = [];
  #total = 0;

  add(finding: Finding): void {
    this.#total += 1;
    if (this.#listed.length < findingsListedMax) this.#listed.push(finding);
  }

  get listed(): readonly Finding[] {
    return this.#listed;
  }

  get total(): number {
    return this.#total;
  }
}

/** What stood where something else was expected, short enough for a line. */
export function shown(value: unknown): string {
  let text: string;
  try {
    text = typeof value === 'string' ? value : (JSON.stringify(value) ?? typeof value);
  } catch (thrown) {
    text = messageOf(thrown);
  }
  return text.length <= textLengthMax ? text : `${text.slice(0, textLengthMax)}…`;
}
