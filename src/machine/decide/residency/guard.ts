/** What guards a stored directory: a hash over all its entries. In a module of its own, because a small thread needs it alone. */

/** An entry as it is stored: the instance and the text of the rest. */
export type EntryText = readonly [instance: string, text: string];

/** What an entry counts for in the hash of a directory: the instance with its length in front, then the text. */
export function entryHashText([instance, text]: EntryText): string {
  return `${instance.length}:${instance}${text}`;
}

/** What a stored directory says of itself, at the record up to which it holds. */
export interface DirectoryGuard {
  readonly entries: number;
  /** `SetHash` over `entryHashText` of each. */
  readonly hash: string;
}
