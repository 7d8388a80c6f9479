/**
 * How signed routing frames are carried to a cell that has not seen them: `POST framesPath` with
 * `{"frames": [Signed, …]}`, by a router or a person, never through a router.
 */

/** Paths that belong to Cellwright on every gate. No router forwards them. */
export const reservedRoot = '/.cellwright';
export const framesPath = `${reservedRoot}/frames`;

/** What one request may carry: a snapshot of about 100,000 tenants, or the changes that concern one. */
export const carriedFramesMax = 64;
export const carriedBytesMax = 8 * 1024 * 1024;
