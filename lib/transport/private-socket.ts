// Unix sockets that no other user can connect to, each in a folder of its own with mode 0700. They replace
// socketpair(), which Node lacks, and provide a listening socket for a child process to inherit.

import { renameSync, rmdirSync, unlinkSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dialUnix } from './dial.js';
import type { SocketTransport } from './socket.js';
import { MAX_UNIX_PATH } from './unix-path.js';

/** Two connected sockets: one as a transport, the other, not read from, for a child process. */
export async function connectedPair(description: string, signal?: AbortSignal): Promise<[SocketTransport, Socket]> {
  signal?.throwIfAborted();
  const folder = await makeFolder();
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
  try {
    const path = join(folder, 's');
    await listen(server, path);
    const accepted = accept(server);
    // The rejection is handled below, or no longer of interest.
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
 * The first connection. If libuv runs out of descriptors it accepts and closes the connection, which only the peer
 * notices: call `fail` when the peer sees its end.
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
  /** The path to connect to, until the listener is removed. */
  readonly path: string;
  /** The folder of the socket, which contains nothing else. */
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

  /** Closes this process's copy: from now on, only the child that has inherited the socket accepts. */
  handOver(): void {
    // On close Node removes the path that it bound; under another name the socket stays.
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
  const message = `the temporary folder's path is too long for a Unix socket: ${longest} bytes, the limit is ${MAX_UNIX_PATH} (see TMPDIR)`;
  throw Object.assign(new Error(message), { code: 'ENAMETOOLONG' });
}

/**
 * Synchronous, because it also runs when the process is about to exit. Name by name, because looking into the folder
 * takes a descriptor, which a process may not have.
 */
function removeFolder(folder: string): void {
  for (const name of ['s', 'socket']) ifPresent(() => unlinkSync(join(folder, name)));
  ifPresent(() => rmdirSync(folder));
}

function ifPresent(remove: () => void): void {
  try {
    remove();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // Exclusive: even in a cluster worker, the socket belongs to this process.
    server.listen({ path, exclusive: true }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
