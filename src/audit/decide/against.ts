import { asFault } from '../../protocol/problem.ts';
import { Instance, type CommandAnswer } from '../../machine/decide/instance/instance.ts';
import type { Machine } from '../../machine/decide/definition/machine.ts';
import type { EventEntry, PlacedRecord } from '../../machine/decide/log/record.ts';
import { canonical } from '../../machine/decide/state/value.ts';

/**
 * Runs recorded inputs, refusals included, with their recorded times and seeds, against another version of their machine.
 *
 * - `isolated`: each input meets the state that the recorded history gives (its events, as the other version reads and
 *   evolves them), whatever came out for the inputs before. So every decision that differs is named once, and nothing
 *   is named only because something before it differed.
 * - `cumulative`: each input meets the state that the other version made itself, as if it had run from the first
 *   command on. So what a difference leads to is seen, and one difference may be named many times.
 */
export type ReplayMode = 'isolated' | 'cumulative';

/** What a command came to, as it was recorded and as the other version says. */
export type Came =
  | {
      readonly kind: 'accepted';
      /** At most `shownEventsMax` of them in a difference; then `eventsTotal` says how many there are. */
      readonly events: readonly EventEntry[];
      readonly eventsTotal?: number;
      readonly stateHash: string;
    }
  | {
      readonly kind: 'refused';
      readonly code: string;
      readonly message: string;
      readonly reason?: string;
      readonly field?: string;
    };

export interface VersionDifference {
  /**
   * - `answer`: accepted against refused, or refused otherwise (code, reason, message or field).
   * - `events`: accepted both times, with other events.
   * - `state`: the same events lead to another state. In isolated mode only where an instance's state first parts from
   *   the recorded one.
   * - `history`: the recorded events cannot be evolved; nothing after them is compared for this instance.
   */
  readonly kind: 'answer' | 'events' | 'state' | 'history';
  /** Whether the other version declares (`changes`) that its states differ here. Only of `state`. */
  readonly declared: boolean;
  readonly position: number;
  /** Events of the instance before the command. */
  readonly seqBefore: number;
  /** Milliseconds since 1970. */
  readonly now: number;
  readonly command: string;
  readonly input: unknown;
  readonly key?: string;
  readonly recorded: Came;
  readonly present: Came;
}

export interface DifferenceTotals {
  /** Accepted before, refused now; the other way round; refused both times, in other words. */
  readonly refusedNow: number;
  readonly acceptedNow: number;
  readonly refusedOtherwise: number;
  readonly events: number;
  /** States that differ without being declared, and those that were declared to. */
  readonly states: number;
  readonly statesDeclared: number;
  readonly history: number;
}

/** What one instance came to. */
export interface InstanceComparison {
  readonly instance: string;
  readonly records: number;
  /** Of those, how many were refusals. */
  readonly refusals: number;
  /** Refusals that came too fast to be recorded, so nothing is known of them. */
  readonly skipped: number;
  readonly totals: DifferenceTotals;
  /** The first ones. */
  readonly differences: readonly VersionDifference[];
  /** Why it was not compared to its end, if it was not. */
  readonly ended?: 'erased' | 'history';
}

