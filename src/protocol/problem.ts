import { Type, type Static } from 'typebox';
import { Fault } from '../kernel/fault.ts';
import { errorTable, fault, type ErrorCode } from './errors.ts';

/** RFC 9457 problem details: the body of every error, `application/problem+json`. */
export const ProblemSchema = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String(),
  detail: Type.String(),
  reaction: Type.String(),
  field: Type.Optional(Type.String()),
  retryAfterMs: Type.Optional(Type.Integer()),
});
export type Problem = Static<typeof ProblemSchema>;

export const problemMediaType = 'application/problem+json';

/** The problem document of a fault. Causes and stacks stay in the log of the process. */
export function problemOf(error: Fault): Problem {
  return {
    type: `https://cellwright.dev/errors/${error.code}`,
    title: error.kind.title,
    status: error.kind.status,
    code: error.code,
    detail: error.message,
    reaction: error.kind.reaction,
    ...(error.field === undefined ? {} : { field: error.field }),
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
  };
}

/** The fault in whatever was thrown: itself, or `internal` around what nobody foresaw. */
export function asFault(thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return fault('internal', `${errorTable.internal.title}: ${text}`, { cause: thrown });
}

/** The fault that a problem document tells of; unknown codes keep their name. */
export function faultOf(problem: Problem): Fault {
  const options = { field: problem.field, retryAfterMs: problem.retryAfterMs };
  if (isErrorCode(problem.code)) return fault(problem.code, problem.detail, options);
  return new Fault(
    problem.code,
    { ...errorTable.internal, status: problem.status, title: problem.title },
    problem.detail,
    options,
  );
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}
