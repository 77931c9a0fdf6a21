// The layering of lib/, as a check of source text: which room may import which, that there are no circles of files or
// of neighbouring folders, what protocol/ may use, how long a file and how full a folder may be. Kept apart from its spec so that the spec can try it on made-up files.

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
  bulk: ['base', 'protocol', 'transport', 'client', 'pool'],
  index: ['base', 'protocol', 'transport', 'client', 'pool', 'bulk'],
  fleet: ['base', 'protocol', 'transport', 'client', 'pool', 'bulk', 'index'],
  web: ['base', 'protocol', 'transport', 'client', 'server', 'pool', 'bulk'],
  cli: ['base', 'protocol', 'transport', 'client', 'server', 'pool', 'bulk', 'index', 'fleet'],
  testing: ['base', 'protocol', 'transport', 'client', 'server', 'pool', 'bulk', 'index'],
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

const MAX_FILES = 15;
/** One file per command, and one per rule of the protocol. */
const FULL_FOLDERS = new Set(['cli/commands', 'protocol']);

/** What is wrong with the files, one line each; empty when all is well. */
export function checkLayers(files: readonly SourceFile[]): string[] {
  return [
    ...files.flatMap((file) => [...checkImports(file), ...checkPurity(file), ...checkLength(file)]),
    ...checkCircles(files),
    ...checkFolders(files),
  ];
}

type Graph = Map<string, Set<string>>;

/** Circles of files, and of folders that stand side by side: which of two imports the other must be clear. */
function checkCircles(files: readonly SourceFile[]): string[] {
  const paths = new Set(files.map(({ path }) => path));
  const between: Graph = new Map();
  const folders: Graph = new Map();
  for (const file of files) {
    for (const specifier of importsOf(file)) {
      const target = posix.join(posix.dirname(file.path), specifier).replace(/\.js$/, '.ts');
      if (!specifier.startsWith('.') || !paths.has(target)) continue;
      addEdge(between, file.path, target);
      const [from, to] = siblingFolders(file.path, target);
      if (from !== null && to !== null) addEdge(folders, from, to);
    }
  }
  return [
    ...circlesOf(between).map((circle) => `a circle of files: ${circle.join(' -> ')}`),
    ...circlesOf(folders).map((circle) => `a circle of folders: ${circle.join(' -> ')}`),
  ];
}

function addEdge(graph: Graph, from: string, to: string): void {
  const targets = graph.get(from);
  if (targets === undefined) graph.set(from, new Set([to]));
  else targets.add(to);
}

/** The folders below the deepest one that both files are in; null for a file that lies in that folder itself. */
function siblingFolders(from: string, to: string): [string | null, string | null] {
  const [one, other] = [from.split('/'), to.split('/')];
  let at = 0;
  while (at < one.length - 1 && at < other.length - 1 && one[at] === other[at]) at++;
  const folder = (parts: readonly string[]): string | null =>
    at < parts.length - 1 ? parts.slice(0, at + 1).join('/') : null;
  return [folder(one), folder(other)];
}

/** One circle for each edge that closes one, found depth first. */
function circlesOf(graph: Graph): string[][] {
  const circles: string[][] = [];
  const done = new Set<string>();
  const visit = (node: string, way: readonly string[]): void => {
    const at = way.indexOf(node);
    if (at !== -1) circles.push([...way.slice(at), node]);
    if (at !== -1 || done.has(node)) return;
    for (const next of graph.get(node) ?? []) visit(next, [...way, node]);
    done.add(node);
  };
  for (const node of graph.keys()) visit(node, []);
  return circles;
}

function checkFolders(files: readonly SourceFile[]): string[] {
  const counts = new Map<string, number>();
  for (const { path } of files) counts.set(posix.dirname(path), (counts.get(posix.dirname(path)) ?? 0) + 1);
  return [...counts]
    .filter(([folder, count]) => count > MAX_FILES && !FULL_FOLDERS.has(folder))
    .map(([folder, count]) => `${folder}/ has ${count} files side by side, more than ${MAX_FILES}`);
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
