import { messageOf } from '../../machine/decide/state/value.ts';
import { isErasure } from '../../machine/decide/log/erasure.ts';
import { decodeHead, type RecordHead } from '../../machine/decide/log/record.ts';
import { shown, type Finding, type Findings } from './finding.ts';

/** A row of the table `record`, before anything is believed of it. */
export interface StoredRow {
  readonly position: unknown;
  readonly head: unknown;
  readonly payload: unknown;
  readonly digest: unknown;
  readonly chain: unknown;
}

/** The hashes of `docs/log-format.md`, given from outside because pure code has no SHA-256. */
export interface LogHashes {
  readonly digestOf: (payload: string) => string;
  readonly chainOf: (previous: string, head: string, digest: string) => string;
}

/** What the mark names: the last record that may have been acknowledged. */
export interface MarkedEnd {
  readonly position: number;
  readonly chain: string;
}

/** A record whose head can be read, with its payload unless that was erased or does not fit its digest. */
export interface ProvenRow {
  readonly head: RecordHead;
  readonly payload: string | undefined;
  /** Whether it was erased; if not, a missing payload was changed. */
  readonly erased: boolean;
}

/** Where the records of an instance have come to. */
interface Line {
  position: number;
  seq: number;
  hash: string;
}

export interface ProvenCounts {
  /** Positions of the first and the last record; 0 if there is none. */
  readonly first: number;
  readonly last: number;
  readonly records: number;
  readonly instances: number;
  /** Records whose payload was erased: the chain is proven by its digest. */
  readonly erased: number;
  readonly batches: number;
}

/**
 * Proves a log row by row and goes on after damage, so that everything that is wrong is named once: digests, chain, mark,
 * and that each record of an instance begins where the one before ended. O(1) a row, and memory by instances.
 */
export class ChainProof {
  readonly #hashes: LogHashes;
  readonly #mark: MarkedEnd | undefined;
  readonly #findings: Findings;
  readonly #lines = new Map<string, Line>();
  /** Records up to here were removed on purpose, so nothing is known of what an instance was there. */
  readonly #removed: number;
  /** First record of an instance that lost what it said, until a later record of the instance says that it was erased. */
  readonly #lost = new Map<string, { readonly file: string; readonly position: number }>();
  /** Chain up to the last row; unknown after a gap, until a row tells its own. */
  #chain: string | undefined;
  #chainedAt: number;
  #first = 0;
  #position: number;
  #now = 0;
  #records = 0;
  #erased = 0;
  #batches = 0;

  /** `start` is where the chain begins: position 0 for a whole log. */
  constructor(start: MarkedEnd, hashes: LogHashes, mark: MarkedEnd | undefined, findings: Findings) {
    this.#chain = start.chain;
    this.#removed = start.position;
    this.#position = start.position;
    this.#chainedAt = start.position;
    this.#hashes = hashes;
    this.#mark = mark;
    this.#findings = findings;
  }

  get counts(): ProvenCounts {
    return {
      first: this.#first,
      last: this.#position,
      records: this.#records,
      instances: this.#lines.size,
      erased: this.#erased,
      batches: this.#batches,
    };
  }

