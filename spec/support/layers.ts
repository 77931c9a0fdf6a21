// The layering of lib/, as a check of source text: which room may import which, what protocol/ may use, how long a
// file may be. Kept apart from its spec so that the spec can try it on made-up files.

import { posix } from 'node:path';
import ts from 'typescript';

/** A file of lib/: its path below lib/, with forward slashes, and its text. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/**
 * Room to the rooms below it. `base` is errors.ts and util/, `index` is lib/index.ts; a room may always import
 * itself. What is not listed is upward or sideways.
 */
const BELOW: Readonly<Record<string, readonly string[]>> = {
  base: [],
  protocol: ['base'],
  transport: ['base'],
  client: ['base', 'protocol', 'transport'],
  server: ['base', 'protocol', 'transport'],
  pool: ['base', 'protocol', 'transport', 'client'],
  stream: ['base', 'protocol', 'transport', 'client'],
  index: ['base', 'protocol', 'transport', 'client', 'pool', 'stream'],
  cli: ['base', 'protocol', 'transport', 'client', 'server', 'pool', 'stream', 'index'],
  testing: ['base', 'protocol', 'transport', 'client', 'server', 'pool', 'stream', 'index'],
};

/** Node's modules that compute and do nothing else. */
const PURE_MODULES = new Set(['node:buffer', 'node:util', 'node:url']);

/** Words of a program that waits or is called back; the protocol computes at once. */
const IMPURE_WORDS = new Set([
  ...['async', 'await', 'Promise', 'PromiseLike', 'setTimeout', 'setInterval', 'setImmediate'],
  ...['queueMicrotask', 'process', 'EventEmitter', 'EventTarget'],
]);

const MAX_LINES = 400;
/** Mostly documentation. */
const LONG_FILES = new Set(['client/connection.ts']);

/** What is wrong with the files, one line each; empty when all is well. */
export function checkLayers(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => [...checkImports(file), ...checkPurity(file), ...checkLength(file)]);
}

function checkImports(file: SourceFile): string[] {
  const room = roomOf(file.path);
  const allowed = BELOW[room];
  if (allowed === undefined) return [`${file.path}: lib/${room} is no room of the design`];
  return importsOf(file).flatMap((specifier) => {
    if (!specifier.startsWith('.')) return [];
    const target = posix.join(posix.dirname(file.path), specifier);
    if (target.startsWith('..')) return [`${file.path} imports ${specifier}, outside lib/`];
    const other = roomOf(target);
    return other === room || allowed.includes(other)
      ? []
      : [`${file.path} imports ${specifier}: ${other} is not below ${room}`];
  });
}

function checkPurity(file: SourceFile): string[] {
  if (roomOf(file.path) !== 'protocol') return [];
  const modules = importsOf(file).filter((name) => !name.startsWith('.') && !PURE_MODULES.has(name));
  const words = new Set(wordsOf(file).filter((word) => IMPURE_WORDS.has(word)));
  return [
    ...modules.map((name) => `${file.path} imports ${name}: protocol/ is pure`),
    ...[...words].map((word) => `${file.path} uses ${word}: protocol/ is pure`),
  ];
}

function checkLength(file: SourceFile): string[] {
  const lines = file.text.split('\n').length - (file.text.endsWith('\n') ? 1 : 0);
  return lines <= MAX_LINES || LONG_FILES.has(file.path)
    ? []
    : [`${file.path} has ${lines} lines, more than ${MAX_LINES}`];
}

function roomOf(path: string): string {
  const [first = '', second] = path.split('/');
  if (second !== undefined) return first === 'util' ? 'base' : first;
  return /^index\.[jt]s$/.test(first) ? 'index' : /^errors\.[jt]s$/.test(first) ? 'base' : first;
}

/** Every module that a file names: import, export from, import(), import('x').T and require(). */
export function importsOf(file: SourceFile): string[] {
  const found: string[] = [];
  const add = (node: ts.Node | undefined): void => {
    if (node !== undefined && ts.isStringLiteralLike(node)) found.push(node.text);
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) add(node.moduleSpecifier);
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal);
    else if (ts.isExternalModuleReference(node)) add(node.expression);
    else if (ts.isCallExpression(node)) {
      const { expression } = node;
      const isRequire = ts.isIdentifier(expression) && expression.text === 'require';
      if (expression.kind === ts.SyntaxKind.ImportKeyword || isRequire) add(node.arguments[0]);
    }
    ts.forEachChild(node, visit);
  };
  visit(parse(file));
  return found;
}

/** Every identifier and keyword of a file; not the words of its comments and strings. */
function wordsOf(file: SourceFile): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) found.push(node.text);
    else if (node.kind === ts.SyntaxKind.AsyncKeyword) found.push('async');
    else if (ts.isAwaitExpression(node)) found.push('await');
    ts.forEachChild(node, visit);
  };
  visit(parse(file));
  return found;
}

function parse(file: SourceFile): ts.SourceFile {
  return ts.createSourceFile(file.path, file.text, ts.ScriptTarget.Latest, false, ts.ScriptKind.TS);
}
