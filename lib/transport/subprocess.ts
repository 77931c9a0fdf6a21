// A program that this process runs for the sake of one connection: started, watched, ended.
// Invariant: none outlives its connection for longer than its grace, or this process at all.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { connectedPair } from './private-socket.js';
import { nameOf, startError } from './programs.js';
import type { SocketTransport } from './socket.js';

/** Where a program's stderr goes: kept for error messages, or to this process's own. */
export type ErrorOutput = 'capture' | 'inherit';

/** How a program is run and ended. */
export interface SubprocessOptions {
  readonly errorOutput: ErrorOutput;
  /** Milliseconds from the end of its connection until SIGTERM, and again from that until SIGKILL. */
  readonly grace: number;
}

/** A transport, and the program at its other end. */
export interface Running {
  readonly transport: SocketTransport;
  readonly subprocess: Subprocess;
}

/** Control characters, and those that turn text round or end its line: ssh shows what a stranger's server says. */
const UNSHOWN = /[\p{Cc}\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+/gu;

/** What is kept of stderr: its end, where programs say what went wrong. */
const MAX_TAIL = 2048;
/** How long a program that has closed its connection may take to exit before it is thought to run on. */
const EXIT_DELAY = 1000;
/** How long its stderr may then take: a grandchild may hold it open. */
const OUTPUT_DELAY = 100;

const running = new Set<Subprocess>();

/** This process exits, perhaps without having closed its connections. */
function endAll(): void {
  for (const subprocess of running) {
    subprocess.kill('SIGTERM');
    subprocess.cleanUp();
  }
}

export class Subprocess {
  readonly pid: number;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;
  /** Removes what was made for it; called when its connection is gone. */
  cleanUp: () => void = () => undefined;
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #closed: Promise<void>;
  #tail: Buffer = Buffer.alloc(0);
  #timer: NodeJS.Timeout | null = null;
  #isReleased = false;

  private constructor(child: ChildProcess, pid: number, name: string) {
    this.#child = child;
    this.pid = pid;
    this.#name = name;
    if (running.size === 0) process.on('exit', endAll);
    running.add(this);
    this.ended = new Promise((resolve) => {
      child.once('exit', () => {
        running.delete(this);
        if (running.size === 0) process.off('exit', endAll);
        if (this.#timer !== null) clearTimeout(this.#timer);
        resolve();
      });
    });
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()));
    // The connection keeps the process alive, not the program.
    child.unref();
    if (child.stderr !== null) this.#keepTail(child.stderr);
  }

  /**
   * Runs a program with the given stdio (its stderr is added) and resolves when it runs. Rejects, with the errno as
   * `code`, when there is no such program or it may not be run.
   *
   * @param name What to call it in messages.
   */
  static start(
    program: string,
    args: readonly string[],
    name: string,
    stdio: readonly ('ignore' | 'inherit' | number | Readable)[],
    { errorOutput, env = process.env }: { readonly errorOutput: ErrorOutput; readonly env?: NodeJS.ProcessEnv },
  ): Promise<Subprocess> {
    return new Promise((resolve, reject) => {
      const [input = 'ignore', output = 'ignore', ...more] = stdio;
      const errors = errorOutput === 'capture' ? 'pipe' : 'inherit';
      const child = spawn(program, args, { env, stdio: [input, output, errors, ...more], windowsHide: true });
      const onError = (error: NodeJS.ErrnoException): void => {
        reject(startError(error, name));
      };
      child.once('error', onError);
      child.once('spawn', () => {
        child.off('error', onError);
        // Later ones are of kill(), which tells its caller.
        child.on('error', () => undefined);
        resolve(new Subprocess(child, child.pid as number, name));
      });
    });
  }

  /** Resolves when it is gone, or after so many milliseconds; meanwhile it keeps this process alive. */
  async endedWithin(delay: number): Promise<void> {
    if (!this.isRunning || delay <= 0) return;
    this.#child.ref();
    await (delay === Infinity ? this.ended : within(delay, this.ended));
    this.#child.unref();
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Sends a signal; false when the process is gone, whose pid may be another's by now. */
  kill(signal: NodeJS.Signals | number): boolean {
    return this.isRunning && this.#child.kill(signal);
  }

  /** Its connection is gone: it is to end by itself or by the signal, or else is ended. Idempotent. */
  release(grace: number, signal?: NodeJS.Signals): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    if (signal !== undefined) this.kill(signal);
    this.cleanUp();
    this.#later(grace, () => {
      this.kill('SIGTERM');
      this.#later(grace, () => this.kill('SIGKILL'));
    });
  }

  /** How it ended, unless it ended well or runs on: the error to report in place of `error`. */
  async farewell(error: Error | null): Promise<Error | null> {
    await within(EXIT_DELAY, this.ended);
    if (this.isRunning) return error;
    await within(OUTPUT_DELAY, this.#closed);
    const { exitCode, signalCode } = this.#child;
    if (exitCode === 0 && error === null) return null;
    const how = exitCode === null ? `was ended by ${String(signalCode)}` : `exited with status ${exitCode}`;
    const said = this.#said;
    const message = `the command ${this.#name} ${how}${said === '' ? '' : `: ${said}`}`;
    return Object.assign(new Error(message, error === null ? {} : { cause: error }), { code: 'ENOTCONN' });
  }

  /** The end of what it wrote to stderr, on one line. */
  get #said(): string {
    const lines = this.#tail.toString().split(/[\r\n]+/);
    const shown = lines.map((line) => line.replaceAll(UNSHOWN, ' ').trim()).filter((line) => line !== '');
    return shown.join(' | ');
  }

  #keepTail(stderr: Readable): void {
    stderr.on('data', (chunk: Buffer) => {
      this.#tail = Buffer.concat([this.#tail, chunk]).subarray(-MAX_TAIL);
    });
    stderr.on('error', () => undefined);
    (stderr as Readable & { unref?: () => void }).unref?.();
  }

  #later(delay: number, act: () => void): void {
    if (this.isRunning) this.#timer = setTimeout(act, delay).unref();
  }
}

/**
 * Runs a command with one end of a connected pair of Unix sockets as both its stdin and its stdout, and keeps the
 * other. When the connection ends the command sees the end of its input; one that runs on is ended.
 */
export async function runCommand(
  argv: readonly string[],
  options: SubprocessOptions,
  signal?: AbortSignal,
): Promise<Running> {
  const [program = '', ...args] = argv;
  const [transport, peer] = await connectedPair(`the command ${nameOf(program)}`, signal);
  let subprocess: Subprocess;
  try {
    // Fork and exec have happened when start() returns, so that this process's copy is closed at once.
    const started = Subprocess.start(program, args, nameOf(program), [peer, peer], options);
    peer.destroy();
    subprocess = await started;
  } catch (error) {
    transport.destroy();
    throw error;
  }
  attach(transport, subprocess, options.grace);
  return { transport, subprocess };
}

/** Ties a program to its connection: it ends, by the signal if one is given, when the connection does. */
export function attach(
  transport: SocketTransport,
  subprocess: Subprocess,
  grace: number,
  signal?: NodeJS.Signals,
): void {
  transport.farewell = (error) => subprocess.farewell(error);
  transport.socket.once('close', () => {
    subprocess.release(grace, signal);
  });
}

/** Waits for the promise, but not for long. */
async function within(delay: number, promise: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, delay)));
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
