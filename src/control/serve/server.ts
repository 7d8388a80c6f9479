import swagger from '@fastify/swagger';
import Fastify, { LogController, type FastifyBaseLogger } from 'fastify';
import { Type, type TSchema } from 'typebox';
import { fault } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { problemMediaType, ProblemSchema } from '../../protocol/problem.ts';
import type { Signer } from '../../trust/signature.ts';
import { reportersMax } from '../decide/reported.ts';
import { cellsMax } from '../decide/tables.ts';
import { admit } from './access.ts';
import { addFleet } from './fleet-api.ts';
import { Frames } from './frames.ts';
import type { ControlApp, Parts } from './parts.ts';
import type { Plane } from './plane.ts';
import { answerNotFound, answerProblem, parseQuery } from './problems.ts';
import { addResources } from './resources-api.ts';
import { StreamHub } from './sse.ts';
import { Watches } from './watch.ts';

/** Every cell, host and router follows one stream; twice that, because a broken one may linger while its follower is back. */
export const followerStreamsMax = 2 * (cellsMax + 2 * reportersMax);
export const watcherStreamsMax = 256;
/** Of one agent, which needs one, and a second while a broken one lingers. One token must not take the streams of all. */
export const agentStreamsMax = 8;

export interface ControlServerOptions {
  readonly plane: Plane;
  readonly signer: Signer;
  /** The fleet's secret from which tokens are derived. */
  readonly secret: Uint8Array;
  readonly listen: { readonly host: string; readonly port: number };
  readonly log: FastifyBaseLogger;
}

export interface ControlServer {
  readonly url: string;
  /** Ends every stream and connection. */
  stop(): Promise<void>;
}

/** Listens with the control API. Fault `port-in-use` names the option that chooses another port. */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  const { plane } = options;
  const watches = new Watches(plane);
  const frames = new Frames(plane, options.signer);
  const parts: Parts = {
    plane,
    frames,
    watches,
    followers: new StreamHub({ max: followerStreamsMax, agentMax: agentStreamsMax }),
    watchers: new StreamHub({ max: watcherStreamsMax, onBeat: () => watches.tellStatuses() }),
  };
  const letGo = (): void => {
    parts.followers.close();
    parts.watchers.close();
    watches.close();
    frames.close();
  };
  const app: ControlApp = Fastify({
    loggerInstance: options.log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: limits.controlBodyBytesMax,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 256 },
    // An address that is not well-formed never comes to a route, nor to the handler of errors.
    frameworkErrors: (error, request, reply) => void answerProblem(error, request, reply),
  });
  app.decorateRequest('principal', undefined);
  // Bodies are parsed by the room's own parser, which names fields as people write them.
  app.setValidatorCompiler<TSchema>(({ schema, httpPart }) => (value: unknown) => ({
    value: httpPart === 'body' ? value : parseQuery(schema, value),
  }));
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.setErrorHandler((error, request, reply) => answerProblem(error, request, reply));
  app.setNotFoundHandler((request, reply) => answerNotFound(request, reply));
  app.addHook('onRequest', (request, _reply, done) => {
    request.principal = admit(request, options.secret);
    done();
  });
  app.addHook('preClose', (done) => {
    letGo();
    done();
  });
  try {
    await app.register(swagger, { openapi: openApiHead });
    app.register((scope, _options, done) => {
      addHealth(scope, plane);
      addResources(scope, parts);
      addFleet(scope, parts);
      done();
    });
    const url = await app.listen(options.listen);
    return { url, stop: () => app.close() };
  } catch (thrown) {
    await app.close();
    const { host, port } = options.listen;
    if (thrown instanceof Error && 'code' in thrown && thrown.code === 'EADDRINUSE') {
      throw fault(
        'port-in-use',
        `The control plane cannot listen on ${host}:${port}, because another program does. Stop that one, or choose another port with --control-port.`,
        { field: '--control-port', cause: thrown },
      );
    }
    throw thrown;
  }
}

const openApiHead = {
  openapi: '3.1.0',
  info: {
    title: 'Cellwright control plane',
    version: '1',
    description: `Errors are ${problemMediaType} (RFC 9457) with a stable code; docs/errors.md lists the codes.`,
  },
  components: {
    securitySchemes: { token: { type: 'http' as const, scheme: 'bearer' } },
  },
  security: [{ token: [] }],
};

const OkSchema = Type.Object({ status: Type.Literal('ok'), version: Type.Integer() });

function addHealth(app: ControlApp, plane: Plane): void {
  for (const path of ['/livez', '/readyz']) {
    app.get(
      path,
      {
        config: { access: 'open' },
        schema: { tags: ['health'], security: [], response: { 200: OkSchema, 503: ProblemSchema } },
      },
      () => ({ status: 'ok' as const, version: plane.model.version }),
    );
  }
  app.get('/openapi.json', { config: { access: 'open' }, schema: { hide: true } }, () => app.swagger());
}
