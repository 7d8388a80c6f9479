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

/** Quarantined tenants and invariants that a status names; there may be more. */
export const quarantinedListedMax = 50;
export const invariantsListedMax = 64;

/** What a machine cell says of its machine. */
export const MachineStatusSchema = Type.Object({
  /** Tenants whose state drifted: refused until an operator ends it. */
  quarantined: Type.Object({
    total: Type.Integer(),
    tenants: Type.Array(
      Type.Object({ tenant: Type.String(), since: Type.String(), reason: Type.String(), evidence: Type.String() }),
      { maxItems: quarantinedListedMax },
    ),
  }),
  /** Since the process started: commands that an invariant refused, and those that one in shadow mode would have. */
  invariants: Type.Array(Type.Object({ name: Type.String(), violations: Type.Integer(), reports: Type.Integer() }), {
    maxItems: invariantsListedMax,
  }),
  /** Absent if no replica verifies this cell. */
  replica: Type.Optional(
    Type.Object({
      state: Type.Union([Type.Literal('starting'), Type.Literal('verifying'), Type.Literal('off')]),
      verified: Type.Integer(),
      skipped: Type.Integer(),
      fellBehind: Type.Integer(),
      captures: Type.Integer(),
      restarts: Type.Integer(),
      following: Type.Integer(),
      waiting: Type.Integer(),
    }),
  ),
});
export type MachineStatus = Static<typeof MachineStatusSchema>;

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
  machine: Type.Optional(MachineStatusSchema),
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
