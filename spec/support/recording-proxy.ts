// A proxy in front of a real server that keeps what goes through it: to see what of it is encrypted.

import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type Address } from './server-process.js';

/** Bytes of one connection through the proxy, by the side that sent them. */
export class Recorded {
  /** Resolves when both sides are gone. */
  readonly over: Promise<void>;
  readonly #chunks: Record<'client' | 'server', Buffer[]> = { client: [], server: [] };

  constructor(client: Socket, server: Socket) {
    this.over = Promise.all([closed(client), closed(server)]).then(() => undefined);
  }

  get client(): Buffer {
    return Buffer.concat(this.#chunks.client);
  }

  get server(): Buffer {
    return Buffer.concat(this.#chunks.server);
  }

  keep(side: 'client' | 'server', bytes: Buffer): void {
    this.#chunks[side].push(bytes);
  }
}

export interface RecordingProxy extends AsyncDisposable {
  /** Where clients connect: like the server, on TCP or on a Unix socket. */
  readonly address: Address;
  /** What went through it, by connection. */
  readonly connections: readonly Recorded[];
  /** The NBD URI of an export behind it. */
  uri(scheme: 'nbd' | 'nbds', exportName?: string, parameters?: Readonly<Record<string, string>>): string;
}

export async function startProxy(server: Address): Promise<RecordingProxy> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-proxy-'));
  const connections: Recorded[] = [];
  const sockets = new Set<Socket>();
  const listener = createServer({ allowHalfOpen: true }, (client) => {
    const upstream = connect({
      ...('socketPath' in server ? { path: server.socketPath } : server),
      allowHalfOpen: true,
    });
    const recorded = new Recorded(client, upstream);
    connections.push(recorded);
    for (const [from, to, side] of [
      [client, upstream, 'client'],
      [upstream, client, 'server'],
    ] as const) {
      sockets.add(from);
      from.on('data', (bytes: Buffer) => {
        recorded.keep(side, bytes);
        to.write(bytes);
      });
      from.on('end', () => to.end());
      from.on('error', () => to.destroy());
      from.on('close', () => sockets.delete(from));
    }
  });
  const address = await listen(listener, 'socketPath' in server ? join(folder, 'socket') : null);
  return {
    address,
    connections,
    uri: (scheme, exportName = '', parameters = {}) => {
      const query = new URLSearchParams(parameters);
      const isUnix = 'socketPath' in address;
      if (isUnix) query.set('socket', address.socketPath);
      const authority = isUnix ? '' : `localhost:${String(address.port)}`;
      const search = query.size === 0 ? '' : `?${query.toString().replaceAll('+', '%20')}`;
      return `${scheme}${isUnix ? '+unix' : ''}://${authority}/${encodeURIComponent(exportName)}${search}`;
    },
    [Symbol.asyncDispose]: async () => {
      const stopped = new Promise<void>((resolve) => listener.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await stopped;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const closed = (socket: Socket): Promise<void> => new Promise((resolve) => socket.once('close', () => resolve()));

function listen(server: Server, path: string | null): Promise<Address> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path === null ? { host: '127.0.0.1', port: 0 } : { path }, () => {
      const address = server.address();
      if (path !== null) resolve({ socketPath: path });
      else if (typeof address === 'object' && address !== null) resolve({ host: '127.0.0.1', port: address.port });
    });
  });
}

/** What of a stream's bytes is not inside a TLS record. */
export function plaintextOf(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  while (at < bytes.length) {
    const type = bytes[at] ?? 0;
    // A record begins with its type, 20 to 23, and version 3.x.
    if (type >= 20 && type <= 23 && bytes[at + 1] === 3 && at + 5 <= bytes.length) {
      at += 5 + bytes.readUInt16BE(at + 3);
    } else {
      parts.push(bytes.subarray(at, at + 1));
      at += 1;
    }
  }
  return Buffer.concat(parts);
}

/** An option without data, as a client sends it. */
export function optionBytes(option: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.write('IHAVEOPT');
  bytes.writeUInt32BE(option, 8);
  return bytes;
}

/** All that a client may send in plaintext when TLS is required and granted: its flags and NBD_OPT_STARTTLS. */
export const ONLY_STARTTLS = Buffer.concat([Buffer.from([0, 0, 0, 3]), optionBytes(5)]);

/** The same where TLS is refused, with NBD_OPT_ABORT behind it. */
export const STARTTLS_AND_ABORT = Buffer.concat([ONLY_STARTTLS, optionBytes(2)]);
