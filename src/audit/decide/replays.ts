import { asFault } from '../../protocol/problem.ts';
import type { Fault } from '../../kernel/fault.ts';
import { Instance } from '../../machine/decide/instance/instance.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import { decodePayload } from '../../machine/decide/log/record.ts';
import type { ProvenRow } from './chain-proof.ts';

/** Why an instance is not replayed any further. */
type Ended = 'removed' | 'erased' | 'damaged' | 'no-machine';

/** Replays every instance of a log beside each other, as far as each can be. */
export class Replays {
  readonly #machineNamed: (name: string) => Machine | undefined;
  readonly #instances = new Map<string, Instance | Ended>();
  readonly #unknown = new Set<string>();
  #records = 0;

  constructor(machineNamed: (name: string) => Machine | undefined) {
    this.#machineNamed = machineNamed;
  }

  /** Takes the next record of the log. Returns why it does not follow, once for each instance. */
  take({ head, payload, erased }: ProvenRow): { readonly fault: Fault } | undefined {
    const { instance: name } = head;
    let instance = this.#instances.get(name);
    if (instance === undefined) {
      const machine = this.#machineNamed(head.machine);
      if (machine === undefined) this.#unknown.add(head.machine);
      if (machine === undefined) instance = 'no-machine';
      else if (head.previous > 0) instance = 'removed';
      else instance = new Instance(name, machine);
      this.#instances.set(name, instance);
    }
    if (typeof instance === 'string') return undefined;
    if (payload === undefined) {
      this.#instances.set(name, erased ? 'erased' : 'damaged');
      return undefined;
    }
    try {
      instance.replay({ ...head, ...decodePayload(head.position, payload), payload });
      this.#records += 1;
      return undefined;
    } catch (thrown) {
      this.#instances.set(name, 'damaged');
      return { fault: asFault(thrown) };
    }
  }

  get done(): { readonly instances: number; readonly records: number } {
    return { instances: this.#count((each) => typeof each !== 'string'), records: this.#records };
  }

  get left(): { readonly erased: number; readonly damaged: number; readonly machines: readonly string[] } {
    return {
      erased: this.#count((each) => each === 'erased' || each === 'removed'),
      damaged: this.#count((each) => each === 'damaged'),
      machines: [...this.#unknown].sort(),
    };
  }

  #count(which: (each: Instance | Ended) => boolean): number {
    let count = 0;
    for (const each of this.#instances.values()) if (which(each)) count += 1;
    return count;
  }
}
