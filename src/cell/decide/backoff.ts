/** Pause before the first restart of a workload, and the longest one. */
export const backoffMsMin = 100;
export const backoffMsMax = 5_000;

/**
 * Pause before a workload is started again, in whole milliseconds: exponential, with jitter over
 * its upper half, so that the cells of one machine do not start their workloads as one.
 *
 * @param failures starts in a row that did not become healthy, from 1
 * @param random in [0, 1)
 */
export function backoffMs(failures: number, random: number): number {
  const ceilingMs = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(failures - 1, 30));
  return Math.round(ceilingMs / 2 + (random * ceilingMs) / 2);
}
