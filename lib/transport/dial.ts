// Opens sockets; a signal can abort at any point. Rejects with Node's own errors.

import type { NetConnectOpts } from 'node:net';
import { SocketTransport } from './socket.js';
import { unixPathProblem } from './unix-path.js';

/** Idle time before the kernel probes the peer; the kernel's default is two hours. */
const KEEP_ALIVE_MS = 60_000;

export function dialTcp(host: string, port: number, signal?: AbortSignal): Promise<SocketTransport> {
  const shown = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const options = { host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS };
  return dial(options, shown, signal);
}

export function dialUnix(path: string, signal?: AbortSignal, description = path): Promise<SocketTransport> {
  const problem = unixPathProblem(path);
  if (problem !== null) return Promise.reject(problem);
  return dial({ path }, description, signal);
}

function dial(options: NetConnectOpts, description: string, signal?: AbortSignal): Promise<SocketTransport> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error);
      return;
    }
    const transport = SocketTransport.open(options, description);
    const { socket } = transport;
    const settle = (): void => {
      socket.off('connect', onConnect);
      socket.off('error', onError);
      signal?.removeEventListener('abort', onAbort);
    };
    const onConnect = (): void => {
      settle();
      resolve(transport);
    };
    const onError = (error: Error): void => {
      settle();
      reject(firstOf(error));
    };
    const onAbort = (): void => {
      settle();
      // A running name lookup cannot be cancelled; its late result finds the socket destroyed.
      socket.destroy();
      reject(signal?.reason as Error);
    };
    socket.on('connect', onConnect);
    socket.on('error', onError);
    signal?.addEventListener('abort', onAbort);
  });
}

/** If several addresses were tried, the first failure is the most useful one. */
function firstOf(error: Error): Error {
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return error.errors[0];
  return error;
}
