// Running the command line as a process, from a bundle of the sources as they are now, as the package contains it. The
// bundle is made once for each state of lib/ and kept in node_modules/.cache.

import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { cachedBuild } from '../support/cached-build.js';
import { ROOT } from '../support/root.js';
import { runTool, type RunToolOptions, type ToolResult } from '../support/tools.js';
import { until } from '../support/waiting.js';

const BUNDLER = 'spec/support/bundle-cli.mjs';

let built: Promise<string> | undefined;

/** The path of main.js. */
export function cliPath(): Promise<string> {
  return (built ??= build());
}

async function build(): Promise<string> {
  const folder = await cachedBuild('nbd-cli', [BUNDLER], async (fresh) => {
    // A process of its own: esbuild does not run in jest's realm.
    const { code, stderr } = await runTool(process.execPath, [join(ROOT, BUNDLER), join(fresh, 'dist')], {});
    if (code !== 0) throw new Error(`the command line could not be bundled: ${stderr}`);
  });
  return join(folder, 'dist/cli/main.js');
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

/** A command that runs. */
export interface Started extends ChildProcess {
  /** What it has written to standard output so far. */
  said(): string;
  /** And to standard error. */
  err(): string;
  /** Whether it has ended, and all that it wrote is known. */
  hasEnded(): boolean;
}

/** Starts `nbd` and leaves it running. */
export async function start(words: readonly string[]): Promise<Started> {
  const child = spawn(process.execPath, [await cliPath(), ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (err += chunk));
  let hasEnded = false;
  child.once('close', () => (hasEnded = true));
  return Object.assign(child, { said: () => said, err: () => err, hasEnded: () => hasEnded });
}

/** Some progress, and not all of it: between two lines of it any number of them may be missing. */
export const HALF_WAY = /\b[1-9]\d?\/100/;

/** The first line of `nbd serve`. */
export const A_URI = /^nbds?[+:].*\n/;

/** Waits until a command has printed this; fails at once when it ends without. */
export async function printed(child: Started, what: RegExp | string): Promise<void> {
  await until(() => {
    const text = child.said() + child.err();
    if (typeof what === 'string' ? text.includes(what) : what.test(text)) return true;
    if (child.hasEnded()) throw new Error(`nbd ended without printing ${String(what)}: ${text}`);
    return false;
  });
}

/** The exit code of a child, or the name of the signal that ended it. */
export function exitOf(child: ChildProcess): Promise<number | string | null> {
  return new Promise((done) => child.once('close', (code, signal) => done(code ?? signal)));
}

/**
 * Whether the command listens for signals, as Linux reports: for SIGHUP, which Node itself does not catch. Before that, a
 * signal ends the process, and there is no exit code. True once it has ended.
 */
export function catchesSignals({ pid = 0 }: ChildProcess): boolean {
  let status: string;
  try {
    status = readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return true;
  }
  const mask = /^SigCgt:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return mask === undefined || (BigInt(`0x${mask}`) & 1n) !== 0n;
}
