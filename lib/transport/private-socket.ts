// Unix sockets that nobody else can connect to: in a folder of their own, which only this user may enter. They stand
// in for socketpair(), which Node does not have, and for a listening socket that is made to be inherited.

import { renameSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dialUnix } from './dial.js';
import type { SocketTransport } from './socket.js';
import { MAX_UNIX_PATH } from './unix-path.js';

/** Two connected sockets: the one as a transport, the other, unread, to be given to a child process. */
export async function connectedPair(description: string, signal?: AbortSignal): Promise<[SocketTransport, Socket]> {
  signal?.throwIfAborted();
  const folder = await makeFolder();
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  try {
    const path = join(folder, 's');
    await listen(server, path);
    const accepted = accept(server);
    // Its rejection is seen below, or nobody needs it.
    accepted.promise.catch(() => undefined);
    const transport = await dialUnix(path, signal, description);
    transport.socket.once('close', accepted.fail);
    transport.socket.once('end', accepted.fail);
    signal?.addEventListener('abort', accepted.fail);
    try {
      return [transport, await accepted.promise];
    } catch (error) {
      transport.destroy();
      signal?.throwIfAborted();
      throw error;
    } finally {
      transport.socket.off('close', accepted.fail);
      transport.socket.off('end', accepted.fail);
      signal?.removeEventListener('abort', accepted.fail);
    }
  } finally {
    server.close();
    removeFolder(folder);
  }
}

/**
 * The first connection. Without a descriptor for it libuv accepts it and closes it, and nobody learns of that but the
 * peer: `fail` is for its end.
 */
function accept(server: Server): { promise: Promise<Socket>; fail: () => void } {
  let fail = (): void => undefined;
  const promise = new Promise<Socket>((resolve, reject) => {
    server.once('connection', resolve);
    server.once('error', reject);
    fail = () => {
      reject(Object.assign(new Error('too many open files, accept'), { code: 'EMFILE', syscall: 'accept' }));
    };
  });
  return { promise, fail };
}

/** A listening socket that this process never accepts on. */
export class InheritableListener {
  /** Where to connect to, as long as the listener is there. */
  readonly path: string;
  /** The folder of its socket, which holds nothing else. */
  readonly folder: string;
  readonly #server: Server;
  readonly #boundPath: string;

  private constructor(folder: string, server: Server, boundPath: string) {
    this.folder = folder;
    this.#server = server;
    this.#boundPath = boundPath;
    this.path = join(folder, 'socket');
  }

  static async open(): Promise<InheritableListener> {
    const folder = await makeFolder();
    const server = createServer();
    const boundPath = join(folder, 's');
    try {
      await listen(server, boundPath);
    } catch (error) {
      removeFolder(folder);
      throw error;
    }
    return new InheritableListener(folder, server, boundPath);
  }

  /** The descriptor for a child to inherit. */
  get fd(): number {
    const { _handle: handle } = this.#server as Server & { readonly _handle?: { readonly fd: number } | null };
    if (handle == null || handle.fd < 0) {
      throw Object.assign(new Error('this platform has no descriptors for sockets'), { code: 'ENOTSUP' });
    }
    return handle.fd;
  }

  /** A child has inherited it: from here on the child alone accepts. */
  handOver(): void {
    // Node removes the path that it bound when it closes; under another name the socket stays.
    renameSync(this.#boundPath, this.path);
    this.#server.close();
  }

  /** Removes the socket and its folder. Idempotent. */
  remove(): void {
    this.#server.close();
    removeFolder(this.folder);
  }
}

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `nbd-${process.pid}-`));
  const longest = Buffer.byteLength(join(folder, 'socket'));
  if (longest <= MAX_UNIX_PATH) return folder;
  removeFolder(folder);
  const message = `the temporary folder's path is too long for a Unix socket: ${longest} bytes of ${MAX_UNIX_PATH} (see TMPDIR)`;
  throw Object.assign(new Error(message), { code: 'ENAMETOOLONG' });
}

/** At once, not later: it also runs when the process is about to exit. */
function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // Exclusive: in a cluster's worker, too, the socket is this process's own.
    server.listen({ path, exclusive: true }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
