import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import type { TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { Fault } from '../../kernel/fault.ts';
import { fault } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { asFault, problemMediaType, problemOf } from '../../protocol/problem.ts';
import { invalidDocument } from '../decide/parse.ts';

/** Every error that leaves the control API, as a problem document. */
export function answerProblem(thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = faultOf(thrown);
  if (error.kind.status >= 500) request.log.error({ err: error.cause ?? error, code: error.code }, error.message);
  if (error.code === 'unauthenticated') void reply.header('www-authenticate', 'Bearer realm="cellwright"');
  if (error.retryAfterMs !== undefined) void reply.header('retry-after', String(Math.ceil(error.retryAfterMs / 1000)));
  return reply
    .code(error.kind.status)
    .type(problemMediaType)
    .send(JSON.stringify(problemOf(error)));
}

export function answerNotFound(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const path = request.url.split('?')[0] ?? '';
  const message = `${request.method} ${path} is nothing that the control API knows. GET /openapi.json lists what there is.`;
  return answerProblem(fault('not-found', message), request, reply);
}

function faultOf(thrown: unknown): Fault {
  if (thrown instanceof Fault || !isFastifyError(thrown)) return asFault(thrown);
  if (thrown.code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return fault('body-too-large', `The body is larger than ${limits.controlBodyBytesMax} bytes. Send it in parts.`);
  }
  if (thrown.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return fault('input-invalid', 'The body must be JSON: send "content-type: application/json".', {
      field: 'content-type',
    });
  }
  if (thrown.code === 'FST_ERR_BAD_URL') {
    return fault(
      'input-invalid',
      'The address is not well-formed: a % stands before what is not a character. Write a % as %25.',
    );
  }
  const status = thrown.statusCode ?? 500;
  if (status < 500)
    return fault('input-invalid', `The body is not well-formed JSON: ${thrown.message}.`, { cause: thrown });
  return asFault(thrown);
}

function isFastifyError(thrown: unknown): thrown is FastifyError {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' && 'statusCode' in thrown;
}

/** The query of an address as its schema has it: texts converted, defaults filled in. Fault `input-invalid` names the field. */
export function parseQuery(schema: TSchema, value: unknown): unknown {
  const query = Value.Default(schema, Value.Convert(schema, Value.Clone(value)));
  if (!Value.Check(schema, query)) throw invalidDocument(schema, query);
  return query;
}
