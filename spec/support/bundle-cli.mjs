// Bundles the command line: one file per command and one for what several of them share, so that a command loads a few
// files instead of eighty. Starting is most of what a short command costs.
// Run as a script it is a part of `npm run build`: node spec/support/bundle-cli.mjs dist

import { build } from 'esbuild';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const ROOT = join(import.meta.dirname, '../..');

/** Writes `cli/main.js` and its chunks into `folder`. Dependencies stay packages of their own. */
export async function bundleCli(folder) {
  // Chunks of an earlier build have other names.
  await rm(join(folder, 'cli'), { recursive: true, force: true });
  await build({
    absWorkingDir: ROOT,
    entryPoints: ['lib/cli/main.ts'],
    outdir: join(folder, 'cli'),
    bundle: true,
    splitting: true,
    packages: 'external',
    format: 'esm',
    platform: 'node',
    target: 'node20',
    minifySyntax: true,
    minifyWhitespace: true,
    chunkNames: '[name]-[hash]',
    logLevel: 'warning',
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await bundleCli(resolve(process.argv[2] ?? 'dist'));
