import { hashUnits } from '../../../kernel/hash.ts';
import { assert } from '../../../kernel/assert.ts';
import { isPlainObject } from './value.ts';

/** Names how values are written out and hashed: `docs/log-format.md` has the encoding. */
export const valueHashTag = 'c2';

/** What stands in front of each value. */
const kinds = { null: 0, false: 1, true: 2, number: 3, text: 4, list: 5, object: 6 } as const;

let units = new Uint16Array(4_096);
let end = 0;

const float = new Float64Array(1);
const floatUnits = new Uint16Array(float.buffer);
float[0] = 1;
/** 1.0 is 0x3ff0000000000000: its highest 16 bits come last on a little-endian machine. */
const littleEndian = floatUnits[3] === 0x3ff0;
assert(littleEndian || floatUnits[0] === 0x3ff0, 'a number has one of two orders of bytes, or hashes would differ');

function grow(needed: number): void {
  const larger = new Uint16Array(Math.max(2 * units.length, end + needed));
  larger.set(units.subarray(0, end));
  units = larger;
}

function writeText(text: string): void {
  const { length } = text;
  if (end + length + 2 > units.length) grow(length + 2);
  const into = units;
  let at = end;
  into[at++] = length & 0xffff;
  into[at++] = length >>> 16;
  for (let i = 0; i < length; i++) into[at++] = text.charCodeAt(i);
  end = at;
}

function writeCount(kind: number, count: number): void {
  if (end + 3 > units.length) grow(3);
  units[end++] = kind;
  units[end++] = count & 0xffff;
  units[end++] = count >>> 16;
}

function writeNumber(value: number): void {
  if (end + 5 > units.length) grow(5);
  float[0] = value;
  units[end++] = kinds.number;
  for (let i = 0; i < 4; i++) units[end++] = floatUnits[littleEndian ? i : 3 - i] ?? 0;
}

function writeKind(kind: number): void {
  if (end + 1 > units.length) grow(1);
  units[end++] = kind;
}

function writeValue(value: unknown): void {
  switch (typeof value) {
    case 'string':
      writeKind(kinds.text);
      writeText(value);
      return;
    case 'number':
      writeNumber(value);
      return;
    case 'boolean':
      writeKind(value ? kinds.true : kinds.false);
      return;
    default:
  }
  if (value === null) {
    writeKind(kinds.null);
  } else if (Array.isArray(value)) {
    writeCount(kinds.list, value.length);
    for (const item of value) writeValue(item);
  } else {
    assert(isPlainObject(value), 'only values that `copyPlain` made are hashed');
    const names = Object.keys(value);
    writeCount(kinds.object, names.length);
    for (const name of names) {
      writeText(name);
      writeValue(value[name]);
    }
  }
}

/**
 * Hashes a name and a value that `copyPlain` made: each part with its kind and its length in front, so that no two
 * values share an encoding; numbers by their 64 bits. Allocates nothing. O(size of the value).
 */
export function hashValueInto(name: string, value: unknown, lanes: Int32Array): void {
  end = 0;
  writeText(name);
  writeValue(value);
  hashUnits(units, end, lanes);
}
