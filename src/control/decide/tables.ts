import { Type, type Static } from 'typebox';
import { limits } from '../../protocol/limits.ts';
import {
  BlueprintNameSchema,
  CellNameSchema,
  EpochSchema,
  JurisdictionSchema,
  TenantNameSchema,
} from '../../protocol/names.ts';
import {
  BlueprintSpecSchema,
  CellSpecSchema,
  ResourceSchema,
  TenantSpecSchema,
  type BlueprintSpec,
} from '../../protocol/resources.ts';
import type { ViewOf } from '../../machine/decide/definition/define.ts';
import { assert } from '../../kernel/assert.ts';
import { PlacementSchema } from './placement.ts';

/** What the control plane keeps: the rows and events of the fleet machine. `docs/control-plane.md` numbers the rules. */

/** The one instance of the fleet machine in the control log. */
export const fleetInstance = '$fleet';

/** Grows when a control log is restored from a backup; a log that never was stands at the first. */
export const firstGeneration = 1;

/** Cells of one fleet, removed ones included. */
export const cellsMax = 10_000;
/** Tenants of one fleet, removed ones included: as many as one signed snapshot surely holds. */
export const tenantsMax = 300_000;
/** Bytes of a tenant and of a cell in a frame: names of 63, an address of 300, and what JSON puts around them, escaped. */
const routedTenantBytesMax = 200;
const routedCellBytesMax = 420;
assert(
  tenantsMax * routedTenantBytesMax + cellsMax * routedCellBytesMax < limits.frameBytesMax,
  'a snapshot of a full fleet must fit a frame',
);

/** Resources of one apply: each comes to one event at most, and the runtime takes so many events from one command. */
export const applyItemsMax = 10_000;

const VersionSchema = Type.Integer({ minimum: 0 });
const CountSchema = Type.Integer({ minimum: 0 });

export const AddressSchema = Type.String({
  pattern: '^http://[^/?#\\s]+:[0-9]{1,5}$',
  maxLength: 300,
  description: 'http://host:port of a gate',
});

const BlueprintRowSchema = Type.Object({
  name: BlueprintNameSchema,
  spec: BlueprintSpecSchema,
  /** Version of the fleet at which it last changed. */
  version: VersionSchema,
  /** Cells that are stamped from it, removed ones not counted. */
  cells: CountSchema,
});

const CellRowSchema = Type.Object({
  name: CellNameSchema,
  spec: CellSpecSchema,
  version: VersionSchema,
  /** A tombstone: the row stays, because its folder may still hold data. */
  removed: Type.Boolean(),
  address: Type.Optional(AddressSchema),
  /** Users of its tenants, kept with every change, so that no placement adds them up. */
  users: CountSchema,
  tenants: CountSchema,
  /** Tenants whose data rests here: those that live here and those that were removed. */
  resting: CountSchema,
  /** Under which jurisdiction data came here first. */
  dataJurisdiction: Type.Optional(JurisdictionSchema),
  /** What wrote that data, so that nothing else is ever stamped over it. */
  dataKind: Type.Optional(Type.Union([Type.Literal('machine'), Type.Literal('workload')])),
});

const TenantRowSchema = Type.Object({
  name: TenantNameSchema,
  spec: TenantSpecSchema,
  version: VersionSchema,
  removed: Type.Boolean(),
});

const AssignmentRowSchema = Type.Object({
  tenant: TenantNameSchema,
  /** Where the tenant lives; of a removed tenant, where its data rests. */
  cell: CellNameSchema,
  epoch: EpochSchema,
  /** Version at which it was assigned or removed. */
  version: VersionSchema,
  /** Version of the event that says why it was placed here. */
  placedVersion: VersionSchema,
});

const FactsRowSchema = Type.Object({
  key: Type.Literal('fleet'),
  generation: Type.Integer({ minimum: 1 }),
  /** Counts the events: the version of the fleet, and of whatever an event changed. */
  version: VersionSchema,
  /** Version of the last event that changed a route. */
  routingVersion: VersionSchema,
});

export type DataKind = 'machine' | 'workload';
export function dataKindOf(spec: BlueprintSpec): DataKind {
  return 'machine' in spec ? 'machine' : 'workload';
}

export type CellRow = Static<typeof CellRowSchema>;

export const fleetTables = {
  blueprints: { schema: BlueprintRowSchema, key: 'name' },
  cells: { schema: CellRowSchema, key: 'name' },
  tenants: { schema: TenantRowSchema, key: 'name' },
  assignments: { schema: AssignmentRowSchema, key: 'tenant' },
  facts: { schema: FactsRowSchema, key: 'key' },
} as const;
export type FleetState = ViewOf<typeof fleetTables>;

/** Data of each event. One event changes one resource; the events of one command are recorded together. */
export const eventSchemas = {
  blueprintPut: Type.Object({ name: BlueprintNameSchema, spec: BlueprintSpecSchema }),
  blueprintRemoved: Type.Object({ name: BlueprintNameSchema }),
  cellPut: Type.Object({ name: CellNameSchema, spec: CellSpecSchema }),
  cellAddressed: Type.Object({ name: CellNameSchema, address: AddressSchema }),
  cellRemoved: Type.Object({ name: CellNameSchema }),
  /** A new tenant, or a removed one that comes back, with where it goes and why. */
  tenantPlaced: Type.Object({
    name: TenantNameSchema,
    spec: TenantSpecSchema,
    cell: CellNameSchema,
    epoch: EpochSchema,
    placement: PlacementSchema,
  }),
  tenantChanged: Type.Object({ name: TenantNameSchema, spec: TenantSpecSchema }),
  tenantRemoved: Type.Object({ name: TenantNameSchema, epoch: EpochSchema }),
} as const;

export type FleetEvent = {
  readonly [K in keyof typeof eventSchemas]: {
    readonly type: K;
    readonly data: Static<(typeof eventSchemas)[K]>;
  };
}[keyof typeof eventSchemas];

export const KindSchema = Type.Union([Type.Literal('Blueprint'), Type.Literal('Cell'), Type.Literal('Tenant')]);

/** The version that a resource must have for a change to be made; 0 means that it must not exist. */
const ExpectedVersionSchema = Type.Object({
  kind: KindSchema,
  name: Type.String(),
  version: VersionSchema,
});

export const ApplyInputSchema = Type.Object({
  items: Type.Array(ResourceSchema, { maxItems: applyItemsMax }),
  ifVersions: Type.Optional(Type.Array(ExpectedVersionSchema, { maxItems: applyItemsMax })),
});
export const RemoveInputSchema = Type.Object({
  kind: KindSchema,
  name: Type.String(),
  ifVersion: Type.Optional(VersionSchema),
});
export const NoteCellAddressInputSchema = Type.Object({ cell: CellNameSchema, address: AddressSchema });

export type ApplyInput = Static<typeof ApplyInputSchema>;
export type RemoveInput = Static<typeof RemoveInputSchema>;
