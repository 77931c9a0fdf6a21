// Ends a program, and removes the folder of its socket, when this process is killed by a signal that our code cannot
// handle (SIGKILL, or SIGTERM and SIGHUP without a listener): a shell at the other end of a pipe does what we no longer
// can. Handlers of our own would change how the user's process reacts to these signals.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

const SHELL = '/bin/sh';

/**
 * The first line is the pid of the program; the second read returns when this process ends. Signals from the terminal,
 * or from a supervisor that ends the whole group, must not end the shell before it has done its work. A stopped program
 * sees SIGTERM only after SIGCONT. A server may be storing its data, so it gets SIGTERM and never SIGKILL.
 */
const SCRIPT = `trap '' HUP INT QUIT TERM PIPE TSTP
read -r pid
read -r end
[ -n "$pid" ] && kill -s TERM "$pid" 2>/dev/null && kill -s CONT "$pid" 2>/dev/null
[ -n "$1" ] || exit 0
rm -f -- "$1/s" "$1/socket"
rmdir -- "$1"`;

/** Without a shell that can be run, nothing is guarded, but everything else works. */
export class Guard {
  #child: ChildProcess | null = null;

  /** Guards a folder that contains only sockets (`''`: no folder) until {@link release}. */
  constructor(folder: string) {
    try {
      const child = spawn(SHELL, ['-c', SCRIPT, 'sh', folder], {
        stdio: ['pipe', 'ignore', 'ignore'],
        env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
        cwd: '/',
      });
      child.on('error', () => undefined);
      child.once('exit', () => (this.#child = null));
      // If the process is out of descriptors, there is no stdin.
      (child.stdin as Socket | null | undefined)?.on('error', () => undefined);
      (child.stdin as Socket | null | undefined)?.unref();
      child.unref();
      this.#child = child;
    } catch {
      // See above.
    }
  }

  /** Sets the program that must end with this process. */
  watch(pid: number): void {
    this.#child?.stdin?.write(`${pid}\n`);
  }

  /** Stops guarding, because the program has ended: its pid may belong to another process from now on. Idempotent. */
  release(): void {
    this.#child?.kill('SIGKILL');
    this.#child = null;
  }
}
