/**
 * What users of the package import: the means to define a machine and to test it. Everything else
 * is reached through the command line and HTTP.
 */
export { machine, table, isMachine, type Machine } from './machine/decide/definition/machine.ts';
export { upcast, type RetiredEvent, type Upcaster, type Upcasters } from './machine/decide/definition/versions.ts';
export type {
  CommandContext,
  CommandDefinition,
  Effects,
  EventDefinition,
  EventOf,
  IndexRange,
  IndexView,
  Invariant,
  InvariantDefinition,
  MachineDefinition,
  QueryDefinition,
  Random,
  Refusal,
  RowChange,
  ScanRange,
  TableDefinition,
  TableView,
  TableWriter,
  TimerOf,
} from './machine/decide/definition/define.ts';
export { openInMemory, type MemoryInstance, type MemoryOptions } from './machine/decide/instance/memory.ts';
export type { Message, Timer } from './machine/decide/state/effects.ts';
export type { CommandAnswer, RecordedEvent } from './machine/decide/instance/answers.ts';
export { Fault } from './kernel/fault.ts';
/** Schemas are TypeBox's; from here, so that a machine needs no other import. */
export { Type, type Static } from 'typebox';
