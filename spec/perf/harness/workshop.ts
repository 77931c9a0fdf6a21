// The temporary folder of a run: the measured programs, ready to be started by plain `node` with the built package
// beside them in node_modules, as a user has it.

import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const PERF = join(ROOT, 'spec/perf');

export interface Workshop {
  readonly folder: string;
  /** A Node program of spec/perf, against the package that was built last. */
  program(name: string): string;
  /** The same against a copy of another build. */
  baseline(name: string): string;
  source(path: string): string;
  remove(): Promise<void>;
}

/** Takes the types away; nothing else is changed. */
async function strip(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from)) {
    if (!name.endsWith('.ts')) continue;
    const { outputText } = ts.transpileModule(await readFile(join(from, name), 'utf8'), {
      compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
    });
    await writeFile(join(to, name.replace(/\.ts$/, '.js')), outputText);
  }
}

/** A folder `node_modules` with `nbd-sdk` and what it needs. */
async function install(folder: string, dist: string): Promise<void> {
  const modules = join(folder, 'node_modules');
  const home = join(modules, 'nbd-sdk');
  await mkdir(home, { recursive: true });
  await cp(join(ROOT, 'package.json'), join(home, 'package.json'));
  await cp(dist, join(home, 'dist'), { recursive: true });
  const { dependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  for (const name of Object.keys(dependencies)) {
    await symlink(join(ROOT, 'node_modules', name), join(modules, name), 'dir');
  }
}

async function makeFolder(folder: string, dist: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }\n');
  await install(folder, dist);
  await strip(join(PERF, 'programs'), join(folder, 'programs'));
  await strip(join(PERF, 'peers'), join(folder, 'peers'));
}

/** `against` is a copy of an earlier `dist/`. */
export async function makeWorkshop(against: string | undefined): Promise<Workshop> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-sdk-bench-'));
  // A copy of dist/, so that a build during the run changes nothing.
  await makeFolder(join(folder, 'ours'), join(ROOT, 'dist'));
  if (against !== undefined) await makeFolder(join(folder, 'baseline'), resolve(against));
  return {
    folder,
    program: (name) => join(folder, 'ours', name),
    baseline: (name) => join(folder, 'baseline', name),
    source: (path) => join(PERF, path),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
