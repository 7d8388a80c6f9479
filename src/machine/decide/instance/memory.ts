import { fault } from '../../../protocol/errors.ts';
import type { CommandAnswer, Decision } from './answers.ts';
import type { Message, Timer } from '../state/effects.ts';
import { Instance } from './instance.ts';
import type { Machine } from '../definition/machine.ts';
import { decodeRecord, encodeRecord, type RecordText } from '../log/record.ts';

/** How many timers may fire when time is set once: a timer that schedules itself at the same time has no end. */
export const firingsPerStepMax = 10_000;

/** An instance without disk: for tests of a machine, which then need neither files nor awaiting. */
export interface MemoryInstance {
  readonly seq: number;
  readonly stateHash: string;
  /** Runs a command at the time that was set, exactly as a cell would. */
  execute(command: string, input: unknown, options?: { readonly idempotencyKey?: string }): CommandAnswer;
  /** Answers a query; throws its fault if it is refused. */
  query(name: string, input?: unknown): unknown;
  /**
   * Sets what commands see as `ctx.now`, in milliseconds since 1970. It never goes back. Timers that are due by then fire
   * in their order, each at its own time, and what came of them is returned.
   */
  setNow(nowMs: number): readonly CommandAnswer[];
  /** Timers in the order in which they are due. */
  timers(): readonly Timer[];
  /** Messages that were not delivered yet, in the order of sending. */
  messages(): readonly Message[];
  /** Takes a message out of the outbox, as a receiver's consent would. */
  delivered(id: string): void;
  /** Invariants in shadow mode that commands broke so far, in the order of the commands. */
  readonly reported: readonly string[];
  /** A new instance made by replaying everything recorded so far, through the text that a log would hold. */
  replayed(): MemoryInstance;
}

export interface MemoryOptions {
  readonly instance?: string;
  /** Milliseconds since 1970; 0 unless told. */
  readonly nowMs?: number;
  /** Where random numbers and ids begin: the same commands after the same seed draw the same ones. */
  readonly seed?: string;
}

/** Opens an instance of `machine` in memory, empty. */
export function openInMemory(machine: Machine, options: MemoryOptions = {}): MemoryInstance {
  return new Memory(machine, options.instance ?? 'test', options.nowMs ?? 0, options.seed ?? 'test');
}

class Memory implements MemoryInstance {
  readonly #instance: Instance;
  readonly #texts: RecordText[] = [];
  readonly #seed: string;
  readonly #reported: string[] = [];
  #nowMs: number;
  #draws = 0;

  constructor(machine: Machine, name: string, nowMs: number, seed: string) {
    this.#instance = new Instance(name, machine);
    this.#nowMs = nowMs;
    this.#seed = seed;
  }

  get seq(): number {
    return this.#instance.seq;
  }

  get stateHash(): string {
    return this.#instance.stateHash;
  }

  get reported(): readonly string[] {
    return this.#reported;
  }

  execute(command: string, input: unknown, options: { readonly idempotencyKey?: string } = {}): CommandAnswer {
    return this.#keep(this.#instance.execute({ command, input, ...options }, this.#nowMs, this.#entropy));
  }

  query(name: string, input: unknown = {}): unknown {
    return this.#instance.query(name, input);
  }

  setNow(nowMs: number): readonly CommandAnswer[] {
    if (nowMs < this.#nowMs) throw fault('internal', `Time cannot go back from ${this.#nowMs} to ${nowMs}`);
    const answers: CommandAnswer[] = [];
    for (let at = this.#instance.nextTimerMs; at !== undefined && at <= nowMs; at = this.#instance.nextTimerMs) {
      if (answers.length === firingsPerStepMax) {
        const { id = '' } = this.timers()[0] ?? {};
        throw fault(
          'internal',
          `${firingsPerStepMax} timers fired and timer ${id} is due still; does it schedule itself?`,
        );
      }
      this.#nowMs = Math.max(this.#nowMs, at);
      answers.push(this.#keep(this.#instance.fireTimer(this.#nowMs, this.#entropy)));
    }
    this.#nowMs = nowMs;
    return answers;
  }

  timers(): readonly Timer[] {
    return [...this.#instance.timers()];
  }

  messages(): readonly Message[] {
    return [...this.#instance.messages()];
  }

  delivered(id: string): void {
    this.#keep(this.#instance.messageDelivered(id, this.#nowMs));
  }

  replayed(): MemoryInstance {
    const copy = new Memory(this.#instance.machine, this.#instance.name, this.#nowMs, this.#seed);
    this.#texts.forEach((text, i) => {
      copy.#instance.replay(decodeRecord(i + 1, text));
      copy.#texts.push(text);
    });
    copy.#draws = this.#draws;
    copy.#reported.push(...this.#reported);
    return copy;
  }

  readonly #entropy = (): string => {
    this.#draws += 1;
    return `${this.#seed} ${this.#draws}`;
  };

  #keep({ answer, record, broken }: Decision): CommandAnswer {
    const { length } = this.#texts;
    if (record !== undefined) this.#texts.push(encodeRecord(length + 1, length, record));
    for (const { name, shadow } of broken) if (shadow) this.#reported.push(name);
    return answer;
  }
}