  /** Takes the next row; undefined if it says nothing that could be used. */
  take(file: string, row: StoredRow): ProvenRow | undefined {
    const { position, head, payload, digest, chain } = row;
    const expected = this.#position + 1;
    if (typeof position !== 'number' || position < expected) {
      this.#add(file, 'record-unreadable', expected, { message: `Record ${shown(position)} stands out of order` });
      return undefined;
    }
    if (position > expected) {
      const which = position === expected + 1 ? `Record ${expected} is` : `Records ${expected} to ${position - 1} are`;
      this.#add(file, 'record-missing', expected, { message: `${which} missing` });
      this.#chain = undefined;
      this.#chainedAt = position - 1;
    }
    this.#position = position;
    this.#records += 1;
    if (this.#first === 0) this.#first = position;
    if (typeof head !== 'string' || typeof digest !== 'string') {
      this.#chain = undefined;
      this.#add(file, 'record-unreadable', position, { message: `Record ${position} has no head or no digest` });
      this.#compareChain(file, position, chain);
      return undefined;
    }
    if (this.#chain !== undefined) this.#chain = this.#hashes.chainOf(this.#chain, head, digest);
    this.#compareChain(file, position, chain);
    const decoded = this.#decode(file, position, head);
    const whole = this.#provenPayload(file, position, decoded?.instance, payload, digest);
    if (decoded === undefined) return undefined;
    this.#link(file, decoded);
    return { head: decoded, payload: whole, erased: payload === null };
  }

  /** Before the rows of a file that begins after `base`: what came before it must have led there. */
  begin(file: string, before: string, base: MarkedEnd): void {
    const expected = this.#position + 1;
    if (base.position < this.#position) return;
    if (base.position > this.#position) {
      const message = `Records ${expected} to ${base.position} are missing`;
      this.#add(before, 'record-missing', expected, { message });
    } else if (this.#chain !== undefined && this.#chain !== base.chain) {
      const message = `Record ${base.position} is not the one after which ${file} begins`;
      this.#add(before, 'chain-broken', base.position, { message, expected: base.chain, found: this.#chain });
    }
    this.#position = base.position;
    this.#chain = base.chain;
    this.#chainedAt = base.position;
  }

  /** After the last row: whether the log reaches its mark, and does not end inside a batch. */
  end(file: string, markFile: string): void {
    const last = this.#position;
    for (const [instance, { file: where, position }] of this.#lost) {
      const message = `Record ${position} of ${instance} lost what it said, and no later record says that it was erased`;
      this.#add(where, 'payload-missing', position, { instance, message });
    }
    if (this.#chain !== undefined && this.#chainedAt !== last) {
      const message = `The log ends inside a batch: records ${this.#chainedAt + 1} to ${last} have no chain`;
      this.#add(file, 'log-cut', last, { message });
    }
    const mark = this.#mark;
    if (mark === undefined || mark.position <= last) return;
    const message = `The log ends at record ${last}, but records up to ${mark.position} were acknowledged`;
    this.#add(markFile, 'log-cut', last, { message, expected: String(mark.position), found: String(last) });
  }

  #add(file: string, kind: Finding['kind'], position: number, rest: Omit<Finding, 'file' | 'kind' | 'position'>): void {
    this.#findings.add({ kind, file, position, ...rest });
  }

  #compareChain(file: string, position: number, stored: unknown): void {
    if (stored !== null) {
      this.#batches += 1;
      if (typeof stored !== 'string') {
        this.#add(file, 'chain-broken', position, { message: `Record ${position} has a chain that is no text` });
      } else if (this.#chain !== undefined && stored !== this.#chain) {
        const range =
          this.#chainedAt + 1 === position ? `record ${position}` : `a record of ${this.#chainedAt + 1} to ${position}`;
        const message = `The chain breaks: ${range} was changed, dropped or put elsewhere`;
        this.#add(file, 'chain-broken', position, { message, expected: stored, found: this.#chain });
      }
      // From here on the log's own word is taken again, so that one damaged batch is named once.
      if (typeof stored === 'string') this.#chain = stored;
      this.#chainedAt = position;
    }
    const mark = this.#mark;
    if (mark?.position !== position || this.#chain === undefined || mark.chain === this.#chain) return;
    const message = `Record ${position} is not the one that the mark names as acknowledged`;
    this.#add(file, 'mark-differs', position, { message, expected: mark.chain, found: this.#chain });
  }

  #decode(file: string, position: number, head: string): RecordHead | undefined {
    try {
      return decodeHead(position, head);
    } catch (thrown) {
      this.#add(file, 'record-unreadable', position, { message: messageOf(thrown), found: shown(head) });
      return undefined;
    }
  }

  #provenPayload(
    file: string,
    position: number,
    instance: string | undefined,
    payload: unknown,
    digest: string,
  ): string | undefined {
    if (payload === null) {
      this.#erased += 1;
      if (instance !== undefined && !this.#lost.has(instance)) this.#lost.set(instance, { file, position });
      return undefined;
    }
    const found = typeof payload === 'string' ? this.#hashes.digestOf(payload) : 'no text';
    if (typeof payload === 'string' && found === digest) {
      if (instance !== undefined && isErasure(payload)) this.#lost.delete(instance);
      return payload;
    }
    const message = `The payload of record ${position} was changed: it does not have the digest that the chain holds`;
    const whose = instance === undefined ? {} : { instance };
    this.#add(file, 'payload-changed', position, { ...whose, message, expected: digest, found });
    return undefined;
  }

  #link(file: string, head: RecordHead): void {
    const { position, instance, previous, seqBefore, hashes, now } = head;
    const line = this.#lines.get(instance);
    const broken = (what: string, expected: string, found: string): void => {
      const message = `Record ${position} of ${instance} does not follow: ${what} should be ${expected}, and is ${found}`;
      this.#add(file, 'link-broken', position, { instance, message, expected, found });
    };
    if (line === undefined && previous > 0 && previous <= this.#removed) {
      // What it stood on was removed; from here on it must hold again.
    } else if (previous !== (line?.position ?? 0)) {
      broken('the position of its record before', String(line?.position ?? 0), String(previous));
    } else if (seqBefore !== (line?.seq ?? 0)) {
      broken('its sequence', String(line?.seq ?? 0), String(seqBefore));
    } else if (line !== undefined && hashes[0] !== line.hash) {
      broken('its state hash before', line.hash, hashes[0] ?? '');
    }
    if (now < this.#now) {
      const message = `Record ${position} of ${instance} goes back in time`;
      this.#add(file, 'time-reversed', position, { instance, message, expected: `≥ ${this.#now}`, found: String(now) });
    }
    this.#now = Math.max(this.#now, now);
    const seq = seqBefore + hashes.length - 1;
    const hash = hashes[hashes.length - 1] ?? '';
    if (line === undefined) this.#lines.set(instance, { position, seq, hash });
    else Object.assign(line, { position, seq, hash });
  }
}
