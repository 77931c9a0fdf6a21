// Bundles for browsers, made of the sources by esbuild, and a server that a page loads them from.

import { build, type BuildResult, transform } from 'esbuild';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

import { ROOT } from '../support/root.js';

const ALIAS = {
  'nbd-sdk/web/bulk': join(ROOT, 'lib/web/bulk/index.ts'),
  'nbd-sdk/web': join(ROOT, 'lib/web/index.ts'),
};

/** One minified module for browsers. esbuild fails if anything in the graph is a module of Node. */
export function bundle(entry: string): Promise<BuildResult<{ write: false; metafile: true }>> {
  return build({
    entryPoints: [join(ROOT, entry)],
    alias: ALIAS,
    bundle: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    minify: true,
    metafile: true,
    write: false,
    logLevel: 'silent',
  });
}

/** Where a page without a bundler finds the packages: the browser knows no `node_modules`. */
const IMPORT_MAP = {
  imports: {
    'p-queue': '/node_modules/p-queue/dist/index.js',
    'p-timeout': '/node_modules/p-timeout/index.js',
    eventemitter3: '/node_modules/eventemitter3/dist/eventemitter3.esm.js',
  },
};

const HTML = `<!doctype html><title>nbd-sdk</title><link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify(IMPORT_MAP)}</script>`;

/** Serves a page with the bundles `/page.js` and `/worker.js`, and every module of lib/ by itself, without its types. */
export async function servePage(): Promise<{ readonly url: string; close(): Promise<void> }> {
  const script = async (path: string): Promise<string> => {
    if (path === '/page.js' || path === '/worker.js') {
      const { outputFiles } = await bundle(`spec/web/programs${path.replace('.js', '.ts')}`);
      return outputFiles[0]?.text ?? '';
    }
    if (path.startsWith('/node_modules/')) return readFile(join(ROOT, path), 'utf8');
    const source = await readFile(join(ROOT, path.replace(/\.js$/, '.ts')), 'utf8');
    return (await transform(source, { loader: 'ts', format: 'esm', target: 'es2022' })).code;
  };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    if (pathname === '/') {
      response.setHeader('content-type', 'text/html').end(HTML);
      return;
    }
    script(pathname).then(
      (text) => response.setHeader('content-type', 'text/javascript').end(text),
      (error: unknown) => response.writeHead(404).end(String(error)),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      }),
  };
}
