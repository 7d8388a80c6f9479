import { Type, type Static } from 'typebox';
import { ConditionSchema, type Condition } from '../protocol/resources.ts';
import { Value } from 'typebox/value';
import { isRecord } from '../protocol/schema-problems.ts';

/** One item as the API gives it. `spec` and `status` are shown, not judged: an older CLI shows a newer fleet. */
export const ItemSchema = Type.Object({
  kind: Type.String(),
  name: Type.String(),
  version: Type.Optional(Type.Integer()),
  spec: Type.Optional(Type.Unknown()),
  status: Type.Optional(Type.Unknown()),
});
export type Item = Static<typeof ItemSchema>;

export const ItemListSchema = Type.Object({ items: Type.Array(ItemSchema), version: Type.Integer() });

/** Whatever stands at a dotted path, or undefined. */
export function at(value: unknown, path: string): unknown {
  let here: unknown = value;
  for (const key of path.split('.')) here = isRecord(here) ? here[key] : undefined;
  return here;
}

/** The text or number at a path as text, or undefined. */
export function textAt(value: unknown, path: string): string | undefined {
  const found = at(value, path);
  return typeof found === 'string' || typeof found === 'number' || typeof found === 'boolean'
    ? String(found)
    : undefined;
}

export function numberAt(value: unknown, path: string): number | undefined {
  const found = at(value, path);
  return typeof found === 'number' ? found : undefined;
}

export function conditionsOf(item: unknown): readonly Condition[] {
  const found = at(item, 'status.conditions');
  return Array.isArray(found) ? found.filter((condition) => Value.Check(ConditionSchema, condition)) : [];
}
