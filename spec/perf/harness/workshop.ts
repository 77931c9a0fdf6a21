// The temporary folder of a run: the measured programs, ready to be started by plain `node` with the built package
// beside them in node_modules, as a user has it.

import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** The Node programs, and what they share. */
const PROGRAMS = {
  'cache-by-hand': new URL('../programs/cache-by-hand.ts', import.meta.url),
  client: new URL('../programs/client.ts', import.meta.url),
  copies: new URL('../programs/copies.ts', import.meta.url),
  'extents-server': new URL('../programs/extents-server.ts', import.meta.url),
  fill: new URL('../programs/fill.ts', import.meta.url),
  floor: new URL('../programs/floor.ts', import.meta.url),
  heap: new URL('../programs/heap.ts', import.meta.url),
  'loop-delay': new URL('../programs/loop-delay.ts', import.meta.url),
  'map-in-turn': new URL('../programs/map-in-turn.ts', import.meta.url),
  'pool-cost': new URL('../programs/pool-cost.ts', import.meta.url),
  server: new URL('../programs/server.ts', import.meta.url),
  work: new URL('../programs/work.ts', import.meta.url),
  vates: new URL('../peers/vates.ts', import.meta.url),
} as const;

export type ProgramName = keyof typeof PROGRAMS;

export interface Workshop {
  readonly folder: string;
  /** The command `nbd`. */
  readonly cli: string;
  /** A Node program, against the package that was built last. */
  program(name: ProgramName): string;
  /** The same against a copy of another build. */
  baseline(name: ProgramName): string;
  /** The source of a peer in another language. */
  peer(name: string): string;
  remove(): Promise<void>;
}

/** Where a program is in a folder made for it: in the same place as in spec/perf. */
function placeOf(folder: string, name: ProgramName): string {
  const path = fileURLToPath(PROGRAMS[name]);
  return join(folder, basename(dirname(path)), `${name}.js`);
}

/** Takes the types away; nothing else is changed. */
async function strip(name: ProgramName, folder: string): Promise<void> {
  const { outputText } = ts.transpileModule(await readFile(PROGRAMS[name], 'utf8'), {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  const place = placeOf(folder, name);
  await mkdir(dirname(place), { recursive: true });
  await writeFile(place, outputText);
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
  for (const name of Object.keys(PROGRAMS)) await strip(name as ProgramName, folder);
}

/** `against` is a copy of an earlier `dist/`. */
export async function makeWorkshop(against: string | undefined): Promise<Workshop> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-sdk-bench-'));
  // A copy of dist/, so that a build during the run changes nothing.
  await makeFolder(join(folder, 'ours'), join(ROOT, 'dist'));
  if (against !== undefined) await makeFolder(join(folder, 'baseline'), resolve(against));
  return {
    folder,
    cli: join(folder, 'ours/node_modules/nbd-sdk/dist/cli/main.js'),
    program: (name) => placeOf(join(folder, 'ours'), name),
    baseline: (name) => placeOf(join(folder, 'baseline'), name),
    peer: (name) => join(ROOT, 'spec/perf/peers', name),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
