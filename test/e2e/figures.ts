import type { Entry } from './history.ts';

export function isFailure({ outcome }: Entry): boolean {
  return outcome.kind === 'failed' || outcome.kind === 'broken';
}

/** How often each failure came, e.g. `{ '503 cell-unreachable': 12 }`. */
export function failureCounts(entries: readonly Entry[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { outcome } of entries) {
    const name =
      outcome.kind === 'failed'
        ? `${outcome.status} ${outcome.code}`
        : outcome.kind === 'broken'
          ? `no answer: ${outcome.reason}`
          : undefined;
    if (name !== undefined) counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

/** A line for people: how much, how fast, and what came back. */
export function summarise(entries: readonly Entry[]): string {
  const began = Math.min(...minMax(entries.map(({ beganMs }) => beganMs)));
  const ended = Math.max(...minMax(entries.map(({ endedMs }) => endedMs)));
  const seconds = (ended - began) / 1000;
  const outcomes: Record<string, number> = {};
  for (const { outcome } of entries) outcomes[outcome.kind] = (outcomes[outcome.kind] ?? 0) + 1;
  const latencies = entries.map(({ beganMs, endedMs }) => endedMs - beganMs).sort((a, b) => a - b);
  const quantile = (share: number): string => `${latencies[Math.floor(latencies.length * share)]?.toFixed(1)} ms`;
  return (
    `${entries.length} requests in ${seconds.toFixed(1)} s (${Math.round(entries.length / seconds)}/s), ` +
    `p50 ${quantile(0.5)}, p99 ${quantile(0.99)}, longest ${latencies.at(-1)?.toFixed(0)} ms, ${JSON.stringify(outcomes)}, ` +
    `failures ${JSON.stringify(failureCounts(entries))}`
  );
}

function minMax(numbers: readonly number[]): readonly [number, number] {
  return numbers.reduce<[number, number]>(
    ([low, high], n) => [Math.min(low, n), Math.max(high, n)],
    [Infinity, -Infinity],
  );
}

/**
 * What is wrong with the answer that a client was given while the cell of its tenant was down, or
 * undefined if INTERFACE.md allows it: 503 with Retry-After, or 502 when it is not known whether
 * the request took effect. `answer-cut` is the 502 of a read, which has no effect to be unsure of.
 */
export function wrongWhileDown({ operation, outcome }: Entry): string | undefined {
  if (outcome.kind === 'broken') return `no answer: ${outcome.reason}`;
  if (outcome.kind !== 'failed') return undefined;
  if (outcome.status === 503) {
    return /^\d+$/.test(outcome.retryAfter ?? '') ? undefined : `503 ${outcome.code} without Retry-After`;
  }
  if (outcome.status === 502 && operation.kind === 'write' && outcome.code === 'outcome-unknown') return undefined;
  if (outcome.status === 502 && operation.kind !== 'write' && outcome.code === 'answer-cut') return undefined;
  return `${outcome.status} ${outcome.code} to a ${operation.kind}`;
}
