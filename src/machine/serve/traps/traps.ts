import nodeCrypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { assert } from '../../../kernel/assert.ts';
import { AmbientUsed, handling, unwatched } from '../../decide/instance/handling.ts';
import {
  ambientConstructors,
  ambientCrypto,
  ambientFunctions,
  ambientGlobals,
  hasSettledCase,
  isZonedTime,
  refusals,
} from './ambient.ts';

type Callable = (this: unknown, ...given: unknown[]) => unknown;

let installed = false;

/**
 * Wraps what is ambient in this process, once, so that handlers of machines cannot use it: time, random numbers,
 * timers, network, locale, and what engines may answer differently. Outside of handlers everything works as ever.
 * References that a machine takes at load are caught too, if this runs before the machine is imported.
 */
export function installTraps(): void {
  if (installed) return;
  installed = true;
  for (const { on, names, instead } of ambientFunctions) {
    if (on === 'Crypto.prototype' || on === 'Performance.prototype') continue;
    const holder = holderOf(on);
    if (holder === undefined) continue;
    for (const name of names) trapMethod(holder, name, said(on, name), instead);
  }
  for (const { on, names, instead, deep, unread } of ambientConstructors) {
    const holder = holderOf(on);
    if (holder === undefined || unread === true) continue;
    for (const name of names) trapConstructor(holder, name, said(on, name), instead, deep === true);
  }
  for (const { names, instead } of ambientGlobals) {
    for (const name of names) trapGlobal(name, instead);
  }
  for (const name of ambientCrypto.names) trapMethod(nodeCrypto, name, `crypto.${name}`, ambientCrypto.instead);
  syncBuiltinESMExports();
  trapDate();
  trapCase('toUpperCase');
  trapCase('toLowerCase');
  trapRadix();
  letConsoleBe();
}

/** Refuses it to a handler. The handler may catch this; that it was refused stays known until it ends. */
function refuse(name: string, instead: string): never {
  handling.refused ??= `${handling.who} used ${name}: ${instead}`;
  throw new AmbientUsed(handling.refused);
}

function said(on: string, name: string): string {
  return on === '' ? name : `${on.replace(/\.prototype$/, '')}.${name}`;
}

function holderOf(path: string): object | undefined {
  let holder: unknown = globalThis;
  for (const name of path === '' ? [] : path.split('.')) {
    if (!isHolder(holder)) return undefined;
    holder = Reflect.get(holder, name);
  }
  return isHolder(holder) ? holder : undefined;
}

