// Builds the command `nbd` as one executable: Node itself with the bundled command in it (a "single executable
// application"). It needs no Node, no node_modules and no package.json where it runs.
//   npm run build:single [-- FILE]     default: dist/nbd (dist/nbd.exe on Windows)

import { execFileSync } from 'node:child_process';
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { inject } from 'postject';
import { bundleSingle } from './bundle-cli.mjs';

/** Where Node looks for the code: https://nodejs.org/api/single-executable-applications.html */
const RESOURCE = 'NODE_SEA_BLOB';
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';

const suffix = process.platform === 'win32' ? '.exe' : '';
const target = resolve(process.argv[2] ?? join(import.meta.dirname, `../../dist/nbd${suffix}`));
const folder = await mkdtemp(join(tmpdir(), 'nbd-single-'));
try {
  const [main, config, blob] = ['nbd.cjs', 'sea-config.json', 'nbd.blob'].map((name) => join(folder, name));
  await bundleSingle(main);
  await writeFile(config, JSON.stringify({ main, output: blob, disableExperimentalSEAWarning: true }));
  execFileSync(process.execPath, ['--experimental-sea-config', config], { stdio: ['ignore', 'ignore', 'inherit'] });
  const binary = join(folder, `nbd${suffix}`);
  await copyFile(process.execPath, binary);
  await chmod(binary, 0o755);
  // macOS runs nothing whose signature does not fit its contents.
  if (process.platform === 'darwin') execFileSync('codesign', ['--remove-signature', binary]);
  await inject(binary, RESOURCE, await readFile(blob), {
    sentinelFuse: FUSE,
    ...(process.platform === 'darwin' ? { machoSegmentName: 'NODE_SEA' } : {}),
  });
  if (process.platform === 'darwin') execFileSync('codesign', ['--sign', '-', binary]);
  await mkdir(dirname(target), { recursive: true });
  // A running program cannot be overwritten, but its file can be replaced.
  const fresh = `${target}.new`;
  await copyFile(binary, fresh);
  await rename(fresh, target);
} finally {
  await rm(folder, { recursive: true, force: true });
}
process.stdout.write(`${target}\n`);
