import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Type, type Static } from 'typebox';
import { Value } from 'typebox/value';
import type { Fault } from '../../../kernel/fault.ts';
import { fault } from '../../../protocol/errors.ts';
import { asFault } from '../../../protocol/problem.ts';
import type { DriftEvidence, DriftStates, Quarantine } from '../../decide/replica/drift.ts';
import { messageOf } from '../../decide/state/value.ts';
import { syncFolder } from '../log/mark.ts';

/** Where evidence lies, beside the log. */
export function quarantineFolderOf(folder: string): string {
  return join(folder, 'quarantine');
}

const evidenceEnding = '.json';
/** An empty file of this name asks whoever has the log open to look again, and perhaps to serve the instance. */
const requestEnding = '.release';
const temporaryEnding = '.new';
/** Evidence of quarantines that were ended. */
const releasedFolder = 'released';
/** How much evidence of ended quarantines is kept of one log; the oldest goes first. */
export const releasedFilesMax = 100;

const folderMode = 0o700;
const fileMode = 0o600;

/** Of `2026-11-21T17:00:00.000Z`, before the name of an instance. */
const stampLength = 24;

const evidenceFormat = 1;
/** What is read back; the rest is for a person. */
const KeptSchema = Type.Object({
  format: Type.Literal(evidenceFormat),
  instance: Type.String(),
  at: Type.String(),
  evidence: Type.Object({ reason: Type.String(), position: Type.Integer() }),
  releaseRefused: Type.Optional(Type.Object({ at: Type.String(), reason: Type.String() })),
});

/** One quarantined instance. */
export interface Quarantined {
  readonly instance: string;
  /** When it was found, in ISO 8601. */
  readonly at: string;
  readonly reason: string;
  /** Path of the evidence. */
  readonly file: string;
  /** Position of the record at which it parted; 0 if the evidence cannot be read. */
  readonly position: number;
  /** What became of the last attempt to end the quarantine, if it was refused. */
  readonly releaseRefused: { readonly at: string; readonly reason: string } | undefined;
}

export interface QuarantineOptions {
  /** The folder of the log. */
  readonly folder: string;
  /** What wrote the evidence: versions, the owner of the log. */
  readonly about: Readonly<Record<string, string>>;
  readonly nowMs: () => number;
  /** An instance was added, amended or released. */
  readonly onChange: () => void;
  /** Evidence could not be written: the instance is refused all the same, and a restart would forget it. */
  readonly onProblem: (problem: Fault) => void;
}

/**
 * Instances that are refused until an operator says otherwise, each with its evidence in a file: on disk before
 * anybody is told. Synchronous, because it is rare and nothing may be answered meanwhile.
 */
export class QuarantineFolder implements Quarantine {
  readonly #options: QuarantineOptions;
  readonly #folder: string;
  readonly #instances = new Map<string, { readonly entry: Quarantined; readonly document: unknown }>();
  readonly #releasing = new Set<string>();
  /** Why the ones that are being released may not be. */
  readonly #foundAgain = new Map<string, string>();

  /** Reads which instances are quarantined. A file whose text cannot be read quarantines the instance that it is named for. */
  constructor(options: QuarantineOptions) {
    this.#options = options;
    this.#folder = quarantineFolderOf(options.folder);
    for (const { entry, document } of readEvidence(options.folder)) {
      this.#instances.set(entry.instance, { entry, document });
    }
  }

  get size(): number {
    return this.#instances.size;
  }

  has(instance: string): boolean {
    return this.#instances.has(instance) && !this.#releasing.has(instance);
  }

  trustedBefore(instance: string): number | undefined {
    return this.#releasing.has(instance) ? this.get(instance)?.position : undefined;
  }

  get(instance: string): Quarantined | undefined {
    return this.#instances.get(instance)?.entry;
  }

