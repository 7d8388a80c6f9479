import { assert } from '../kernel/assert.ts';
import { limits } from '../protocol/limits.ts';

/** Every bound of forwarding, with its reason. Times in milliseconds, sizes in bytes. */
export const proxyBounds = {
  /** Request line and headers together; more is answered with 431. */
  headBytesMax: 16 * 1024,
  /** Header fields of one request; more is answered with 431. */
  headersMax: 100,
  /** What a gate takes of a router beyond that: the router's own headers must not make a request too large. */
  gateHeadBytesMax: 18 * 1024,
  gateHeadersMax: 110,
  /** From the first byte of a head to its end; slower is answered with 408. */
  headTimeoutMs: 10_000,
  /** None (0) for the whole of a request: uploads may take long; idleTimeoutMs ends the silent ones. */
  requestTimeoutMs: 0,
  /** A body that is held (up to limits.heldBodyBytesMax) must have arrived within this. */
  heldBodyTimeoutMs: 30_000,
  /** How often the server looks for connections that are too slow. */
  connectionsCheckingIntervalMs: 1_000,
  /** Client connections of one listener; more are closed at once. */
  connectionsMax: 16_384,
  /** Requests that one connection may have sent ahead of the answer; then nothing more of it is read for now. */
  pipelinedMax: 16,
  /** How long a client's connection may stay open between requests. */
  keepAliveTimeoutMs: 65_000,
  /** Neither side sends anything: answer, upload or tunnel end here. */
  idleTimeoutMs: 600_000,

  connectTimeoutMs: 2_000,
  /** From the last byte that was passed on to the first of the answer. Covers a process that hangs. */
  firstByteTimeoutMs: 60_000,
  /** Requests and tunnels at one address at once; more are refused, never queued. */
  exchangesPerAddressMax: 1_024,
  freeSocketsPerAddressMax: 128,
  /** An unused connection is closed after this, long before the server would close it. */
  freeSocketTimeoutMs: 5_000,
  /** Silence on a connection until the kernel asks, the pause between its questions, and how many go unanswered. */
  tcpKeepAliveMs: 1_000,
  tcpKeepAliveProbes: 3,

  /** What is still read of a body that nobody wants, so that its sender gets to read the answer. */
  lingerBytesMax: 1024 * 1024,
  lingerMs: 1_000,
  /** How long answers in progress may take when a listener stops. */
  drainMs: 1_000,
} as const;

assert(
  proxyBounds.freeSocketTimeoutMs * 2 <= proxyBounds.keepAliveTimeoutMs,
  'a client that reuses a connection just as its server closes it would have to guess what became of the request',
);
assert(proxyBounds.drainMs < limits.stopGraceMs, 'a listener must be able to stop within the grace of its process');
