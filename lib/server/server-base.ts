// What a server does whatever its clients are connected by: its exports, its connections and their limits.

import type { HandshakeFeatures, ServerOffer } from '../protocol/handshake/serve-offer.js';
import type { OptionCheck } from '../util/option-checks.js';
import { warn } from '../util/platform.js';
import { clearTimeout, setTimeout } from '../util/timers.js';
import type { NbdBackend } from './backends/backend.js';
import { FaultPlan } from './faults.js';
import {
  DEFAULT_FEATURES,
  isBackend,
  makeServerSettings,
  type NbdServerOptions,
  type NbdServerTlsOptions,
  type OpenExport,
  type ServerSettings,
} from './options.js';
import { OpenedBackends, OpenedExports, type OpeningHost } from './opened-exports.js';
import { RateLimiter } from '../transport/rate-limiter.js';
import type { TransmissionOptions } from './transmission/transmission.js';
import { type NbdExportOptions, ServedExport } from './served-export.js';
import { ServerConnection, type ServedStream } from './server-connection.js';
import { type NbdServerStatistics, Statistics } from './statistics.js';
import { MemoryBudget } from './transmission/memory-budget.js';
import { PayloadPool } from './transmission/payload-pool.js';

/** Bytes of memory kept for later payloads, over all connections. */
const PAYLOAD_POOL = 1 << 25;

/** All of a server except its listeners. */
export abstract class NbdServerBase {
  /** Injected faults; may be changed at any time. */
  readonly faults: FaultPlan;
  readonly #options: ServerSettings;
  readonly #offer: ServerOffer<ServedExport>;
  readonly #exports = new Map<string, ServedExport>();
  readonly #statistics = new Statistics();
  readonly #connections = new Set<ServerConnection>();
  readonly #payloads = new PayloadPool(PAYLOAD_POOL);
  readonly #budget: MemoryBudget;
  readonly #backends = new Set<NbdBackend>();
  readonly #opened: OpenedBackends | null;
  readonly #rate: TransmissionOptions['rate'];
  #closing: Promise<void> | null = null;
  #idle: (() => void) | null = null;

  /** @internal */
  protected constructor(options: NbdServerOptions, tlsOptions: OptionCheck<NbdServerTlsOptions>) {
    const settings = makeServerSettings(options, tlsOptions);
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
   * Stops accepting clients; resolves when that is done.
   *
   * @internal
   */
  protected stopListening(): Promise<void> {
    return Promise.resolve();
  }

  /**
   * Whether close() has been called.
   *
   * @internal
   */
  protected get isClosing(): boolean {
    return this.#closing !== null;
  }

  /**
   * The checked options.
   *
   * @internal
   */
  protected get settings(): ServerSettings {
    return this.#options;
  }

  /**
   * Serves one client, and owns its stream.
   *
   * @internal
   */
  protected accept(served: ServedStream): void {
    const statistics = this.#statistics;
    const isFull = this.#connections.size >= this.#options.maxConnections;
    // A stream that is already destroyed may not report its end any more.
    if (this.#closing !== null || isFull || served.isDestroyed) {
      statistics.refusedConnections += 1;
      served.transport.destroy();
      return;
    }
    statistics.connections += 1;
    const options = this.#options;
    const number = statistics.connections;
    const opened = this.#opened === null ? null : new OpenedExports(this.#offer, this.#opened, number);
    const connection = new ServerConnection(served, {
      offer: opened?.offer ?? this.#offer,
      rate: this.#rate,
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

  /** A snapshot of the statistics. */
  get statistics(): NbdServerStatistics {
    return this.#statistics.snapshot(this.#connections.size);
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
    const closed = this.stopListening();
    this.faults.close();
    for (const connection of this.#connections) connection.shutdown();
    await this.#connectionsGone(this.#options.closeTimeout);
    await closed;
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
    if (error !== null) this.report(error);
  }

  /**
   * Reports an error of a connection or a listener to the user.
   *
   * @internal
   */
  protected report(error: Error): void {
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
        this.report(error);
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
}
