// bundle-with.mjs NAME ENTRY FILE: bundles a program for Node with a bundler's own API. A process of its own, since
// esbuild does not work in jest's realm.

import { build } from 'esbuild';
import { isBuiltin } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { argv } from 'node:process';
import { rollup } from 'rollup';
import webpack from 'webpack';

const [name, entry, file] = argv.slice(2);

/** Rollup itself knows no packages, and reads no CommonJS, which the first entry of eventemitter3 imports. */
const FILES = {
  'nbd-sdk': 'nbd-sdk/dist/index.js',
  'nbd-sdk/server': 'nbd-sdk/dist/server/index.js',
  eventemitter3: 'eventemitter3/dist/eventemitter3.esm.js',
  'p-queue': 'p-queue/dist/index.js',
  'p-timeout': 'p-timeout/index.js',
};

const BUNDLERS = {
  esbuild: () =>
    build({ entryPoints: [entry], outfile: file, bundle: true, platform: 'node', format: 'esm', target: 'node20' }),
  rollup: async () => {
    const resolveId = (id) => {
      if (isBuiltin(id)) return { id, external: true };
      return id in FILES ? join(dirname(entry), 'node_modules', FILES[id]) : null;
    };
    const bundle = await rollup({ input: entry, plugins: [{ name: 'packages', resolveId }], onwarn: () => undefined });
    await bundle.write({ file, format: 'es', inlineDynamicImports: true });
    await bundle.close();
  },
  webpack: () =>
    new Promise((resolve, reject) => {
      const settings = {
        ...{ mode: 'production', target: 'node20', entry, experiments: { outputModule: true } },
        output: { path: dirname(file), filename: basename(file), module: true, library: { type: 'module' } },
        optimization: { minimize: false },
      };
      webpack(settings, (error, stats) => {
        if (error !== null) reject(error);
        else if (stats.hasErrors()) reject(new Error(stats.toString('errors-only')));
        else resolve();
      });
    }),
};

await BUNDLERS[name]();
