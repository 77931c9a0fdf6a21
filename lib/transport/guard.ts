// What happens to a program, and to the folder of its socket, when this process is ended by a signal that no code of
// ours sees (SIGKILL, or SIGTERM and SIGHUP with nobody listening): a shell that waits at the other end of a pipe does
// what we no longer can. Handlers of our own would change what these signals do to the process of our user.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

const SHELL = '/bin/sh';

/**
 * The first line is the pid of the program; the second read ends when this process does. Signals of the terminal, and
 * of a supervisor that ends the whole group, must not end the shell before it has done its work. A program that was
 * stopped can only end once it goes on. A server may be putting its data away: it is asked to end, and no more.
 */
const SCRIPT = `trap '' HUP INT QUIT TERM PIPE TSTP
read -r pid
read -r end
[ -n "$pid" ] && kill -s TERM "$pid" 2>/dev/null && kill -s CONT "$pid" 2>/dev/null
[ -n "$1" ] || exit 0
rm -f -- "$1/s" "$1/socket"
rmdir -- "$1"`;

/** Where there is no shell, or none can be run, nothing is guarded, and everything else works. */
export class Guard {
  #child: ChildProcess | null = null;

  /** Begins to guard a folder that holds nothing but sockets, or none, until {@link release}. */
  constructor(folder: string) {
    try {
      const child = spawn(SHELL, ['-c', SCRIPT, 'sh', folder], {
        stdio: ['pipe', 'ignore', 'ignore'],
        env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
        cwd: '/',
      });
      child.on('error', () => undefined);
      child.once('exit', () => (this.#child = null));
      // Without descriptors there is no stdin.
      (child.stdin as Socket | null | undefined)?.on('error', () => undefined);
      (child.stdin as Socket | null | undefined)?.unref();
      child.unref();
      this.#child = child;
    } catch {
      // See above.
    }
  }

  /** The program that is to end with this process. */
  watch(pid: number): void {
    this.#child?.stdin?.write(`${pid}\n`);
  }

  /** The program has ended: its pid may be another's from now on. Idempotent. */
  release(): void {
    this.#child?.kill('SIGKILL');
    this.#child = null;
  }
}
