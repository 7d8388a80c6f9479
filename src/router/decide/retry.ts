import { unreachable } from '../../kernel/assert.ts';
import { isCellName, type CellName, type Epoch } from '../../protocol/names.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';

/** Whose the tenant is, according to somebody, at an epoch. */
export interface KnownOwner {
  readonly cell: CellName;
  readonly epoch: Epoch;
}

/** What one attempt at a cell came to. The first three are said by a gate itself, never by an application. */
export type Outcome =
  /** The gate does not own the tenant, or was not the cell that was meant. */
  | { readonly kind: 'not-owner'; readonly assignment: KnownOwner | undefined }
  /** The gate has not yet seen the epoch of the request. */
  | { readonly kind: 'cell-behind' }
  | { readonly kind: 'cell-not-ready' }
  /** Not a byte was sent. */
  | { readonly kind: 'never-connected' }
  /** The connection was lost, or time ran out, after the request was or may have been sent. */
  | { readonly kind: 'ambiguous'; readonly timedOut: boolean }
  /** The cell has as many requests of this router as it may have at once. */
  | { readonly kind: 'at-limit' }
  | { readonly kind: 'answered' };

/** What has been done for a request so far. */
export interface Progress {
  readonly method: string;
  /** Whether everything that was sent is still at hand: a held body, or one of which nothing was read yet. */
  readonly replayable: boolean;
  /** Owner to which the attempt went. */
  readonly followed: KnownOwner;
  /** Owner in the routing table now: it may have changed during the attempt. */
  readonly table: KnownOwner | undefined;
  /** Refusals followed so far. */
  readonly hops: number;
  /** Times that the request was repeated after a lost connection. */
  readonly repeats: number;
  /** Time since the request, with its body if that is held, had arrived, in milliseconds. */
  readonly elapsedMs: number;
}

export type NextStep =
  | { readonly kind: 'relay' }
  | { readonly kind: 'follow'; readonly owner: KnownOwner }
  /** The same cell again. `offerFrames`: bring it the signed frames of the tenant first. */
  | { readonly kind: 'wait'; readonly delayMs: number; readonly offerFrames: boolean }
  /** The same cell again at once, on a connection that was never used. */
  | { readonly kind: 'repeat' }
  | { readonly kind: 'answer'; readonly code: ErrorCode; readonly retryAfterMs: number | undefined };

/** Pause between attempts at a cell that starts or is behind. */
export const settleDelayMs = 50;
/** Repeats of a read whose connection was lost. */
export const repeatsMax = 1;
/** What Retry-After says when nothing better is known: about what a restart takes. */
export const retryAfterMs = 1_000;

const reads: ReadonlySet<string> = new Set(['GET', 'HEAD']);

/**
 * What to do after an attempt. A write is sent a second time only if a gate refused it before the
 * application saw a byte, or if nothing was sent. In total a request waits at most
 * `limits.settleWaitMsMax` between attempts and follows at most `limits.hopsMax` refusals.
 */
export function nextStep(outcome: Outcome, progress: Progress): NextStep {
  switch (outcome.kind) {
    case 'answered':
      return { kind: 'relay' };
    case 'not-owner':
      return afterNotOwner(outcome.assignment, progress);
    case 'cell-behind':
      return settle(progress, true, { kind: 'answer', code: 'assignment-unsettled', retryAfterMs });
    case 'cell-not-ready':
      return settle(progress, false, { kind: 'answer', code: 'cell-not-ready', retryAfterMs });
    case 'never-connected':
      return { kind: 'answer', code: 'cell-unreachable', retryAfterMs };
    case 'at-limit':
      return { kind: 'answer', code: 'limit-exceeded', retryAfterMs };
    case 'ambiguous':
      return afterLoss(outcome.timedOut, progress);
    default:
      return unreachable(outcome, 'every outcome of an attempt is handled');
  }
}

function afterNotOwner(said: KnownOwner | undefined, progress: Progress): NextStep {
  const unsettled: NextStep = { kind: 'answer', code: 'assignment-unsettled', retryAfterMs };
  if (!progress.replayable) return unsettled;
  const newest = newer(said, progress.table);
  if (newest !== undefined && newest.epoch > progress.followed.epoch) {
    return progress.hops < limits.hopsMax ? { kind: 'follow', owner: newest } : unsettled;
  }
  return settle(progress, false, unsettled);
}

function afterLoss(timedOut: boolean, progress: Progress): NextStep {
  if (!reads.has(progress.method)) return { kind: 'answer', code: 'outcome-unknown', retryAfterMs: undefined };
  if (timedOut) return { kind: 'answer', code: 'cell-timeout', retryAfterMs };
  if (progress.replayable && progress.repeats < repeatsMax) return { kind: 'repeat' };
  return { kind: 'answer', code: 'answer-cut', retryAfterMs };
}

function settle(progress: Progress, offerFrames: boolean, otherwise: NextStep): NextStep {
  if (!progress.replayable || progress.elapsedMs + settleDelayMs > limits.settleWaitMsMax) return otherwise;
  return { kind: 'wait', delayMs: settleDelayMs, offerFrames };
}

function newer(a: KnownOwner | undefined, b: KnownOwner | undefined): KnownOwner | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return b.epoch > a.epoch ? b : a;
}

/** Reads `CELL EPOCH`, the value of the header in which a gate says whose the tenant is. */
export function parseAssignment(text: string | undefined): KnownOwner | undefined {
  const match = /^(\S+) ([1-9]\d{0,15})$/.exec(text ?? '');
  const [, cell = '', digits = ''] = match ?? [];
  const epoch = Number(digits);
  return isCellName(cell) && Number.isSafeInteger(epoch) && epoch > 0 ? { cell, epoch } : undefined;
}
