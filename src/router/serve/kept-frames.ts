import { link, open, readFile, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { fault } from '../../protocol/errors.ts';
import type { Fault } from '../../kernel/fault.ts';
import { asFault } from '../../protocol/problem.ts';
import type { TenantName } from '../../protocol/names.ts';
import { RoutingFrameSchema, SignedSchema, type RoutingFrame, type Signed } from '../../protocol/routing.ts';
import type { Verifier } from '../../trust/signature.ts';
import { writeFileAtomically } from '../../process/folder.ts';
import { Value } from 'typebox/value';

/** The file grows by changes until either bound; then a fresh snapshot is asked for and takes their place. */
export const keptBounds = {
  changesMax: 4_096,
  changeBytesMax: 8 * 1024 * 1024,
} as const;

const fileName = 'frames';
const damagedFileName = 'frames.damaged';

/** A frame whose signature was checked. */
export interface ProvenFrame {
  readonly signed: Signed;
  readonly frame: RoutingFrame;
}

export interface KeptFramesOptions {
  readonly folder: string;
  readonly verifier: Verifier;
  /** Takes each frame of the disk in order; `undefined` if it fits, else why it does not. */
  readonly apply: (frame: RoutingFrame) => Fault | undefined;
  /** Damage and disk errors. Serving goes on: the control plane can bring the frames again. */
  readonly onProblem: (problem: Fault) => void;
}

/**
 * The signed frames as they came, in memory and in `FOLDER/frames`, one a line: a snapshot, then
 * changes. Whoever has the file and the fleet's public key can prove the routing table without the
 * control plane. Writing happens behind the requests: a frame is used before it is on disk, because
 * losing it at a crash only makes the table older.
 */
export class KeptFrames {
  readonly #path: string;
  readonly #options: KeptFramesOptions;
  #frames: ProvenFrame[] = [];
  #changeBytes = 0;
  #unwritten: Signed[] = [];
  #rewrites = false;
  #writing: Promise<void> | undefined;
  #file: FileHandle | undefined;

  private constructor(options: KeptFramesOptions) {
    this.#options = options;
    this.#path = join(options.folder, fileName);
  }

  /** Reads the file and uses everything provable before the first damage, which is reported and put aside. */
  static async open(options: KeptFramesOptions): Promise<KeptFrames> {
    const kept = new KeptFrames(options);
    await kept.#load();
    return kept;
  }

  /** Whether the changes have outgrown their bounds. */
  get isFull(): boolean {
    return this.#frames.length - 1 > keptBounds.changesMax || this.#changeBytes > keptBounds.changeBytesMax;
  }

  /** Keeps a frame that the table took. A snapshot takes the place of everything before it. */
  add(proven: ProvenFrame): void {
    if (proven.frame.kind === 'snapshot') {
      this.#frames = [proven];
      this.#changeBytes = 0;
      this.#unwritten = [];
      this.#rewrites = true;
    } else {
      this.#frames.push(proven);
      this.#changeBytes += proven.signed.payload.length;
      this.#unwritten.push(proven.signed);
    }
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
  }

  /** The newest frame that says something of a tenant: what a cell needs to believe its assignment. O(frames kept). */
  concerning(tenant: TenantName): readonly Signed[] {
    const newest = this.#frames.findLast(({ frame }) => frame.tenants.some((entry) => entry.tenant === tenant));
    return newest === undefined ? [] : [newest.signed];
  }

  /** Resolves when everything kept so far is on disk, or could not be written. */
  async flushed(): Promise<void> {
    await this.#writing;
  }

  async close(): Promise<void> {
    await this.flushed();
    await this.#file?.close();
    this.#file = undefined;
  }

  async #load(): Promise<void> {
    let bytes: Buffer;
    try {
      bytes = await readFile(this.#path);
    } catch (cause) {
      const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
      if (!missing) this.#options.onProblem(unreadable(this.#path, 'it cannot be read', cause));
      this.#rewrites = !missing;
      return;
    }
    // A line without its end was cut by a crash in the middle of a write: never acknowledged, so dropped.
    const lines = bytes.toString('utf8').split('\n');
    const torn = lines.pop();
    let damage: Fault | undefined;
    for (const [index, line] of lines.entries()) {
      try {
        const proven = prove(JSON.parse(line), this.#options.verifier);
        damage = this.#options.apply(proven.frame);
        if (damage === undefined) {
          if (proven.frame.kind === 'change') this.#changeBytes += proven.signed.payload.length;
          this.#frames.push(proven);
          continue;
        }
      } catch (thrown) {
        damage = asFault(thrown);
      }
      this.#options.onProblem(
        unreadable(this.#path, `line ${index + 1} of ${lines.length}: ${damage.message}`, damage),
      );
      break;
    }
    if (damage !== undefined) await this.#keepEvidence();
    this.#rewrites = damage !== undefined || (torn !== undefined && torn !== '');
    if (this.#rewrites && this.#frames.length > 0) await this.#writeAll();
  }

  /**
   * Gives the damaged file a second name. The first stays until a whole file takes its place: a crash or a full disk
   * in between must not cost the frames that can be proven.
   */
  async #keepEvidence(): Promise<void> {
    const evidence = join(this.#options.folder, damagedFileName);
    try {
      await rm(evidence, { force: true });
      await link(this.#path, evidence);
    } catch (cause) {
      this.#options.onProblem(unreadable(this.#path, `it cannot be kept as ${damagedFileName}`, cause));
    }
  }

  async #writeAll(): Promise<void> {
    try {
      while (this.#rewrites || this.#unwritten.length > 0) {
        if (this.#rewrites) await this.#rewrite();
        else await this.#append();
      }
    } catch (cause) {
      // Whether the disk holds a part of it is not known: the next frame writes everything anew.
      this.#rewrites = true;
      this.#options.onProblem(unreadable(this.#path, 'it cannot be written; the table is kept in memory only', cause));
    }
  }

  async #rewrite(): Promise<void> {
    this.#rewrites = false;
    this.#unwritten = [];
    const text = this.#frames.map(({ signed }) => lineOf(signed)).join('');
    await this.#file?.close();
    this.#file = undefined;
    await writeFileAtomically(this.#path, text);
  }

  async #append(): Promise<void> {
    const batch = this.#unwritten;
    this.#unwritten = [];
    this.#file ??= await open(this.#path, 'a');
    await this.#file.appendFile(batch.map(lineOf).join(''));
    await this.#file.datasync();
  }
}

/** Checks shape and signature. Fault `frame-refused`. */
export function prove(signed: unknown, verifier: Verifier): ProvenFrame {
  const frame = verifier.verify(signed, RoutingFrameSchema);
  if (!Value.Check(SignedSchema, signed)) throw fault('frame-refused', 'A routing frame is not a signed document.');
  return { signed, frame };
}

function lineOf(signed: Signed): string {
  const { payload, signature, key } = signed;
  return `${JSON.stringify({ payload, signature, key })}\n`;
}

function unreadable(path: string, why: string, cause: unknown): Fault {
  return fault('file-unreadable', `${path}: ${why}. The control plane brings the routing table again.`, {
    field: path,
    cause,
  });
}
