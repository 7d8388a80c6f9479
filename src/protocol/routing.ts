import { Type, type Static } from 'typebox';
import { CellNameSchema, EpochSchema, FleetIdSchema, TenantNameSchema } from './names.ts';

/**
 * The routing table as it travels: a signed snapshot, then signed changes. Whoever holds the
 * frames can prove the table, so anybody may carry them and routers keep them as they came.
 *
 * `scope` is absent for the whole table; a cell pulls the frames of its own tenants only.
 * Nothing is removed by absence: a removal is an entry with `removed: true` and a higher epoch.
 */
export const RoutedCellSchema = Type.Union([
  Type.Object({ name: CellNameSchema, address: Type.String({ description: 'http://host:port of the gate' }) }),
  Type.Object({ name: CellNameSchema, removed: Type.Literal(true) }),
]);

export const AssignmentSchema = Type.Object({ tenant: TenantNameSchema, cell: CellNameSchema, epoch: EpochSchema });
export const RoutedTenantSchema = Type.Union([
  AssignmentSchema,
  Type.Object({ tenant: TenantNameSchema, epoch: EpochSchema, removed: Type.Literal(true) }),
]);

const frameHead = {
  fleet: FleetIdSchema,
  scope: Type.Optional(Type.Object({ cell: CellNameSchema })),
  generation: Type.Integer({ minimum: 1 }),
  version: Type.Integer({ minimum: 0 }),
  cells: Type.Array(RoutedCellSchema),
  tenants: Type.Array(RoutedTenantSchema),
  /** Hash of the whole table after this frame (`tableHash`), so that a lost change is noticed. */
  hash: Type.String(),
};

export const RoutingSnapshotSchema = Type.Object({ kind: Type.Literal('snapshot'), ...frameHead });
export const RoutingChangeSchema = Type.Object({
  kind: Type.Literal('change'),
  /** The version to which this change applies; any other means that something was missed. */
  previous: Type.Integer({ minimum: 0 }),
  ...frameHead,
});
export const RoutingFrameSchema = Type.Union([RoutingSnapshotSchema, RoutingChangeSchema]);

/** A document with its Ed25519 signature. `payload` is signed byte for byte as it stands. */
export const SignedSchema = Type.Object({
  payload: Type.String(),
  signature: Type.String({ description: 'Ed25519 over the UTF-8 bytes of payload, base64' }),
  key: Type.String({ description: 'Identifier of the signing key' }),
});

export type RoutedCell = Static<typeof RoutedCellSchema>;
export type RoutedTenant = Static<typeof RoutedTenantSchema>;
export type RoutingSnapshot = Static<typeof RoutingSnapshotSchema>;
export type RoutingChange = Static<typeof RoutingChangeSchema>;
export type RoutingFrame = Static<typeof RoutingFrameSchema>;
export type Signed = Static<typeof SignedSchema>;
