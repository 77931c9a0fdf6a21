// What the entries for browsers are made of: no module of Node, and not too much.

import { describe, expect, it } from '@jest/globals';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import ts from 'typescript';

import { ROOT } from '../support/root.js';
import { bundle } from './bundle.js';

const LIMIT = 60_000;

/** By path: most files are below both entries. */
const loaded = new Map<string, readonly string[]>();

/** The modules that a file loads when it runs: what TypeScript leaves of its imports, `import()` included. */
function loadedBy(path: string): readonly string[] {
  const known = loaded.get(path);
  if (known !== undefined) return known;
  const options = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true };
  const { outputText } = ts.transpileModule(readFileSync(path, 'utf8'), { compilerOptions: options });
  const names = ts.preProcessFile(outputText, true, true).importedFiles.map(({ fileName }) => fileName);
  loaded.set(path, names);
  return names;
}

/** Every file below an entry, and every package or module of Node with the file that imports it. */
function graphOf(entry: string): { files: Set<string>; packages: Map<string, string> } {
  const files = new Set<string>();
  const packages = new Map<string, string>();
  const visit = (path: string): void => {
    if (files.has(path)) return;
    files.add(path);
    for (const name of loadedBy(path)) {
      if (name.startsWith('.')) visit(join(dirname(path), name.replace(/\.js$/, '.ts')));
      else packages.set(name, relative(ROOT, path));
    }
  };
  visit(join(ROOT, entry));
  return { files, packages };
}

describe.each(['lib/web/index.ts', 'lib/web/bulk/index.ts'])('%s', (entry) => {
  it('loads nothing of Node', () => {
    const { files, packages } = graphOf(entry);
    expect(files.size).toBeGreaterThan(30);
    for (const file of files) expect(existsSync(file)).toBe(true);
    expect([...packages.keys()].filter((name) => !['eventemitter3', 'p-queue'].includes(name))).toEqual([]);
  });

  it('uses nothing of Node by its global name', () => {
    // They are looked up in util/platform.ts and util/timers.ts, where they may be missing.
    const own = ['lib/util/platform.ts', 'lib/util/timers.ts', 'lib/util/buffer.ts'];
    const found: string[] = [];
    for (const path of graphOf(entry).files) {
      const name = relative(ROOT, path);
      if (own.includes(name)) continue;
      const source = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
      const imported = new Set<string>();
      const visit = (node: ts.Node): void => {
        if (ts.isImportSpecifier(node)) imported.add(node.name.text);
        const isUse = ts.isIdentifier(node) && ['process', 'Buffer', 'setImmediate', 'global'].includes(node.text);
        const isMember = ts.isPropertyAccessExpression(node.parent) && node.parent.name === node;
        const isType = ts.isTypeReferenceNode(node.parent) || ts.isMethodDeclaration(node.parent);
        if (isUse && !isMember && !isType && !imported.has(node.text)) found.push(`${name}: ${node.text}`);
        ts.forEachChild(node, visit);
      };
      ts.forEachChild(source, visit);
    }
    expect(found).toEqual([]);
  });
});

describe('the bundle', () => {
  const sizeOf = async (entry: string): Promise<number> => {
    const { outputFiles } = await bundle(entry);
    return gzipSync(outputFiles[0]?.contents ?? '', { level: 9 }).length;
  };

  it('has at most 60 KB gzipped, and the README is right about it', async () => {
    const [all, client] = await Promise.all([sizeOf('lib/web/index.ts'), sizeOf('lib/web/connection.ts')]);
    expect(all).toBeGreaterThan(20_000);
    expect(all).toBeLessThanOrEqual(LIMIT);
    const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
    const [, whole, alone] = /minified and gzipped, (\d+) KB; the client alone (\d+) KB/.exec(readme) ?? [];
    expect(Math.abs(Number(whole) - all / 1000)).toBeLessThan(2);
    expect(Math.abs(Number(alone) - client / 1000)).toBeLessThan(2);
  });

  it('is refused by esbuild with a module of Node in it', async () => {
    await expect(bundle('lib/client/node.ts')).rejects.toThrow(/node:/);
  });
});
