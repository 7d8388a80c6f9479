import { Type, type Static } from 'typebox';
import { CellNameSchema } from './names.ts';
import { ConditionSchema } from './resources.ts';
import { ProblemSchema } from './problem.ts';

/**
 * What a process pushes to the control plane: at once when it changes, and every
 * `statusIntervalMs`. Kept in memory only; silence for `statusStaleMs` reads as unknown, never as gone.
 */
const applied = Type.Object({ generation: Type.Integer(), version: Type.Integer() });

export const RouterStatusSchema = Type.Object({
  kind: Type.Literal('router'),
  name: Type.String(),
  pid: Type.Integer(),
  applied,
  tableHash: Type.String(),
});

export const CellStatusSchema = Type.Object({
  kind: Type.Literal('cell'),
  name: CellNameSchema,
  pid: Type.Integer(),
  applied,
  state: Type.Union([Type.Literal('starting'), Type.Literal('serving'), Type.Literal('refusing')]),
  blueprintVersion: Type.Integer(),
  tenants: Type.Integer(),
  conditions: Type.Array(ConditionSchema),
  problem: Type.Optional(ProblemSchema),
});

export const HostStatusSchema = Type.Object({
  kind: Type.Literal('host'),
  name: Type.String(),
  pid: Type.Integer(),
  cells: Type.Array(
    Type.Object({
      name: CellNameSchema,
      /** Where the gate listens: the host chose it, and keeps it across restarts. */
      address: Type.String(),
      process: Type.Union([
        Type.Literal('running'),
        Type.Literal('starting'),
        Type.Literal('backing-off'),
        Type.Literal('held'),
        Type.Literal('failed'),
      ]),
      restarts: Type.Integer(),
    }),
  ),
});

export const StatusSchema = Type.Union([RouterStatusSchema, CellStatusSchema, HostStatusSchema]);
export type RouterStatus = Static<typeof RouterStatusSchema>;
export type CellStatus = Static<typeof CellStatusSchema>;
export type HostStatus = Static<typeof HostStatusSchema>;
export type Status = Static<typeof StatusSchema>;
