import { assert } from '../kernel/assert.ts';

/** Every bound that two rooms share, with its reason. Bounds of one room stand in that room. */
export const limits = {
  /** A parent's death is noticed at once (a pipe ends); this is what a child may take to stop. */
  stopGraceMs: 2_000,
  /** INTERFACE: no process is left behind for longer than this after a SIGKILL of its parent. */
  orphanLifeMsMax: 5_000,

  statusIntervalMs: 1_000,
  statusStaleMs: 5_000,

  /** The control plane beats on every stream; a follower without a beat for `streamStaleMs` reconnects. */
  streamBeatMs: 1_000,
  streamStaleMs: 4_000,
  reconnectDelayMsMin: 50,
  reconnectDelayMsMax: 2_000,

  /** How long PUT of a tenant waits until the tenant can be served, before it answers 202. */
  servedWaitMsMax: 2_000,

  /** Bodies up to this are held in memory by the router, so that a gate's refusal can be followed. */
  heldBodyBytesMax: 64 * 1024,
  /** A command or query of a machine. */
  machineInputBytesMax: 1024 * 1024,
  /** A request to the control API: 10,000 resources, which is what one apply takes, of 1,600 bytes each. */
  controlBodyBytesMax: 16 * 1024 * 1024,
  frameBytesMax: 64 * 1024 * 1024,

  /** Times that a router follows a gate's refusal for one request: old table, then the new owner. */
  hopsMax: 2,
  /** How long a router waits for a cell that is behind or restarting before it answers 503. */
  settleWaitMsMax: 1_000,

  idempotencyKeyLengthMax: 255,
  idempotencyKeyLifeMs: 24 * 60 * 60 * 1000,
  /** Newest keys kept per tenant; the oldest is forgotten first, even before its time. */
  idempotencyKeysPerTenantMax: 100_000,
} as const;

assert(
  limits.stopGraceMs < limits.orphanLifeMsMax,
  'a child that stops as slowly as it may must still be gone in time',
);
assert(limits.streamBeatMs * 3 <= limits.streamStaleMs, 'one late beat must not look like a dead stream');
assert(limits.statusIntervalMs * 3 <= limits.statusStaleMs, 'one lost status must not look like a dead process');
assert(
  limits.heldBodyBytesMax < limits.machineInputBytesMax,
  'larger bodies go with Expect: 100-continue, so that path is used',
);
