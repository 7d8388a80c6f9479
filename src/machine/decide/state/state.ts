import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { hashText } from '../../../kernel/hash.ts';
import { Instance } from '../instance/instance.ts';
import type { KeyLimits, RememberedAnswer } from '../instance/keys.ts';
import type { Machine } from '../definition/machine.ts';
import { copyPlain, isPlainObject, type PlainObject } from './value.ts';

/**
 * The whole state of an instance as texts: for snapshots, and to carry an instance elsewhere. A text is read back and
 * its hashes are computed anew, so a state that was changed on its way is never accepted.
 */

/** A state as it was at one moment. Rows are frozen, so it shares them with the instance, which goes on. */
export interface CapturedState {
  readonly instance: string;
  readonly machine: string;
  readonly machineVersion: number;
  readonly seq: number;
  readonly stateHash: string;
  readonly keysHash: string;
  /** Name and rows of each table, those of the system included. */
  readonly tables: readonly (readonly [table: string, rows: readonly PlainObject[]])[];
  /** The oldest first. */
  readonly keys: readonly (readonly [key: string, answer: RememberedAnswer])[];
}

/** A part of a state, for an instance that is being made of it. */
export type StatePart =
  | { readonly kind: 'rows'; readonly table: string; readonly rows: readonly PlainObject[] }
  | { readonly kind: 'keys'; readonly keys: readonly (readonly [string, RememberedAnswer])[] }
  | { readonly kind: 'seq'; readonly seq: number };

/** A text is not one that `encodeState` wrote, or the texts together are not the state that they say. */
export class StateMismatch extends Error {
  override readonly name = 'StateMismatch';
}

/** How long a text gets before the next begins, in UTF-16 code units: about a millisecond's work. */
export const chunkUnits = 64 * 1024;

const tag = 's1 ';
const Count = Type.Integer({ minimum: 0 });
const HeadSchema = Type.Tuple([
  Type.Literal('state'),
  Type.String(), // instance
  Type.String(), // machine
  Type.Integer({ minimum: 1 }), // machine version
  Count, // seq
  Type.String(), // state hash
  Type.String(), // keys hash
]);
const PartSchema = Type.Union([
  HeadSchema,
  Type.Tuple([Type.Literal('rows'), Type.String(), Type.Array(Type.Unknown())]),
  Type.Tuple([
    Type.Literal('keys'),
    Type.Array(Type.Tuple([Type.String(), Count, Count, Type.String(), Type.String()])),
  ]),
  Type.Tuple([Type.Literal('end'), Count, Type.String()]), // texts before it, hash over them
]);
const shape = Compile(PartSchema);

/** The texts of a state, in order; each is made when it is asked for. O(size of the state) altogether. */
export function* encodeState(state: CapturedState): IterableIterator<string> {
  const { instance, machine, machineVersion, seq, stateHash, keysHash } = state;
  let texts = 0;
  let hash = '';
  const counted = (text: string): string => {
    texts += 1;
    hash = hashText(hash + text);
    return text;
  };
  yield counted(tag + JSON.stringify(['state', instance, machine, machineVersion, seq, stateHash, keysHash]));
  for (const [table, rows] of state.tables) {
    for (const list of chunked(rows, JSON.stringify)) {
      yield counted(`${tag}["rows",${JSON.stringify(table)},[${list}]]`);
    }
  }
  const keyText = ([key, { atMs, seqBefore, stateHash: after, payload }]: readonly [string, RememberedAnswer]) =>
    JSON.stringify([key, atMs, seqBefore, after, payload]);
  for (const list of chunked(state.keys, keyText)) yield counted(`${tag}["keys",[${list}]]`);
  yield tag + JSON.stringify(['end', texts, hash]);
}

function* chunked<Item>(items: readonly Item[], textOf: (item: Item) => string): IterableIterator<string> {
  let texts: string[] = [];
  let units = 0;
  for (const item of items) {
    const text = textOf(item);
    texts.push(text);
    units += text.length;
    if (units < chunkUnits) continue;
    yield texts.join(',');
    texts = [];
    units = 0;
  }
  if (texts.length > 0) yield texts.join(',');
}

