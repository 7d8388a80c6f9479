import { Type, type Static, type TUnsafe } from 'typebox';

/**
 * Names are DNS labels, so that each can be a subdomain, a file name and a metric label without
 * escaping. Branded: a tenant's name cannot be passed where a cell's is meant.
 */
type Brand<Name extends string> = string & { readonly __brand: Name };

export type TenantName = Brand<'tenant'>;
export type CellName = Brand<'cell'>;
export type BlueprintName = Brand<'blueprint'>;
export type Jurisdiction = Brand<'jurisdiction'>;
/** Names one fleet for ever: frames and folders of different fleets never mix. */
export type FleetId = Brand<'fleet'>;

export const nameLengthMax = 63;
const label = '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$';
const labelPattern = new RegExp(label);
/** Names of the processes that are no cells: `stop router` must mean one thing. */
const cellLabel = `^(?!(control|router|host)$)${label.slice(1)}`;
const cellLabelPattern = new RegExp(cellLabel);

function nameSchema<T extends string>(what: string, pattern: string = label): TUnsafe<T> {
  return Type.Unsafe<T>(
    Type.String({
      pattern,
      maxLength: nameLengthMax,
      description: `${what}: 1 to ${nameLengthMax} of a–z, 0–9 and hyphen, not at an end`,
    }),
  );
}

export const TenantNameSchema: TUnsafe<TenantName> = nameSchema('Name of a tenant');
export const CellNameSchema: TUnsafe<CellName> = nameSchema('Name of a cell (not control, router or host)', cellLabel);
export const BlueprintNameSchema: TUnsafe<BlueprintName> = nameSchema('Name of a blueprint');
export const JurisdictionSchema: TUnsafe<Jurisdiction> = nameSchema('Jurisdiction in which data may rest');
export const FleetIdSchema: TUnsafe<FleetId> = Type.Unsafe<FleetId>(Type.String({ minLength: 8, maxLength: 64 }));

/** Whether a string can name a tenant. The router asks it of every request before any look-up. */
export function isTenantName(text: string): text is TenantName {
  return text.length <= nameLengthMax && labelPattern.test(text);
}

export function isCellName(text: string): text is CellName {
  return text.length <= nameLengthMax && cellLabelPattern.test(text);
}

export const EpochSchema = Type.Integer({ minimum: 1, description: 'Grows each time a tenant is assigned' });
export type Epoch = Static<typeof EpochSchema>;
