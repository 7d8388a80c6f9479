import { Fault, type FaultKind, type FaultOptions } from '../kernel/fault.ts';

/**
 * Every error that leaves a Cellwright process, in one table: code → HTTP status, reaction, title.
 * `docs/errors.md` lists the same rows; a test keeps them in step.
 */
export const errorTable = {
  // What a client of an application sees, from the router.
  'tenant-missing': { status: 400, reaction: 'fix-input', title: 'The request names no tenant' },
  'tenant-ambiguous': { status: 400, reaction: 'fix-input', title: 'The request names more than one tenant' },
  'tenant-malformed': { status: 400, reaction: 'fix-input', title: 'The tenant name is not well formed' },
  'tenant-unknown': { status: 404, reaction: 'fix-input', title: 'No such tenant' },
  'tenant-not-known-yet': {
    status: 503,
    reaction: 'retry',
    title: 'The tenant is not in the routing table, which may be behind',
  },
  'request-malformed': { status: 400, reaction: 'fix-input', title: 'The HTTP request is malformed or ambiguous' },
  'head-too-large': { status: 431, reaction: 'fix-input', title: 'The head of the request is too large' },
  'request-too-slow': { status: 408, reaction: 'retry', title: 'The request did not arrive in time' },
  'cell-unreachable': { status: 503, reaction: 'retry', title: 'The cell of this tenant cannot be reached' },
  'cell-timeout': { status: 504, reaction: 'retry', title: 'The cell of this tenant did not answer in time' },
  'outcome-unknown': {
    status: 502,
    reaction: 'repeat-with-key',
    title: 'The request was sent, but its outcome is not known',
  },
  'answer-cut': {
    status: 502,
    reaction: 'retry',
    title: 'The cell of this tenant closed the connection instead of answering',
  },
  'assignment-unsettled': {
    status: 503,
    reaction: 'retry',
    title: 'Router and cell do not agree yet on where this tenant lives',
  },
  'limit-exceeded': { status: 429, reaction: 'retry', title: 'A limit was reached' },
  draining: { status: 503, reaction: 'retry', title: 'This process is stopping' },

  // What a gate says to a router.
  'not-owner': { status: 421, reaction: 'retry', title: 'This cell does not own the tenant' },
  'cell-behind': { status: 503, reaction: 'retry', title: 'This cell has not yet seen the epoch of the request' },
  'wrong-cell': { status: 421, reaction: 'retry', title: 'The request was meant for another cell' },
  'cell-not-ready': { status: 503, reaction: 'retry', title: 'The cell is starting' },
  'cell-damaged': {
    status: 503,
    reaction: 'operator',
    title: 'The log of this cell cannot be proven, so it refuses its tenants',
  },
  'cell-refusing': {
    status: 503,
    reaction: 'operator',
    title: 'The cell cannot serve until somebody corrects what it runs',
  },
  'tenant-quarantined': {
    status: 503,
    reaction: 'operator',
    title: 'The state of this tenant does not follow from its records, so it is refused',
  },
  'workload-down': { status: 503, reaction: 'retry', title: 'The application of this cell is not running' },

  // What a machine says.
  'input-invalid': { status: 400, reaction: 'fix-input', title: 'The input does not fit the schema' },
  'command-unknown': { status: 404, reaction: 'fix-input', title: 'No such command' },
  'query-unknown': { status: 404, reaction: 'fix-input', title: 'No such query' },
  'command-refused': { status: 409, reaction: 'fix-input', title: 'The command was refused' },
  'invariant-violated': { status: 422, reaction: 'fix-input', title: 'The command would break an invariant' },
  'idempotency-key-reused': {
    status: 422,
    reaction: 'fix-input',
    title: 'The idempotency key was used before with another input',
  },
  'handler-failed': { status: 500, reaction: 'defect', title: 'A handler of the application failed' },
  'effects-full': {
    status: 503,
    reaction: 'retry',
    title: 'The instance has as many timers or messages as it may hold',
  },
  'log-busy': { status: 503, reaction: 'retry', title: 'The log has more work queued than it may hold' },
  'log-full': { status: 507, reaction: 'retry', title: 'The disk of the log is full, so nothing can be changed' },
  'log-stopped': { status: 503, reaction: 'retry', title: 'The log stopped after a write error; the process restarts' },
  'body-too-large': { status: 413, reaction: 'fix-input', title: 'The body is larger than the limit' },
  'not-found': { status: 404, reaction: 'fix-input', title: 'Nothing is here' },
  'method-not-allowed': { status: 405, reaction: 'fix-input', title: 'The method does not fit this address' },

  // What the control plane says.
  unauthenticated: { status: 401, reaction: 'fix-input', title: 'A valid bearer token is needed' },
  forbidden: { status: 403, reaction: 'fix-input', title: 'This token may not do that' },
  'resource-invalid': { status: 400, reaction: 'fix-input', title: 'The resource does not fit its schema' },
  'resource-unknown': { status: 404, reaction: 'fix-input', title: 'No such resource' },
  'kind-unknown': { status: 400, reaction: 'fix-input', title: 'No such kind of resource' },
  'version-conflict': { status: 412, reaction: 'fix-input', title: 'The resource has changed since it was read' },
  'reference-missing': { status: 409, reaction: 'fix-input', title: 'The resource refers to one that does not exist' },
  'still-in-use': { status: 409, reaction: 'fix-input', title: 'The resource is still in use' },
  'no-permitted-cell': { status: 409, reaction: 'fix-input', title: 'No cell may host this tenant' },
  'needs-move': { status: 409, reaction: 'fix-input', title: 'The change needs the tenant to move to another cell' },
  'field-immutable': { status: 409, reaction: 'fix-input', title: 'The field cannot be changed' },
  'capacity-exceeded': { status: 409, reaction: 'fix-input', title: 'The capacity of the cell would be exceeded' },

  // What starting and files can meet.
  usage: { status: 400, reaction: 'fix-input', title: 'The command line is not right' },
  'file-unreadable': { status: 400, reaction: 'fix-input', title: 'The file cannot be read' },
  'yaml-malformed': { status: 400, reaction: 'fix-input', title: 'The file is not well-formed YAML' },
  'port-in-use': { status: 409, reaction: 'fix-input', title: 'The port is in use' },
  'folder-in-use': { status: 409, reaction: 'fix-input', title: 'The data folder is in use by another process' },
  'folder-unwritable': { status: 403, reaction: 'fix-input', title: 'The data folder cannot be written' },
  'folder-older': { status: 409, reaction: 'fix-input', title: 'The data is of a version before the first release' },
  'folder-newer': { status: 409, reaction: 'fix-input', title: 'The data folder was written by a newer version' },
  'folder-foreign': {
    status: 409,
    reaction: 'fix-input',
    title: 'The folder holds something else than this process owns',
  },
  'log-damaged': { status: 503, reaction: 'operator', title: 'The log cannot be proven' },
  'machine-unloadable': { status: 500, reaction: 'fix-input', title: 'The machine of the blueprint cannot be loaded' },
  'history-erased': { status: 410, reaction: 'fix-input', title: 'What is asked for was erased' },
  'control-unreachable': { status: 503, reaction: 'retry', title: 'The control plane cannot be reached' },
  'fleet-not-running': { status: 503, reaction: 'fix-input', title: 'No fleet is running on this data folder' },
  'start-failed': { status: 500, reaction: 'operator', title: 'A process of the fleet did not start' },
  'frame-refused': { status: 409, reaction: 'retry', title: 'A routing frame was refused' },
  internal: { status: 500, reaction: 'defect', title: 'Something that must hold did not' },
} as const satisfies Readonly<Record<string, FaultKind>>;

export type ErrorCode = keyof typeof errorTable;

/** Makes a fault with a row of the table; the message says what happened here and what to do. */
export function fault(code: ErrorCode, message: string, options?: FaultOptions): Fault {
  return new Fault(code, errorTable[code], message, options);
}
