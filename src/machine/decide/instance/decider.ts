import { assert } from '../../../kernel/assert.ts';
import type { BrokenInvariant } from './answers.ts';
import { retryAt, type Timer } from '../state/effects.ts';
import type { Evolution } from './evolution.ts';
import { brokenInvariant } from './invariants.ts';
import type { CompiledCommand, Machine } from '../definition/machine.ts';
import type { CommandRun } from './random.ts';
import type { EventEntry, Outcome } from '../log/record.ts';
import { handlerFault, returnedBy } from './returned.ts';
import { copyPlain } from '../state/value.ts';

/** What a timer came to: always accepted, because the instance accepts that it fired. */
export interface Fired {
  readonly outcome: Extract<Outcome, { kind: 'accepted' }>;
  readonly broken: readonly BrokenInvariant[];
}

/**
 * Runs commands against the state of one instance: decides, applies the events, checks the invariants. What it did is in
 * the journal of the tables; whoever called it keeps that or takes it back. State hashes are added to `hashes`, which
 * begins with the one before; `seq` counts the events before the command.
 */
export class Decider {
  readonly #machine: Machine;
  readonly #evolution: Evolution;

  constructor(machine: Machine, evolution: Evolution) {
    this.#machine = machine;
    this.#evolution = evolution;
  }

  /** Throws what a handler throws. After a refusal events may have been applied: they must be taken back. */
  run(name: string, command: CompiledCommand, input: unknown, run: CommandRun, seq: number, hashes: string[]): Outcome {
    const { tables } = this.#evolution;
    const returned = returnedBy(`Command ${name}`, command.decide(tables.views, input, run));
    if (returned.kind !== 'accepted') return returned;
    const events: EventEntry[] = [];
    for (const { type, data: given } of returned.events) {
      const data = this.#evolution.parse(type, given);
      const changesBefore = tables.changes.length;
      hashes.push(this.#evolution.decided(type, data, seq + hashes.length, run.now));
      const broken = brokenInvariant(this.#machine, tables, changesBefore, run);
      if (broken !== undefined) {
        const message = `Event ${type} of ${name} would break the invariant ${broken}; nothing was changed`;
        return { kind: 'refused', code: 'invariant-violated', message, reason: broken, field: undefined };
      }
      events.push({ type, data });
    }
    return { kind: 'accepted', events };
  }

  /** Applies one of the runtime's own events. */
  apply(type: string, data: unknown, nowMs: number, seq: number, hashes: string[]): EventEntry {
    hashes.push(this.#evolution.decided(type, data, seq + hashes.length, nowMs));
    return { type, data };
  }

  /** Runs the command of a timer. If it fails, all that happens is that the timer comes again. */
  fire(timer: Timer, run: CommandRun, seq: number, hashes: string[]): Fired {
    const { id, command: name } = timer;
    const [hashBefore = ''] = hashes;
    const back = (): void => {
      this.#evolution.undo(hashBefore);
      hashes.length = 1;
    };
    try {
      const command = this.#machine.commands.get(name);
      if (command === undefined) throw new TypeError(`${this.#machine.name} has no command ${name}`);
      const input = command.parse(timer.input);
      const fired = this.apply('$timerFired', { id }, run.now, seq, hashes);
      const decided = this.run(name, command, input, run, seq, hashes);
      if (decided.kind === 'accepted') {
        return { outcome: { kind: 'accepted', events: [fired, ...decided.events] }, broken: [] };
      }
      assert(decided.kind === 'refused', 'no command is decided to be an upgrade');
      back();
      run.shadow = undefined;
      const { code, message, reason, field } = decided;
      const data = copyPlain({ id, refused: { code, message, reason, field } }, true);
      const events = [this.apply('$timerFired', data, run.now, seq, hashes)];
      const broken = code === 'invariant-violated' && reason !== undefined ? [{ name: reason, shadow: false }] : [];
      return { outcome: { kind: 'accepted', events }, broken };
    } catch (thrown) {
      back();
      run.shadow = undefined;
      const { full } = this.#evolution.system;
      const { message } = full ?? handlerFault(thrown, `Command ${name} of timer ${id} failed and changed nothing`);
      const attempt = timer.attempt + 1;
      const data = { id, attempt, nextAt: retryAt(run.now, attempt), message };
      return {
        outcome: { kind: 'accepted', events: [this.apply('$timerFailed', data, run.now, seq, hashes)] },
        broken: [],
      };
    }
  }
}
