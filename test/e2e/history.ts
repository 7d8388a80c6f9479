/** What clients of the orders example did and saw: the driver writes it, the checker reads it. */

export type Write =
  | { readonly kind: 'addStock'; readonly item: string; readonly quantity: number }
  | { readonly kind: 'placeOrder'; readonly id: string; readonly item: string; readonly quantity: number }
  | { readonly kind: 'cancelOrder'; readonly id: string };

export type Operation =
  | { readonly kind: 'write'; readonly key: string; readonly write: Write }
  | { readonly kind: 'state' }
  | { readonly kind: 'orders' }
  | { readonly kind: 'stock' };

export interface OrderRow {
  readonly id: string;
  readonly item: string;
  readonly quantity: number;
}
export interface StockRow {
  readonly item: string;
  readonly quantity: number;
}

export type Outcome =
  | { readonly kind: 'accepted'; readonly seq: number; readonly events: number; readonly stateHash: string }
  /** The application's no (409, 422): nothing was changed. */
  | { readonly kind: 'refused'; readonly status: number; readonly code: string }
  | { readonly kind: 'state'; readonly seq: number; readonly epoch: number; readonly stateHash: string }
  | { readonly kind: 'orders'; readonly rows: readonly OrderRow[] }
  | { readonly kind: 'stock'; readonly rows: readonly StockRow[] }
  /** An answer that is none of the application's: router or gate. A write may or may not have happened. */
  | { readonly kind: 'failed'; readonly status: number; readonly code: string; readonly retryAfter: string | undefined }
  /** No answer at all. */
  | { readonly kind: 'broken'; readonly reason: string };

/** One attempt. `began` and `ended` are ticks of one counter, so their order is the real order. */
export interface Entry {
  readonly tenant: string;
  readonly operation: Operation;
  readonly outcome: Outcome;
  /** The cell that served it, by the answer's header. */
  readonly cell: string | undefined;
  readonly began: number;
  readonly ended: number;
  readonly beganMs: number;
  readonly endedMs: number;
}

/** What a tenant holds in the end, read after every write was settled. */
export interface Final {
  readonly seq: number;
  readonly stateHash: string;
  readonly orders: readonly OrderRow[];
  readonly stock: readonly StockRow[];
}
