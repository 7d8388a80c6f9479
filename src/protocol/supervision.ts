import { Type, type Static } from 'typebox';
import { ProblemSchema } from './problem.ts';

/**
 * What a supervised process tells its host over the IPC channel. The channel's end tells the
 * child that its host died, and it stops.
 */
export const ChildMessageSchema = Type.Union([
  /** Listening; from now on it can be reached. */
  Type.Object({ type: Type.Literal('listening'), url: Type.String(), adminUrl: Type.Optional(Type.String()) }),
  /** It does what it is for, or refuses for a reason that a restart would not change. */
  Type.Object({
    type: Type.Literal('settled'),
    state: Type.Union([Type.Literal('serving'), Type.Literal('refusing')]),
    problem: Type.Optional(ProblemSchema),
  }),
  /** It is about to exit. `restart: never` means that a person has to look first. */
  Type.Object({
    type: Type.Literal('fatal'),
    problem: ProblemSchema,
    restart: Type.Union([Type.Literal('backoff'), Type.Literal('never')]),
  }),
]);
export type ChildMessage = Static<typeof ChildMessageSchema>;

/** What a host asks of a process that it supervises. */
export const HostMessageSchema = Type.Union([Type.Object({ type: Type.Literal('stop') })]);
