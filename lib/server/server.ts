// The server: its listeners, exports and connections.

import { unlink } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server } from 'node:net';
import type { Duplex } from 'node:stream';
import { clearTimeout, setTimeout } from '../util/timers.js';
import { NbdStateError } from '../errors.js';
import type { HandshakeFeatures, ServerOffer } from '../protocol/handshake/serve-offer.js';
import { duplexPair } from '../transport/memory.js';
import { warn } from '../util/platform.js';
import { refuse, shown } from '../util/option-checks.js';
import { RateLimiter } from '../transport/rate-limiter.js';
import type { NbdBackend } from './backends/backend.js';
import { FaultPlan } from './faults.js';
import { checkSocketPath, checkTcpAddress, isStaleSocket } from './listening.js';
import { MemoryBudget } from './transmission/memory-budget.js';
import {
  DEFAULT_FEATURES,
  isBackend,
  makeServerSettings,
  type NbdServerOptions,
  type OpenExport,
  type ServerSettings,
} from './options.js';
import { OpenedBackends, OpenedExports, type OpeningHost } from './opened-exports.js';
import { PayloadPool } from './transmission/payload-pool.js';
import { type NbdExportOptions, ServedExport } from './served-export.js';
import { ServerConnection } from './server-connection.js';
import { type NbdServerStatistics, Statistics } from './statistics.js';
import type { TransmissionOptions } from './transmission/transmission.js';

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

/** Bytes of memory kept for later payloads, over all connections. */
const PAYLOAD_POOL = 1 << 25;

/**
 * An NBD server in this process, for tests, CI and small tools.
 *
 * @example
 * await using server = new NbdServer({ exports: { '': new MemoryBackend(1 << 20) } });
 * await server.listenTcp();
 * const connection = await NbdConnection.connect(server.uri());
 */
export class NbdServer {
  /** Injected faults; may be changed at any time. */
  readonly faults: FaultPlan;
  readonly #options: ServerSettings;
  readonly #offer: ServerOffer<ServedExport>;
  readonly #exports = new Map<string, ServedExport>();
  readonly #statistics = new Statistics();
  readonly #listeners = new Map<Server, NbdServerAddress>();
  readonly #connections = new Set<ServerConnection>();
  readonly #payloads = new PayloadPool(PAYLOAD_POOL);
  readonly #budget: MemoryBudget;
  readonly #backends = new Set<NbdBackend>();
  readonly #opened: OpenedBackends | null;
  readonly #rate: TransmissionOptions['rate'];
  #closing: Promise<void> | null = null;
  #idle: (() => void) | null = null;

