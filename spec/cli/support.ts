// Running the command line as a process, from a bundle of the sources as they are now, as the package contains it. The
// bundle is made once for each state of lib/ and kept in node_modules/.cache.

import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import { runTool, type RunToolOptions, type ToolResult } from '../support/real-servers.js';

const ROOT = resolve(import.meta.dirname, '../..');
const CACHE = join(ROOT, 'node_modules/.cache/nbd-cli');
const BUNDLER = join(ROOT, 'spec/support/bundle-cli.mjs');

let built: Promise<string> | undefined;

/** The path of main.js. */
export function cliPath(): Promise<string> {
  return (built ??= build());
}

async function build(): Promise<string> {
  const lib = join(ROOT, 'lib');
  const files = (await readdir(lib, { recursive: true })).filter((name) => name.endsWith('.ts')).sort();
  const state = createHash('sha256').update(await readFile(BUNDLER));
  const texts = await Promise.all(files.map((name) => readFile(join(lib, name), 'utf8')));
  files.forEach((name, at) => state.update(`${name}\0${texts[at] ?? ''}\0`));
  const folder = join(CACHE, state.digest('hex').slice(0, 16));
  const main = join(folder, 'dist/cli/main.js');
  if (existsSync(main)) return main;

  await mkdir(CACHE, { recursive: true });
  const fresh = await mkdtemp(join(CACHE, 'new-'));
  // A process of its own: esbuild does not run in jest's realm.
  const { code, stderr } = await runTool(process.execPath, [BUNDLER, join(fresh, 'dist')], {});
  if (code !== 0) throw new Error(`the command line could not be bundled: ${stderr}`);
  // Another worker may have been faster with the same.
  await rename(fresh, folder).catch(() => rm(fresh, { recursive: true, force: true }));
  await removeOld(folder);
  return main;
}

const HOUR = 3_600_000;

async function removeOld(current: string): Promise<void> {
  for (const name of await readdir(CACHE)) {
    const path = join(CACHE, name);
    const age = Date.now() - (await stat(path).catch(() => ({ mtimeMs: Date.now() }))).mtimeMs;
    if (relative(path, current) !== '' && age > HOUR) await rm(path, { recursive: true, force: true });
  }
}

/** Runs `nbd` with these words to its end. */
export async function nbd(words: readonly string[], options: RunToolOptions = {}): Promise<ToolResult> {
  return runTool(process.execPath, [await cliPath(), ...words], { ...options });
}

/** What a command wrote to standard output; throws unless it ended with `code`. */
export async function out(words: readonly string[], code = 0, options: RunToolOptions = {}): Promise<string> {
  const result = await nbd(words, options);
  if (result.code !== code) throw new Error(`nbd ${words.join(' ')}: exit code ${result.code}\n${result.stderr}`);
  return result.stdout;
}

/** Starts `nbd` and leaves it running. */
export async function start(
  words: readonly string[],
): Promise<ChildProcess & { said: () => string; err: () => string }> {
  const child = spawn(process.execPath, [await cliPath(), ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (err += chunk));
  return Object.assign(child, { said: () => said, err: () => err });
}

/** The exit code of a child, or the name of the signal that ended it. */
export function exitOf(child: ChildProcess): Promise<number | string | null> {
  return new Promise((done) => child.once('close', (code, signal) => done(code ?? signal)));
}
