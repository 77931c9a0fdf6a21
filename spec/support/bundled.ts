// Programs of specs and examples as JavaScript: Node starts that in a tenth of the time that tsx takes for the sources.

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

import { keptBuild } from './cached-build.js';
import { ROOT } from './root.js';
import { runTool } from './tools.js';

const ESBUILD = join(ROOT, 'node_modules/esbuild/bin/esbuild');
/** The names of tsconfig.json reach lib/; other packages stay outside. */
const OPTIONS = [
  '--bundle',
  '--splitting',
  '--format=esm',
  '--platform=node',
  '--target=node20',
  '--packages=external',
];
const NAMES = ['nbd-sdk', 'nbd-sdk/server', 'nbd-sdk/testing', 'nbd-sdk/web', 'nbd-sdk/web/bulk', 'nbd-sdk/fleet'];
const ALIASES = NAMES.map((name) => `--alias:${name}=${join(ROOT, name.replace('nbd-sdk', 'lib'), 'index.ts')}`);

/** Bundles programs, by path from the repository's root, and returns where each is, by its name without `.ts`. */
export async function bundled(entries: readonly string[]): Promise<(name: string) => string> {
  const scratch = await mkdtemp(join(tmpdir(), 'nbd-bundled-'));
  try {
    const outputs = ['--out-extension:.js=.mjs', `--outdir=${scratch}`, '--entry-names=[name]'];
    const args = [ESBUILD, ...entries, ...OPTIONS, ...ALIASES, ...outputs, '--log-level=warning'];
    const { code, stderr } = await runTool(process.execPath, args, { cwd: ROOT });
    if (code !== 0) throw new Error(`the programs could not be bundled: ${stderr}`);
    const names = (await readdir(scratch)).sort();
    const texts = await Promise.all(names.map((name) => readFile(join(scratch, name), 'utf8')));
    const folder = await keptBuild('nbd-programs', texts.join('\0'), async (fresh) => {
      await Promise.all(names.map((name, at) => writeFile(join(fresh, name), texts[at] ?? '')));
    });
    return (name) => join(folder, `${basename(name)}.mjs`);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
