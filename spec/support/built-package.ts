// The package as it is installed: a project in a temporary folder that has the build among its dependencies.

import { cp, mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { cachedBuild } from './cached-build.js';
import { ROOT } from './root.js';
import { runTool } from './tools.js';

/** What the package needs when it runs, with what these need. */
const DEPENDENCIES = ['eventemitter3', 'p-queue', 'p-timeout', 'cli-progress'];
const TIMEOUT = 300_000;

/** Builds the package and returns a new project's folder, which its caller removes. */
export async function projectWithPackage(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-project-'));
  const installed = join(folder, 'node_modules/nbd-sdk');
  await mkdir(installed, { recursive: true });
  await cp(join(ROOT, 'package.json'), join(installed, 'package.json'));
  const built = await cachedBuild('nbd-package', ['tsconfig.json', 'tsconfig.build.json'], async (fresh) => {
    const tsc = join(ROOT, 'node_modules/typescript-7/bin/tsc');
    const args = [tsc, '-p', join(ROOT, 'tsconfig.build.json'), '--outDir', fresh];
    const { code, stdout, stderr } = await runTool(process.execPath, args, { timeout: TIMEOUT });
    if (code !== 0) throw new Error(`the build failed:\n${stdout}${stderr}`);
  });
  await cp(built, join(installed, 'dist'), { recursive: true });
  for (const name of DEPENDENCIES) {
    await cp(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name), { recursive: true });
  }
  await symlink(join(ROOT, 'node_modules/@types'), join(folder, 'node_modules/@types'));
  await writeFile(
    join(folder, 'package.json'),
    JSON.stringify({ private: true, type: 'module', dependencies: { 'nbd-sdk': '*' } }),
  );
  return folder;
}
