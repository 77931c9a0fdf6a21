// The server: its listeners, exports and connections.

import { unlink } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server } from 'node:net';
import type { Duplex } from 'node:stream';
import { NbdStateError } from '../errors.js';
import { duplexPair } from '../transport/memory.js';
import type { WebSocketLike, WebStreams } from '../transport/web/types.js';
import { checkSocketPath, checkTcpAddress, isStaleSocket } from './listening.js';
import { nodeStream } from './streams/node-stream.js';
import type { NbdServerOptions } from './options.js';
import { NbdServerBase } from './server-base.js';
import { someTlsOptions } from './tls-options.js';
import { type ServeOptions, webStream } from './streams/web-stream.js';

/** An address that a server listens on: TCP, or the path of a Unix socket. */
export type NbdServerAddress =
  | {
      /** The IP address. */
      readonly host: string;
      /** The port, never 0. */
      readonly port: number;
    }
  | {
      /** The path of the Unix socket. */
      readonly path: string;
    };

/**
 * An NBD server in this process, for tests, CI and small tools.
 *
 * @example
 * await using server = new NbdServer({ exports: { '': new MemoryBackend(1 << 20) } });
 * await server.listenTcp();
 * const connection = await NbdConnection.connect(server.uri());
 */
export class NbdServer extends NbdServerBase {
  readonly #listeners = new Map<Server, NbdServerAddress>();

  /**
   * Creates a server that does not listen yet.
   *
   * @throws NbdStrictError `EINVAL`, which names the option: an unknown one, a bad value, or an export or certificate
   *   that cannot be served.
   */
  constructor(options: NbdServerOptions = {}) {
    super(options, someTlsOptions);
  }

  /**
   * Listens on TCP. Port 0 selects a free port, which {@link address} and {@link uri} contain. Rejects with the
   * listener's error (`EADDRINUSE`, `EACCES`), or with `ESHUTDOWN` after close().
   */
  async listenTcp(port = 0, host = '127.0.0.1'): Promise<this> {
    checkTcpAddress(port, host);
    return this.#listen((server, listening) => {
      server.listen({ port, host }, () => {
        const address = server.address() as AddressInfo;
        listening({ host: address.address, port: address.port });
      });
    });
  }

  /**
   * Listens on a Unix socket, which close() removes. A socket that no process listens on any more is replaced. Rejects
   * as listenTcp() does, with `ENAMETOOLONG` for a path of more than 107 bytes, and with `ENOTSUP` for an abstract name
   * (`'\\0name'`) before Node 22, which would change it.
   */
  async listenUnix(path: string): Promise<this> {
    checkSocketPath(path);
    const listen = (): Promise<this> =>
      this.#listen((server, listening) => {
        server.listen({ path }, () => {
          listening({ path });
        });
      });
    try {
      return await listen();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || !(await isStaleSocket(path))) throw error;
      await unlink(path);
      return listen();
    }
  }

  /** Returns an in-memory stream that is connected to this server, for a client to use. */
  connectMemory(): Duplex {
    const [client, served] = duplexPair();
    this.serve(served);
    return client;
  }

  /**
   * Serves one client on any connected stream, which may be paused: a Duplex, a WebSocket (of the package `ws`, for
   * example), or a pair of web streams. The server takes ownership and closes it; if the server is closed or has
   * `maxConnections` connections, it destroys the stream at once.
   */
  serve(stream: Duplex | WebSocketLike | WebStreams, options?: ServeOptions): void {
    this.accept(webStream(stream, options) ?? nodeStream(stream as Duplex, this.settings.tlsOptions));
  }

  /** The first address that the server listens on; null if it does not listen. */
  get address(): NbdServerAddress | null {
    return this.addresses[0] ?? null;
  }

  /** All addresses that the server listens on. */
  get addresses(): readonly NbdServerAddress[] {
    return [...this.#listeners.values()];
  }

  /** The URI of an export at {@link address}. Throws an NbdStateError (`ENOTCONN`) if the server does not listen. */
  uri(exportName = ''): string {
    const { address } = this;
    if (address === null)
      throw new NbdStateError('uri: the server does not listen', { code: 'ENOTCONN', syscall: 'uri' });
    const scheme = this.settings.tls === 'require' ? 'nbds' : 'nbd';
    const name = encodeURIComponent(exportName);
    if ('path' in address) return `${scheme}+unix:///${name}?socket=${encodeURIComponent(address.path)}`;
    const host = address.host.includes(':') ? `[${address.host}]` : address.host;
    return `${scheme}://${host}:${String(address.port)}/${name}`;
  }

  protected override async stopListening(): Promise<void> {
    const listeners = [...this.#listeners.keys()];
    this.#listeners.clear();
    await Promise.all(
      listeners.map(
        (listener) =>
          new Promise<void>(
            (resolve) =>
              void listener.close(() => {
                resolve();
              }),
          ),
      ),
    );
  }

  #listen(begin: (server: Server, listening: (address: NbdServerAddress) => void) => void): Promise<this> {
    return new Promise((resolve, reject) => {
      if (this.isClosing) {
        reject(new NbdStateError('the server is closed', { code: 'ESHUTDOWN' }));
        return;
      }
      const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
        this.serve(socket);
      });
      server.once('error', reject);
      begin(server, (address) => {
        server.off('error', reject);
        // A failing accept(), for example with EMFILE, does not affect existing connections.
        server.on('error', (error) => this.report(error));
        if (this.isClosing) {
          server.close();
          reject(new NbdStateError('the server is closed', { code: 'ESHUTDOWN' }));
          return;
        }
        this.#listeners.set(server, address);
        resolve(this);
      });
    });
  }
}
