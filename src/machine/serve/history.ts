import type { Directory } from '../decide/residency/directory.ts';
import { decodeRecord, type PlacedRecord } from '../decide/log/record.ts';
import type { Log } from './log/log.ts';

/** Positions that are asked for at once while walking back, and records while reading. */
const walkRecords = 512;
const readRecords = 64;
/** Places of one walk that are kept, so that whoever reads on from where a page ended does not walk again. */
const keptPlacesMax = 16_384;

/** A record with events: where it is, and the last event before it and of it. */
interface Place {
  readonly position: number;
  readonly seqBefore: number;
  readonly seqAfter: number;
}

/**
 * Durable records of instances, found from the last one back. A page costs O(records after where it begins), and that
 * divided by the places that are kept for whoever reads page after page.
 */
export class History {
  readonly #directory: Directory;
  readonly #log: Pick<Log, 'read' | 'walk'>;
  /** Of the last walk: records with events without a gap, the oldest first. */
  #kept: { readonly instance: string; readonly places: readonly Place[] } = { instance: '', places: [] };

  constructor(directory: Directory, log: Pick<Log, 'read' | 'walk'>) {
    this.#directory = directory;
    this.#log = log;
  }

  /** Records with events after `afterSeq`, the oldest first, at most `limit`. */
  async read(instance: string, afterSeq: number, limit: number): Promise<readonly PlacedRecord[]> {
    const seq = this.#directory.get(instance)?.seq ?? 0;
    if (limit <= 0 || afterSeq >= seq) return [];
    const places = this.#fromKept(instance, afterSeq, limit, seq) ?? (await this.#walk(instance, afterSeq, limit));
    const records: PlacedRecord[] = [];
    for (let i = 0; i < places.length; i += readRecords) {
      const page = await this.#log.read(places.slice(i, i + readRecords).map(({ position }) => position));
      for (const { position, ...text } of page) records.push(decodeRecord(position, text));
    }
    return records;
  }

  #fromKept(instance: string, afterSeq: number, limit: number, seq: number): readonly Place[] | undefined {
    if (this.#kept.instance !== instance) return undefined;
    const { places } = this.#kept;
    const first = places.findIndex(({ seqAfter }) => seqAfter > afterSeq);
    const before = places[first]?.seqBefore;
    if (before === undefined || before > afterSeq) return undefined;
    const wanted = places.slice(first, first + limit);
    return wanted.length === limit || wanted.at(-1)?.seqAfter === seq ? wanted : undefined;
  }

  async #walk(instance: string, afterSeq: number, limit: number): Promise<readonly Place[]> {
    const keep = Math.max(limit, keptPlacesMax);
    let newestFirst: Place[] = [];
    let at = this.#directory.get(instance)?.position ?? 0;
    while (at > 0) {
      for (const { position, previous, seqBefore, seqAfter } of await this.#log.walk(at, walkRecords)) {
        at = seqAfter > afterSeq ? previous : 0;
        if (at > 0 || seqAfter > afterSeq) {
          if (seqAfter > seqBefore) newestFirst.push({ position, seqBefore, seqAfter });
        } else break;
      }
      if (newestFirst.length > 2 * keep) newestFirst = newestFirst.slice(-keep);
    }
    const places = newestFirst.slice(-keep).reverse();
    this.#kept = { instance, places: places.slice(0, keptPlacesMax) };
    return places.slice(0, limit);
  }
}