/** What the first text of a state says. */
export type StateHead = Omit<CapturedState, 'tables' | 'keys'>;

/**
 * Makes an instance of the texts of a state, one text at a time, so that whoever has other work does it between them.
 * Each method throws StateMismatch if a text or the whole is not what was written.
 */
export class StateReader {
  readonly #instance: Instance;
  #head: StateHead | undefined;
  #texts = 0;
  #hash = '';
  #ended = false;

  constructor(instance: string, machine: Machine, keyBounds?: KeyLimits) {
    this.#instance = new Instance(instance, machine, keyBounds);
  }

  /** What the first text said; undefined before it was read. */
  get head(): StateHead | undefined {
    return this.#head;
  }

  /** What was read so far, whether or not it agrees: for evidence only. */
  get read(): Instance {
    return this.#instance;
  }

  /** Reads the next text. O(its length). */
  take(text: string): void {
    const part = parse(text);
    if (this.#ended || (part[0] === 'state') !== (this.#texts === 0)) throw new StateMismatch('its texts are mixed up');
    switch (part[0]) {
      case 'state':
        this.#begin(part);
        break;
      case 'rows':
        this.#restore({ kind: 'rows', table: part[1], rows: part[2].map(rowOf) });
        break;
      case 'keys': {
        const keys = part[1].map(([key, atMs, seqBefore, stateHash, payload]) => {
          return [key, { atMs, seqBefore, stateHash, payload }] as const;
        });
        this.#restore({ kind: 'keys', keys });
        break;
      }
      default:
        // The hashes of rows and keys say nothing of what the answers of keys say; this one does.
        if (part[1] !== this.#texts || part[2] !== this.#hash)
          throw new StateMismatch('a text was changed or is missing');
        this.#ended = true;
    }
    this.#texts += 1;
    this.#hash = hashText(this.#hash + text);
  }

  /** The instance, once all texts were read: with the same rows, keys and hashes as the one that was captured. */
  finish(): Instance {
    const head = this.#head;
    if (head === undefined || !this.#ended) throw new StateMismatch('its last text is missing');
    this.#restore({ kind: 'seq', seq: head.seq });
    const { stateHash, keysHash } = this.#instance;
    if (stateHash !== head.stateHash) throw new StateMismatch(`its rows are ${stateHash}, not ${head.stateHash}`);
    if (keysHash !== head.keysHash) throw new StateMismatch(`its keys are ${keysHash}, not ${head.keysHash}`);
    return this.#instance;
  }

  #begin([, instance, machine, machineVersion, seq, stateHash, keysHash]: Static<typeof HeadSchema>): void {
    const { name } = this.#instance;
    if (instance !== name) throw new StateMismatch(`it is the state of ${instance}, not of ${name}`);
    if (machine !== this.#instance.machine.name) throw new StateMismatch(`it was written by machine ${machine}`);
    this.#head = { instance, machine, machineVersion, seq, stateHash, keysHash };
  }

  #restore(part: StatePart): void {
    try {
      this.#instance.restore(part);
    } catch (thrown) {
      throw new StateMismatch(`a part of it cannot be restored: ${String(thrown)}`, { cause: thrown });
    }
  }
}

function parse(text: string): Static<typeof PartSchema> {
  let value: unknown;
  try {
    value = text.startsWith(tag) ? JSON.parse(text.slice(tag.length)) : undefined;
  } catch {
    throw new StateMismatch('a text is not JSON');
  }
  if (!shape.Check(value)) throw new StateMismatch('a text is not one of a state');
  return value;
}

function rowOf(value: unknown): PlainObject {
  const row = copyPlain(value, true);
  if (!isPlainObject(row)) throw new StateMismatch('a row is not an object');
  return row;
}

/** All texts of an instance's state at once; for a large one, take them from `encodeState` one by one. */
export function exportState(instance: Instance): readonly string[] {
  return [...encodeState(instance.capture())];
}

/** An instance with the exported state: same events, rows, keys and hashes. Throws StateMismatch otherwise. */
export function importState(instance: string, machine: Machine, texts: Iterable<string>): Instance {
  const reader = new StateReader(instance, machine);
  for (const text of texts) reader.take(text);
  return reader.finish();
}
