import { Type, type Static } from 'typebox';
import { fault } from '../../protocol/errors.ts';
import { ConditionSchema, pluralOf, type Kind } from '../../protocol/resources.ts';
import type { ResourceChange } from '../decide/model.ts';
import { blueprintStatusOf, cellStatusOf, tenantStatusOf } from '../decide/reported.ts';
import { KindSchema } from '../decide/tables.ts';
import type { Plane } from './plane.ts';

/** A resource as the API shows it: what was applied, at which version, and what is known of it now. */
export const ItemSchema = Type.Object({
  kind: KindSchema,
  name: Type.String(),
  spec: Type.Object({}),
  version: Type.Integer(),
  status: Type.Object({ conditions: Type.Array(ConditionSchema) }),
});
export type Item = Static<typeof ItemSchema>;

export const ListSchema = Type.Object({ items: Type.Array(ItemSchema), version: Type.Integer() });

/** The item of a resource, or undefined if there is none. O(routers). */
export function itemOf(plane: Plane, kind: Kind, name: string): Item | undefined {
  const { model, reported } = plane;
  const nowMs = plane.nowMs();
  if (kind === 'Blueprint') {
    const view = model.blueprints.get(name);
    return view && { kind, name, spec: view.spec, version: view.version, status: blueprintStatusOf(view) };
  }
  if (kind === 'Cell') {
    const view = model.cells.get(name);
    if (view === undefined || view.removed) return undefined;
    return { kind, name, spec: view.spec, version: view.version, status: cellStatusOf(view, reported, nowMs) };
  }
  const view = model.tenants.get(name);
  if (view === undefined || view.removed) return undefined;
  return { kind, name, spec: view.spec, version: view.version, status: tenantStatusOf(model, view, reported, nowMs) };
}

export function foundItem(plane: Plane, kind: Kind, name: string): Item {
  const item = itemOf(plane, kind, name);
  if (item !== undefined) return item;
  throw fault('resource-unknown', `${kind} ${name} does not exist. GET /v1/${pluralOf[kind]} lists those that do.`, {
    field: 'name',
  });
}

/** All items of a kind, by name. */
export function itemsOf(plane: Plane, kind: Kind): Item[] {
  const { blueprints, cells, tenants } = plane.model;
  const names = [...{ Blueprint: blueprints, Cell: cells, Tenant: tenants }[kind].keys()].sort();
  return names.map((name) => itemOf(plane, kind, name)).filter((item) => item !== undefined);
}

/** The last change of each resource of a kind, in the order in which they happened. */
export function lastChanges(changes: readonly ResourceChange[], kind: Kind): readonly ResourceChange[] {
  const last = new Map<string, ResourceChange>();
  for (const change of changes) {
    if (change.kind !== kind) continue;
    last.delete(change.name);
    last.set(change.name, change);
  }
  return [...last.values()];
}
