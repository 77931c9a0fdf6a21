// Bundles the command line: a small file that chooses, one file for each of the commands that are over before Node has
// loaded many, and one for all others. Starting is most of what a short command costs, and an ES module, or a package to
// be found, costs as much as 50 KB of code. CommonJS for what is chosen from: it is read and compiled in one go.
// Run as a script it is a part of `npm run build`: node spec/support/bundle-cli.mjs dist

import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const ROOT = join(import.meta.dirname, '../..');

/** What has a file of its own, by the first word of the command line. */
const SEPARATE = { info: ['info'], copy: ['copy'], version: ['--version', '-V'] };

/** Packages of their own: needed by few commands and of many parts, or not installed with this one. */
const EXTERNAL = ['cli-progress', 'bullmq', 'ws'];

const COMMON = {
  absWorkingDir: ROOT,
  bundle: true,
  platform: 'node',
  target: 'node20',
  minifySyntax: true,
  minifyWhitespace: true,
  logLevel: 'warning',
};

/** In main.js, run() is that of the file that has the command. `hashes` are those of the files' contents. */
const choice = (hashes) => ({
  name: 'choice',
  setup({ onLoad }) {
    const words = Object.entries(SEPARATE).flatMap(([file, each]) => each.map((word) => [word, file]));
    onLoad({ filter: /[/\\]cli[/\\]run\.ts$/ }, () => ({
      loader: 'ts',
      contents: `
        import module, { createRequire } from 'node:module';
        import { join } from 'node:path';
        import { optimizeLater, requireCompiled } from './code-cache.js';
        import { useCompileCache } from './compile-cache.js';
        const name = new Map(${JSON.stringify(words)}).get(process.argv[2]) ?? 'nbd';
        const file = join(__dirname, name + '.cjs');
        const enable = module.enableCompileCache;
        // What prints a version is compiled sooner than looked for.
        const folder = name === 'version' ? null : useCompileCache(enable);
        if (name === 'copy' || name === 'nbd') optimizeLater();
        export const { run } =
          folder === null || enable !== undefined
            ? createRequire(__filename)(file)
            : requireCompiled(file, ${JSON.stringify(hashes)}[name], folder);`,
    }));
  },
});

/**
 * Loads these modules of Node when something of theirs is first used: net, with the streams that it is made of, takes
 * 5 ms, and node:fs/promises 2 ms.
 */
const LATE = {
  name: 'late',
  setup({ onResolve, onLoad }) {
    const filter = /^node:(?:child_process|crypto|fs\/promises|net|readline|stream|timers\/promises|tls)$/;
    onResolve({ filter }, ({ path, namespace }) =>
      namespace === 'late' ? { path, external: true } : { path, namespace: 'late' },
    );
    onLoad({ filter: /.*/, namespace: 'late' }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter((name) => name !== 'default');
      const getters = names.map((name) => `get ${name}() { return require('${path}').${name}; }`);
      return { contents: `module.exports = { ${getters.join(', ')} };` };
    });
  },
};

/** Without the commands but one, or without any. */
const only = (command) => ({
  name: 'only',
  setup({ onLoad }) {
    onLoad({ filter: /[/\\]cli[/\\]registry\.ts$/ }, async ({ path }) => {
      const lines = (await readFile(path, 'utf8')).split('\n');
      const isOther = (line) => line.includes("import('./commands/") && !line.includes(`/${command}.js`);
      return { loader: 'ts', contents: lines.filter((line) => !isOther(line)).join('\n') };
    });
  },
});

/** Writes `cli/main.js` and what it chooses from into `folder`. */
export async function bundleCli(folder) {
  const cli = join(folder, 'cli');
  // An earlier build may have had other files.
  await rm(cli, { recursive: true, force: true });
  const names = ['nbd', ...Object.keys(SEPARATE)];
  const results = await Promise.all(
    names.map((name) =>
      build({
        ...COMMON,
        entryPoints: ['lib/cli/run.ts'],
        outfile: join(cli, `${name}.cjs`),
        format: 'cjs',
        external: EXTERNAL,
        supported: { 'dynamic-import': false },
        plugins: name === 'nbd' ? [LATE] : [LATE, only(name)],
        metafile: true,
      }),
    ),
  );
  const hashes = await Promise.all(
    names.map(async (name) => [
      name,
      createHash('sha256')
        .update(await readFile(join(cli, `${name}.cjs`)))
        .digest('hex')
        .slice(0, 16),
    ]),
  );
  await build({
    ...COMMON,
    entryPoints: ['lib/cli/main.ts'],
    outfile: join(cli, 'main.js'),
    format: 'cjs',
    supported: { 'dynamic-import': false },
    plugins: [choice(Object.fromEntries(hashes))],
  });
  // Node's loader of ES modules takes 10 ms.
  await writeFile(join(cli, 'package.json'), '{ "type": "commonjs" }\n');
  const inputs = results.flatMap(({ metafile }) => Object.keys(metafile?.inputs ?? {}));
  await writeFile(join(cli, 'LICENSES.txt'), await licensesOf(inputs));
}

/** Writes all of it, with the dependencies, into one CommonJS file, which needs nothing but Node. */
export async function bundleSingle(file) {
  await build({
    ...COMMON,
    entryPoints: ['lib/cli/main.ts'],
    outfile: file,
    format: 'cjs',
    // Those that are not installed with this package stay outside.
    external: EXTERNAL.filter((name) => name !== 'cli-progress'),
    // Node's modules too: in a single executable there is require(), and no import().
    supported: { 'dynamic-import': false },
  });
}

/** The licenses of the packages that became a part of the bundles. */
async function licensesOf(inputs) {
  const packages = new Set(inputs.map((path) => /^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]));
  packages.delete(undefined);
  const texts = [...packages].sort().map(async (name) => {
    const home = join(ROOT, 'node_modules', name);
    const file = (await readdir(home)).find((each) => /^licen[sc]e/i.test(each));
    if (file === undefined) throw new Error(`${name} has no license file`);
    return `${name}\n\n${(await readFile(join(home, file), 'utf8')).trim()}\n`;
  });
  return (await Promise.all(texts)).join('\n---\n\n');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await bundleCli(resolve(process.argv[2] ?? 'dist'));
