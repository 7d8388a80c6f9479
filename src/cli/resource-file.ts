import { createHash } from 'node:crypto';
import { open, readdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Value } from 'typebox/value';
import { isMap, isPair, isScalar, LineCounter, parseAllDocuments, type Document, type Node } from 'yaml';
import { limits } from '../protocol/limits.ts';
import { kinds, ResourceSchema, schemaOf, type Kind, type Resource } from '../protocol/resources.ts';
import { nearest } from '../protocol/nearest.ts';
import { isRecord, schemaProblems } from '../protocol/schema-problems.ts';

/** One thing wrong in a file: where it is, what is expected, and what to do. */
export interface FileProblem {
  readonly file: string;
  /** From 1; absent if the file as a whole is meant. */
  readonly line?: number;
  readonly column?: number;
  /** From 1: which of the documents that `---` separates. */
  readonly document?: number;
  /** `Cell/tokyo-1`, as far as it is known. */
  readonly resource?: string;
  /** `spec.capacity.users`. */
  readonly field?: string;
  readonly message: string;
  readonly remedy: string;
}

export interface ReadResources {
  /** In the order in which they must exist: what a resource refers to comes before it. Empty if there is a problem. */
  readonly resources: readonly Resource[];
  readonly problems: readonly FileProblem[];
  /** Of the resources as they would be sent: changes when their meaning does, not with a comment. */
  readonly sha256: string;
}

/** A larger file would not fit into one apply. */
export const fileBytesMax: number = limits.controlBodyBytesMax;
/** Files of one folder: more is most likely a wrong folder. */
export const filesMax = 1_000;
/** References (`*name`) that one document may expand to: an exponential few lines could fill the memory. */
export const aliasesMax = 100;

/** Standard input as `-f -` reads it. */
export type ReadStdin = () => AsyncIterable<Uint8Array | string>;

interface Loaded {
  readonly resource: Resource;
  readonly problem: Omit<FileProblem, 'message' | 'remedy'>;
}

/**
 * Reads resources from files, folders (their `.yaml` and `.yml` files, sorted) and standard input (`-`), YAML or
 * JSON, several documents a file. Every problem of every file is listed; with one problem there are no resources,
 * so nothing can be half-applied. Relative `machine.module` and `workload.directory` become absolute from the
 * folder of their file (of `cwd` for standard input). Never throws for what stands in a file.
 */
export async function readResourceFiles(
  paths: readonly string[],
  options: { readonly cwd: string; readonly stdin: ReadStdin },
): Promise<ReadResources> {
  const problems: FileProblem[] = [];
  const loaded: Loaded[] = [];
  for (const path of paths) {
    for (const file of await filesOf(path, options.cwd, problems)) {
      const text = await textOf(file, options, problems);
      if (text === undefined) continue;
      const folder = file === '-' ? options.cwd : dirname(resolve(options.cwd, file));
      loaded.push(...parseResources(text, file === '-' ? 'standard input' : file, folder, problems));
    }
  }
  problems.push(...duplicates(loaded));
  const order: readonly Kind[] = kinds;
  const resources =
    problems.length > 0
      ? []
      : loaded.map(({ resource }) => resource).sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  return { resources, problems, sha256: createHash('sha256').update(JSON.stringify(resources)).digest('hex') };
}

async function filesOf(path: string, cwd: string, problems: FileProblem[]): Promise<readonly string[]> {
  if (path === '-') return [path];
  try {
    const full = resolve(cwd, path);
    if (!(await stat(full)).isDirectory()) return [path];
    const names = (await readdir(full)).filter((name) => /\.ya?ml$/.test(name)).sort();
    if (names.length === 0) {
      problems.push({
        file: path,
        message: 'the folder has no .yaml or .yml file',
        remedy: 'name a file or another folder',
      });
    }
    if (names.length > filesMax) {
      problems.push({
        file: path,
        message: `the folder has ${names.length} files; at most ${filesMax} are read`,
        remedy: 'name the files, or a smaller folder',
      });
      return [];
    }
    return names.map((name) => join(path, name));
  } catch (thrown) {
    problems.push(unreadable(path, thrown));
    return [];
  }
}

