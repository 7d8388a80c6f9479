import type { AnyNode } from 'acorn';

/** What a rule found at a node. `error`: two runs may differ. `warning`: they may, and only a person can tell. */
export interface Found {
  readonly node: AnyNode;
  readonly rule: Rule;
  readonly severity: 'error' | 'warning';
  /** What is there. */
  readonly message: string;
  /** Why not, and what to do instead. */
  readonly instead: string;
}

/** Every rule, and what it looks for. `docs/determinism.md` lists them; a test compares. */
export const rules = {
  clock: 'clocks: Date.now, new Date(), performance, process.hrtime, Temporal.Now',
  random: 'random numbers: Math.random, crypto',
  timer: 'timers: setTimeout, setInterval, setImmediate, queueMicrotask, process.nextTick',
  network: 'fetch, WebSocket, EventSource, channels',
  surroundings: 'process, navigator, storage, import.meta',
  'inexact-math': 'Math that engines may round differently, and ** but for small whole numbers',
  locale: 'Intl, localeCompare, toLocaleString and its kin',
  'time-zone': 'local time: getHours, new Date(2026, 1), texts without Z',
  unicode: 'normalize; regular expressions with \\p, with the flag v, or with u and i together',
  garbage: 'WeakRef, FinalizationRegistry',
  async: 'async functions, await, promises, import(), handlers that are generators',
  'module-state': 'state outside of tables: variables, collections and objects that live longer than a handler',
  'global-state': 'changes of global objects and prototypes',
  'error-text': 'texts of errors, and stacks',
  'iteration-order': 'for … in',
  eval: 'eval, Function',
  'shared-memory': 'SharedArrayBuffer, Atomics',
  import: 'modules of Node and packages',
  indirect: 'global objects used in a way that cannot be followed',
  console: 'console, which prints again at every replay',
  syntax: 'what is not a module',
  machine: 'what machine() refuses',
  allow: 'cellwright-allow without a reason, of an unknown rule, or where nothing was found',
} as const;

export type Rule = keyof typeof rules;

export function isRule(name: string): name is Rule {
  return Object.hasOwn(rules, name);
}
