import { builtinModules } from 'node:module';
import type { AnyNode } from 'acorn';
import { isRefusedBuiltin, pureBuiltins, refusals, refusedBuiltin } from '../machine/serve/traps/ambient.ts';
import { dependsOnUnicode, isReference, unicodePattern } from './ambient-rules.ts';
import type { Found } from './finding.ts';
import { pathOf, resolve, type Place } from './scopes.ts';
import { nameOf } from './syntax.ts';

const synchronous = 'handlers are synchronous, so that replay can repeat them: do that outside of the machine';
const handlerNames = new Set(['decide', 'evolve', 'answer', 'holds']);
/** Packages whose part in a machine is known. */
const knownPackages = /^(?:cellwright|typebox)(?:\/|$)/;

/** What can be told from the form of the code in one place. */
export function* formIn(place: Place): Generator<Found> {
  const { node, scope } = place;
  switch (node.type) {
    case 'BinaryExpression':
      if (node.operator === '**' && !isExactPower(node.left, node.right)) yield power(node);
      break;
    case 'AssignmentExpression':
      if (node.operator === '**=') yield power(node);
      break;
    case 'FunctionDeclaration':
    case 'FunctionExpression':
    case 'ArrowFunctionExpression':
      if (node.async) yield error(node, 'async', 'An async function', synchronous);
      else if (node.generator && isHandler(place)) yield error(node, 'async', 'A handler that yields', synchronous);
      break;
    case 'AwaitExpression':
      yield error(node, 'async', 'await', synchronous);
      break;
    case 'ForOfStatement':
      if (node.await) yield error(node, 'async', 'for await', synchronous);
      break;
    case 'ImportExpression':
      yield error(node, 'async', 'import()', 'it answers later: import at the top of the module');
      break;
    case 'ForInStatement':
      yield {
        node,
        rule: 'iteration-order',
        severity: 'warning',
        message: 'for … in',
        instead:
          'it visits what prototypes add, in an order that is only partly defined: use Object.keys(…) of a row, whose names are sorted',
      };
      break;
    case 'Literal':
      if (node.regex && dependsOnUnicode(node.regex.pattern, node.regex.flags)) yield unicodePattern(node);
      break;
    case 'ImportDeclaration':
    case 'ExportAllDeclaration':
      yield* importOf(node, node.source.value);
      break;
    case 'ExportNamedDeclaration':
      if (node.source) yield* importOf(node, node.source.value);
      break;
    case 'CatchClause':
      if (node.param && node.param.type !== 'Identifier') yield caught(node.param);
      break;
    case 'Identifier':
      if (isReference(place) && resolve(scope, node.name)?.kind === 'caught') yield* caughtIn(place);
      break;
    default:
  }
}

function error(node: AnyNode, rule: Found['rule'], message: string, instead: string): Found {
  return { node, rule, severity: 'error', message, instead };
}

function power(node: AnyNode): Found {
  const { rule, instead } = refusals.digits;
  return error(node, rule, '**', instead);
}

/** Whole numbers that fit are the same in every engine, and so is bigint. */
function isExactPower(base: AnyNode, exponent: AnyNode): boolean {
  if (base.type !== 'Literal' || exponent.type !== 'Literal') return false;
  if (typeof base.value === 'bigint' || typeof exponent.value === 'bigint') return true;
  if (typeof base.value !== 'number' || typeof exponent.value !== 'number') return false;
  if (!Number.isSafeInteger(base.value) || !Number.isSafeInteger(exponent.value) || exponent.value < 0) return false;
  let product = 1;
  for (let i = 0; i < exponent.value && i < 64; i++) product *= base.value;
  return exponent.value < 64 && Number.isSafeInteger(product);
}

function isHandler({ above }: Place): boolean {
  const property = above?.node;
  return property?.type === 'Property' && handlerNames.has(nameOf(property.key, property.computed) ?? '');
}

function* importOf(node: AnyNode, source: unknown): Generator<Found> {
  const specifier = String(source);
  if (/^(?:\.{1,2}\/|\/|file:)/.test(specifier)) return;
  const name = specifier.replace(/^node:/, '');
  if (isRefusedBuiltin(specifier, builtinModules)) {
    yield error(node, 'import', `import of ${specifier}`, refusedBuiltin);
  } else if (!pureBuiltins.has(name) && !knownPackages.test(specifier)) {
    const instead = 'what the package does is not checked: look at it yourself, and allow it with a reason';
    yield { node, rule: 'import', severity: 'warning', message: `import of ${specifier}`, instead };
  }
}

function caught(node: AnyNode): Found {
  const { rule, instead } = refusals.errorText;
  return error(node, rule, 'What was caught is looked into', instead);
}

/** What was caught may be thrown on, be a cause, or be told apart by its class. */
function* caughtIn({ node, above, scope }: Place): Generator<Found> {
  const outer = above?.node;
  switch (outer?.type) {
    case 'ThrowStatement':
      return;
    case 'BinaryExpression':
      if (outer.operator === 'instanceof') return;
      break;
    case 'Property':
      if (nameOf(outer.key, outer.computed) === 'cause') return;
      break;
    case 'MemberExpression': {
      const name = nameOf(outer.property, outer.computed);
      if (name === 'code' || name === 'name') return;
      break;
    }
    case 'CallExpression':
      if (pathOf(outer.callee, scope)?.startsWith('console.') === true) return;
      break;
    default:
  }
  yield caught(node);
}
