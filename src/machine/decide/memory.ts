import { fault } from '../../protocol/errors.ts';
import { Instance, type CommandAnswer } from './instance.ts';
import type { Machine } from './machine.ts';
import { decodeRecord, encodeRecord, type RecordText } from './record.ts';

/** An instance without disk: for tests of a machine, which then need neither files nor awaiting. */
export interface MemoryInstance {
  readonly seq: number;
  readonly stateHash: string;
  /** Runs a command at the time that was set, exactly as a cell would. */
  execute(command: string, input: unknown, options?: { readonly idempotencyKey?: string }): CommandAnswer;
  /** Answers a query; throws its fault if it is refused. */
  query(name: string, input?: unknown): unknown;
  /** Sets what commands see as `ctx.now`, in milliseconds since 1970. It never goes back. */
  setNow(nowMs: number): void;
  /** A new instance made by replaying everything recorded so far, through the text that a log would hold. */
  replayed(): MemoryInstance;
}

/** Opens an instance of `machine` in memory, empty, at `nowMs` (0 unless told). */
export function openInMemory(
  machine: Machine,
  options: { readonly instance?: string; readonly nowMs?: number } = {},
): MemoryInstance {
  return new Memory(machine, options.instance ?? 'test', options.nowMs ?? 0);
}

class Memory implements MemoryInstance {
  readonly #instance: Instance;
  readonly #texts: RecordText[] = [];
  #nowMs: number;

  constructor(machine: Machine, name: string, nowMs: number) {
    this.#instance = new Instance(name, machine);
    this.#nowMs = nowMs;
  }

  get seq(): number {
    return this.#instance.seq;
  }

  get stateHash(): string {
    return this.#instance.stateHash;
  }

  execute(command: string, input: unknown, options: { readonly idempotencyKey?: string } = {}): CommandAnswer {
    const { answer, record } = this.#instance.execute({ command, input, ...options }, this.#nowMs);
    const { length } = this.#texts;
    if (record !== undefined) this.#texts.push(encodeRecord(length + 1, length, record));
    return answer;
  }

  query(name: string, input: unknown = {}): unknown {
    return this.#instance.query(name, input);
  }

  setNow(nowMs: number): void {
    if (nowMs < this.#nowMs) throw fault('internal', `Time cannot go back from ${this.#nowMs} to ${nowMs}`);
    this.#nowMs = nowMs;
  }

  replayed(): MemoryInstance {
    const copy = new Memory(this.#instance.machine, this.#instance.name, this.#nowMs);
    this.#texts.forEach((text, i) => {
      copy.#instance.replay(decodeRecord(i + 1, text));
      copy.#texts.push(text);
    });
    return copy;
  }
}
