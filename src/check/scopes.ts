import type { AnyNode, Program } from 'acorn';
import { bare, childrenOf, isFunction, nameOf, type FunctionNode } from './syntax.ts';

/** A name that a module declares. */
export interface Binding {
  readonly name: string;
  readonly kind: 'import' | 'const' | 'variable' | 'function' | 'class' | 'parameter' | 'caught';
  readonly scope: Scope;
  /** What it is made of: an expression, and the names that a pattern takes out of it. */
  readonly from?: { readonly value: AnyNode; readonly steps: readonly (string | undefined)[] };
  /** Of an import: what of which module. */
  readonly imported?: { readonly module: string; readonly name: string | undefined };
  /** The function or class that the name stands for. */
  readonly body?: AnyNode;
}

export interface Scope {
  readonly parent: Scope | undefined;
  /** The function whose body it is part of; undefined at the top of the module, also in functions that run there once. */
  readonly owner: FunctionNode | undefined;
  readonly names: Map<string, Binding>;
}

/** A node with everything around it. */
export interface Place {
  readonly node: AnyNode;
  readonly scope: Scope;
  readonly above: Place | undefined;
}

/** Every node of a module with its scope, in the order of the text. */
export function placesOf(program: Program): readonly Place[] {
  const places: Place[] = [];
  const top: Scope = { parent: undefined, owner: undefined, names: new Map() };
  hoist(program, top);
  walk({ node: program, scope: top, above: undefined }, places);
  return places;
}

