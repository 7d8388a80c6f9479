/**
 * What differs between two runs of one log, engines, machines, locales or time zones, and what to use instead.
 * One table for both who refuse it: the traps at run time, `cellwright check` before.
 */

/** Why something is refused: the rule of `cellwright check`, and what to use instead. */
export interface Refusal {
  readonly rule: string;
  readonly instead: string;
}
/** Names of properties that are refused for one reason. */
interface Ambient extends Refusal {
  readonly names: readonly string[];
}

/** The reasons that are needed in more than one place. */
export const refusals = {
  time: { rule: 'clock', instead: 'use ctx.now, the recorded time; an event carries it in its data' },
  elapsed: { rule: 'clock', instead: 'a machine has no clock but ctx.now; measure outside of it' },
  random: { rule: 'random', instead: 'use ctx.random() or ctx.id(), which are recorded' },
  later: { rule: 'timer', instead: 'set a timer of the machine, which is state and fires as a recorded event' },
  network: {
    rule: 'network',
    instead: 'put a message into the outbox, or let the caller fetch it and pass it as input',
  },
  surroundings: { rule: 'surroundings', instead: 'pass it as input, so that it is recorded' },
  digits: {
    rule: 'inexact-math',
    instead:
      'its last digit differs between engines: use integers, + - * / and Math.sqrt, which are exact, or pass the result as input',
  },
  language: {
    rule: 'locale',
    instead: 'it depends on locale and engine: keep the plain value and format where it is shown',
  },
  local: { rule: 'time-zone', instead: 'it depends on the time zone: use the UTC methods, Date.UTC or a text with Z' },
  memory: {
    rule: 'garbage',
    instead: 'what it tells depends on garbage collection: keep what you need in a table',
  },
  unicode: {
    rule: 'unicode',
    instead: 'it depends on the Unicode version of the engine: do it before the command',
  },
  ending: { rule: 'surroundings', instead: 'refuse or throw: the command fails, the process goes on' },
  errorText: { rule: 'error-text', instead: 'its text differs between engines: leave it out of what is decided' },
} as const satisfies Readonly<Record<string, Refusal>>;
const { time, elapsed, random, later, network, surroundings, digits, language, local, memory, unicode, ending } =
  refusals;

/** Math that ECMAScript leaves to the engine. What is not here is exact. */
const inexactMath =
  'sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh exp expm1 log log1p log2 log10 pow cbrt hypot';

function words(text: string): readonly string[] {
  return text.split(' ');
}

/** Functions found by a path from the global object. */
export const ambientFunctions: readonly (Ambient & { readonly on: string })[] = [
  { on: 'Date', names: ['now'], ...time },
  { on: 'Math', names: ['random'], ...random },
  { on: 'Math', names: words(inexactMath), ...digits },
  {
    on: '',
    names: words('setTimeout setInterval setImmediate queueMicrotask'),
    ...later,
  },
  { on: 'process', names: ['nextTick'], ...later },
  { on: '', names: ['fetch'], ...network },
  { on: 'process', names: words('hrtime uptime'), ...elapsed },
  {
    on: 'process',
    names: words(
      'cwd memoryUsage cpuUsage threadCpuUsage resourceUsage constrainedMemory availableMemory getActiveResourcesInfo umask chdir getuid geteuid getgid getegid getgroups getBuiltinModule loadEnvFile dlopen',
    ),
    ...surroundings,
  },
  { on: 'process', names: words('exit abort kill reallyExit emitWarning'), ...ending },
  {
    on: 'Performance.prototype',
    names: words('now timeOrigin mark measure toJSON eventLoopUtilization'),
    ...elapsed,
  },
  {
    on: 'Date.prototype',
    names: words(
      'getFullYear getYear getMonth getDate getDay getHours getMinutes getSeconds getMilliseconds getTimezoneOffset setFullYear setYear setMonth setDate setHours setMinutes setSeconds setMilliseconds toString toDateString toTimeString',
    ),
    ...local,
  },
  { on: 'Date.prototype', names: words('toLocaleString toLocaleDateString toLocaleTimeString'), ...language },
  { on: 'Number.prototype', names: ['toLocaleString'], ...language },
  { on: 'BigInt.prototype', names: ['toLocaleString'], ...language },
  { on: 'Array.prototype', names: ['toLocaleString'], ...language },
  {
    on: 'String.prototype',
    names: ['localeCompare'],
    rule: 'locale',
    instead: 'it depends on locale and engine: compare with < and >, which go by code units',
  },
  { on: 'String.prototype', names: words('toLocaleUpperCase toLocaleLowerCase'), ...language },
  { on: 'String.prototype', names: ['normalize'], ...unicode },
  { on: 'Intl', names: words('getCanonicalLocales supportedValuesOf'), ...language },
  { on: 'WeakRef.prototype', names: ['deref'], ...memory },
  { on: 'FinalizationRegistry.prototype', names: ['register'], ...memory },
  {
    on: 'Temporal.Now',
    names: words('instant plainDateISO plainDateTimeISO plainTimeISO timeZoneId zonedDateTimeISO'),
    ...time,
  },
  { on: 'Crypto.prototype', names: words('getRandomValues randomUUID'), ...random },
];

