import type { AnyNode } from 'acorn';
import {
  ambientConstructors,
  ambientCrypto,
  ambientFunctions,
  ambientGlobals,
  isZonedTime,
  refusals,
  type Refusal,
} from '../machine/serve/traps/ambient.ts';
import { isRule, type Found, type Rule } from './finding.ts';
import { pathOf, resolve, type Place } from './scopes.ts';
import { bare, nameOf } from './syntax.ts';

/** Paths from the global object, and everything below them. */
const byPath = new Map<string, Refusal>();
/** Names of methods that no other value is likely to have. */
const byMethod = new Map<string, Refusal>();

/** Methods of ambient objects whose names other objects share. */
const sharedNames = new Set(['toString', 'now', 'mark', 'measure', 'toJSON', 'register', 'timeOrigin']);
for (const { on, names, rule, instead } of ambientFunctions) {
  for (const name of names) {
    if (!on.endsWith('.prototype')) byPath.set(on === '' ? name : `${on}.${name}`, { rule, instead });
    else if (!sharedNames.has(name)) byMethod.set(name, { rule, instead });
  }
}
for (const { on, names, rule, instead } of ambientConstructors) {
  for (const name of names) byPath.set(on === '' ? name : `${on}.${name}`, { rule, instead });
}
for (const { names, rule, instead } of ambientGlobals) for (const name of names) byPath.set(name, { rule, instead });
for (const name of ambientCrypto.names) byPath.set(`node:crypto.${name}`, ambientCrypto);
byPath.set('node:crypto.webcrypto', ambientCrypto);
byPath.set('Intl', refusals.language);
byPath.set('Promise', { rule: 'async', instead: 'handlers are synchronous, so that replay can repeat them' });
for (const name of ['eval', 'Function']) {
  byPath.set(name, { rule: 'eval', instead: 'what it runs cannot be checked: write it as code of the module' });
}
for (const name of ['Atomics', 'SharedArrayBuffer']) {
  byPath.set(name, { rule: 'shared-memory', instead: 'what other threads write is not recorded: keep it in a table' });
}
byPath.set('require', { rule: 'import', instead: 'import it, so that the check can follow' });

/** Objects of which a name that is not written out may be anything. */
const roots = new Set(['', 'Date', 'Math', 'Reflect', 'node:crypto']);

/** What is ambient in one place: global names, however they are reached, and methods by their names. */
export function* ambientIn(place: Place): Generator<Found> {
  const { node, scope } = place;
  if (node.type === 'Identifier' && isReference(place)) {
    const binding = resolve(scope, node.name);
    // An alias is found where it is taken, an import where it is used.
    if (binding !== undefined && binding.imported === undefined) return;
    const path = pathOf(node, scope);
    if (path === undefined) return;
    yield* lookUp(place, path);
    if (['', 'Date', 'Math'].includes(path) && escapes(place)) yield indirect(node, node.name);
  } else if (node.type === 'MemberExpression') {
    yield* ambientMember(place, node);
  } else if (node.type === 'VariableDeclarator' && node.init && node.id.type === 'ObjectPattern') {
    yield* ambientPattern(place, node.id, node.init);
  } else if (node.type === 'NewExpression' || node.type === 'CallExpression') {
    yield* ambientCall(place, node);
  } else if (node.type === 'MetaProperty' && node.meta.name === 'import') {
    yield found(node, refusals.surroundings, 'import.meta');
  }
}

function* ambientMember(place: Place, node: Extract<AnyNode, { type: 'MemberExpression' }>): Generator<Found> {
  const path = pathOf(node, place.scope);
  const name = nameOf(node.property, node.computed);
  if (path !== undefined && (refusalOf(path) !== undefined || path.startsWith('console.'))) {
    yield* lookUp(place, path);
    return;
  }
  if (name === undefined) {
    const object = pathOf(node.object, place.scope);
    if (object !== undefined && roots.has(object)) yield indirect(node, `${object === '' ? 'globalThis' : object}[…]`);
    return;
  }
  const refusal = byMethod.get(name);
  if (refusal !== undefined) yield found(node, refusal, `.${name}`);
  if (name === 'stack') yield found(node, refusals.errorText, '.stack');
}

function* ambientPattern(
  { scope }: Place,
  pattern: Extract<AnyNode, { type: 'ObjectPattern' }>,
  init: AnyNode,
): Generator<Found> {
  const root = pathOf(init, scope);
  for (const property of pattern.properties) {
    if (property.type !== 'Property') {
      if (root !== undefined && roots.has(root)) yield indirect(property, `the rest of ${root}`);
      continue;
    }
    const name = nameOf(property.key, property.computed);
    if (name === undefined) continue;
    const path = root === undefined ? undefined : root === '' ? name : `${root}.${name}`;
    const refusal = path === undefined ? undefined : refusalOf(path);
    if (refusal !== undefined && refusalOf(root ?? '') === undefined) yield found(property, refusal, path ?? name);
    else if (root === undefined && name === 'stack') yield found(property, refusals.errorText, 'stack');
    else if (root !== undefined && property.value.type === 'ObjectPattern' && path !== undefined) {
      for (const inner of property.value.properties) {
        if (inner.type !== 'Property') continue;
        const innerPath = `${path}.${nameOf(inner.key, inner.computed) ?? ''}`;
        const innerRefusal = refusalOf(innerPath);
        if (innerRefusal !== undefined) yield found(inner, innerRefusal, innerPath);
      }
    }
  }
}