export function resolve(scope: Scope | undefined, name: string): Binding | undefined {
  for (let at = scope; at !== undefined; at = at.parent) {
    const found = at.names.get(name);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Whether a function is called where it stands, as in `(() => …)()`. */
export function isCalledInPlace(place: Place): boolean {
  let { above } = place;
  while (above?.node.type === 'ParenthesizedExpression') above = above.above;
  return above?.node.type === 'CallExpression' && bare(above.node.callee) === place.node;
}

function walk(place: Place, into: Place[]): void {
  into.push(place);
  const { node } = place;
  const scope = scopeInside(place);
  for (const child of childrenOf(node)) walk({ node: child, scope, above: place }, into);
}

function scopeInside(place: Place): Scope {
  const { node, scope } = place;
  if (isFunction(node)) {
    const once = scope.owner === undefined && isCalledInPlace(place) && !node.async && !node.generator;
    const inside: Scope = { parent: scope, owner: once ? undefined : node, names: new Map() };
    if (node.type === 'FunctionExpression' && node.id) declare(inside, node.id, 'function', { body: node });
    for (const parameter of node.params) declare(inside, parameter, 'parameter');
    hoistVariables(node.body, inside);
    return inside;
  }
  switch (node.type) {
    case 'BlockStatement':
    case 'StaticBlock':
    case 'SwitchStatement':
    case 'ForStatement':
    case 'ForInStatement':
    case 'ForOfStatement':
    case 'CatchClause':
    case 'ClassExpression': {
      const inside: Scope = { parent: scope, owner: scope.owner, names: new Map() };
      if (node.type === 'CatchClause' && node.param) declare(inside, node.param, 'caught');
      if (node.type === 'ClassExpression' && node.id) declare(inside, node.id, 'class', { body: node });
      hoist(node, inside);
      return inside;
    }
    default:
      return scope;
  }
}

/** Declares what a block declares itself; `var` belongs to its function. */
function hoist(block: AnyNode, scope: Scope): void {
  for (const node of childrenOf(block)) {
    const inner = exported(node);
    switch (inner.type) {
      case 'ImportDeclaration':
        for (const specifier of inner.specifiers) {
          const name =
            specifier.type === 'ImportSpecifier'
              ? nameOf(specifier.imported, false)
              : specifier.type === 'ImportDefaultSpecifier'
                ? 'default'
                : undefined;
          const module = String(inner.source.value);
          scope.names.set(specifier.local.name, {
            name: specifier.local.name,
            kind: 'import',
            scope,
            imported: { module, name },
          });
        }
        break;
      case 'FunctionDeclaration':
        if (inner.id) declare(scope, inner.id, 'function', { body: inner });
        break;
      case 'ClassDeclaration':
        if (inner.id) declare(scope, inner.id, 'class', { body: inner });
        break;
      case 'VariableDeclaration':
        declareAll(inner, scope);
        break;
      case 'SwitchCase':
        hoist(inner, scope);
        break;
      default:
    }
  }
  if (block.type === 'Program') hoistVariables(block, scope);
}

function exported(node: AnyNode): AnyNode {
  if (node.type === 'ExportNamedDeclaration' && node.declaration) return node.declaration;
  if (node.type === 'ExportDefaultDeclaration') return node.declaration;
  return node;
}

function hoistVariables(node: AnyNode, scope: Scope): void {
  for (const child of childrenOf(node)) {
    if (isFunction(child)) continue;
    if (child.type === 'VariableDeclaration' && child.kind === 'var') declareAll(child, scope);
    hoistVariables(child, scope);
  }
}

function declareAll(declaration: Extract<AnyNode, { type: 'VariableDeclaration' }>, scope: Scope): void {
  const kind = declaration.kind === 'let' || declaration.kind === 'var' ? 'variable' : 'const';
  for (const { id, init } of declaration.declarations) {
    const value = init ?? undefined;
    declare(scope, id, kind, {
      ...(value === undefined ? {} : { from: { value, steps: [] } }),
      ...(value !== undefined && (isFunction(value) || value.type === 'ClassExpression') ? { body: value } : {}),
    });
  }
}

function declare(
  scope: Scope,
  pattern: AnyNode,
  kind: Binding['kind'],
  { from, body }: Pick<Binding, 'from' | 'body'> = {},
): void {
  const inside = (node: AnyNode, step: string | undefined): void =>
    declare(scope, node, kind, from === undefined ? {} : { from: { ...from, steps: [...from.steps, step] } });
  switch (pattern.type) {
    case 'Identifier':
      scope.names.set(pattern.name, {
        name: pattern.name,
        kind,
        scope,
        ...(from === undefined ? {} : { from }),
        ...(body === undefined ? {} : { body }),
      });
      break;
    case 'ObjectPattern':
      for (const property of pattern.properties) {
        if (property.type === 'RestElement')
          declare(scope, property.argument, kind, from === undefined ? {} : { from });
        else inside(property.value, nameOf(property.key, property.computed));
      }
      break;
    case 'ArrayPattern':
      for (const element of pattern.elements) if (element) inside(element, undefined);
      break;
    case 'AssignmentPattern':
      declare(scope, pattern.left, kind, from === undefined ? {} : { from });
      break;
    case 'RestElement':
      declare(scope, pattern.argument, kind);
      break;
    default:
  }
}

const globalNames = new Set(['globalThis', 'global', 'self', 'window']);
/** How far an alias of an alias is followed. */
const aliasesMax = 20;

/**
 * What an expression stands for, as a path from the global object (`Date.now`), through aliases, destructuring,
 * `globalThis` and names in brackets; the global object itself is ''. Undefined for anything else.
 */
export function pathOf(given: AnyNode, scope: Scope, depth = 0): string | undefined {
  const node = bare(given);
  if (depth > aliasesMax) return undefined;
  switch (node.type) {
    case 'Identifier': {
      const binding = resolve(scope, node.name);
      if (binding !== undefined) return pathOfBinding(binding, depth + 1);
      return globalNames.has(node.name) ? '' : node.name;
    }
    case 'MemberExpression': {
      const object = pathOf(node.object, scope, depth + 1);
      const name = nameOf(node.property, node.computed);
      return object === undefined || name === undefined ? undefined : joined(object, name);
    }
    case 'CallExpression':
      return pathOfCall(node, scope, depth);
    default:
      return undefined;
  }
}

/** `Date.now.bind(Date)` and `Reflect.get(Date, 'now')` stand for Date.now. */
function pathOfCall(
  node: Extract<AnyNode, { type: 'CallExpression' }>,
  scope: Scope,
  depth: number,
): string | undefined {
  const callee = pathOf(node.callee, scope, depth + 1);
  if (callee?.endsWith('.bind') === true) return callee.slice(0, -'.bind'.length);
  const [target, key] = node.arguments;
  if (callee !== 'Reflect.get' || target === undefined || key === undefined) return undefined;
  const object = pathOf(target, scope, depth + 1);
  const name = nameOf(key, true);
  return object === undefined || name === undefined ? undefined : joined(object, name);
}

/** What a name stands for; undefined if it is no alias of something global. */
export function pathOfBinding({ from, imported, scope }: Binding, depth = 0): string | undefined {
  if (imported !== undefined) {
    const module = imported.module.replace(/^node:/, '');
    if (module === 'process') return pathOfImport('process', imported.name);
    return module === 'crypto' ? pathOfImport('node:crypto', imported.name) : undefined;
  }
  if (from === undefined) return undefined;
  let path = pathOf(from.value, scope, depth + 1);
  for (const step of from.steps) {
    if (path === undefined || step === undefined) return undefined;
    path = joined(path, step);
  }
  return path;
}

function pathOfImport(root: string, name: string | undefined): string {
  return name === undefined || name === 'default' ? root : `${root}.${name}`;
}

function joined(object: string, name: string): string {
  if (globalNames.has(name) && object === '') return '';
  return object === '' ? name : `${object}.${name}`;
}
