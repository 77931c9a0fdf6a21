// The systemd side of socket activation: a program inherits a listening socket as descriptor 3 and finds it through its
// environment (sd_listen_fds(3)).

import { Guard } from './guard.js';
import { InheritableListener } from './private-socket.js';
import { dialUnix } from './dial.js';
import { findProgram, nameOf } from './programs.js';
import { attach, type Running, Subprocess, type SubprocessOptions } from './subprocess.js';

const SHELL = '/bin/sh';

/**
 * LISTEN_PID must be the program's own pid, which is known only between fork and exec. The program and its arguments
 * are passed as the shell's arguments, not as part of this text; `$1` is an absolute path and therefore never read as
 * an option of exec. The program's stdout goes to stderr: it must not write to this process's stdout.
 */
const SCRIPT = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@" >&2';

export interface ActivationOptions extends SubprocessOptions {
  /** The socket's name in LISTEN_FDNAMES; `''` for `unknown`, as in sd_listen_fds_with_names(3). */
  readonly socketName: string;
}

/** An activated program, and the path of its socket while it runs. */
export interface Activated extends Running {
  readonly path: string;
}

/** Runs a command with a listening socket and connects to it. The program gets SIGTERM when the connection ends. */
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
    // It has probably exited before it could be connected to: its stderr explains more than ECONNREFUSED.
    const reason = signal?.aborted === true ? error : await subprocess.explainEnd(error as Error);
    subprocess.release(options.grace, true);
    throw reason;
  }
}
