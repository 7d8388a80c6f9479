import { Type, type Static } from 'typebox';
import { BlueprintNameSchema, CellNameSchema, JurisdictionSchema, TenantNameSchema } from './names.ts';

/** What people write in files and PUT to the control plane. Unknown fields are refused. */

const strict = { additionalProperties: false } as const;

export const usersMax = 1_000_000_000;

const Health = Type.String({
  pattern: '^/',
  maxLength: 1024,
  description: 'Path that answers 2xx once the application is ready',
});

/** Any HTTP application, started as a child process of its cell. */
export const WorkloadSchema = Type.Object(
  {
    command: Type.Array(Type.String({ maxLength: 4096 }), {
      minItems: 1,
      maxItems: 256,
      description: 'Program and arguments; {port}, {data} and {cell} are replaced',
    }),
    env: Type.Optional(
      Type.Record(Type.String(), Type.String({ maxLength: 32_768 }), {
        propertyNames: { pattern: '^[A-Za-z_][A-Za-z0-9_]*$' },
      }),
    ),
    directory: Type.Optional(
      Type.String({ minLength: 1, description: 'Working directory; a file given to apply means its own folder' }),
    ),
    health: Type.Optional(Health),
  },
  strict,
);

/** A deterministic machine, loaded from a module that exports it. */
export const MachineSourceSchema = Type.Object(
  {
    module: Type.String({ minLength: 1, description: 'Path of the module; relative to the file it is applied from' }),
    export: Type.Optional(Type.String({ minLength: 1, description: 'Name of the export; "default" if absent' })),
    verify: Type.Optional(
      Type.Boolean({
        description:
          'Whether a second thread, with a load of the module of its own, replays every record and compares hashes; false if absent',
      }),
    ),
  },
  strict,
);

export const BlueprintSpecSchema = Type.Union(
  [Type.Object({ machine: MachineSourceSchema }, strict), Type.Object({ workload: WorkloadSchema }, strict)],
  { description: 'What every cell is stamped from: either a machine or a workload' },
);

export const CellSpecSchema = Type.Object(
  {
    blueprint: BlueprintNameSchema,
    region: Type.Optional(Type.String({ minLength: 1, maxLength: 63 })),
    zone: Type.Optional(Type.String({ minLength: 1, maxLength: 63 })),
    jurisdiction: JurisdictionSchema,
    capacity: Type.Object({ users: Type.Integer({ minimum: 1, maximum: usersMax }) }, strict),
  },
  strict,
);

export const TenantSpecSchema = Type.Object(
  {
    jurisdiction: JurisdictionSchema,
    users: Type.Integer({ minimum: 1, maximum: usersMax, default: 1 }),
    tier: Type.String({ minLength: 1, maxLength: 63, default: 'standard' }),
  },
  strict,
);

export const BlueprintSchema = Type.Object(
  { kind: Type.Literal('Blueprint'), name: BlueprintNameSchema, spec: BlueprintSpecSchema },
  strict,
);
export const CellSchema = Type.Object(
  { kind: Type.Literal('Cell'), name: CellNameSchema, spec: CellSpecSchema },
  strict,
);
export const TenantSchema = Type.Object(
  { kind: Type.Literal('Tenant'), name: TenantNameSchema, spec: TenantSpecSchema },
  strict,
);
export const ResourceSchema = Type.Union([BlueprintSchema, CellSchema, TenantSchema]);

export type Workload = Static<typeof WorkloadSchema>;
export type MachineSource = Static<typeof MachineSourceSchema>;
export type BlueprintSpec = Static<typeof BlueprintSpecSchema>;
export type CellSpec = Static<typeof CellSpecSchema>;
export type TenantSpec = Static<typeof TenantSpecSchema>;
export type BlueprintResource = Static<typeof BlueprintSchema>;
export type CellResource = Static<typeof CellSchema>;
export type TenantResource = Static<typeof TenantSchema>;
export type Resource = Static<typeof ResourceSchema>;
export type Kind = Resource['kind'];

/** Kinds in the order in which they must exist: what a resource refers to comes before it. */
export const kinds = ['Blueprint', 'Cell', 'Tenant'] as const satisfies readonly Kind[];

/** The plural under which a kind is found in the API and on the command line. */
export const pluralOf = { Blueprint: 'blueprints', Cell: 'cells', Tenant: 'tenants' } as const satisfies Record<
  Kind,
  string
>;
export type Plural = (typeof pluralOf)[Kind];

export const schemaOf = { Blueprint: BlueprintSchema, Cell: CellSchema, Tenant: TenantSchema } as const;

/** Kubernetes-style condition: one aspect of a resource that is or is not as it should be. */
export const ConditionSchema = Type.Object({
  type: Type.String(),
  status: Type.Union([Type.Literal('True'), Type.Literal('False'), Type.Literal('Unknown')]),
  reason: Type.String(),
  message: Type.String(),
});
export type Condition = Static<typeof ConditionSchema>;
