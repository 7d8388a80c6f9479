import type { Entry, Final, OrderRow, Outcome, StockRow, Write } from './history.ts';

/**
 * A checker that knows nothing of the code it checks: it holds a model of its own (a stock and a
 * list of orders a tenant) and compares it with every answer that clients were given.
 */

export interface Verdict {
  /** Each a sentence; empty if all is well. */
  readonly violations: readonly string[];
  readonly accepted: number;
  readonly refused: number;
  readonly reads: number;
  /** Writes that some attempt left open: they may have happened before their repeat. */
  readonly open: number;
}

/** All attempts of one write. */
interface Group {
  readonly key: string;
  readonly write: Write;
  readonly attempts: Entry[];
}

/** A write that happened: at `seq`, not before its first attempt began. */
interface Applied {
  readonly seq: number;
  readonly began: number;
}

/** Checks every tenant's history against its final state. */
export function check(entries: readonly Entry[], finals: ReadonlyMap<string, Final>): Verdict {
  const violations: string[] = [];
  const total = { accepted: 0, refused: 0, reads: 0, open: 0 };
  const byTenant = Map.groupBy(entries, ({ tenant }) => tenant);
  for (const [tenant, history] of byTenant) {
    const final = finals.get(tenant);
    if (final === undefined) {
      violations.push(`${tenant}: nothing is known of its final state`);
      continue;
    }
    const say = (text: string): void => void violations.push(`${tenant}: ${text}`);
    const groups = groupByKey(history);
    total.reads += history.filter(({ operation }) => operation.kind !== 'write').length;
    total.open += groups.filter(({ attempts }) => attempts.some(({ outcome }) => isOpen(outcome))).length;
    total.accepted += groups.filter(({ attempts }) =>
      attempts.some(({ outcome }) => outcome.kind === 'accepted'),
    ).length;
    total.refused += groups.filter(({ attempts }) => attempts.some(({ outcome }) => outcome.kind === 'refused')).length;

    checkAnswersAgree(groups, say);
    checkHashes(history, final, say);
    const applied = groups.flatMap(appliedBy);
    checkRealTime(history, applied, final, say);
    const states = checkSequence(groups, final, say);
    if (states === undefined) continue;
    checkFinal(states.at(-1) ?? new Model(), final, say);
    checkRefusals(history, groups, applied, states, say);
    checkRows(history, applied, states, say);
  }
  return { violations, ...total };
}

function appliedBy({ attempts }: Group): readonly Applied[] {
  const accepted = attempts.map(({ outcome }) => outcome).find((outcome) => outcome.kind === 'accepted');
  return accepted === undefined ? [] : [{ seq: accepted.seq, began: Math.min(...attempts.map(({ began }) => began)) }];
}

function isOpen(outcome: Outcome): boolean {
  return outcome.kind === 'failed' || outcome.kind === 'broken';
}

