// The pages that explain folders: every file and folder that they name exists, and nothing that belongs there is missing.

import { describe, expect, it } from '@jest/globals';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';

import { ROOT } from '../support/root.js';

const PAGES = ['lib/README.md', 'examples/README.md', 'CONTRIBUTING.md', 'spec/README.md'].filter((page) =>
  existsSync(join(ROOT, page)),
);

/** What the build makes: not there in a fresh clone. */
const BUILT = /^(dist|coverage|docs)\//;
/** A name to be replaced by the reader: `cli/commands/NAME.ts`. */
const PLACEHOLDER = /\b[A-Z]{4,}\b(?!\.md$)/;
const PATH = /^[\w.@-]+(\/[\w.@-]+)*\/?$/;
const FILE = /\.(ts|mjs|js|md|json|yml)$/;
const OF_REPOSITORY = /^(lib|spec|examples|\.ci|\.github)\//;

const read = (page: string): string => readFileSync(join(ROOT, page), 'utf8');

/** The paths that a page names: link targets, and words of code that look like paths. */
function pathsOf(text: string): string[] {
  const links = [...text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^\w+:/.test(target));
  const blocks = [...text.matchAll(/```[^\n]*\n([\s\S]*?)```/g)].flatMap(([, block = '']) => block.split(/\s+/));
  const inline = [...text.matchAll(/`([^`\n]+)`/g)].flatMap(([, code = '']) => code.split(/\s+/));
  const isPath = (word: string): boolean => PATH.test(word) && (FILE.test(word) || OF_REPOSITORY.test(word));
  // A folder in a block of code may belong to a picture of something that is still to come.
  const code = [
    ...blocks.filter(isPath),
    ...inline
      .map((word) => word.replace(/[,:]$/, ''))
      .filter((word) => isPath(word) || (PATH.test(word) && word.endsWith('/'))),
  ];
  return [...new Set([...links, ...code])].filter((path) => !BUILT.test(path) && !PLACEHOLDER.test(path));
}

/** Those of the paths that exist neither beside the page nor at the top of the repository. */
function missingOf(page: string, text: string): string[] {
  const folder = posix.dirname(page);
  return pathsOf(text).filter((path) => !existsSync(join(ROOT, folder, path)) && !existsSync(join(ROOT, path)));
}

describe.each(PAGES)('%s', (page) => {
  it('names only files and folders that exist', () => {
    const text = read(page);
    expect(pathsOf(text).length).toBeGreaterThan(3);
    expect(missingOf(page, text)).toEqual([]);
  });
});

describe('lib/README.md', () => {
  const text = read('lib/README.md');
  const folders = readdirSync(join(ROOT, 'lib'), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => posix.relative(join(ROOT, 'lib'), join(entry.parentPath, entry.name)));

  it('describes every folder at the top of lib/', () => {
    const top = folders.filter((folder) => !folder.includes('/'));
    expect(top.length).toBeGreaterThan(5);
    expect(top.filter((folder) => !text.includes(`**${folder}/**`))).toEqual([]);
  });

  it('names every folder below it, or a file in it', () => {
    const below = folders.filter((folder) => folder.includes('/') && !folder.startsWith('pool/'));
    expect(below.filter((folder) => !text.includes(`${folder}/`))).toEqual([]);
  });
});

describe('examples/README.md', () => {
  const rows = read('examples/README.md')
    .split('\n')
    .flatMap((line) => /^\| \[([\w-]+\.ts)\]\(\1\) +\|(?: \S.*\|){2}$/.exec(line)?.[1] ?? []);
  const programs = readdirSync(join(ROOT, 'examples')).filter((name) => name.endsWith('.ts'));

  it('lists every example once, with what it shows and the server that it needs', () => {
    expect(rows.sort()).toEqual(programs.sort());
  });

  it.each(programs)('%s begins with one line of comment that describes it', (name) => {
    const lines = read(`examples/${name}`).split('\n');
    expect(lines[0]).toMatch(/^\/\/ [A-Z].+[.)]$/);
    expect(lines[1]).toMatch(/^import /);
  });
});

describe('the check of paths', () => {
  it.each([
    ['a link', '[a file](gone/file.md#part)', ['gone/file.md']],
    ['a word in backticks', '`client/gone.ts`, `util/abort.ts`', ['client/gone.ts']],
    ['a folder', '`gone/` and `client/`', ['gone/']],
    ['a path in a command', '`npm test -- spec/gone.spec.ts -t abort`', ['spec/gone.spec.ts']],
    ['a block of code', '```\nnpx tsx examples/gone.ts\n```', ['examples/gone.ts']],
    ['nothing else', '`cli/commands/NAME.ts`, `dist/`, `a.b.c`, [x](https://x.org/y.md), `and/or`', []],
  ])('sees %s', (_what, text, missing) => {
    expect(missingOf('lib/README.md', text)).toEqual(missing);
  });
});
