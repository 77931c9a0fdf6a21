// Starts, watches and ends a program that this process runs for one connection.
// Invariants: a program that may hold written data is never killed; any other is killed when its grace after the end of
// the connection is over; at the end of this process every program gets SIGTERM.

import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { Guard } from './guard.js';
import { connectedPair } from './private-socket.js';
import { nameOf, startError } from './programs.js';
import type { SocketTransport } from './socket.js';
import { unrefTimer } from '../util/timers.js';

/** Where a program's stderr goes: `capture` keeps it for error messages, `inherit` forwards it to this process's. */
export type ErrorOutput = 'capture' | 'inherit';

/** How a program is run and ended. */
export interface SubprocessOptions {
  readonly errorOutput: ErrorOutput;
  /**
   * Milliseconds from the end of its connection until SIGTERM, and from then until SIGKILL. Neither is sent if the
   * program may hold data.
   */
  readonly grace: number;
  /** A helper only forwards bytes and exits at their end: it needs no guard in case this process is killed. */
  readonly isHelper?: boolean;
}

/** A transport, and the program at its other end. */
export interface Running {
  readonly transport: SocketTransport;
  readonly subprocess: Subprocess;
}

/** Control, bidi and line-separator characters: ssh forwards the output of an untrusted server. */
const UNSHOWN = /[\p{Cc}\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+/gu;

/** Bytes kept of the end of stderr, where programs report what went wrong. */
const MAX_TAIL = 2048;
/** Milliseconds to wait for the exit of a program that has closed its connection. */
const EXIT_DELAY = 1000;
/** Milliseconds to wait for the end of its stderr after that: a grandchild may hold it open. */
const OUTPUT_DELAY = 100;
/** 128 + N: a shell's status for a command that signal N has ended; many servers exit with it after SIGTERM. */
const SIGNAL_STATUS = 128;

const running = new Set<Subprocess>();

/** Called when this process exits, perhaps without having closed its connections. */
function endAll(): void {
  for (const subprocess of running) {
    subprocess.askToEnd();
    subprocess.cleanUp();
    subprocess.guard?.release();
  }
}

export class Subprocess {
  readonly pid: number;
  /** Resolves when the process has exited. */
  readonly ended: Promise<void>;
  /** Removes files that were created for it; called when its connection has ended. */
  cleanUp: () => void = () => undefined;
  /**
   * Whether data was written to it; null if it has never served a connection. Other clients may reach its socket and
   * write unnoticed: a shared server counts as written to.
   */
  tookData: (() => boolean) | null = null;
  /** Whether other clients may be connected to it. */
  isShared = false;
  /** Ends it when this process is killed. */
  guard: Guard | null = null;
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #closed: Promise<void>;
  #tail: Buffer = Buffer.alloc(0);
  #timer: NodeJS.Timeout | null = null;
  #isReleased = false;
  /** Signals that this process has sent to it: ending by one of them is not a failure of the program. */
  readonly #sent = new Set<number>();

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
        this.guard?.release();
        resolve();
      });
    });
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()));
    // The connection keeps the process alive, not the program.
    child.unref();
    if (child.stderr !== null) this.#keepTail(child.stderr);
  }

  /**
   * Runs a program with the given stdio (stderr is added) and resolves when it runs. Rejects, with the errno as `code`,
   * if the program does not exist or may not be run.
   *
   * @param name The program's name in messages.
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
      let child: ChildProcess;
      try {
        child = spawn(program, args, { env, stdio: [input, output, errors, ...more], windowsHide: true });
      } catch (error) {
        // Node throws rare errors, such as E2BIG and ENOMEM, instead of emitting them.
        reject(startError(error as NodeJS.ErrnoException, name));
        return;
      }
      const onError = (error: NodeJS.ErrnoException): void => {
        reject(startError(error, name));
      };
      child.once('error', onError);
      child.once('spawn', () => {
        child.off('error', onError);
        // Later errors come from kill(), which also returns false.
        child.on('error', () => undefined);
        resolve(new Subprocess(child, child.pid as number, name));
      });
    });
  }

  /** Resolves when the program has exited, or after `delay` milliseconds. Until then it keeps this process alive. */
  async endedWithin(delay: number): Promise<void> {
    if (!this.isRunning || delay <= 0) return;
    this.#child.ref();
    await (delay === Infinity ? this.ended : within(delay, this.ended));
    this.#child.unref();
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Whether killing the program may lose data that was written to it. */
  get mayHoldData(): boolean {
    return this.tookData !== null && (this.isShared || this.tookData());
  }

  /** Sends a signal; false if the program has exited, because its pid may already belong to another process. */
  kill(signal: NodeJS.Signals | number): boolean {
    if (!this.isRunning) return false;
    this.#sent.add(typeof signal === 'number' ? signal : constants.signals[signal]);
    return this.#child.kill(signal);
  }

  /** Sends SIGTERM, and SIGCONT so that a stopped program handles it. */
  askToEnd(): void {
    if (this.kill('SIGTERM')) this.kill('SIGCONT');
  }

  /** Sends SIGTERM, and SIGKILL after `patience` milliseconds, even if the program may hold data. */
  endNow(patience: number): void {
    this.#isReleased = true;
    this.askToEnd();
    this.cleanUp();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#later(patience, () => this.kill('SIGKILL'));
  }

  /**
   * Called when its connection has ended. The program should exit by itself, or by an immediate SIGTERM (`terminate`)
   * if it cannot notice the end. If it keeps running it is ended after `grace` milliseconds, unless it may hold data:
   * then it may take as long as it needs. Idempotent.
   */
  release(grace: number, terminate: boolean): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    if (terminate) this.askToEnd();
    this.cleanUp();
    this.#later(grace, () => {
      if (this.mayHoldData) return;
      this.askToEnd();
      this.#later(grace, () => {
        if (!this.mayHoldData) this.kill('SIGKILL');
      });
    });
  }

  /**
   * How the program failed: its status, or a signal that this process has not sent. Null if it succeeded or still runs.
   */
  async failure(): Promise<string | null> {
    if (this.isRunning) return null;
    const { exitCode, signalCode } = this.#child;
    const number = exitCode === null ? constants.signals[signalCode as NodeJS.Signals] : exitCode - SIGNAL_STATUS;
    if (exitCode === 0 || this.#sent.has(number)) return null;
    return this.#describeEnd();
  }

  async #describeEnd(): Promise<string> {
    await within(OUTPUT_DELAY, this.#closed);
    const { exitCode, signalCode } = this.#child;
    const how = exitCode === null ? `was ended by ${String(signalCode)}` : `exited with status ${exitCode}`;
    const printed = this.#printed;
    return `the command ${this.#name} ${how}${printed === '' ? '' : `: ${printed}`}`;
  }

  /** The error to report instead of `error`: how the program ended, unless it succeeded or still runs. */
  async explainEnd(error: Error | null): Promise<Error | null> {
    await within(EXIT_DELAY, this.ended);
    if (this.isRunning) return error;
    if (this.#child.exitCode === 0 && error === null) return null;
    const message = await this.#describeEnd();
    return Object.assign(new Error(message, error === null ? {} : { cause: error }), { code: 'ENOTCONN' });
  }

  /** The end of its stderr, on one line. */
  get #printed(): string {
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
    if (!this.isRunning) return;
    this.#timer = setTimeout(act, delay);
    unrefTimer(this.#timer);
  }
}

/**
 * Runs a command with one end of a connected pair of Unix sockets as both its stdin and its stdout, and keeps the other
 * end. When the connection ends, the command sees the end of its input; if it keeps running, it is ended.
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
    // start() returns after fork and exec, so this process's copy can be closed at once.
    const started = Subprocess.start(program, args, nameOf(program), [peer, peer], options);
    peer.destroy();
    subprocess = await started;
  } catch (error) {
    peer.destroy();
    transport.destroy();
    throw error;
  }
  if (options.isHelper !== true) {
    subprocess.guard = new Guard('');
    subprocess.guard.watch(subprocess.pid);
  }
  attach(transport, subprocess, options.grace, false);
  return { transport, subprocess };
}

/** Ends a program when its connection ends, by SIGTERM (`terminate`) if it cannot notice that by itself. */
export function attach(transport: SocketTransport, subprocess: Subprocess, grace: number, terminate: boolean): void {
  transport.explainEnd = (error) => subprocess.explainEnd(error);
  transport.socket.once('close', () => {
    subprocess.release(grace, terminate);
  });
}

/** Waits for the promise for at most `delay` milliseconds. */
async function within(delay: number, promise: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, delay)));
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
