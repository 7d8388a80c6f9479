import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { assert } from '../../kernel/assert.ts';
import { eventSchemas, type FleetEvent } from './tables.ts';

/** An event with its number, which is the version of the fleet after it. */
export type NumberedFleetEvent = FleetEvent & { readonly seq: number };

/** The events of one command, recorded together: all of them happened, or none. */
export interface FleetRecord {
  /** Milliseconds since 1970. */
  readonly now: number;
  readonly events: readonly NumberedFleetEvent[];
}

const numbered = <Name extends string, Data extends (typeof eventSchemas)[keyof typeof eventSchemas]>(
  type: Name,
  data: Data,
) => Type.Object({ seq: Type.Integer(), type: Type.Literal(type), data });

const validator = Compile(
  Type.Union([
    numbered('blueprintPut', eventSchemas.blueprintPut),
    numbered('blueprintRemoved', eventSchemas.blueprintRemoved),
    numbered('cellPut', eventSchemas.cellPut),
    numbered('cellAddressed', eventSchemas.cellAddressed),
    numbered('cellRemoved', eventSchemas.cellRemoved),
    numbered('tenantPlaced', eventSchemas.tenantPlaced),
    numbered('tenantChanged', eventSchemas.tenantChanged),
    numbered('tenantRemoved', eventSchemas.tenantRemoved),
  ]),
);

/** A record as the log gives it, with the types of the fleet machine. O(events). */
export function readRecord(record: {
  readonly now: number;
  readonly events: readonly { readonly seq: number; readonly type: string; readonly data: unknown }[];
}): FleetRecord {
  return { now: record.now, events: record.events.map(readEvent) };
}

function readEvent(event: unknown): NumberedFleetEvent {
  assert(validator.Check(event), 'the log of the fleet machine holds only events of the fleet machine');
  return event;
}
