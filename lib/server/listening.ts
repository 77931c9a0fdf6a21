// Checks the addresses to listen on, and detects sockets that a dead server has left behind.

import { lstat } from 'node:fs/promises';
import { connect } from 'node:net';
import { unixListenProblem } from '../transport/unix-path.js';
import { refuse, shown } from '../util/option-checks.js';

const MAX_PORT = 65535;

export function checkTcpAddress(port: unknown, host: unknown): void {
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 0 || port > MAX_PORT) {
    throw refuse('listenTcp', `the port must be from 0 to ${MAX_PORT}, not ${shown(port)}`);
  }
  // Node takes an empty host for every address of the machine.
  if (typeof host !== 'string' || host.trim() === '') {
    throw refuse('listenTcp', `the host must be a name or an address, not ${shown(host)}; '0.0.0.0' or '::' for all`);
  }
}

export function checkSocketPath(path: unknown): void {
  if (typeof path !== 'string' || path === '') {
    throw refuse('listenUnix', `the path must be a non-empty string, not ${shown(path)}`);
  }
  // A NUL is valid only as the first byte, for an abstract socket.
  if (path.indexOf('\0') > 0) throw refuse('listenUnix', 'the path must not contain a NUL');
  // Node would truncate a longer path and listen on another one, and pads an abstract name.
  const problem = unixListenProblem(path);
  if (problem !== null) throw refuse('listenUnix', problem.message, problem.code);
}

/** Whether no process listens on the socket at this path, and it is the same socket before and after the check. */
export async function isStaleSocket(path: string): Promise<boolean> {
  if (path.startsWith('\0')) return false;
  const before = await lstat(path).catch(() => null);
  if (before?.isSocket() !== true || !(await isRefused(path))) return false;
  const after = await lstat(path).catch(() => null);
  return after !== null && after.ino === before.ino && after.dev === before.dev;
}

/** Anything but a refused connection, such as a full backlog, means that a process listens. */
function isRefused(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code === 'ECONNREFUSED');
    });
  });
}
