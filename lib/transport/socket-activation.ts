// systemd's socket activation, from the side of systemd: a program inherits a socket that is listening already, as
// its descriptor 3, and learns so from its environment (sd_listen_fds(3)).

import { Guard } from './guard.js';
import { InheritableListener } from './private-socket.js';
import { dialUnix } from './dial.js';
import { findProgram, nameOf } from './programs.js';
import { attach, type Running, Subprocess, type SubprocessOptions } from './subprocess.js';

const SHELL = '/bin/sh';

/**
 * LISTEN_PID must be the program's own pid, which is known only between fork and exec. The program and its arguments
 * are the shell's arguments and no part of this text; `$1` is an absolute path, so it is never read as an option of
 * exec. What the program writes to stdout goes to stderr: this process's stdout is not its business.
 */
const SCRIPT = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@" >&2';

export interface ActivationOptions extends SubprocessOptions {
  /** What LISTEN_FDNAMES calls the socket; `''` for `unknown`, as sd_listen_fds_with_names(3) has it. */
  readonly socketName: string;
}

/** A program that was activated, and where its socket is while it runs. */
export interface Activated extends Running {
  readonly path: string;
}

/** Runs a command with a listening socket and connects to it. At the connection's end the program gets SIGTERM. */
export async function activate(
  argv: readonly string[],
  options: ActivationOptions,
  signal?: AbortSignal,
): Promise<Activated> {
  const [program = '', ...args] = argv;
  const name = nameOf(program);
  const path = await findProgram(program);
  const listener = await InheritableListener.open();
  const guard = new Guard(listener.folder);
  let subprocess: Subprocess | null = null;
  try {
    signal?.throwIfAborted();
    const stdio = ['ignore', 'ignore', listener.fd] as const;
    const env = { ...process.env, LISTEN_FDS: '1', LISTEN_FDNAMES: options.socketName || 'unknown' };
    const { errorOutput } = options;
    const started = Subprocess.start(SHELL, ['-c', SCRIPT, 'sh', path, ...args], name, stdio, { errorOutput, env });
    listener.handOver();
    subprocess = await started;
    subprocess.isShared = true;
    subprocess.guard = guard;
    guard.watch(subprocess.pid);
    subprocess.cleanUp = () => {
      listener.remove();
    };
    const transport = await dialUnix(listener.path, signal);
    attach(transport, subprocess, options.grace, true);
    return { transport, subprocess, path: listener.path };
  } catch (error) {
    listener.remove();
    if (subprocess === null) {
      guard.release();
      throw error;
    }
    // It was gone before it could be connected to: what it said is more than ECONNREFUSED.
    const reason = signal?.aborted === true ? error : await subprocess.explainEnd(error as Error);
    subprocess.release(options.grace, true);
    throw reason;
  }
}