  /**
   * Creates a server that does not listen yet.
   *
   * @throws NbdStrictError `EINVAL`, which names the option: an unknown one, a bad value, or an export or certificate
   *   that cannot be served.
   */
  constructor(options: NbdServerOptions = {}) {
    const settings = makeServerSettings(options);
    this.#options = settings;
    this.faults = new FaultPlan(settings.seed);
    const { openExport, rate } = settings;
    this.#rate = rate === undefined ? undefined : { reads: new RateLimiter(rate), writes: new RateLimiter(rate) };
    this.#opened = openExport === undefined ? null : new OpenedBackends(this.#openingHost(openExport));
    this.#budget = new MemoryBudget(settings.maxTotalBytes);
    this.#offer = {
      style: settings.style ?? 'newstyle',
      fixedNewstyle: settings.fixedNewstyle ?? true,
      noZeroes: settings.noZeroes ?? true,
      // The check has left out what is undefined.
      features: { ...DEFAULT_FEATURES, ...(settings.features as Partial<HandshakeFeatures>) },
      tls: settings.tls ?? 'off',
      maxOptions: settings.maxOptions,
      exports: () => this.#exports.values(),
      find: (name) => this.#find(name),
    };
    for (const [name, entry] of Object.entries(settings.exports ?? {})) this.addExport(name, entry);
  }

  /** Adds an export, or replaces the one of that name; existing connections keep the old one. */
  addExport(name: string, entry: NbdBackend | NbdExportOptions): void {
    const served = this.#served(name, entry);
    this.#exports.set(name, served);
    this.#backends.add(served.backend);
  }

  /** Removes an export; existing connections keep it. Returns false if there was no such export. */
  removeExport(name: string): boolean {
    return this.#exports.delete(name);
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
   * Serves one client on any connected stream, which may be paused. The server takes ownership and closes it; if the
   * server is closed or has `maxConnections` connections, it destroys the stream at once.
   */
  serve(stream: Duplex): void {
    checkStream(stream);
    const statistics = this.#statistics;
    const isFull = this.#connections.size >= this.#options.maxConnections;
    // A stream that is already destroyed may not emit 'close' to listeners that are added now.
    if (this.#closing !== null || isFull || stream.destroyed) {
      statistics.refusedConnections += 1;
      stream.on('error', () => undefined);
      stream.destroy();
      return;
    }
    statistics.connections += 1;
    const options = this.#options;
    const number = statistics.connections;
    const opened = this.#opened === null ? null : new OpenedExports(this.#offer, this.#opened, number);
    const connection = new ServerConnection(stream, {
      offer: opened?.offer ?? this.#offer,
      rate: this.#rate,
      tls: options.tlsOptions,
      handshakeTimeout: options.handshakeTimeout,
      closeTimeout: options.closeTimeout,
      maxReplyBytes: options.maxReplyBytes,
      maxInFlight: options.maxInFlight,
      maxInFlightBytes: options.maxInFlightBytes,
      budget: this.#budget,
      payloads: this.#payloads,
      connection: number,
      faults: this.faults,
      statistics,
      onRequest: options.onRequest,
      closed: (closed, error) => {
        opened?.close();
        this.#connectionClosed(closed, error);
      },
    });
    this.#connections.add(connection);
    connection.start();
  }

  /** The first address that the server listens on; null if it does not listen. */
  get address(): NbdServerAddress | null {
    return this.addresses[0] ?? null;
  }

  /** All addresses that the server listens on. */
  get addresses(): readonly NbdServerAddress[] {
    return [...this.#listeners.values()];
  }

  /** A snapshot of the statistics. */
  get statistics(): NbdServerStatistics {
    return this.#statistics.snapshot(this.#connections.size);
  }

  /** The URI of an export at {@link address}. Throws an NbdStateError (`ENOTCONN`) if the server does not listen. */
  uri(exportName = ''): string {
    const { address } = this;
    if (address === null)
      throw new NbdStateError('uri: the server does not listen', { code: 'ENOTCONN', syscall: 'uri' });
    const scheme = this.#offer.tls === 'require' ? 'nbds' : 'nbd';
    const name = encodeURIComponent(exportName);
    if ('path' in address) return `${scheme}+unix:///${name}?socket=${encodeURIComponent(address.path)}`;
    const host = address.host.includes(':') ? `[${address.host}]` : address.host;
    return `${scheme}://${host}:${String(address.port)}/${name}`;
  }

  /** Ends all connections abruptly, like a network failure, and continues to listen. */
  dropConnections(): void {
    for (const connection of this.#connections) connection.destroy(null);
  }

  /**
   * Stops listening, replies to the requests in flight, refuses others with `ESHUTDOWN`, and ends all connections
   * within `closeTimeout` even if clients keep their sockets open. Then closes the backends. Repeated calls return the
   * same promise, which rejects only with an error of a backend's close().
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Calls {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const closed = [...this.#listeners.keys()].map(
      (listener) =>
        new Promise<void>((resolve) => {
          listener.close(() => {
            resolve();
          });
        }),
    );
    this.#listeners.clear();
    this.faults.close();
    for (const connection of this.#connections) connection.shutdown();
    await this.#connectionsGone(this.#options.closeTimeout);
    await Promise.all(closed);
    await this.#opened?.closed();
    await Promise.all([...this.#backends].map(async (backend) => backend.close?.()));
  }

  async #connectionsGone(timeout: number): Promise<void> {
    if (this.#connections.size === 0) return;
    const gone = new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
    const timer = setTimeout(() => {
      this.dropConnections();
    }, timeout);
    await gone;
    clearTimeout(timer);
  }

  #connectionClosed(connection: ServerConnection, error: Error | null): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#idle?.();
    if (error !== null) this.#report(error);
  }

  #report(error: Error): void {
    try {
      this.#options.onConnectionError?.(error);
    } catch (thrown) {
      // The user's function threw inside a stream's callback, where an exception would end the process.
      warn(`onConnectionError: ${String(thrown)}`, 'NbdServerWarning');
    }
  }

  #served(name: string, entry: NbdBackend | NbdExportOptions): ServedExport {
    return new ServedExport(name, isBackend(entry) ? { backend: entry } : entry, this.#options.maxPayload);
  }

  #openingHost(openExport: OpenExport): OpeningHost {
    return {
      openExport,
      serve: (name, made) => this.#served(name, made),
      owns: (backend) => this.#backends.has(backend),
      failed: (error) => {
        this.#report(error);
      },
    };
  }

  #find(name: string): ServedExport | undefined {
    const { defaultExport } = this.#options;
    return (
      this.#exports.get(name) ??
      (name === '' && defaultExport !== undefined ? this.#exports.get(defaultExport) : undefined)
    );
  }

  #listen(begin: (server: Server, listening: (address: NbdServerAddress) => void) => void): Promise<this> {
    return new Promise((resolve, reject) => {
      if (this.#closing !== null) {
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
        server.on('error', (error) => this.#report(error));
        if (this.#closing !== null) {
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

function checkStream(stream: unknown): void {
  const methods = ['on', 'off', 'once', 'write', 'end', 'pause', 'resume', 'destroy', 'cork', 'uncork'] as const;
  const given = (typeof stream === 'object' ? stream : null) as Record<string, unknown> | null;
  if (given === null || methods.some((method) => typeof given[method] !== 'function')) {
    throw refuse('serve', `the stream must be a Duplex, not ${shown(stream)}`);
  }
}
