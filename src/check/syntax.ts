import { stripTypeScriptTypes } from 'node:module';
import { parse, type AnyNode, type Comment, type Program } from 'acorn';

/** A module as text and as tree. Types are blanked out, so lines and columns are those of the file. */
export interface Module {
  readonly file: string;
  readonly program: Program;
  readonly comments: readonly Comment[];
}

/** Parses a module. Throws a SyntaxError, whose message ends with `(line:column)` where that is known. */
export function parseModule(file: string, text: string): Module {
  const comments: Comment[] = [];
  const script = /\.[cm]?ts$/.test(file) ? withoutTypes(text) : text;
  const program = parse(script, {
    ecmaVersion: 'latest',
    sourceType: 'module',
    locations: true,
    allowHashBang: true,
    onComment: comments,
  });
  return { file, program, comments };
}

function withoutTypes(text: string): string {
  try {
    return stripTypeScriptTypes(text, { mode: 'strip' });
  } catch (thrown) {
    if (!(thrown instanceof Error)) throw thrown;
    // The place stands only in the excerpt above the stack: a line number, lines of code, and a caret.
    const [, line = '1', column = ''] = /^[^\n]*:(\d+)\n(?:[^\n]*\n)*?( *)\^/.exec(thrown.stack ?? '') ?? [];
    throw new SyntaxError(`${thrown.message} (${line}:${column.length})`, { cause: thrown });
  }
}

function isNode(value: unknown): value is AnyNode {
  return (
    typeof value === 'object' &&
    value !== null &&
    'type' in value &&
    typeof value.type === 'string' &&
    'start' in value &&
    typeof value.start === 'number'
  );
}

/** What is directly inside a node, in the order of the text. */
export function childrenOf(node: AnyNode): readonly AnyNode[] {
  const children: AnyNode[] = [];
  for (const value of Object.values(node)) {
    if (Array.isArray(value)) for (const item of value) if (isNode(item)) children.push(item);
    if (isNode(value)) children.push(value);
  }
  return children.length < 2 ? children : children.sort((a, b) => a.start - b.start);
}

export type FunctionNode = Extract<
  AnyNode,
  { type: 'FunctionDeclaration' | 'FunctionExpression' | 'ArrowFunctionExpression' }
>;

export function isFunction(node: AnyNode | undefined): node is FunctionNode {
  return (
    node?.type === 'FunctionDeclaration' ||
    node?.type === 'FunctionExpression' ||
    node?.type === 'ArrowFunctionExpression'
  );
}

/** The name that a property, method or member has, if it is written out. */
export function nameOf(key: AnyNode, computed: boolean): string | undefined {
  if (key.type === 'PrivateIdentifier') return `#${key.name}`;
  if (key.type === 'Identifier' && !computed) return key.name;
  if (key.type === 'Literal' && key.value !== undefined) return String(key.value);
  if (key.type === 'TemplateLiteral' && key.expressions.length === 0) return key.quasis[0]?.value.cooked ?? undefined;
  return undefined;
}

/** Without what does not change a value: `a?.b`, `(a)`, `(0, a)`. */
export function bare(node: AnyNode): AnyNode {
  if (node.type === 'ChainExpression' || node.type === 'ParenthesizedExpression') return bare(node.expression);
  if (node.type === 'SequenceExpression') {
    const last = node.expressions.at(-1);
    return last === undefined ? node : bare(last);
  }
  return node;
}
