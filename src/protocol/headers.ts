/** Headers between router, gate and client. All are lower case; clients cannot set any of them. */
export const headerPrefix = 'cellwright-';

export const headers = {
  /** Request, router → gate: the tenant that the router read from the partition key. */
  tenant: 'cellwright-tenant',
  /** Request, router → gate: the epoch of the assignment that the router followed. */
  epoch: 'cellwright-epoch',
  /** Request: the cell that is meant. Answer to clients: the cell that served. */
  cell: 'cellwright-cell',
  /**
   * Answer, gate → router: the code with which the gate itself refused, before the application
   * saw a byte. Its presence, never the status, makes an answer the gate's own.
   */
  refusal: 'cellwright-refusal',
  /** Answer, gate → router: the assignment that the cell knows, as `CELL EPOCH`. */
  assignment: 'cellwright-assignment',
} as const;

/** The partition key that example fleets read. */
export const tenantHeader = 'x-tenant';
export const idempotencyKeyHeader = 'idempotency-key';
