import { Type } from 'typebox';
import { askControl, type Connection } from './client.ts';

/** Newest events that `get events` shows. */
export const eventsListedMax = 100;
/** Newest events among which those of one resource are looked for: one page of the API. */
export const eventsSearchedMax = 1_000;

const EventPageSchema = Type.Object({ items: Type.Array(Type.Unknown()), version: Type.Integer() });

export interface EventPage {
  readonly items: readonly unknown[];
  readonly version: number;
}

/** The newest events, oldest first. The API reads forward, so the last version is asked for first. */
export async function newestEvents(connection: Connection, countMax: number): Promise<EventPage> {
  const { version } = await askControl(connection, { path: '/v1/events?limit=1' }, EventPageSchema);
  const after = Math.max(0, version - countMax);
  return askControl(connection, { path: `/v1/events?after=${after}&limit=${countMax}` }, EventPageSchema);
}
