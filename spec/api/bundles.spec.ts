// The SDK in a program's bundle, as esbuild, rollup and webpack make it: the bundle runs without node_modules.

import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import { build } from 'esbuild';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { isBuiltin } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rollup } from 'rollup';
import webpack from 'webpack';

import { projectWithPackage } from '../support/built-package.js';
import { runTool } from '../support/tools.js';

jest.setTimeout(300_000);

const PROGRAM = `
import { NbdConnection, NbdPool, copy, hash, nullDestination, TLS_REQUIRE } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';
const server = await new NbdServer({ exports: { '': MemoryBackend.from(Buffer.alloc(65536, 7)) } }).listenTcp();
const connection = await NbdConnection.connect(server.uri());
const { copied } = await copy(connection, nullDestination());
const pool = await NbdPool.connect(server.uri());
console.log((await pool.pread(4, 0)).toString('hex'), String(copied), (await hash(connection)).length, TLS_REQUIRE);
await pool.shutdown();
await connection.shutdown();
await server.close();
`;

let project = '';
let output = '';
let entry = '';

beforeAll(async () => {
  project = await projectWithPackage();
  output = await mkdtemp(join(tmpdir(), 'nbd-bundles-'));
  entry = join(project, 'program.mjs');
  await writeFile(entry, PROGRAM);
});

afterAll(async () => {
  for (const folder of [project, output]) await rm(folder, { recursive: true, force: true });
});

const BUNDLERS: readonly (readonly [name: string, bundle: (file: string) => Promise<unknown>])[] = [
  [
    'esbuild',
    (file) =>
      build({ entryPoints: [entry], outfile: file, bundle: true, platform: 'node', format: 'esm', target: 'node20' }),
  ],
  [
    'rollup',
    async (file) => {
      // Resolves what a bundle of a real program gets from @rollup/plugin-node-resolve: packages, by their exports.
      const resolver = {
        name: 'packages',
        resolveId: (name: string) => {
          if (isBuiltin(name)) return { id: name, external: true };
          if (name.startsWith('.') || name.startsWith('/')) return null;
          return located(name);
        },
      };
      const bundle = await rollup({ input: entry, plugins: [resolver], onwarn: () => undefined });
      await bundle.write({ file, format: 'es', inlineDynamicImports: true });
      await bundle.close();
    },
  ],
  [
    'webpack',
    (file) =>
      new Promise<void>((resolve, reject) => {
        const settings: webpack.Configuration = {
          ...{ mode: 'production', target: 'node20', entry, experiments: { outputModule: true } },
          output: { path: output, filename: file.slice(output.length + 1), module: true, library: { type: 'module' } },
          optimization: { minimize: false },
        };
        webpack(settings, (error, stats) => {
          if (error !== null) reject(error);
          else if (stats?.hasErrors() === true) reject(new Error(stats.toString('errors-only')));
          else resolve();
        });
      }),
  ],
];

/** The file that a package's name stands for, as a bundler finds it: ESM first. */
function located(name: string): string {
  const files: Readonly<Record<string, string>> = {
    'nbd-sdk': 'nbd-sdk/dist/index.js',
    'nbd-sdk/server': 'nbd-sdk/dist/server/index.js',
    // Rollup itself reads no CommonJS, which its index.mjs imports.
    eventemitter3: 'eventemitter3/dist/eventemitter3.esm.js',
    'p-queue': 'p-queue/dist/index.js',
    'p-timeout': 'p-timeout/index.js',
  };
  const file = files[name];
  if (file === undefined) throw new Error(`the bundle asks for ${name}`);
  return join(project, 'node_modules', file);
}

it.each(BUNDLERS)('a bundle by %s runs', async (name, bundle) => {
  const file = join(output, `${name}.mjs`);
  await bundle(file);
  const { code, stdout, stderr } = await runTool(process.execPath, [file], { cwd: output, timeout: 60_000 });
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '07070707 65536 64 2\n', stderr: '' });
});
