// The package as others get it: what is in the repository's top folder, in the lock file, in the tarball, and that
// every entry point can be imported, required and type-checked from the build.

import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, posix, relative, sep } from 'node:path';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { publint } from 'publint';

import { ROOT } from '../support/root.js';
import { runTool } from '../support/tools.js';

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly type: string;
  readonly engines: { readonly node: string };
  readonly exports: Readonly<Record<string, string | { readonly types: string; readonly default: string }>>;
  readonly bin?: Readonly<Record<string, string>>;
  readonly files: readonly string[];
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies?: object;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly peerDependenciesMeta?: Readonly<Record<string, { readonly optional: boolean }>>;
}

interface Locked {
  readonly integrity?: string;
  readonly resolved?: string;
  readonly link?: boolean;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

interface Lock {
  readonly packages: Readonly<Record<string, Locked>>;
}

const json = (path: string): unknown => JSON.parse(readFileSync(join(ROOT, path), 'utf8'));
const manifest = json('package.json') as Manifest;

/** `./dist/server/index.js` of every entry point, declaration and command. */
const targets = [
  ...Object.values(manifest.exports).flatMap((entry) => (typeof entry === 'string' ? [entry] : Object.values(entry))),
  ...Object.values(manifest.bin ?? {}),
].map((path) => posix.normalize(path));

/** The names that users import: `nbd-sdk`, `nbd-sdk/server` … */
const entryPoints = Object.entries(manifest.exports)
  .filter(([, entry]) => typeof entry !== 'string')
  .map(([subpath]) => posix.join(manifest.name, subpath));

/** Processes on a busy machine. */
const TIMEOUT = 600_000;
jest.setTimeout(TIMEOUT);

describe('the top folder', () => {
  const MADE = new Set(['.git', 'node_modules', 'dist', 'coverage', 'docs']);
  const ALLOWED = [
    ...['package.json', 'tsconfig.json', 'jest.config.ts', 'lib', 'spec', 'examples', 'README.md'],
    // What tools insist on finding here.
    ...['.ci', '.gitignore', '.npmrc', 'package-lock.json', 'LICENSE', 'CHANGELOG.md', 'tsconfig.build.json'],
    ...['eslint.config.js', '.prettierrc.json', '.prettierignore', 'knip.json', 'typedoc.json'],
    ...['.github', 'SECURITY.md', 'CONTRIBUTING.md'],
  ];

  it('holds what it should and nothing else', () => {
    const entries = readdirSync(ROOT).filter((name) => !MADE.has(name) && !/\.(log|tgz)$/.test(name));
    expect(entries.filter((name) => !ALLOWED.includes(name))).toEqual([]);
    expect(ALLOWED.filter((name) => !entries.includes(name))).toEqual([]);
  });

  it('keeps what tools make out of the repository', () => {
    const ignored = readFileSync(join(ROOT, '.gitignore'), 'utf8').split('\n');
    expect(ignored).toEqual(expect.arrayContaining(['node_modules/', 'dist/', 'coverage/', 'docs/', '*.tgz']));
  });
});

describe('package.json', () => {
  it('is an ESM package for every Node that can require() one', () => {
    expect(manifest).toMatchObject({ name: 'nbd-sdk', type: 'module', engines: { node: '>=20.19' } });
  });

  it('has few dependencies, and no hidden ones', () => {
    expect(Object.keys(manifest.dependencies).sort()).toEqual(['cli-progress', 'eventemitter3', 'p-queue']);
    expect(manifest.optionalDependencies).toBe(undefined);
    // Each is optional, and a part of one entry point.
    expect(Object.keys(manifest.peerDependencies ?? {})).toEqual(Object.keys(manifest.peerDependenciesMeta ?? {}));
    expect(Object.values(manifest.peerDependenciesMeta ?? {}).every(({ optional }) => optional)).toBe(true);
  });

  it('uses all of them', () => {
    const imported = new Set<string>();
    for (const path of readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' })) {
      if (!path.endsWith('.ts')) continue;
      const text = readFileSync(join(ROOT, 'lib', path), 'utf8');
      for (const [, name] of text.matchAll(/^(?:import|export) .*from '([^.][^']*)';$|^} from '([^.][^']*)';$/gm)) {
        if (name !== undefined && !name.startsWith('node:')) imported.add(name);
      }
    }
    expect([...imported].sort()).toEqual(Object.keys(manifest.dependencies).sort());
  });

  it('runs nothing on the machine that installs it', () => {
    const hooks = ['preinstall', 'install', 'postinstall', 'prepare', 'preprepare', 'postprepare'];
    expect(hooks.filter((hook) => hook in manifest.scripts)).toEqual([]);
  });

  it('names a file below dist/ for each export, with a source for it', () => {
    for (const path of targets.filter((each) => each !== 'package.json')) {
      expect(path).toMatch(/^dist\/[\w/-]+\.(js|d\.ts)$/);
      const source = path.replace(/^dist\//, 'lib/').replace(/(\.d\.ts|\.js)$/, '.ts');
      expect([source, existsSync(join(ROOT, source))]).toEqual([source, true]);
    }
  });

  it('maps the same names in tsconfig.json and for jest', () => {
    const { paths } = (json('tsconfig.json') as { compilerOptions: { paths: Record<string, string[]> } })
      .compilerOptions;
    for (const name of entryPoints) {
      const source = `./lib/${posix.join(posix.relative(manifest.name, name), 'index.ts')}`;
      expect([name, paths[name]]).toEqual([name, [source]]);
      expect(readFileSync(join(ROOT, 'jest.config.ts'), 'utf8')).toContain(
        `'^${name}$': '<rootDir>${source.slice(1)}'`,
      );
    }
  });

  it('has every entry point in the API reference', () => {
    const { entryPoints: documented } = json('typedoc.json') as { entryPoints: string[] };
    const sources = entryPoints.map((name) => posix.join('lib', posix.relative(manifest.name, name), 'index.ts'));
    expect(documented.toSorted()).toEqual(sources.toSorted());
  });
});

describe('package-lock.json', () => {
  const { packages } = json('package-lock.json') as Lock;
  const installed = Object.entries(packages).filter(([path]) => path !== '');

  it('pins every package by its contents and contains nothing about where it was installed from', () => {
    expect(installed.length).toBeGreaterThan(100);
    const isPinned = ({ integrity }: Locked): boolean => integrity?.startsWith('sha512-') === true;
    // What is for other platforms only cannot always be looked at where the file was made.
    const isForeign = ({ optional, os }: Locked): boolean => optional === true && os !== undefined;
    expect(installed.filter(([, each]) => !isPinned(each) && !isForeign(each)).map(([path]) => path)).toEqual([]);
    expect(installed.filter(([, each]) => each.resolved !== undefined || each.link === true)).toEqual([]);
  });

  it('is complete for every platform, without which npm ci refuses it', () => {
    const isThere = (from: string, name: string): boolean => {
      for (let at = from; ; at = at.slice(0, Math.max(at.lastIndexOf('/node_modules/'), 0))) {
        if (posix.join(at, 'node_modules', name) in packages) return true;
        if (at === '') return false;
      }
    };
    const missing = Object.entries(packages).flatMap(([path, { dependencies, optionalDependencies }]) =>
      Object.keys({ ...dependencies, ...optionalDependencies })
        .filter((name) => !isThere(path, name))
        .map((name) => `${name} of ${path}`),
    );
    expect(missing).toEqual([]);
  });

  it('has no path of a machine and no registry in it', () => {
    const text = readFileSync(join(ROOT, 'package-lock.json'), 'utf8');
    expect(text).not.toMatch(/"(file:|link:|\/|[A-Za-z]:\\)/);
    expect(text).not.toMatch(/registry|localhost|127\.0\.0\.1/);
    expect(installed.filter(([path]) => !path.startsWith('node_modules/'))).toEqual([]);
  });
});

/** What the profile esm-only leaves out: TypeScript before 4.7, and CommonJS that cannot require() ESM. */
const OTHER_RESOLUTIONS: readonly unknown[] = ['node10', 'node16-cjs'];

/** What the build reads, and the package does not contain. */
const CONFIGURATIONS = ['tsconfig.json', 'tsconfig.build.json'];

/** The oldest compiler that the declarations support, and the newest one of each major version since. */
const CONSUMERS: [compiler: string, resolution: 'nodenext' | 'bundler', names: string[]][] = [
  ['typescript-5.2', 'nodenext', entryPoints],
  ['typescript-5.9', 'nodenext', entryPoints],
  ['typescript', 'bundler', entryPoints.slice(0, 1)],
  ['typescript-7', 'bundler', entryPoints.slice(0, 1)],
  ...entryPoints.map((name): [string, 'nodenext', string[]] => ['typescript-7', 'nodenext', [name]]),
];

describe('the build', () => {
  let folder = '';
  let packed: { readonly filename: string; readonly files: { path: string }[]; readonly unpackedSize: number };

  // A copy of the package with a build of its own: dist/ in the repository may be old.
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-package-'));
    for (const name of ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', ...CONFIGURATIONS]) {
      await copyFile(join(ROOT, name), join(folder, name));
    }
    for (const name of ['lib', 'examples']) await cp(join(ROOT, name), join(folder, name), { recursive: true });
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    const tsc = join(ROOT, 'node_modules/typescript-7/bin/tsc');
    const bundler = join(ROOT, 'spec/support/bundle-cli.mjs');
    for (const args of [
      [tsc, '-p', 'tsconfig.build.json'],
      [bundler, join(folder, 'dist')],
    ]) {
      const { code, stdout, stderr } = await runTool(process.execPath, args, { cwd: folder, timeout: TIMEOUT });
      expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '', stderr: '' });
    }
    const { stdout } = await runTool('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
      cwd: folder,
      timeout: TIMEOUT,
    });
    [packed] = JSON.parse(stdout) as [typeof packed];
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  const node = (code: string, ...flags: string[]) =>
    runTool(process.execPath, ['--no-warnings', ...flags, '-e', code], {
      cwd: folder,
      env: { FORCE_COLOR: '0' },
      timeout: TIMEOUT,
    });

  it('makes every file that package.json names', () => {
    expect(targets.filter((path) => !existsSync(join(folder, path)))).toEqual([]);
  });

  it('packs the build, its sources, the examples and the documents, and nothing else', () => {
    const files = packed.files.map(({ path }) => path);
    const filesIn = (name: string): string[] =>
      readdirSync(join(ROOT, name), { recursive: true, encoding: 'utf8' })
        .filter((path) => /\.\w+$/.test(path))
        .map((path) => `${name}/${path.split(sep).join('/')}`);
    const sources = filesIn('lib');
    const built = sources
      .filter((path) => path.endsWith('.ts') && !path.startsWith('lib/cli/'))
      .flatMap((path) => {
        const stem = path.replace(/^lib/, 'dist').slice(0, -3);
        return [`${stem}.js`, `${stem}.d.ts`, `${stem}.d.ts.map`];
      });
    const documents = ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json'];
    const bundled = files.filter((path) => path.startsWith('dist/cli/'));
    const commands = ['copy.cjs', 'info.cjs', 'main.js', 'nbd.cjs', 'version.cjs'];
    expect(bundled.sort()).toEqual(
      ['LICENSES.txt', 'package.json', ...commands].sort().map((name) => `dist/cli/${name}`),
    );
    expect(files.sort()).toEqual([...documents, ...built, ...bundled, ...sources, ...filesIn('examples')].sort());
    expect(packed.unpackedSize).toBeLessThan(6_000_000);
  });

  it('leads from a declaration to its source', async () => {
    for (const path of await readdir(join(folder, 'dist'), { recursive: true })) {
      if (!path.endsWith('.d.ts.map')) continue;
      const { sources } = JSON.parse(await readFile(join(folder, 'dist', path), 'utf8')) as { sources: string[] };
      const found = sources.map((source) => join(folder, 'dist', dirname(path), source));
      expect(found).toEqual([join(folder, 'lib', path.replace(/\.d\.ts\.map$/, '.ts'))]);
      expect(existsSync(found[0] ?? '')).toBe(true);
    }
  });

  it('passes publint and are-the-types-wrong', async () => {
    const tarball = await readFile(join(folder, packed.filename));
    const { messages } = await publint({
      pack: { tarball: tarball.buffer.slice(tarball.byteOffset, tarball.byteOffset + tarball.length) },
    });
    expect(messages).toEqual([]);
    const result = await checkPackage(createPackageFromTarballData(tarball));
    const problems = result.types === false ? [] : result.problems;
    const relevant = problems.filter(
      (problem) =>
        !('resolutionKind' in problem && OTHER_RESOLUTIONS.includes(problem.resolutionKind)) &&
        problem.kind !== 'CJSResolvesToESM',
    );
    expect({ typed: result.types !== false, relevant }).toEqual({ typed: true, relevant: [] });
  });

  it.each(Object.entries(manifest.bin ?? {}))('runs as the command %s', async (_name, path) => {
    expect((await readFile(join(folder, path), 'utf8')).split('\n', 1)).toEqual(['#!/usr/bin/env node']);
    const { code, stdout, stderr } = await runTool(process.execPath, [join(folder, path), '--version'], {
      timeout: TIMEOUT,
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(`${manifest.name} ${manifest.version}\n`);
  });

  it('contains nothing about the machine that built it', async () => {
    for (const path of await readdir(join(folder, 'dist'), { recursive: true })) {
      if (!/\.(js|ts)$/.test(path)) continue;
      const text = await readFile(join(folder, 'dist', path), 'utf8');
      expect([path, text.includes(ROOT) || text.includes(folder)]).toEqual([path, false]);
    }
  });

  it.each(entryPoints)('%s can be imported and required, and both give the same module', async (name) => {
    const { code, stdout, stderr } = await node(
      `const required = require(${JSON.stringify(name)});
      import(${JSON.stringify(name)}).then((imported) => {
        console.log(required === imported, Object.keys(imported).length > 0);
      });`,
    );
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'true true\n', stderr: '' });
  });

  it('exports nothing but its entry points', async () => {
    const { stdout } = await node(
      `import('${manifest.name}/dist/errors.js').catch((error) => console.log(error.code));`,
    );
    expect(stdout).toBe('ERR_PACKAGE_PATH_NOT_EXPORTED\n');
  });

  it('shares one error tree between entry points', async () => {
    const { stdout } = await node(
      `const { NbdError } = require('nbd-sdk');
      const { NbdServer } = require('nbd-sdk/server');
      try { new NbdServer().uri(); } catch (error) { console.log(error instanceof NbdError, error.code); }`,
    );
    expect(stdout).toBe('true ENOTCONN\n');
  });

  // `types` is left at the compiler's own default: that of TypeScript 6 and 7 includes no @types package, so each
  // entry point is tried alone.
  it.each(CONSUMERS)('%s with module resolution %s checks a strict user of %s', async (compiler, resolution, names) => {
    const consumer = await mkdtemp(join(folder, 'consumer-'));
    await mkdir(join(consumer, 'node_modules'));
    await symlink(folder, join(consumer, 'node_modules', manifest.name));
    await symlink(join(ROOT, 'node_modules/@types'), join(consumer, 'node_modules/@types'));
    const imports = names.map((name, index) => `export * as entry${String(index)} from '${name}';`);
    await writeFile(join(consumer, 'consumer.mts'), imports.join('\n'));
    const compilerOptions = {
      ...{ noEmit: true, strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, target: 'es2022' },
      // An entry for browsers needs the platform's types from somewhere; with others, those of Node are there.
      ...{ lib: names.every((name) => name.includes('/web')) ? ['es2022', 'dom', 'dom.iterable'] : ['es2022'] },
      ...{ module: resolution === 'nodenext' ? 'nodenext' : 'esnext', moduleResolution: resolution },
    };
    await writeFile(join(consumer, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['consumer.mts'] }));
    const tsc = join(ROOT, 'node_modules', compiler, 'bin/tsc');
    const own = join(ROOT, 'spec/support/check-declarations.mjs');
    // The native compiler is quick with all files, and has no API.
    const command =
      compiler === 'typescript-7' ? [tsc, '-p', consumer] : [own, compiler, join(consumer, 'tsconfig.json')];
    const { code, stdout, stderr } = await runTool(process.execPath, command, { timeout: TIMEOUT });
    const errors = relativeTo(folder, stdout)
      .split('\n')
      // Errors of other packages' declarations are theirs.
      .filter((line) => line !== '' && !line.startsWith(' ') && !line.includes('node_modules/'));
    expect({ errors, stderr, failed: code !== 0 && errors.length > 0 }).toEqual({
      errors: [],
      stderr: '',
      failed: false,
    });
  });
});

const relativeTo = (folder: string, text: string): string => text.replaceAll(`${relative(ROOT, folder)}/`, '');
