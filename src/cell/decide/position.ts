import type { RoutingFrame } from '../../protocol/routing.ts';

/** Where a cell stands in the stream of frames. Order: generation first, then version. */
export interface Position {
  readonly generation: number;
  readonly version: number;
}

/**
 * Whether something is missing between what was applied and a change: it is of another generation,
 * of which only a snapshot says what it begins with, or it changes a version that was never seen.
 */
export function isGap(applied: Position, frame: RoutingFrame): boolean {
  if (frame.kind === 'snapshot' || frame.generation < applied.generation) return false;
  return frame.generation > applied.generation || frame.previous > applied.version;
}

/** Whether a frame brings the cell further. What is behind it is taken (epochs decide), but moves no position back. */
export function isAhead(frame: Position, applied: Position): boolean {
  return (
    frame.generation > applied.generation ||
    (frame.generation === applied.generation && frame.version > applied.version)
  );
}
