import type { RecordHead } from '../../machine/decide/log/record.ts';
import { decodePayload } from '../../machine/decide/log/record.ts';
import type { ProvenRow } from './chain-proof.ts';

/** One record as a listing shows it. */
export interface RecordLine {
  readonly position: number;
  readonly now: number;
  readonly seqBefore: number;
  readonly seqAfter: number;
  readonly machineVersion: number;
  /** State hash after it. */
  readonly stateHash: string;
  /** Absent if the payload was erased. */
  readonly said?: {
    readonly command: string;
    readonly input: unknown;
    readonly key?: string;
    readonly timer?: string;
    readonly outcome:
      | { readonly kind: 'accepted'; readonly events: readonly string[] }
      | { readonly kind: 'refused'; readonly code: string; readonly reason?: string; readonly message: string }
      | { readonly kind: 'upgraded'; readonly fromVersion: number };
    /** Refusals since the record before that were not recorded. */
    readonly skipped?: number;
    /** Invariants in shadow mode that it broke. */
    readonly shadow?: readonly string[];
  };
}

/** What a record says, for a listing. Fault `log-damaged` if its payload cannot be read. */
export function recordLine({ head, payload }: ProvenRow): RecordLine {
  const line = headLine(head);
  if (payload === undefined) return line;
  const { command, input, key, outcome, context } = decodePayload(head.position, payload);
  const { timer, skipped, shadow } = context;
  const told =
    outcome.kind === 'accepted'
      ? { kind: outcome.kind, events: outcome.events.map(({ type }) => type) }
      : outcome.kind === 'refused'
        ? {
            kind: outcome.kind,
            code: outcome.code,
            message: outcome.message,
            ...(outcome.reason === undefined ? {} : { reason: outcome.reason }),
          }
        : outcome;
  return {
    ...line,
    said: {
      command,
      input,
      ...(key === undefined ? {} : { key }),
      ...(timer === undefined ? {} : { timer }),
      outcome: told,
      ...(skipped === undefined ? {} : { skipped }),
      ...(shadow === undefined ? {} : { shadow }),
    },
  };
}

function headLine({ position, now, seqBefore, hashes, machineVersion }: RecordHead): RecordLine {
  const stateHash = hashes[hashes.length - 1] ?? '';
  return { position, now, seqBefore, seqAfter: seqBefore + hashes.length - 1, machineVersion, stateHash };
}
