import type { FastifyBaseLogger, FastifyInstance, FastifyRequest, RawServerDefault } from 'fastify';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Frames } from './frames.ts';
import type { Plane } from './plane.ts';
import type { StreamHub } from './sse.ts';
import type { Watches } from './watch.ts';

export type ControlApp = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** What the routes of the API work with. */
export interface Parts {
  readonly plane: Plane;
  readonly frames: Frames;
  readonly watches: Watches;
  /** Streams of agents: routers, cells, hosts. */
  readonly followers: StreamHub;
  /** Streams of people and their tools. */
  readonly watchers: StreamHub;
}

/** A header that is sent once; of a repeated one, the first. */
export function headerOf(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}