async function textOf(
  file: string,
  { cwd, stdin }: { readonly cwd: string; readonly stdin: ReadStdin },
  problems: FileProblem[],
): Promise<string | undefined> {
  try {
    const bytes = file === '-' ? await readBounded(stdin()) : await readFileBounded(resolve(cwd, file));
    if (bytes === undefined) {
      problems.push({
        file,
        message: `is larger than ${fileBytesMax / 1024 / 1024} MiB, the most that one apply may send`,
        remedy: 'split it into several files and apply them one after another',
      });
      return undefined;
    }
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (thrown) {
    problems.push(
      thrown instanceof TypeError
        ? { file, message: 'is not text in UTF-8', remedy: 'save it as UTF-8, or name another file' }
        : unreadable(file, thrown),
    );
    return undefined;
  }
}

async function readFileBounded(path: string): Promise<Uint8Array | undefined> {
  const file = await open(path);
  try {
    return await readBounded(file.createReadStream({ autoClose: false }));
  } finally {
    await file.close();
  }
}

/** Undefined if there is more than `fileBytesMax`; also ends for a stream that has no end. */
async function readBounded(chunks: AsyncIterable<Uint8Array | string>): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of chunks) {
    const part = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    sizeBytes += part.length;
    if (sizeBytes > fileBytesMax) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function unreadable(file: string, thrown: unknown): FileProblem {
  const code = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined;
  if (code === 'ENOENT') return { file, message: 'does not exist', remedy: 'check the path' };
  if (code === 'EACCES') return { file, message: 'may not be read', remedy: 'give yourself the right to read it' };
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  return { file, message: `cannot be read: ${why}`, remedy: 'name another file' };
}

/** The resources of one text; what is wrong goes to `problems`. */
export function parseResources(text: string, file: string, folder: string, problems: FileProblem[]): readonly Loaded[] {
  const before = problems.length;
  const lines = new LineCounter();
  let documents: readonly Document.Parsed[];
  try {
    documents = Array.from(
      parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, stringKeys: true, logLevel: 'silent' }),
    );
  } catch (thrown) {
    problems.push(tooDeep(file, thrown));
    return [];
  }
  const loaded: Loaded[] = [];
  let filled = 0;
  for (const [index, document] of documents.entries()) {
    const where: Where = { file, document: index + 1, lines };
    const wrong = [...document.errors, ...document.warnings];
    if (wrong.length > 0) {
      for (const error of wrong) problems.push(malformed(where, error.code, error.message, error.pos[0]));
      filled += 1;
      continue;
    }
    if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) continue;
    filled += 1;
    const found = resourceOf(document, where, folder, problems);
    if (found !== undefined) loaded.push(found);
  }
  if (filled === 0 && problems.length === before) {
    problems.push({ file, message: 'holds no resource', remedy: 'write at least one, with kind, name and spec' });
  }
  return loaded;
}

interface Where {
  readonly file: string;
  readonly document: number;
  readonly lines: LineCounter;
}

function tooDeep(file: string, thrown: unknown): FileProblem {
  return thrown instanceof RangeError
    ? { file, message: 'is nested too deeply', remedy: 'a resource needs about five levels; remove the nesting' }
    : { file, message: `is not well-formed YAML: ${String(thrown)}`, remedy: 'correct it' };
}

/** Remedies for the mistakes that people make most, by the code of the YAML library. */
const yamlRemedies: Readonly<Record<string, string>> = {
  BAD_INDENT: 'indent the lines of one block by the same number of spaces',
  TAB_AS_INDENT: 'indent with spaces, not with tabs',
  DUPLICATE_KEY: 'keep one of the two',
  MISSING_CHAR: 'close every quote and bracket, and put a colon after each key',
  MULTILINE_IMPLICIT_KEY: 'put a colon and a space after the key',
  BLOCK_AS_IMPLICIT_KEY: 'put the nested value on its own line, or quote the text that has a colon in it',
  TAG_RESOLVE_FAILED: 'remove the tag; plain text, numbers, lists and mappings are all that is needed',
  NON_STRING_KEY: 'write a plain word before the colon',
  UNEXPECTED_TOKEN: 'quote text that has special characters, and close every bracket',
  BAD_SCALAR_START: 'put quotes around the text',
};

function malformed(where: Where, code: string, message: string, offset: number): FileProblem {
  const remedy = yamlRemedies[code] ?? 'correct the YAML here';
  return { ...placed(where, offset), message: `is not well-formed YAML: ${message}`, remedy };
}

