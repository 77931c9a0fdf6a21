// A program that this process runs for the sake of one connection: started, watched, ended.
// Invariants: one that may hold data that was written to it is never ended by force; no other one outlives its
// connection for longer than its grace; none outlives this process, unless it takes its time to end when asked to.

import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { Guard } from './guard.js';
import { connectedPair } from './private-socket.js';
import { nameOf, startError } from './programs.js';
import type { SocketTransport } from './socket.js';

/** Where a program's stderr goes: kept for error messages, or to this process's own. */
export type ErrorOutput = 'capture' | 'inherit';

/** How a program is run and ended. */
export interface SubprocessOptions {
  readonly errorOutput: ErrorOutput;
  /**
   * Milliseconds from the end of its connection until SIGTERM, and again from that until SIGKILL. Neither comes where
   * the program may hold data.
   */
  readonly grace: number;
  /** It only passes bytes on and ends when they do: nothing needs to end it if this process is killed. */
  readonly isHelper?: boolean;
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
/** A shell's status for a command that a signal has ended, and what many servers exit with when one asks them to. */
const SIGNAL_STATUS = 128;

const running = new Set<Subprocess>();

/** This process exits, perhaps without having closed its connections. */
function endAll(): void {
  for (const subprocess of running) {
    subprocess.askToEnd();
    subprocess.cleanUp();
    subprocess.guard?.release();
  }
}

export class Subprocess {
  readonly pid: number;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;
  /** Removes what was made for it; called when its connection is gone. */
  cleanUp: () => void = () => undefined;
  /**
   * Whether data was written to it; null when it has not come to serve anything. What it serves to others through a
   * socket that they can reach is not known: such a server counts as one that was written to.
   */
  tookData: (() => boolean) | null = null;
  /** Others may be connected to it. */
  isShared = false;
  /** Ends it when this process is killed. */
  guard: Guard | null = null;
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #closed: Promise<void>;
  #tail: Buffer = Buffer.alloc(0);
  #timer: NodeJS.Timeout | null = null;
  #isReleased = false;
  /** What this process has sent to it: an end by one of these is no failure of its own. */
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
      let child: ChildProcess;
      try {
        child = spawn(program, args, { env, stdio: [input, output, errors, ...more], windowsHide: true });
      } catch (error) {
        // Node throws what it does not expect to happen, such as E2BIG and ENOMEM.
        reject(startError(error as NodeJS.ErrnoException, name));
        return;
      }
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

  /** Whether ending it by force may lose what was written to it. */
  get mayHoldData(): boolean {
    return this.tookData !== null && (this.isShared || this.tookData());
  }

  /** Sends a signal; false when the process is gone, whose pid may be another's by now. */
  kill(signal: NodeJS.Signals | number): boolean {
    if (!this.isRunning) return false;
    this.#sent.add(typeof signal === 'number' ? signal : constants.signals[signal]);
    return this.#child.kill(signal);
  }

  /** SIGTERM, which a stopped process sees only when it goes on. */
  askToEnd(): void {
    if (this.kill('SIGTERM')) this.kill('SIGCONT');
  }

  /** SIGTERM, and SIGKILL after so many milliseconds, whatever it holds. */
  endNow(patience: number): void {
    this.#isReleased = true;
    this.askToEnd();
    this.cleanUp();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#later(patience, () => this.kill('SIGKILL'));
  }

  /**
   * Its connection is gone: it is to end by itself, or by SIGTERM at once where it does not see that. One that runs on
   * is ended, unless it may hold data: then it has all the time that it needs. Idempotent.
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

  /** How it failed: its status, or the signal, unless this process has sent it. Null for a good end, or none yet. */
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
    const said = this.#said;
    return `the command ${this.#name} ${how}${said === '' ? '' : `: ${said}`}`;
  }

  /** How it ended, unless it ended well or runs on: the error to report in place of `error`. */
  async explainEnd(error: Error | null): Promise<Error | null> {
    await within(EXIT_DELAY, this.ended);
    if (this.isRunning) return error;
    if (this.#child.exitCode === 0 && error === null) return null;
    const message = await this.#describeEnd();
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

/** Ties a program to its connection: it ends, by SIGTERM if it does not see that by itself, when the connection does. */
export function attach(transport: SocketTransport, subprocess: Subprocess, grace: number, terminate: boolean): void {
  transport.explainEnd = (error) => subprocess.explainEnd(error);
  transport.socket.once('close', () => {
    subprocess.release(grace, terminate);
  });
}

/** Waits for the promise, but not for long. */
async function within(delay: number, promise: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, delay)));
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
