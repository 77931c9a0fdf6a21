// Bundles the command line: one file per command and one for what several of them share, so that a command loads a few
// files instead of eighty. Starting is most of what a short command costs.
// Run as a script it is a part of `npm run build`: node spec/support/bundle-cli.mjs dist

import { build } from 'esbuild';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const ROOT = join(import.meta.dirname, '../..');

const COMMON = {
  absWorkingDir: ROOT,
  bundle: true,
  platform: 'node',
  target: 'node20',
  minifySyntax: true,
  minifyWhitespace: true,
  logLevel: 'warning',
};

/** Writes `cli/main.js` and its chunks into `folder`. Dependencies stay packages of their own. */
export async function bundleCli(folder) {
  // Chunks of an earlier build have other names.
  await rm(join(folder, 'cli'), { recursive: true, force: true });
  await build({
    ...COMMON,
    entryPoints: ['lib/cli/main.ts'],
    outdir: join(folder, 'cli'),
    splitting: true,
    packages: 'external',
    format: 'esm',
    chunkNames: '[name]-[hash]',
  });
}

/** Writes all of it, with the dependencies, into one CommonJS file, which needs nothing but Node. */
export async function bundleSingle(file) {
  await build({
    ...COMMON,
    // main.ts waits at its top level, which CommonJS cannot.
    stdin: {
      contents: `import { run } from './run.js';\nvoid run(process.argv.slice(2), process.argv[1] ?? 'nbd');\n`,
      resolveDir: join(ROOT, 'lib/cli'),
    },
    outfile: file,
    format: 'cjs',
    // Node's modules too: in a single executable there is require(), and no import().
    supported: { 'dynamic-import': false },
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await bundleCli(resolve(process.argv[2] ?? 'dist'));