function groupByKey(history: readonly Entry[]): readonly Group[] {
  const groups = new Map<string, Group>();
  for (const entry of history) {
    if (entry.operation.kind !== 'write') continue;
    const { key, write } = entry.operation;
    const group = groups.get(key) ?? { key, write, attempts: [] };
    group.attempts.push(entry);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** Every answer to one key is the same answer, and in the end there is one. */
function checkAnswersAgree(groups: readonly Group[], say: (text: string) => void): void {
  for (const { key, attempts } of groups) {
    const answers = attempts.map(({ outcome }) => outcome).filter((outcome) => !isOpen(outcome));
    const distinct = new Set(answers.map((outcome) => JSON.stringify(outcome)));
    if (distinct.size > 1) say(`key ${key} was answered in ${distinct.size} ways: ${[...distinct].join(' and ')}`);
    if (answers.length === 0) say(`key ${key} was never answered, although it was repeated in the end`);
  }
}

/** At one sequence there is one state hash, whoever tells it and whenever. */
function checkHashes(history: readonly Entry[], final: Final, say: (text: string) => void): void {
  const hashes = new Map([[final.seq, final.stateHash]]);
  for (const { outcome } of history) {
    if (outcome.kind !== 'accepted' && outcome.kind !== 'state') continue;
    const known = hashes.get(outcome.seq);
    if (known !== undefined && known !== outcome.stateHash) {
      say(`two state hashes at seq ${outcome.seq}: ${known} and ${outcome.stateHash}`);
    }
    hashes.set(outcome.seq, outcome.stateHash);
  }
}

/** Whoever starts after an answer was seen sees at least as much: nothing that was shown goes away. */
function checkRealTime(
  history: readonly Entry[],
  applied: readonly Applied[],
  final: Final,
  say: (text: string) => void,
): void {
  const shownAt = history
    .flatMap(({ ended, outcome }) =>
      outcome.kind === 'accepted' || outcome.kind === 'state' ? [{ ended, seq: outcome.seq }] : [],
    )
    .sort((a, b) => a.ended - b.ended);
  const reads = history.flatMap(({ began, outcome }) =>
    outcome.kind === 'state' ? [{ began, seq: outcome.seq, least: 0 }] : [],
  );
  const writes = applied.map(({ began, seq }) => ({ began, seq, least: 1 }));
  let shown = 0;
  let next = 0;
  for (const { began, seq, least } of [...reads, ...writes].sort((a, b) => a.began - b.began)) {
    for (let seen = shownAt[next]; seen !== undefined && seen.ended < began; seen = shownAt[next]) {
      shown = Math.max(shown, seen.seq);
      next += 1;
    }
    if (seq < shown + least)
      say(`a ${least === 0 ? 'read' : 'write'} was answered with seq ${seq} after seq ${shown} had been shown`);
  }
  const last = Math.max(0, ...shownAt.map(({ seq }) => seq));
  if (final.seq < last) say(`seq ${last} had been shown, but the final state is at ${final.seq}`);
}

/**
 * Accepted writes take the sequences 1…n, each exactly one: a lost one leaves a gap or moves the
 * end, one applied twice takes a sequence that no key owns. Returns the state at every sequence.
 */
function checkSequence(
  groups: readonly Group[],
  final: Final,
  say: (text: string) => void,
): readonly Model[] | undefined {
  const bySeq = new Map<number, Group>();
  for (const group of groups) {
    const accepted = group.attempts.map(({ outcome }) => outcome).find((outcome) => outcome.kind === 'accepted');
    if (accepted === undefined) continue;
    if (accepted.events !== 1) say(`key ${group.key} made ${accepted.events} events instead of one`);
    const other = bySeq.get(accepted.seq);
    if (other !== undefined) say(`seq ${accepted.seq} was given to ${other.key} and to ${group.key}`);
    bySeq.set(accepted.seq, group);
  }
  const states = [new Model()];
  for (let seq = 1; seq <= final.seq; seq += 1) {
    const group = bySeq.get(seq);
    const before = states[seq - 1];
    if (group === undefined || before === undefined) {
      say(`seq ${seq} of ${final.seq} belongs to no accepted write: something was applied twice, or was never sent`);
      return undefined;
    }
    if (before.refuses(group.write)) say(`seq ${seq} accepted ${JSON.stringify(group.write)}, which the state forbids`);
    states.push(before.with(group.write));
  }
  const beyond = [...bySeq.keys()].filter((seq) => seq > final.seq);
  if (beyond.length > 0) say(`acknowledged writes are lost: seq ${beyond.join(', ')}, final seq ${final.seq}`);
  return states;
}

function checkFinal(model: Model, final: Final, say: (text: string) => void): void {
  const ids = final.orders.map(({ id }) => id);
  if (new Set(ids).size !== ids.length) say('an order is listed twice');
  for (const kind of ['orders', 'stock'] as const) {
    const [found, expected] = [render(final[kind]), model.rendered(kind)];
    if (found !== expected) say(`${kind}: found ${found} instead of ${expected}`);
  }
}

function render(rows: readonly (OrderRow | StockRow)[]): string {
  return rows
    .map((row) => ('id' in row ? `${row.id}:${row.item}×${row.quantity}` : `${row.item}=${row.quantity}`))
    .sort()
    .join(' ');
}

/** States in which an answer may have been decided: after all it must have seen, before all it could not have. */
function statesAround(
  history: readonly Entry[],
  applied: readonly Applied[],
  states: readonly Model[],
  span: { readonly began: number; readonly ended: number },
): { readonly from: number; readonly to: number; readonly states: readonly Model[] } {
  let from = 0;
  for (const { ended, outcome } of history) {
    if ((outcome.kind === 'accepted' || outcome.kind === 'state') && ended < span.began)
      from = Math.max(from, outcome.seq);
  }
  let to = from;
  for (const { began, seq } of applied) if (began < span.ended) to = Math.max(to, seq);
  return { from, to, states: states.slice(from, to + 1) };
}

/** A no must have been right at some moment between the first request and the answer. */
function checkRefusals(
  history: readonly Entry[],
  groups: readonly Group[],
  applied: readonly Applied[],
  states: readonly Model[],
  say: (text: string) => void,
): void {
  for (const { write, attempts } of groups) {
    const refused = attempts.find(({ outcome }) => outcome.kind === 'refused');
    if (refused === undefined) continue;
    const span = { began: Math.min(...attempts.map(({ began }) => began)), ended: refused.ended };
    const around = statesAround(history, applied, states, span);
    if (!around.states.some((state) => state.refuses(write))) {
      say(`${JSON.stringify(write)} was refused, but no state from seq ${around.from} to ${around.to} forbids it`);
    }
  }
}

/** Rows that a query returned are those of one state between request and answer, never a mixture. */
function checkRows(
  history: readonly Entry[],
  applied: readonly Applied[],
  states: readonly Model[],
  say: (text: string) => void,
): void {
  for (const entry of history) {
    const { outcome } = entry;
    if (outcome.kind !== 'orders' && outcome.kind !== 'stock') continue;
    const around = statesAround(history, applied, states, entry);
    const shown = render(outcome.rows);
    if (!around.states.some((state) => state.rendered(outcome.kind) === shown)) {
      say(`query ${outcome.kind} returned what no state from seq ${around.from} to ${around.to} holds: ${shown}`);
    }
  }
}

/** The orders example, said again: what it must hold after a list of accepted writes. */
class Model {
  readonly #orders: ReadonlyMap<string, OrderRow>;
  readonly #stock: ReadonlyMap<string, number>;
  readonly #rendered = new Map<'orders' | 'stock', string>();

  constructor(orders: ReadonlyMap<string, OrderRow> = new Map(), stock: ReadonlyMap<string, number> = new Map()) {
    this.#orders = orders;
    this.#stock = stock;
  }

  refuses(write: Write): boolean {
    if (write.kind === 'addStock') return false;
    if (write.kind === 'cancelOrder') return !this.#orders.has(write.id);
    return this.#orders.has(write.id) || (this.#stock.get(write.item) ?? 0) < write.quantity;
  }

  with(write: Write): Model {
    const change = (item: string, by: number): ReadonlyMap<string, number> =>
      new Map([...this.#stock, [item, (this.#stock.get(item) ?? 0) + by]]);
    if (write.kind === 'addStock') return new Model(this.#orders, change(write.item, write.quantity));
    if (write.kind === 'placeOrder') {
      const { id, item, quantity } = write;
      return new Model(new Map([...this.#orders, [id, { id, item, quantity }]]), change(item, -quantity));
    }
    const order = this.#orders.get(write.id);
    if (order === undefined) return this;
    return new Model(new Map([...this.#orders].filter(([id]) => id !== write.id)), change(order.item, order.quantity));
  }

  /** All rows of a table as one text; kept, because many reads are compared with one state. */
  rendered(kind: 'orders' | 'stock'): string {
    const rows = (): readonly (OrderRow | StockRow)[] =>
      kind === 'orders' ? [...this.#orders.values()] : [...this.#stock].map(([item, quantity]) => ({ item, quantity }));
    const text = this.#rendered.get(kind) ?? render(rows());
    this.#rendered.set(kind, text);
    return text;
  }
}
