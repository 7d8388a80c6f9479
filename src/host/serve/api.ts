import Fastify, { type FastifyInstance } from 'fastify';
import { fault } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { asFault, problemMediaType, problemOf } from '../../protocol/problem.ts';
import { readToken } from '../../trust/token.ts';
import { isRunning } from '../decide/supervise.ts';
import type { ProcessView, Supervisor } from './supervisor.ts';

/** How long an answer waits for a process to be stopped: its grace, the kill after it, and some room. */
export const stopWaitMsMax = limits.stopGraceMs + 2_000;
/** How long an answer waits for a process to be settled again, before it says 202. */
export const startWaitMsMax = 10_000;

/** A process as the host's API shows it. */
export interface ProcessItem {
  readonly name: string;
  readonly state: string;
  readonly held: boolean;
  readonly pid: number | null;
  readonly url: string | null;
  readonly restarts: number;
  readonly problem: ReturnType<typeof problemOf> | null;
}

export function itemOf(process: ProcessView): ProcessItem {
  return {
    name: process.name,
    state: process.held && !isRunning(process) ? 'held' : process.phase,
    held: process.held,
    pid: process.pid ?? null,
    url: process.url ?? null,
    restarts: process.restarts,
    problem: process.problem ?? null,
  };
}

/**
 * The host's own API, for `cellwright stop` and `start`. It has a port of its own on this machine
 * because it must work without the control plane. Every request needs the administrator's token.
 */
export async function serveApi(options: {
  readonly address: string;
  readonly port: number;
  readonly secret: Uint8Array;
  readonly supervisor: Supervisor;
}): Promise<FastifyInstance> {
  const { supervisor } = options;
  const server = Fastify({ forceCloseConnections: true, bodyLimit: 1024 });

  server.setErrorHandler((thrown, _request, reply) => {
    const problem = problemOf(asFault(thrown));
    return reply.code(problem.status).type(problemMediaType).send(JSON.stringify(problem));
  });
  server.setNotFoundHandler((request) => {
    throw fault('not-found', `The host has nothing at ${request.url}.`);
  });
  server.addHook('onRequest', async (request) => {
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1];
    const principal = token === undefined ? undefined : readToken(options.secret, token);
    if (principal === undefined) {
      throw fault('unauthenticated', 'The host needs the token that stands in the data folder.');
    }
    if (principal.role !== 'admin') throw fault('forbidden', 'Only the administrator may stop and start processes.');
  });

  const known = (name: string): ProcessView => {
    const process = supervisor.process(name);
    if (process !== undefined) return process;
    const names = supervisor.processes().map((each) => each.name);
    throw fault('resource-unknown', `No process is named ${name}. There are: ${names.join(', ')}.`, { field: 'name' });
  };

  server.get('/v1/processes', () => ({ items: supervisor.processes().map(itemOf) }));

  server.post<{ Params: { name: string } }>('/v1/processes/:name/stop', async (request, reply) => {
    const { name } = known(request.params.name);
    await supervisor.hold(name);
    const done = await supervisor.until(() => !isRunning(known(name)), stopWaitMsMax);
    return reply.code(done ? 200 : 202).send(itemOf(known(name)));
  });

  server.post<{ Params: { name: string } }>('/v1/processes/:name/start', async (request, reply) => {
    const { name } = known(request.params.name);
    await supervisor.release(name);
    const arrived = (): boolean => ['serving', 'refusing', 'failed'].includes(known(name).phase);
    const done = await supervisor.until(arrived, startWaitMsMax);
    const process = known(name);
    if (process.phase === 'failed') {
      throw fault('start-failed', `${name} does not start: ${process.problem?.detail ?? 'it gave no reason'}`);
    }
    return reply.code(done ? 200 : 202).send(itemOf(process));
  });

  await server.listen({ host: options.address, port: options.port });
  return server;
}
