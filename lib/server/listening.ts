// Where a server may listen, and what is done about the socket that another one has left behind.

import { lstat } from 'node:fs/promises';
import { connect } from 'node:net';
import { unixListenProblem } from '../transport/unix-path.js';
import { refuse, shown } from '../util/option-checks.js';

const MAX_PORT = 65535;

export function checkTcpAddress(port: unknown, host: unknown): void {
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 0 || port > MAX_PORT) {
    throw refuse('listenTcp', `the port must be from 0 to ${MAX_PORT}, not ${shown(port)}`);
  }
  // Node takes an empty one for every address of the machine.
  if (typeof host !== 'string' || host.trim() === '') {
    throw refuse('listenTcp', `the host must be a name or an address, not ${shown(host)}; '0.0.0.0' or '::' for all`);
  }
}

export function checkSocketPath(path: unknown): void {
  if (typeof path !== 'string' || path === '') {
    throw refuse('listenUnix', `the path must be a string that is not empty, not ${shown(path)}`);
  }
  // Only as the first byte, for an abstract socket.
  if (path.indexOf('\0') > 0) throw refuse('listenUnix', 'the path must not contain a NUL');
  // Node cuts a longer path off and listens at another one, and fills an abstract name up.
  const problem = unixListenProblem(path);
  if (problem !== null) throw refuse('listenUnix', problem.message, problem.code);
}

/** Whether there is a socket at the path that no process listens on, and the same one before and after asking. */
export async function isStaleSocket(path: string): Promise<boolean> {
  if (path.startsWith('\0')) return false;
  const before = await lstat(path).catch(() => null);
  if (before?.isSocket() !== true || !(await isRefused(path))) return false;
  const after = await lstat(path).catch(() => null);
  return after !== null && after.ino === before.ino && after.dev === before.dev;
}

/** Anything but a refusal, a full backlog too, means that somebody is there. */
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
