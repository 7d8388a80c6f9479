/**
 * What rows, events and inputs are made of: JSON, and only JSON, because they are written to a log
 * and must come back the same.
 */

/** A value of another kind was given where only JSON can stand. `path` says where it is. */
export class NotPlain extends TypeError {
  readonly path: string;
  constructor(path: string, what: string) {
    super(`${path === '' ? 'The value' : path} is ${what}; only JSON values can be recorded`);
    this.path = path;
  }
}

/** How deeply values may nest. */
export const valueDepthMax = 64;

/**
 * A deep copy that shares nothing with the value and, if `frozen`, cannot change. Properties are in
 * ECMAScript's order of names sorted by UTF-16 code units, so that equal values have equal JSON. Properties
 * that are undefined are left out and −0 becomes 0, as JSON would do it. Throws NotPlain for what JSON
 * cannot carry: NaN, infinities, functions, bigints, symbols, class instances, cycles.
 */
export function copyPlain(value: unknown, frozen: boolean): unknown {
  return copy(value, frozen, '', 0);
}

function copy(value: unknown, frozen: boolean, path: string, depth: number): unknown {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (!Number.isFinite(value)) throw new NotPlain(path, String(value));
      return value === 0 ? 0 : value;
    case 'object':
      break;
    default:
      throw new NotPlain(path, `of type ${typeof value}`);
  }
  if (value === null) return null;
  if (depth >= valueDepthMax) throw new NotPlain(path, `nested deeper than ${valueDepthMax} levels`);
  if (Array.isArray(value)) {
    const items: unknown[] = [];
    for (let i = 0; i < value.length; i++) items.push(copy(value[i], frozen, `${path}/${i}`, depth + 1));
    return frozen ? Object.freeze(items) : items;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw new NotPlain(path, 'an instance of a class');
  if (!isPlainObject(value)) throw new NotPlain(path, 'not an object');
  const names = Object.keys(value);
  if (names.includes('__proto__')) throw new NotPlain(path, 'an object with a property __proto__');
  if (!isSorted(names)) names.sort(compareCodeUnits);
  else if (Object.getOwnPropertySymbols(value).length === 0) {
    // Copied before it is looked at: a getter may answer differently the second time.
    const flat = { ...value };
    if (isFlat(flat, names)) return frozen ? Object.freeze(flat) : flat;
  }
  const properties: Record<string, unknown> = {};
  for (const name of names) {
    const property = value[name];
    if (property === undefined) continue;
    properties[name] = copy(property, frozen, `${path}/${name}`, depth + 1);
  }
  return frozen ? Object.freeze(properties) : properties;
}

/** Whether nothing in it needs a second look: the common case, and several times faster. */
function isFlat(value: PlainObject, names: readonly string[]): boolean {
  for (const name of names) {
    const property = value[name];
    switch (typeof property) {
      case 'string':
      case 'boolean':
        continue;
      case 'number':
        if (Number.isFinite(property) && property !== 0) continue;
        return false;
      default:
        return false;
    }
  }
  return true;
}

export type PlainObject = Readonly<Record<string, unknown>>;

export function isPlainObject(value: unknown): value is PlainObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * The one text of a value that `copyPlain` made: its JSON. JSON delimits itself, so no two values share a
 * text; names are sorted already; and ECMAScript prescribes numbers (the shortest digits that read
 * back the same) and escapes to the last character, so every engine writes it alike.
 */
export function canonical(plain: unknown): string {
  return JSON.stringify(plain);
}

function isSorted(names: readonly string[]): boolean {
  for (let i = 1; i < names.length; i++) if ((names[i - 1] ?? '') > (names[i] ?? '')) return false;
  return true;
}

/** The order of keys everywhere in a machine: by UTF-16 code units, which no locale changes. */
export function compareCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Whether a handler returned a promise: handlers are synchronous, or replay could not repeat them. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

/** What was thrown, in words: bounded, and whatever it is, because a handler may throw anything. */
export function messageOf(thrown: unknown): string {
  try {
    const text = String(thrown instanceof Error ? thrown.message : thrown);
    return text.length <= messageLengthMax ? text : `${text.slice(0, messageLengthMax)}…`;
  } catch {
    return 'something that has no text was thrown';
  }
}

/** How much of an error's message is told, in UTF-16 code units. */
const messageLengthMax = 4_096;
