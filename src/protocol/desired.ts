import { Type, type Static } from 'typebox';
import { BlueprintNameSchema, CellNameSchema, FleetIdSchema } from './names.ts';
import { BlueprintSpecSchema, CellSpecSchema } from './resources.ts';

/**
 * Desired state, pulled from the control plane by hosts and cells and kept on their disks. Each
 * document is complete and replaces the one before if its (generation, version) is not older.
 */
const head = {
  fleet: FleetIdSchema,
  generation: Type.Integer({ minimum: 1 }),
  version: Type.Integer({ minimum: 0 }),
};

/** What a cell is to be. Its tenants come separately, as routing frames of its own scope. */
export const CellDesiredSchema = Type.Object({
  kind: Type.Literal('cell-desired'),
  ...head,
  cell: CellNameSchema,
  spec: CellSpecSchema,
  blueprint: Type.Object({
    name: BlueprintNameSchema,
    spec: BlueprintSpecSchema,
    /** Version of the fleet at which the blueprint last changed: names a stamp. */
    version: Type.Integer({ minimum: 0 }),
  }),
});

/** Which cells a host runs. A cell leaves the list only as `retired`. */
export const HostDesiredSchema = Type.Object({
  kind: Type.Literal('host-desired'),
  ...head,
  host: Type.String(),
  cells: Type.Array(
    Type.Object({ name: CellNameSchema, state: Type.Union([Type.Literal('wanted'), Type.Literal('retired')]) }),
  ),
});

export type CellDesired = Static<typeof CellDesiredSchema>;
export type HostDesired = Static<typeof HostDesiredSchema>;
