// Ends this process if it stops answering: what a frozen process has handed to its sockets is sent when it is continued,
// and no check of ours runs before. A process that was killed sends nothing.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { NbdError } from '../../errors.js';

/** Reads a line now and then; without one for too long, the process that should have written it is killed. */
const SCRIPT = `
const [pid, limit] = process.argv.slice(1).map(Number);
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGTSTP']) process.on(signal, () => undefined);
let timer;
const wait = () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    try { process.kill(pid, 'SIGKILL'); } catch {}
    process.exit();
  }, limit);
};
process.stdin.on('data', wait).on('end', () => process.exit()).on('error', () => process.exit());
wait();
`;

/** Of the time of a lease, after which the process is killed: more than it stops itself after, and less than all of it. */
const LIMIT = 0.85;
/** Lines within that time. */
const LINES = 8;

export class Watchdog {
  readonly #child: ChildProcess;
  readonly #timer: NodeJS.Timeout;

  /**
   * Resolves when it watches. `lease`: milliseconds.
   *
   * @throws NbdError where the program that watches cannot be started.
   */
  static async start(lease: number): Promise<Watchdog> {
    const watchdog = new Watchdog(lease);
    try {
      await once(watchdog.#child, 'spawn');
    } catch (cause) {
      watchdog.stop();
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new NbdError(`work: watchdog: cannot start it: ${why}`, { code: 'EAGAIN', syscall: 'work', cause });
    }
    return watchdog;
  }

  private constructor(lease: number) {
    const limit = Math.round(lease * LIMIT);
    const child = spawn(process.execPath, ['-e', SCRIPT, String(process.pid), String(limit)], {
      stdio: ['pipe', 'ignore', 'ignore'],
      // Not those of the program: it may load anything.
      env: { PATH: process.env['PATH'] ?? '' },
      detached: true,
    });
    child.on('error', () => undefined);
    child.stdin.on('error', () => undefined);
    (child.stdin as Socket | null)?.unref();
    child.unref();
    this.#child = child;
    this.#timer = setInterval(() => child.stdin.write('.\n'), Math.max(Math.floor(limit / LINES), 10));
    this.#timer.unref();
  }

  /** The process is on its own again. */
  stop(): void {
    clearInterval(this.#timer);
    this.#child.stdin?.end();
    this.#child.kill('SIGKILL');
  }
}