function isHolder(value: unknown): value is object {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

function isCallable(value: unknown): value is Callable {
  return typeof value === 'function';
}

/** Gives `wrapper` everything that `original` shows of itself: name, length, statics, `util.promisify.custom`. */
function dress(wrapper: object, original: object): void {
  for (const key of Reflect.ownKeys(original)) {
    const descriptor = Object.getOwnPropertyDescriptor(original, key);
    const own = Object.getOwnPropertyDescriptor(wrapper, key);
    if (descriptor === undefined || own?.configurable === false) continue;
    Object.defineProperty(wrapper, key, descriptor);
  }
}

function trapped(original: Callable, what: string, instead: string): Callable {
  const wrapper = function (this: unknown, ...given: unknown[]): unknown {
    if (handling.who !== '') refuse(what, instead);
    return Reflect.apply(original, this, given);
  };
  dress(wrapper, original);
  for (const key of Object.keys(original)) trapMethod(wrapper, key, `${what}.${key}`, instead);
  return wrapper;
}

/** A method, or a getter. Functions that a getter gives out (`collator.compare`) are trapped themselves. */
function trapMethod(holder: object, key: string | symbol, what: string, instead: string): void {
  const descriptor = Object.getOwnPropertyDescriptor(holder, key);
  if (descriptor?.configurable !== true) return;
  const value: unknown = descriptor.value;
  const get: unknown = Reflect.get(descriptor, 'get');
  if (isCallable(value)) {
    Object.defineProperty(holder, key, { ...descriptor, value: trapped(value, what, instead) });
  } else if (isCallable(get)) {
    const given = new WeakMap<object, Callable>();
    Object.defineProperty(holder, key, {
      ...descriptor,
      get(this: unknown): unknown {
        if (handling.who !== '') refuse(what, instead);
        const got: unknown = Reflect.apply(get, this, []);
        if (!isCallable(got)) return got;
        const known = given.get(got) ?? trapped(got, what, instead);
        given.set(got, known);
        return known;
      },
    });
  }
}

function trapConstructor(holder: object, name: string, what: string, instead: string, deep: boolean): void {
  const descriptor = Object.getOwnPropertyDescriptor(holder, name);
  const original: unknown = descriptor?.value;
  if (descriptor === undefined || typeof original !== 'function') return;
  const wrapper = new Proxy(original, {
    apply(target, self, given): unknown {
      if (handling.who !== '') refuse(what, instead);
      return Reflect.apply(target, self, given);
    },
    construct(target, given, newTarget): object {
      if (handling.who !== '') refuse(what, instead);
      const made: unknown = Reflect.construct(target, given, newTarget === wrapper ? target : newTarget);
      assert(isHolder(made), 'a constructor makes an object');
      return made;
    },
  });
  Object.defineProperty(holder, name, { ...descriptor, value: wrapper });
  const prototype: unknown = Reflect.get(original, 'prototype');
  if (!isHolder(prototype)) return;
  Object.defineProperty(prototype, 'constructor', { value: wrapper, writable: true, configurable: true });
  if (!deep) return;
  for (const holding of [original, prototype]) {
    for (const key of Reflect.ownKeys(holding)) {
      if (key === 'constructor' || key === 'prototype' || key === Symbol.toStringTag) continue;
      trapMethod(holding, key, `${what} (${String(key)})`, instead);
    }
  }
}

/** A global that is made when it is first read: then its methods are trapped too, for those who keep it. */
function trapGlobal(name: string, instead: string): void {
  const descriptor = Object.getOwnPropertyDescriptor(globalThis, name);
  if (descriptor?.configurable !== true) return;
  const get: unknown = Reflect.get(descriptor, 'get');
  if (!isCallable(get)) return;
  let seen = false;
  Object.defineProperty(globalThis, name, {
    ...descriptor,
    get(this: unknown): unknown {
      if (handling.who !== '') refuse(name, instead);
      const value: unknown = Reflect.apply(get, globalThis, []);
      if (!seen) {
        seen = true;
        trapMethodsOf(name, value);
      }
      return value;
    },
  });
}

function trapMethodsOf(name: string, value: unknown): void {
  const kind = { performance: 'Performance.prototype', crypto: 'Crypto.prototype' }[name];
  if (kind === undefined || !isHolder(value)) return;
  const prototype = Object.getPrototypeOf(value) as unknown;
  if (!isHolder(prototype)) return;
  for (const { on, names, instead } of ambientFunctions) {
    if (on !== kind) continue;
    for (const each of names) trapMethod(prototype, each, `${name}.${each}`, instead);
  }
}

/** Date computes what it is given; without anything, or with local time, it looks at clock or time zone. */
function trapDate(): void {
  const Original = Date;
  const now = refusals.time.instead;
  const zone = refusals.local.instead;
  const check = (given: readonly unknown[]): void => {
    if (given.length === 0) refuse('new Date()', now);
    if (given.length > 1) refuse('new Date(year, month, …)', zone);
    const [only] = given;
    if (typeof only === 'string' && !isZonedTime(only)) refuse(`new Date('${only.slice(0, 40)}')`, zone);
  };
  // A function and no proxy: cells read the time for every command.
  const Trapped = function (this: unknown, ...given: unknown[]): unknown {
    const busy = handling.who !== '';
    if (new.target === undefined) {
      if (busy) refuse('Date()', now);
      return Original();
    }
    if (busy) check(given);
    return Reflect.construct(Original, given, new.target);
  };
  const parse: unknown = Reflect.get(Original, 'parse');
  assert(isCallable(parse), 'every engine has it');
  const checkedParse = function (this: unknown, text: unknown): unknown {
    if (handling.who !== '') {
      const asText = String(text);
      if (!isZonedTime(asText)) refuse(`Date.parse('${asText.slice(0, 40)}')`, zone);
    }
    return Reflect.apply(parse, Original, [text]);
  };
  dress(checkedParse, parse);
  Object.defineProperty(Original, 'parse', { configurable: true, writable: true, value: checkedParse });
  dress(Trapped, Original);
  Reflect.set(Trapped, 'prototype', Original.prototype);
  Object.defineProperty(Original.prototype, 'constructor', { value: Trapped, writable: true, configurable: true });
  Object.defineProperty(globalThis, 'Date', { value: Trapped, writable: true, configurable: true });
}

/** Upper and lower case are refused only for characters that a newer Unicode version may treat differently. */
function trapCase(name: 'toUpperCase' | 'toLowerCase'): void {
  const original: unknown = Reflect.get(String.prototype, name);
  assert(isCallable(original), 'every engine has it');
  const instead =
    'the case of some of its letters depends on the Unicode version of the engine: map it before the command';
  const wrapper = function (this: unknown): unknown {
    if (handling.who !== '' && !hasSettledCase(String(this))) refuse(`String.${name}`, instead);
    return Reflect.apply(original, this, []);
  };
  dress(wrapper, original);
  // oxlint-disable-next-line no-extend-native -- this is what the module is for
  Object.defineProperty(String.prototype, name, { value: wrapper, writable: true, configurable: true });
}

/** ECMAScript leaves to the engine how many digits a fraction has in a base other than ten. */
function trapRadix(): void {
  const original: unknown = Reflect.get(Number.prototype, 'toString');
  assert(isCallable(original), 'every engine has it');
  const { instead } = refusals.digits;
  const wrapper = function (this: unknown, ...given: unknown[]): unknown {
    if (handling.who !== '' && given.length > 0 && Number(given[0]) !== 10 && !Number.isInteger(Number(this))) {
      refuse('the digits of a fraction in another base', instead);
    }
    return Reflect.apply(original, this, given);
  };
  dress(wrapper, original);
  // oxlint-disable-next-line no-extend-native -- this is what the module is for
  Object.defineProperty(Number.prototype, 'toString', { value: wrapper, writable: true, configurable: true });
}

/** Printing reads clocks and sets timers inside the runtime, and changes nothing that a machine could see. */
function letConsoleBe(): void {
  for (const key of Object.keys(console)) {
    const original: unknown = Reflect.get(console, key);
    if (!isCallable(original)) continue;
    const quiet = (...given: unknown[]): unknown => unwatched(() => Reflect.apply(original, console, given));
    Reflect.set(console, key, quiet);
  }
}
