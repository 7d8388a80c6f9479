/** One measured stretch of work. Latencies are from the call to its answer. */
export interface Round {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of the whole process, all threads. Says more than the rate when others use the machine as well. */
  readonly cpuMicroseconds: number;
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** The round in the middle, by rate. */
export function medianRound(rounds: readonly Round[]): Round {
  const middle = rounds.toSorted((a, b) => a.perSecond - b.perSecond)[Math.floor(rounds.length / 2)];
  return middle ?? { perSecond: 0, p50Ms: 0, p99Ms: 0, cpuMicroseconds: 0 };
}

/** `cpuBefore` is what `process.cpuUsage()` said when the round began. */
export function roundOf(latenciesMs: Float64Array, elapsedMs: number, cpuBefore: NodeJS.CpuUsage): Round {
  const { user, system } = process.cpuUsage(cpuBefore);
  const sorted = latenciesMs.toSorted();
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return {
    perSecond: (sorted.length / elapsedMs) * 1000,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    cpuMicroseconds: (user + system) / sorted.length,
  };
}

/**
 * A closed loop: `concurrency` callers, each of which sends its next request once its last one was answered. They take
 * their requests from one queue, or, of sides where two commands of one tenant must not meet, each from its own.
 */
export function closedLoop<Request>(
  queues: readonly (readonly Request[])[],
  concurrency: number,
  run: (request: Request, caller: number) => Promise<void>,
): Promise<Round> {
  const count = queues.reduce((sum, { length }) => sum + length, 0);
  const latenciesMs = new Float64Array(count);
  const taken = queues.map(() => 0);
  const cpuBefore = process.cpuUsage();
  const startedMs = performance.now();
  let answered = 0;
  return new Promise((resolve, reject) => {
    const send = (caller: number): void => {
      const queue = caller % queues.length;
      const at = taken[queue] ?? 0;
      const request = queues[queue]?.[at];
      if (request === undefined) return;
      taken[queue] = at + 1;
      const sentMs = performance.now();
      run(request, caller).then(() => {
        latenciesMs[answered] = performance.now() - sentMs;
        answered += 1;
        if (answered === count) resolve(roundOf(latenciesMs, performance.now() - startedMs, cpuBefore));
        else send(caller);
      }, reject);
    };
    for (let caller = 0; caller < concurrency; caller++) send(caller);
  });
}