  list(): readonly Quarantined[] {
    return [...this.#instances.values()].map(({ entry }) => entry);
  }

  /** What everybody is told who asks something of it. */
  refusal(instance: string): Fault | undefined {
    if (!this.has(instance)) return undefined;
    const { file, reason, at } = this.#instances.get(instance)?.entry ?? { file: '', reason: '', at: '' };
    const message =
      `${instance} is quarantined since ${at}: ${reason}. Nothing of it is served or changed until an operator ends ` +
      `this with \`cellwright quarantine release ${instance}\`. The evidence is in ${file}`;
    return fault('tenant-quarantined', message, { field: instance });
  }

  /** The first evidence stays: what is found later may only follow from it. */
  add(instance: string, evidence: DriftEvidence): void {
    // Found again while somebody tries to end it: `release` says so in the evidence that there is.
    if (this.#releasing.has(instance)) this.#foundAgain.set(instance, evidence.reason);
    if (this.#instances.has(instance)) return;
    const at = new Date(this.#options.nowMs()).toISOString();
    this.#write(instance, {
      format: evidenceFormat,
      instance,
      at,
      about: this.#options.about,
      evidence,
    });
  }

  /** Adds the comparison of both states, which takes longer than the rest. */
  amend(instance: string, states: DriftStates): void {
    const known = this.#instances.get(instance);
    if (known === undefined || !isRecord(known.document)) return;
    const evidence = isRecord(known.document['evidence']) ? known.document['evidence'] : {};
    this.#write(instance, { ...known.document, evidence: { ...evidence, states } });
  }

  /** Instances whose release somebody asks for. */
  requests(): readonly string[] {
    return this.#instances.size === 0 ? [] : requestsIn(this.#folder);
  }

  /**
   * Lets `prove` use the instance: it reads the state anew from the log and throws if a hash does not agree. Only then
   * the evidence is put away; else the quarantine goes on and the evidence says why.
   */
  async release(instance: string, prove: () => Promise<void>): Promise<boolean> {
    if (!this.#instances.has(instance) || this.#releasing.has(instance)) return false;
    this.#releasing.add(instance);
    let refused: string | undefined;
    try {
      await prove();
      if (!this.#foundAgain.has(instance)) this.#putAway(instance);
      else refused = this.#foundAgain.get(instance);
    } catch (thrown) {
      refused = this.#foundAgain.get(instance) ?? messageOf(thrown);
    }
    this.#foundAgain.delete(instance);
    const document = this.#instances.get(instance)?.document;
    if (refused !== undefined) {
      const at = new Date(this.#options.nowMs()).toISOString();
      this.#write(instance, { ...(isRecord(document) ? document : {}), releaseRefused: { at, reason: refused } });
    } else this.#instances.delete(instance);
    this.#releasing.delete(instance);
    rmSync(join(this.#folder, nameOf(instance) + requestEnding), { force: true });
    this.#options.onChange();
    return refused === undefined;
  }

  /** Takes away what evidence tells of an instance that is erased, that of ended quarantines included. */
  erase(instance: string): void {
    const ending = `-${nameOf(instance)}${evidenceEnding}`;
    const released = join(this.#folder, releasedFolder);
    if (existsSync(released)) {
      // Names begin with an instant in ISO 8601, which is as long for every file.
      const files = readdirSync(released).filter((file) => file.slice(stampLength) === ending);
      for (const file of files) rmSync(join(released, file), { force: true });
    }
    rmSync(join(this.#folder, nameOf(instance) + evidenceEnding), { force: true });
    if (this.#instances.delete(instance)) this.#options.onChange();
  }

  #putAway(instance: string): void {
    const released = join(this.#folder, releasedFolder);
    mkdirSync(released, { recursive: true, mode: folderMode });
    const stamp = new Date(this.#options.nowMs()).toISOString().replaceAll(':', '-');
    const name = nameOf(instance);
    renameSync(join(this.#folder, name + evidenceEnding), join(released, `${stamp}-${name}${evidenceEnding}`));
    syncFolder(released);
    syncFolder(this.#folder);
    const old = readdirSync(released).sort().slice(0, -releasedFilesMax);
    for (const file of old) rmSync(join(released, file), { force: true });
  }

  #write(instance: string, document: Readonly<Record<string, unknown>>): void {
    const file = join(this.#folder, nameOf(instance) + evidenceEnding);
    const fresh = !this.#instances.has(instance);
    // In memory first: whatever the disk does, it is refused from here on.
    this.#instances.set(instance, { entry: entryOf(instance, file, document), document });
    try {
      mkdirSync(this.#folder, { recursive: true, mode: folderMode });
      // A request that was left from an earlier quarantine must not end this one.
      if (fresh) rmSync(join(this.#folder, nameOf(instance) + requestEnding), { force: true });
      writeDurably(file, `${JSON.stringify(document, undefined, 2)}\n`);
      syncFolder(this.#options.folder);
    } catch (thrown) {
      const message = `The evidence against ${instance} could not be written to ${file}: ${messageOf(thrown)}; it is refused until this process ends`;
      this.#options.onProblem(fault('internal', message, { field: file, cause: asFault(thrown) }));
    }
    this.#options.onChange();
  }
}

/** Every quarantined instance of a log, read without opening it. Sorted by name. */
export function quarantinedIn(folder: string): readonly Quarantined[] {
  return readEvidence(folder).map(({ entry }) => entry);
}

/** The evidence as it is written, for a person; undefined if there is none. */
export function evidenceText(folder: string, instance: string): string | undefined {
  const file = join(quarantineFolderOf(folder), nameOf(instance) + evidenceEnding);
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

/** Asks whoever has the log open, now or later, to end the quarantine if every hash agrees. */
export function requestRelease(folder: string, instance: string): void {
  writeDurably(join(quarantineFolderOf(folder), nameOf(instance) + requestEnding), '');
}

/** Whether the request was not yet answered. */
export function isReleaseRequested(folder: string, instance: string): boolean {
  return existsSync(join(quarantineFolderOf(folder), nameOf(instance) + requestEnding));
}

function readEvidence(folder: string): readonly { readonly entry: Quarantined; readonly document: unknown }[] {
  const place = quarantineFolderOf(folder);
  return namesIn(place, evidenceEnding).map((instance) => {
    const file = join(place, nameOf(instance) + evidenceEnding);
    let document: unknown;
    try {
      document = JSON.parse(readFileSync(file, 'utf8'));
    } catch {
      document = undefined;
    }
    return { entry: entryOf(instance, file, document), document };
  });
}

function requestsIn(place: string): readonly string[] {
  return namesIn(place, requestEnding);
}

function namesIn(place: string, ending: string): readonly string[] {
  if (!existsSync(place)) return [];
  return readdirSync(place)
    .filter((name) => name.endsWith(ending))
    .sort()
    .flatMap((name) => {
      const instance = instanceOf(name.slice(0, -ending.length));
      return instance === undefined ? [] : [instance];
    });
}

function entryOf(instance: string, file: string, document: unknown): Quarantined {
  if (!Value.Check(KeptSchema, document)) {
    const reason = 'its evidence cannot be read';
    return { instance, at: 'an unknown time', reason, file, position: 0, releaseRefused: undefined };
  }
  const { at, evidence, releaseRefused }: Static<typeof KeptSchema> = document;
  return { instance, at, reason: evidence.reason, file, position: evidence.position, releaseRefused };
}

/** A file name that any instance's name can be. */
function nameOf(instance: string): string {
  return encodeURIComponent(instance).replaceAll('.', '%2E');
}

function instanceOf(name: string): string | undefined {
  try {
    return decodeURIComponent(name);
  } catch {
    return undefined;
  }
}

/** Whole or not at all, and on disk when it returns. */
function writeDurably(file: string, text: string): void {
  const temporary = `${file}${temporaryEnding}`;
  const handle = openSync(temporary, 'w', fileMode);
  try {
    writeFileSync(handle, text);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  renameSync(temporary, file);
  syncFolder(join(file, '..'));
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