function* ambientCall(
  { scope }: Place,
  node: Extract<AnyNode, { type: 'NewExpression' | 'CallExpression' }>,
): Generator<Found> {
  const path = pathOf(node.callee, scope);
  if (path === 'Reflect.get') {
    const refusal = refusalOf(pathOf(node, scope) ?? '');
    if (refusal !== undefined) yield found(node, refusal, pathOf(node, scope) ?? '');
  } else if (path === 'Date') {
    const [only] = node.arguments;
    if (node.type === 'CallExpression') yield found(node, refusals.time, 'Date()');
    else if (only === undefined) yield found(node, refusals.time, 'new Date()');
    else if (node.arguments.length > 1) yield found(node, refusals.local, 'new Date(year, month, …)');
    else if (isLocalText(only)) yield found(node, refusals.local, 'new Date() of a local time');
  } else if (path === 'Date.parse' && isLocalText(node.arguments[0])) {
    yield found(node, refusals.local, 'Date.parse() of a local time');
  } else if (node.type === 'CallExpression' && isRadix(node)) {
    yield { ...found(node, refusals.digits, '.toString(radix) of what may be a fraction'), severity: 'warning' };
  } else if (path === 'RegExp') {
    const [pattern, flags] = node.arguments.map((argument) => nameOf(argument, true));
    if (pattern !== undefined && dependsOnUnicode(pattern, flags ?? '')) yield unicodePattern(node);
  }
}

/** How many digits a fraction has in a base other than ten is left to the engine. */
function isRadix({ callee, arguments: given }: Extract<AnyNode, { type: 'CallExpression' }>): boolean {
  const method = bare(callee);
  if (method.type !== 'MemberExpression' || nameOf(method.property, method.computed) !== 'toString') return false;
  const [radix] = given;
  return radix !== undefined && !(radix.type === 'Literal' && (radix.value === 10 || typeof radix.value === 'string'));
}

function isLocalText(node: AnyNode | undefined): boolean {
  return node?.type === 'Literal' && typeof node.value === 'string' && !isZonedTime(node.value);
}

/** Whether what a pattern matches changes with the Unicode version. */
export function dependsOnUnicode(pattern: string, flags: string): boolean {
  const unicode = flags.includes('u') || flags.includes('v');
  return flags.includes('v') || (unicode && (flags.includes('i') || /\\p\{(?!ASCII\})/i.test(pattern)));
}

export function unicodePattern(node: AnyNode): Found {
  return found(node, refusals.unicode, 'A regular expression that goes by Unicode properties or case');
}

function* lookUp({ node, above, scope }: Place, path: string): Generator<Found> {
  if (path.startsWith('console.')) {
    const instead = 'it prints again at every replay: print outside of the machine';
    yield { node, rule: 'console', severity: 'warning', message: path, instead };
    return;
  }
  const refusal = refusalOf(path);
  if (refusal === undefined) return;
  // `process.env.HOME` is said once, as far as it is written out.
  if (
    above?.node.type === 'MemberExpression' &&
    above.node.object === node &&
    pathOf(above.node, scope) !== undefined
  ) {
    return;
  }
  yield found(node, refusal, path);
}

function refusalOf(path: string): Refusal | undefined {
  for (let at = path; at !== ''; at = at.slice(0, Math.max(0, at.lastIndexOf('.')))) {
    const refusal = byPath.get(at);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

function found(node: AnyNode, { rule, instead }: Refusal, what: string): Found {
  return { node, rule: ruleOf(rule), severity: 'error', message: what.replace(/^node:/, ''), instead };
}

function ruleOf(name: string): Rule {
  return isRule(name) ? name : 'surroundings';
}

function indirect(node: AnyNode, what: string): Found {
  const instead = 'what is done with it cannot be followed: name what you need where you need it';
  return { node, rule: 'indirect', severity: 'error', message: what, instead };
}

/** Whether an identifier is read here, and not the name of something. */
export function isReference({ node, above }: Place): boolean {
  const outer = above?.node;
  if (outer === undefined) return true;
  switch (outer.type) {
    case 'MemberExpression':
      return outer.object === node || outer.computed;
    case 'Property':
    case 'PropertyDefinition':
    case 'MethodDefinition':
      if (above?.above?.node.type === 'ObjectPattern') return outer.value !== node && outer.computed;
      return outer.value === node || outer.computed;
    case 'VariableDeclarator':
      return outer.init === node;
    case 'ImportSpecifier':
    case 'ImportDefaultSpecifier':
    case 'ImportNamespaceSpecifier':
    case 'ExportSpecifier':
    case 'LabeledStatement':
    case 'BreakStatement':
    case 'ContinueStatement':
    case 'CatchClause':
    case 'MetaProperty':
    case 'RestElement':
    case 'ArrayPattern':
    case 'ImportAttribute':
      return false;
    case 'AssignmentPattern':
      return outer.right === node;
    case 'FunctionDeclaration':
    case 'FunctionExpression':
    case 'ArrowFunctionExpression':
      return outer.body === node;
    case 'ClassDeclaration':
    case 'ClassExpression':
      return outer.superClass === node;
    default:
      return true;
  }
}

/** Whether a global object is handed on, where nobody can follow it. */
function escapes({ node, above }: Place): boolean {
  const outer = above?.node;
  switch (outer?.type) {
    case 'MemberExpression':
    case 'VariableDeclarator':
    case 'UnaryExpression':
    case 'ParenthesizedExpression':
    case 'BinaryExpression':
      return false;
    case 'NewExpression':
    case 'CallExpression':
      return bare(outer.callee) !== node && !isReflectGet(outer);
    default:
      return true;
  }
}

function isReflectGet(node: Extract<AnyNode, { type: 'NewExpression' | 'CallExpression' }>): boolean {
  const callee = bare(node.callee);
  if (callee.type !== 'MemberExpression' || callee.object.type !== 'Identifier') return false;
  const method = nameOf(callee.property, callee.computed);
  return (callee.object.name === 'Reflect' && method === 'get') || callee.object.name === 'Object';
}
