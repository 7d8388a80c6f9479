import { Type, type Static } from 'typebox';
import { CellNameSchema, FleetIdSchema } from './names.ts';

/**
 * What the host hands each process that it starts: a file `boot.json` in the process's folder,
 * whose path is the only argument. No secret stands in it; secrets are files of mode 0600.
 */
const Listen = Type.Object({ host: Type.String(), port: Type.Integer({ minimum: 0, maximum: 65_535 }) });

const common = {
  fleet: FleetIdSchema,
  /** The folder that this process owns, and locks. */
  folder: Type.String(),
  /** Public key (PEM file) with which signed documents are checked. */
  publicKeyFile: Type.String(),
};
/**
 * Whether this process had a log when it last served, as its host remembers. A log that is missing
 * although it is expected is damage: an empty one would forget what was acknowledged.
 */
const logExpected = Type.Boolean();
const client = { controlUrl: Type.String(), tokenFile: Type.String() };

export const ControlBootSchema = Type.Object({
  process: Type.Literal('control'),
  ...common,
  listen: Listen,
  logExpected,
  /** Private key (PEM, mode 0600): signs frames and desired state. */
  privateKeyFile: Type.String(),
  /** The fleet's secret (mode 0600) from which every token is derived. */
  secretFile: Type.String(),
});

export const RouterBootSchema = Type.Object({
  process: Type.Literal('router'),
  ...common,
  ...client,
  name: Type.String(),
  listen: Listen,
  adminListen: Listen,
  /** Where the tenant is read from; two sources that disagree are refused. */
  partitionKey: Type.Object({ header: Type.String(), subdomainOf: Type.Array(Type.String()) }),
});

export const CellBootSchema = Type.Object({
  process: Type.Literal('cell'),
  ...common,
  ...client,
  name: CellNameSchema,
  listen: Listen,
  logExpected,
  workloadPort: Type.Integer({ minimum: 1, maximum: 65_535 }),
});

export type ControlBoot = Static<typeof ControlBootSchema>;
export type RouterBoot = Static<typeof RouterBootSchema>;
export type CellBoot = Static<typeof CellBootSchema>;
export type Boot = ControlBoot | RouterBoot | CellBoot;
