import type { AnyNode } from 'acorn';
import type { Found } from './finding.ts';
import { pathOf, resolve, type Binding, type Place, type Scope } from './scopes.ts';
import { bare, isFunction, nameOf } from './syntax.ts';

/** Methods that change what they are called on, `next` of a generator included. */
const changing = new Set(
  'set add delete clear push pop shift unshift splice sort reverse fill copyWithin next append'.split(' '),
);
/** Functions that change their first argument. */
const changers = new Set(
  'Object.defineProperty Object.defineProperties Object.assign Object.setPrototypeOf Reflect.set Reflect.defineProperty Reflect.setPrototypeOf Reflect.deleteProperty'.split(
    ' ',
  ),
);

const stateInstead =
  'it is not part of the state: it is gone after a restart, and shared by all tenants. Keep it in a table';
const globalInstead = 'it changes what every module sees, in an order that no log has: write a function instead';

/** A change of something, with whose it is. */
interface Change {
  readonly place: Place;
  readonly target: AnyNode;
  /** Whether the name itself gets another value. */
  readonly rebinds: boolean;
}

/** Changes of what outlives a handler: module variables, closures made at load, objects and classes of the module. */
export function stateIn(places: readonly Place[]): readonly Found[] {
  const madeAtLoad = new Set<AnyNode>();
  for (const place of places) {
    const { node, scope } = place;
    if (scope.owner !== undefined || (node.type !== 'CallExpression' && node.type !== 'NewExpression')) continue;
    let made = bodyOf(node.callee, scope);
    while (made !== undefined && !madeAtLoad.has(made)) {
      madeAtLoad.add(made);
      const parent = made.type === 'ClassDeclaration' || made.type === 'ClassExpression' ? made.superClass : undefined;
      made = parent ? bodyOf(parent, scope) : undefined;
    }
  }
  return places.flatMap((place) => changesIn(place).flatMap((change) => judge(change, madeAtLoad)));
}

function changesIn(place: Place): readonly Change[] {
  const { node, scope } = place;
  const change = (target: AnyNode): Change => {
    const inner = bare(target);
    return { place, target: inner, rebinds: inner.type === 'Identifier' };
  };
  switch (node.type) {
    case 'AssignmentExpression':
      return targetsOf(node.left).map(change);
    case 'UpdateExpression':
      return [change(node.argument)];
    case 'ForInStatement':
    case 'ForOfStatement':
      return node.left.type === 'VariableDeclaration' ? [] : targetsOf(node.left).map(change);
    case 'UnaryExpression':
      return node.operator === 'delete' ? [change(node.argument)] : [];
    case 'CallExpression': {
      const callee = bare(node.callee);
      const [first] = node.arguments;
      if (first !== undefined && changers.has(pathOf(callee, scope) ?? '')) {
        return [{ place, target: bare(first), rebinds: false }];
      }
      if (callee.type !== 'MemberExpression') return [];
      const name = nameOf(callee.property, callee.computed);
      const remembers = (name === 'test' || name === 'exec') && isSticky(callee.object, scope);
      if (!remembers && (name === undefined || !changing.has(name))) return [];
      return [{ place, target: bare(callee.object), rebinds: false }];
    }
    default:
      return [];
  }
}

function targetsOf(pattern: AnyNode): readonly AnyNode[] {
  switch (pattern.type) {
    case 'ObjectPattern':
      return pattern.properties.flatMap((property) =>
        targetsOf(property.type === 'Property' ? property.value : property.argument),
      );
    case 'ArrayPattern':
      return pattern.elements.flatMap((element) => (element ? targetsOf(element) : []));
    case 'AssignmentPattern':
      return targetsOf(pattern.left);
    case 'RestElement':
      return targetsOf(pattern.argument);
    default:
      return [pattern];
  }
}

/** A pattern with the flag g or y remembers where it stopped. */
function isSticky(node: AnyNode, scope: Scope): boolean {
  const inner = bare(node);
  if (inner.type !== 'Identifier') return false;
  const value = resolve(scope, inner.name)?.from?.value;
  return value?.type === 'Literal' && /[gy]/.test(value.regex?.flags ?? '');
}

function judge({ place, target, rebinds }: Change, madeAtLoad: ReadonlySet<AnyNode>): readonly Found[] {
  const { node, scope } = place;
  const root = rootOf(target);
  if (root.type === 'ThisExpression') {
    return thisOutlives(place, madeAtLoad) ? [state(node, 'An object changes, which lives as long as the module')] : [];
  }
  if (root.type !== 'Identifier') return [];
  const binding = resolve(scope, root.name);
  if (binding === undefined) {
    const path = pathOf(root, scope);
    if (path === undefined || (!rebinds && root === target && !isGlobalObject(path))) return [];
    return [
      { node, rule: 'global-state', severity: 'error', message: `${root.name} is changed`, instead: globalInstead },
    ];
  }
  if (!outlives(binding, scope, madeAtLoad)) {
    const path = pathOf(root, scope);
    if (path === undefined || rebinds || binding.kind === 'import') return [];
    return [{ node, rule: 'global-state', severity: 'error', message: `${path} is changed`, instead: globalInstead }];
  }
  return [state(node, `${root.name} changes, which lives as long as the module`)];
}

function isGlobalObject(path: string): boolean {
  return path === '' || /^[A-Z]/.test(path);
}

function state(node: AnyNode, message: string): Found {
  return { node, rule: 'module-state', severity: 'error', message, instead: stateInstead };
}

function rootOf(node: AnyNode): AnyNode {
  const inner = bare(node);
  return inner.type === 'MemberExpression' ? rootOf(inner.object) : inner;
}

/** Whether what a name holds outlives the function that changes it. */
function outlives(binding: Binding, from: Scope, madeAtLoad: ReadonlySet<AnyNode>): boolean {
  if (from.owner === undefined) return false;
  const { owner } = binding.scope;
  if (binding.kind === 'import') return true;
  if (owner === undefined) return true;
  // Of a function that runs at load and left a function behind.
  return owner !== from.owner && madeAtLoad.has(owner);
}

/** Whether `this` is a class, an instance or an object that was made when the module was loaded, and is made already. */
function thisOutlives(place: Place, madeAtLoad: ReadonlySet<AnyNode>): boolean {
  for (let at = place.above; at !== undefined; at = at.above) {
    const { node, above } = at;
    if (node.type === 'PropertyDefinition') return isMade(above?.above?.node, node.static, madeAtLoad);
    if (!isFunction(node) || node.type === 'ArrowFunctionExpression') continue;
    const method = above?.node;
    if (method?.type === 'MethodDefinition') {
      return method.kind !== 'constructor' && isMade(above?.above?.above?.node, method.static, madeAtLoad);
    }
    const holder = above?.above;
    return method?.type === 'Property' && holder?.node.type === 'ObjectExpression' && holder.scope.owner === undefined;
  }
  return false;
}

function isMade(holder: AnyNode | undefined, asClass: boolean, madeAtLoad: ReadonlySet<AnyNode>): boolean {
  return holder !== undefined && (asClass || madeAtLoad.has(holder));
}

/** The function or class that an expression names. */
function bodyOf(node: AnyNode, scope: Scope): AnyNode | undefined {
  const inner = bare(node);
  if (isFunction(inner) || inner.type === 'ClassExpression') return inner;
  return inner.type === 'Identifier' ? resolve(scope, inner.name)?.body : undefined;
}
