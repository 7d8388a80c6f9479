/**
 * What differs between two runs of one log, engines, machines, locales or time zones, and what to use instead.
 * One table for both who refuse it: the traps at run time, `cellwright check` before.
 */

/** Names of properties and what to use instead of all of them. */
interface Ambient {
  readonly names: readonly string[];
  readonly instead: string;
}

const time = 'use ctx.now, the recorded time; an event carries it in its data';
const elapsed = 'a machine has no clock but ctx.now; measure outside of it';
const random = 'use ctx.random() or ctx.id(), which are recorded';
const later = 'set a timer of the machine (ctx), which is state and fires as a recorded event';
const network = 'put a message into the outbox, or let the caller fetch it and pass it as input';
const surroundings = 'pass it as input, so that it is recorded';
const digits =
  'its last digit differs between engines: use integers, + - * / and Math.sqrt, which are exact, or pass the result as input';
const language = 'it depends on locale and engine: keep the plain value and format where it is shown';
const local = 'it depends on the time zone: use the UTC methods';
const memory = 'what it tells depends on garbage collection: keep what you need in a table';
const unicode = 'it depends on the Unicode version of the engine: normalise before the command';
const ending = 'refuse or throw: the command fails, the process goes on';

/** Math that ECMAScript leaves to the engine. What is not here is exact. */
const inexactMath =
  'sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh exp expm1 log log1p log2 log10 pow cbrt hypot';

function words(text: string): readonly string[] {
  return text.split(' ');
}

/** Functions found by a path from the global object. */
export const ambientFunctions: readonly (Ambient & { readonly on: string })[] = [
  { on: 'Date', names: ['now'], instead: time },
  { on: 'Math', names: ['random'], instead: random },
  { on: 'Math', names: words(inexactMath), instead: digits },
  {
    on: '',
    names: words('setTimeout setInterval setImmediate queueMicrotask'),
    instead: later,
  },
  { on: 'process', names: ['nextTick'], instead: later },
  { on: '', names: ['fetch'], instead: network },
  { on: 'process', names: words('hrtime uptime'), instead: elapsed },
  {
    on: 'process',
    names: words(
      'cwd memoryUsage cpuUsage threadCpuUsage resourceUsage constrainedMemory availableMemory getActiveResourcesInfo umask chdir getuid geteuid getgid getegid getgroups getBuiltinModule loadEnvFile dlopen',
    ),
    instead: surroundings,
  },
  { on: 'process', names: words('exit abort kill reallyExit emitWarning'), instead: ending },
  {
    on: 'Performance.prototype',
    names: words('now timeOrigin mark measure toJSON eventLoopUtilization'),
    instead: elapsed,
  },
  {
    on: 'Date.prototype',
    names: words(
      'getFullYear getYear getMonth getDate getDay getHours getMinutes getSeconds getMilliseconds getTimezoneOffset setFullYear setYear setMonth setDate setHours setMinutes setSeconds setMilliseconds toString toDateString toTimeString',
    ),
    instead: local,
  },
  { on: 'Date.prototype', names: words('toLocaleString toLocaleDateString toLocaleTimeString'), instead: language },
  { on: 'Number.prototype', names: ['toLocaleString'], instead: language },
  { on: 'BigInt.prototype', names: ['toLocaleString'], instead: language },
  { on: 'Array.prototype', names: ['toLocaleString'], instead: language },
  {
    on: 'String.prototype',
    names: ['localeCompare'],
    instead: 'it depends on locale and engine: compare with < and >, which go by code units',
  },
  { on: 'String.prototype', names: words('toLocaleUpperCase toLocaleLowerCase'), instead: language },
  { on: 'String.prototype', names: ['normalize'], instead: unicode },
  { on: 'Intl', names: words('getCanonicalLocales supportedValuesOf'), instead: language },
  { on: 'WeakRef.prototype', names: ['deref'], instead: memory },
  { on: 'FinalizationRegistry.prototype', names: ['register'], instead: memory },
  { on: 'Error', names: ['captureStackTrace'], instead: 'a stack differs between engines: leave it out' },
  {
    on: 'Temporal.Now',
    names: words('instant plainDateISO plainDateTimeISO plainTimeISO timeZoneId zonedDateTimeISO'),
    instead: time,
  },
  { on: 'Crypto.prototype', names: words('getRandomValues randomUUID'), instead: random },
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
    instead: language,
    deep: true,
  },
  { on: 'Temporal', names: ['ZonedDateTime'], instead: local, deep: true },
  { on: '', names: words('WeakRef FinalizationRegistry'), instead: memory },
  { on: '', names: words('BroadcastChannel MessageChannel'), instead: network },
  { on: '', names: words('WebSocket EventSource'), instead: network, unread: true },
];

/** Names of the global object whose reading alone is refused. */
export const ambientGlobals: readonly Ambient[] = [
  { names: words('process navigator localStorage sessionStorage'), instead: surroundings },
  { names: ['performance'], instead: elapsed },
  { names: ['crypto'], instead: random },
];

/** Functions of `node:crypto` that no two runs answer alike. */
export const ambientCrypto: Ambient = {
  names: words(
    'randomBytes pseudoRandomBytes randomFill randomFillSync randomInt randomUUID randomUUIDv7 getRandomValues generateKey generateKeySync generateKeyPair generateKeyPairSync generatePrime generatePrimeSync scrypt pbkdf2',
  ),
  instead: random,
};

/** Modules of Node that a machine may import: they compute from what they are given. */
export const pureBuiltins: ReadonlySet<string> = new Set(
  words('assert assert/strict buffer crypto events path path/posix querystring string_decoder url util util/types'),
);

/** Why a machine may not import another of Node's, and what to do. */
export const refusedBuiltin =
  'which is not for machines: they compute from state and input alone. Do that outside of the machine and pass the result as input';

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
