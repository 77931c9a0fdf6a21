// The programs that interop specs talk to: which of them this machine has, and running one to its end.
// Jest's globals are used instead of '@jest/globals' so that benchmarks can load this file outside jest.

import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

// Debian keeps servers where an ordinary user's PATH does not look.
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

/** The interpreter that distributions install libnbd's binding for; the first one on PATH may be another. */
const SYSTEM_PYTHON = '/usr/bin/python3';

const found = new Map<string, string | undefined>();

/** Where a program is, or undefined. `python3` is always the system's. */
export function findTool(name: string): string | undefined {
  if (!found.has(name)) found.set(name, name === 'python3' ? firstRunnable([SYSTEM_PYTHON]) : onPath(name));
  return found.get(name);
}

/** Whether specs may use it: a program's name, or `python3-libnbd` for Python with libnbd's binding. */
export function hasTool(name: string): boolean {
  if (name !== 'python3-libnbd') return findTool(name) !== undefined;
  if (!found.has(name)) {
    const python = findTool('python3');
    const works = python !== undefined && spawnSync(python, ['-c', 'import nbd']).status === 0;
    found.set(name, works ? python : undefined);
  }
  return found.get(name) !== undefined;
}

/**
 * `describe`, for specs that need programs: on a machine that lacks one the specs are skipped and the title says
 * why; with `CI=true` a missing program is a failing test.
 */
export function describeWith(needs: readonly string[], title: string, fn: () => void): void {
  const missing = needs.filter((name) => !hasTool(name));
  if (missing.length === 0) {
    describe(title, fn);
    return;
  }
  const note = `${title} (missing: ${missing.join(', ')})`;
  if (process.env['CI'] !== 'true') {
    describe.skip(note, fn);
    return;
  }
  describe(note, () => {
    it('finds every program that it needs', () => {
      throw new Error(`not installed: ${missing.join(', ')}`);
    });
  });
}

/** Output and end of a program. */
export interface ToolResult {
  /** The exit code; 128 + the signal's number, as a shell counts, when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout as it came, for programs that write data. */
  readonly output: Buffer;
}

export interface RunToolOptions {
  /** Written to its stdin, which is empty otherwise. */
  input?: string | Uint8Array;
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  /** Milliseconds until it is killed; 240,000 by default. */
  timeout?: number;
}

/** Runs a program to its end. Only a program that cannot be started, or that has to be killed, rejects. */
export function runTool(name: string, args: readonly string[], options: RunToolOptions = {}): Promise<ToolResult> {
  const { input = '', timeout = 240_000 } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(findTool(name) ?? name, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    const timer = setTimeout(() => child.kill('SIGKILL'), timeout);
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    // A program that ends without reading its input breaks the pipe; its exit code shows the rest.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const output = Buffer.concat(stdout);
      const said = Buffer.concat(stderr).toString();
      if (signal === 'SIGKILL') {
        reject(new Error(`${name} ${args.join(' ')}: no end within ${String(timeout)} ms\n${said}`));
        return;
      }
      resolve({ code: code ?? 128 + signalNumber(signal), stdout: output.toString(), stderr: said, output });
    });
  });
}

/** Runs a script with libnbd's Python binding loaded as `nbd`. */
export function runLibnbd(script: string, options: RunToolOptions = {}): Promise<ToolResult> {
  return runTool('python3', ['-c', `import nbd\n${script}`], options);
}

function onPath(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...SYSTEM_FOLDERS];
  return firstRunnable(folders.filter((folder) => folder !== '').map((folder) => join(folder, name)));
}

function firstRunnable(paths: readonly string[]): string | undefined {
  return paths.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGABRT: 6, SIGSEGV: 11, SIGTERM: 15 };

function signalNumber(signal: NodeJS.Signals | null): number {
  return SIGNAL_NUMBERS[signal ?? ''] ?? 0;
}