function resourceOf(
  document: Document.Parsed,
  where: Where,
  folder: string,
  problems: FileProblem[],
): Loaded | undefined {
  const start = placed(where, document.contents?.range[0] ?? 0);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: aliasesMax });
  } catch (thrown) {
    problems.push(
      thrown instanceof ReferenceError
        ? {
            ...start,
            message: `refers to itself too often, or to nothing: ${thrown.message}`,
            remedy: `write the values out; at most ${aliasesMax} references are followed`,
          }
        : { ...start, ...pick(tooDeep(where.file, thrown)) },
    );
    return undefined;
  }
  if (!isRecord(value)) {
    problems.push({
      ...start,
      message: `must be a mapping with kind, name and spec, but is ${Array.isArray(value) ? 'a list' : 'plain text'}`,
      remedy: Array.isArray(value) ? 'put --- between resources instead of dashes before them' : 'begin with kind:',
    });
    return undefined;
  }
  const given = value['kind'];
  const kind = kinds.find((known) => known === given);
  const name = typeof value['name'] === 'string' ? value['name'] : undefined;
  if (kind === undefined) {
    problems.push({
      ...placed(where, offsetOf(document, ['kind'])),
      ...(name === undefined ? {} : { resource: `?/${shorten(name)}` }),
      field: 'kind',
      ...kindProblem(given),
    });
    return undefined;
  }
  const resource = name === undefined ? kind : `${kind}/${shorten(name)}`;
  const schema = schemaOf[kind];
  Value.Default(schema, value);
  const found = schemaProblems(schema, value);
  for (const { path, message, remedy } of found) {
    problems.push({ ...placed(where, offsetOf(document, path)), resource, field: fieldOf(path), message, remedy });
  }
  if (found.length > 0) return undefined;
  if (!Value.Check(ResourceSchema, value)) {
    problems.push({ ...start, resource, message: `does not fit the schema of ${kind}`, remedy: 'correct it' });
    return undefined;
  }
  return { resource: absolute(value, folder), problem: { ...start, resource } };
}

function pick({ message, remedy }: FileProblem): { readonly message: string; readonly remedy: string } {
  return { message, remedy };
}

function kindProblem(given: unknown): { readonly message: string; readonly remedy: string } {
  const expected = `must be one of ${kinds.join(', ')}`;
  if (given === undefined || given === null) {
    return { message: `is missing; ${expected}`, remedy: 'add it, for example kind: Tenant' };
  }
  if (typeof given !== 'string') return { message: `${expected}, but is no text`, remedy: 'write kind: Tenant' };
  const meant = nearest(given, kinds) ?? kinds.find((kind) => given.toLowerCase() === `${kind.toLowerCase()}s`);
  return {
    message: `${expected}, but is "${shorten(given)}"`,
    remedy: meant === undefined ? 'write one of them' : `did you mean ${meant}?`,
  };
}

/** Paths in a file are meant from that file; the control plane and the cells have other working directories. */
function absolute(resource: Resource, folder: string): Resource {
  if (resource.kind !== 'Blueprint') return resource;
  const { spec } = resource;
  if ('machine' in spec) {
    return { ...resource, spec: { machine: { ...spec.machine, module: resolve(folder, spec.machine.module) } } };
  }
  const directory = resolve(folder, spec.workload.directory ?? '.');
  return { ...resource, spec: { workload: { ...spec.workload, directory } } };
}

function duplicates(loaded: readonly Loaded[]): readonly FileProblem[] {
  const first = new Map<string, Loaded>();
  return loaded.flatMap((one) => {
    const key = `${one.resource.kind}/${one.resource.name}`;
    const earlier = first.get(key);
    if (earlier === undefined) {
      first.set(key, one);
      return [];
    }
    const { file, line, document } = earlier.problem;
    return [
      {
        ...one.problem,
        message: `stands already in ${file}:${line ?? 1} (document ${document ?? 1})`,
        remedy: 'remove one of the two, or give it another name',
      },
    ];
  });
}

function placed({ file, document, lines }: Where, offset: number): Omit<FileProblem, 'message' | 'remedy'> {
  const { line, col } = lines.linePos(offset);
  return { file, line: Math.max(line, 1), column: Math.max(col, 1), document };
}

/** Where a field stands in the text; for one that is missing, where its mapping begins. */
function offsetOf(document: Document.Parsed, path: readonly string[]): number {
  let here: Node | null = document.contents;
  let offset = document.contents?.range[0] ?? 0;
  for (const key of path) {
    if (isMap(here)) {
      const pair = here.items.find((item) => isPair(item) && isScalar(item.key) && String(item.key.value) === key);
      if (pair === undefined || !isScalar(pair.key)) return offset;
      offset = pair.key.range?.[0] ?? offset;
      here = isNode(pair.value) ? pair.value : null;
    } else {
      const item: unknown = here !== null && 'items' in here ? here.items[Number(key)] : undefined;
      here = isNode(item) ? item : null;
      offset = here?.range?.[0] ?? offset;
    }
  }
  return offset;
}

function isNode(value: unknown): value is Node {
  return isRecord(value) && 'range' in value;
}

/** `spec.workload.command[0]`. */
function fieldOf(path: readonly string[]): string {
  return path
    .map((key, index) => (/^\d+$/.test(key) ? `[${key}]` : index === 0 ? shorten(key) : `.${shorten(key)}`))
    .join('');
}

function shorten(text: string): string {
  const printable = text.replaceAll(/[\p{Cc}\p{Cf}]/gu, '�');
  return printable.length > 80 ? `${printable.slice(0, 79)}…` : printable;
}
