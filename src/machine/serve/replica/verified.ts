import { version as nodeVersion } from 'node:process';
import type { Fault } from '../../../kernel/fault.ts';
import { QuarantineFolder } from './quarantine.ts';
import { Replica, type ReplicaFigures, type ReplicaSource } from './replica.ts';
import { openRuntime, type Runtime, type RuntimeOptions } from '../runtime.ts';

export interface VerifiedOptions extends Omit<RuntimeOptions, 'quarantine' | 'onDurable'> {
  /** How a second thread loads the machines, to replay every record once more; without it nobody does. */
  readonly replica: ReplicaSource | undefined;
  /** An instance was quarantined or released, or its evidence grew. */
  readonly onQuarantine: () => void;
  /** Evidence that could not be written, or a replica that failed: nobody is refused for it. */
  readonly onProblem: (message: string, cause?: Fault) => void;
}

/** A runtime whose quarantine is kept beside its log, and that a replica may verify. */
export interface Verified {
  readonly runtime: Runtime;
  readonly quarantine: QuarantineFolder;
  readonly replica: ReplicaFigures | undefined;
  /** Makes a quarantined instance again from its log, every hash checked; rejects if one does not agree. */
  prove(instance: string): Promise<void>;
  close(): Promise<void>;
}

/** Opens a log as `openRuntime` does, with its faults. */
export async function openVerified(options: VerifiedOptions): Promise<Verified> {
  const { replica: source, onQuarantine, onProblem, ...rest } = options;
  const quarantine = new QuarantineFolder({
    folder: rest.folder,
    about: { owner: rest.owner, node: nodeVersion },
    nowMs: rest.nowMs,
    onChange: onQuarantine,
    onProblem: (problem) => onProblem(problem.message, problem),
  });
  let replica: Replica | undefined;
  const runtime = await openRuntime({
    ...rest,
    quarantine,
    ...(source === undefined ? {} : { onDurable: (records) => replica?.publish(records) }),
  });
  if (source !== undefined) {
    replica = new Replica({
      source,
      capture: (instance) => runtime.capture(instance),
      rowsOf: (instance) => runtime.rowsOf(instance),
      onDrift: (instance, evidence) => runtime.quarantineInstance(instance, evidence),
      onCompared: (instance, states) => quarantine.amend(instance, states),
      onProblem: (message) => onProblem(message),
    });
  }
  return {
    runtime,
    quarantine,
    get replica() {
      return replica?.figures;
    },
    prove: async (instance) => {
      await runtime.state(instance);
    },
    close: async () => {
      await replica?.close();
      await runtime.close();
    },
  };
}