/** Compares one instance, record by record. */
export class InstanceReplay {
  readonly #instance: Instance;
  readonly #mode: ReplayMode;
  readonly #listedMax: number;
  readonly #differences: VersionDifference[] = [];
  readonly #totals = {
    refusedNow: 0,
    acceptedNow: 0,
    refusedOtherwise: 0,
    events: 0,
    states: 0,
    statesDeclared: 0,
    history: 0,
  };
  #records = 0;
  #refusals = 0;
  #skipped = 0;
  #parted = false;
  #ended: 'erased' | 'history' | undefined;

  constructor(name: string, machine: Machine, mode: ReplayMode, listedMax: number) {
    this.#instance = new Instance(name, machine);
    this.#mode = mode;
    this.#listedMax = listedMax;
  }

  get comparison(): InstanceComparison {
    return {
      instance: this.#instance.name,
      records: this.#records,
      refusals: this.#refusals,
      skipped: this.#skipped,
      totals: { ...this.#totals },
      differences: this.#differences,
      ...(this.#ended === undefined ? {} : { ended: this.#ended }),
    };
  }

  /** A record of this instance has no payload any more: from here on nothing can be compared. */
  endErased(): void {
    this.#ended ??= 'erased';
  }

  /** Takes the next record. An upgrade answers no command; everything else is compared. */
  take(record: PlacedRecord): void {
    if (this.#ended !== undefined) return;
    this.#skipped += record.context.skipped ?? 0;
    if (record.outcome.kind === 'upgraded') return;
    this.#records += 1;
    if (record.outcome.kind === 'refused') this.#refusals += 1;
    const recorded = cameOf(record);
    const present = this.#mode === 'isolated' ? this.#decided(record) : this.#executed(record);
    const kind = this.#kindOf(record, recorded, present);
    if (kind === 'answer') this.#countAnswer(recorded, present);
    else if (kind === 'events') this.#totals.events += 1;
    if (kind !== undefined) this.#add(record, kind, recorded, present, false);
    if (this.#mode === 'cumulative') this.#compareStates(record, recorded, present, kind === undefined);
    else this.#follow(record, recorded, present, kind === undefined);
  }

  #decided(record: PlacedRecord): Came {
    return cameAs(this.#instance.decideAgain(record));
  }

  #executed(record: PlacedRecord): Came {
    return cameAs(this.#instance.executeAgain(record));
  }

  #kindOf(record: PlacedRecord, recorded: Came, present: Came): 'answer' | 'events' | undefined {
    if (recorded.kind === 'refused' || present.kind === 'refused') {
      return recorded.kind === present.kind && canonical(recorded) === canonical(present) ? undefined : 'answer';
    }
    return sameEvents(this.#present(record, recorded.events), present.events) ? undefined : 'events';
  }

  /** Recorded events as the other version would have recorded them. */
  #present(record: PlacedRecord, recorded: readonly EventEntry[]): readonly EventEntry[] {
    const { versions, version, events } = this.#instance.machine;
    const older = record.machineVersion < version && versions.upcasts;
    try {
      return recorded
        .flatMap((event) => (older ? versions.present(record.machineVersion, event) : [event]))
        .map(({ type, data }) => ({ type, data: events.get(type)?.parse(data) ?? data }));
    } catch {
      // `#follow` meets it again and says what it is.
      return recorded;
    }
  }

  #countAnswer(recorded: Came, present: Came): void {
    if (recorded.kind === 'accepted') this.#totals.refusedNow += 1;
    else if (present.kind === 'accepted') this.#totals.acceptedNow += 1;
    else this.#totals.refusedOtherwise += 1;
  }

  /** Isolated: goes on with the recorded events, and sees whether they lead where they led. */
  #follow(record: PlacedRecord, recorded: Came, present: Came, same: boolean): void {
    if (recorded.kind === 'refused') return;
    try {
      this.#instance.goOn(record, 0);
    } catch (thrown) {
      this.#totals.history += 1;
      this.#ended = 'history';
      const { code, message } = asFault(thrown);
      this.#add(record, 'history', recorded, { kind: 'refused', code, message }, false);
      return;
    }
    const { stateHash } = this.#instance;
    if (stateHash === recorded.stateHash) {
      this.#parted = false;
      return;
    }
    if (this.#parted) return;
    this.#parted = true;
    this.#countState(record, recorded, same ? present : { kind: 'accepted', events: recorded.events, stateHash });
  }

  #compareStates(record: PlacedRecord, recorded: Came, present: Came, same: boolean): void {
    const parted =
      present.kind === 'accepted' && recorded.kind === 'accepted' && present.stateHash !== recorded.stateHash;
    if (parted && same && !this.#parted) this.#countState(record, recorded, present);
    if (parted || !same) this.#parted = true;
    else if (recorded.kind === 'accepted') this.#parted = false;
  }

  #countState(record: PlacedRecord, recorded: Came, present: Came): void {
    const declared = !this.#instance.machine.versions.agreesWith(record.machineVersion);
    if (declared) this.#totals.statesDeclared += 1;
    else this.#totals.states += 1;
    this.#add(record, 'state', recorded, present, declared);
  }

  #add(record: PlacedRecord, kind: VersionDifference['kind'], recorded: Came, present: Came, declared: boolean): void {
    if (this.#differences.length >= this.#listedMax) return;
    const { position, seqBefore, now, command, input, key } = record;
    const difference = {
      kind,
      declared,
      position,
      seqBefore,
      now,
      command,
      input: bounded(input),
      recorded: boundedCame(recorded),
      present: boundedCame(present),
    };
    this.#differences.push(key === undefined ? difference : { ...difference, key });
  }
}

/** How long a listed value may be as JSON, and how many events of one command are listed. */
export const shownUnitsMax = 4_096;
export const shownEventsMax = 100;

/** The value, or where it begins and how long it is: differences are kept in memory until all are found. */
function bounded(value: unknown): unknown {
  const text = canonical(value);
  return text.length <= shownUnitsMax ? value : { cut: text.slice(0, shownUnitsMax), units: text.length };
}

function boundedCame(came: Came): Came {
  if (came.kind === 'refused') return came;
  const events = came.events.slice(0, shownEventsMax).map(({ type, data }) => ({ type, data: bounded(data) }));
  return { ...came, events, eventsTotal: came.events.length };
}

/** How many differences there are, whatever their kind, that nobody declared. */
export function undeclared(totals: DifferenceTotals): number {
  const { refusedNow, acceptedNow, refusedOtherwise, events, states, history } = totals;
  return refusedNow + acceptedNow + refusedOtherwise + events + states + history;
}

function cameOf({ outcome, hashes }: PlacedRecord): Came {
  if (outcome.kind === 'refused') {
    const { code, message, reason, field } = outcome;
    return refused(code, message, reason, field);
  }
  const events = outcome.kind === 'accepted' ? outcome.events : [];
  return { kind: 'accepted', events, stateHash: hashes[hashes.length - 1] ?? '' };
}

function cameAs(answer: CommandAnswer): Came {
  if (answer.kind === 'accepted') {
    const events = answer.events.map(({ type, data }) => ({ type, data }));
    return { kind: 'accepted', events, stateHash: answer.stateHash };
  }
  const { code, message, field } = answer.fault;
  return refused(code, message, answer.reason, field);
}

function refused(code: string, message: string, reason: string | undefined, field: string | undefined): Came {
  return {
    kind: 'refused',
    code,
    message,
    ...(reason === undefined ? {} : { reason }),
    ...(field === undefined ? {} : { field }),
  };
}

function sameEvents(a: readonly EventEntry[], b: readonly EventEntry[]): boolean {
  return (
    a.length === b.length &&
    a.every((event, i) => event.type === b[i]?.type && canonical(event.data) === canonical(b[i]?.data))
  );
}
