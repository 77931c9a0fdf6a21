// Exports that `openExport` makes when a client asks for them. Invariants: it is called once for each connection and
// name; a backend that was made is closed when no connection uses it any more, also one that comes too late.

import type { ServerOffer } from '../protocol/handshake/serve-offer.js';
import type { NbdBackend } from './backends/backend.js';
import type { OpenedExport, OpenExport } from './options.js';
import type { ServedExport } from './served-export.js';

/** The part of a server that makes exports. */
export interface OpeningHost {
  readonly openExport: OpenExport;
  serve(name: string, made: OpenedExport): ServedExport;
  /** Whether the server closes this backend itself. */
  owns(backend: NbdBackend): boolean;
  failed(error: Error): void;
}

/** The backends that were made, over all connections. */
export class OpenedBackends {
  readonly host: OpeningHost;
  readonly #users = new Map<NbdBackend, number>();
  readonly #closing = new Set<Promise<void>>();

  constructor(host: OpeningHost) {
    this.host = host;
  }

  use(backend: NbdBackend): void {
    this.#users.set(backend, (this.#users.get(backend) ?? 0) + 1);
  }

  leave(backend: NbdBackend): void {
    const users = (this.#users.get(backend) ?? 1) - 1;
    if (users > 0) {
      this.#users.set(backend, users);
      return;
    }
    this.#users.delete(backend);
    if (this.host.owns(backend)) return;
    const closing = (async () => backend.close?.())()
      .catch((error: unknown) => {
        this.host.failed(error instanceof Error ? error : new Error(String(error)));
      })
      .finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }

  /** Resolves when all backends that were left are closed. */
  async closed(): Promise<void> {
    await Promise.all(this.#closing);
  }
}

/** What one connection has asked for. */
export class OpenedExports {
  readonly #shared: ServerOffer<ServedExport>;
  readonly #backends: OpenedBackends;
  readonly #connection: number;
  readonly #made = new Map<string, ServedExport | Error | null>();
  readonly #abort = new AbortController();

  constructor(shared: ServerOffer<ServedExport>, backends: OpenedBackends, connection: number) {
    this.#shared = shared;
    this.#backends = backends;
    this.#connection = connection;
  }

  /** The server's offer, with the exports that are made for this connection. */
  get offer(): ServerOffer<ServedExport> {
    return {
      ...this.#shared,
      find: (name) => this.#shared.find(name) ?? this.#find(name),
      prepare: (name, ready) => {
        if (this.#shared.find(name) !== undefined || this.#made.has(name)) ready();
        else void this.#open(name).then(ready);
      },
      refusal: (name) => {
        const made = this.#made.get(name);
        if (!(made instanceof Error)) return undefined;
        const { code } = made as NodeJS.ErrnoException;
        return [code === 'EACCES' || code === 'EPERM' ? 'POLICY' : 'UNKNOWN', made.message];
      },
    };
  }

  /** The connection has ended. */
  close(): void {
    this.#abort.abort();
    for (const made of this.#made.values()) if (isExport(made)) this.#backends.leave(made.backend);
    this.#made.clear();
  }

  #find(name: string): ServedExport | undefined {
    const made = this.#made.get(name);
    return isExport(made) ? made : undefined;
  }

  /** Never rejects. */
  async #open(name: string): Promise<void> {
    const { signal } = this.#abort;
    const { host } = this.#backends;
    try {
      const opened = await host.openExport(name, { connection: this.#connection, signal });
      if (opened === undefined) {
        this.#made.set(name, null);
        return;
      }
      const served = host.serve(name, opened);
      this.#backends.use(served.backend);
      if (signal.aborted) this.#backends.leave(served.backend);
      else this.#made.set(name, served);
    } catch (error) {
      this.#made.set(name, error instanceof Error ? error : new Error(String(error)));
    }
  }
}

const isExport = (made: ServedExport | Error | null | undefined): made is ServedExport =>
  made !== undefined && made !== null && !(made instanceof Error);