/**
 * Constructors found by a path from the global object. Their instances' methods are refused as well where `deep`.
 * Where `unread`, only the check finds them: the runtime would load a client of 50 ms at the first look.
 */
export const ambientConstructors: readonly (Ambient & {
  readonly on: string;
  readonly deep?: true;
  readonly unread?: true;
})[] = [
  {
    on: 'Intl',
    names: words(
      'DateTimeFormat NumberFormat Collator PluralRules RelativeTimeFormat ListFormat DisplayNames Segmenter Locale DurationFormat',
    ),
    ...language,
    deep: true,
  },
  { on: 'Temporal', names: ['ZonedDateTime'], ...local, deep: true },
  { on: '', names: words('WeakRef FinalizationRegistry'), ...memory },
  { on: '', names: words('BroadcastChannel MessageChannel'), ...network },
  { on: '', names: words('WebSocket EventSource'), ...network, unread: true },
];

/** Names of the global object whose reading alone is refused. */
export const ambientGlobals: readonly Ambient[] = [
  { names: words('process navigator localStorage sessionStorage'), ...surroundings },
  { names: ['performance'], ...elapsed },
  { names: ['crypto'], ...random },
];

/** Functions of `node:crypto` that no two runs answer alike. */
export const ambientCrypto: Ambient = {
  names: words(
    'randomBytes pseudoRandomBytes randomFill randomFillSync randomInt randomUUID randomUUIDv7 getRandomValues generateKey generateKeySync generateKeyPair generateKeyPairSync generatePrime generatePrimeSync scrypt pbkdf2',
  ),
  ...random,
};

/** Modules of Node that a machine may import: they compute from what they are given. */
export const pureBuiltins: ReadonlySet<string> = new Set(
  words('assert assert/strict buffer crypto events path path/posix querystring string_decoder url util util/types'),
);

/** Why a machine may not import another of Node's, and what to do. */
export const refusedBuiltin =
  'machines compute from state and input alone: do that outside of the machine and pass the result as input';

/** Whether an import means a module of Node, of those given, that is not for machines. */
export function isRefusedBuiltin(specifier: string, builtins: readonly string[]): boolean {
  const name = specifier.replace(/^node:/, '');
  return (specifier.startsWith('node:') || builtins.includes(name)) && !pureBuiltins.has(name);
}

/** Whether a text means the same moment in every time zone: a date alone is UTC, a time needs Z or an offset. */
export function isZonedTime(text: string): boolean {
  return /^(?:[+-]\d{6}|\d{4})(?:-\d\d(?:-\d\d)?)?(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/.test(text);
}

/**
 * Characters whose case no future Unicode version changes: pairs are stable by its policy, and scripts without case
 * stay without. Left out are scripts that still gain letters (IPA and later Latin, Georgian, Cherokee, Coptic, …).
 */
const caseSettled =
  /^[\u0300-\u036f\p{ASCII}\u0080-\u017f\u01a0\u01a1\u01af\u01b0\u01cd-\u01dc\u01de-\u01ef\u01f8-\u021f\u0222-\u0233\u0370-\u0373\u0376\u0377\u037b-\u037d\u0384-\u038a\u038c\u038e-\u03a1\u03a3-\u03ff\u0400-\u0481\u048a-\u052f\u0590-\u0eff\u1e00-\u1fff\u2000-\u206f\u20a0-\u20cf\u2190-\u249b\u2500-\u2bff\u3000-\u9fff\uac00-\ud7a3\ue000-\uf8ff\uff00-\uffee\u{1f000}-\u{1faff}\u{20000}-\u{323af}]*$/u;

/** Whether upper and lower case of a text are the same in every engine from Unicode 15 on. */
export function hasSettledCase(text: string): boolean {
  return caseSettled.test(text);
}
