// A place at which an embedded server comes and goes, and a link in front of it that can be broken from outside.

import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { MemoryBackend, type NbdBackend, NbdServer, type NbdServerOptions } from '../../lib/server/index.js';

export const SIZE = 2 ** 20;

/** Servers at one Unix socket, one after the other. Clients connect to a proxy that is always in front of it. */
export class Place implements AsyncDisposable {
  readonly #folder: string;
  readonly #sockets = new Map<Socket, Socket>();
  #proxy: Server | null = null;
  #server: NbdServer | null = null;
  #held: Buffer[] | null = null;
  /** What the proxy has passed on to clients. */
  connections = 0;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async open(options: NbdServerOptions | null = {}): Promise<Place> {
    const place = new Place(await mkdtemp(join(tmpdir(), 'nbd-place-')));
    await place.#listen();
    if (options !== null) await place.start(options);
    return place;
  }

  get target(): { readonly path: string } {
    return { path: join(this.#folder, 'proxy') };
  }

  get server(): NbdServer {
    if (this.#server === null) throw new Error('there is no server');
    return this.#server;
  }

  async #listen(): Promise<void> {
    const proxy = createServer((client) => {
      const upstream = connect(join(this.#folder, 'server'));
      this.connections++;
      this.#sockets.set(client, upstream);
      client.pipe(upstream);
      upstream.on('data', (bytes: Buffer) => {
        if (this.#held === null) client.write(bytes);
        else this.#held.push(bytes);
      });
      for (const [one, other] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        one.on('error', () => other.destroy());
        one.on('close', () => {
          this.#sockets.delete(client);
          other.destroy();
        });
      }
    });
    this.#proxy = proxy;
    await new Promise<void>((resolve) => proxy.listen(join(this.#folder, 'proxy'), resolve));
  }

  async start(options: NbdServerOptions = {}, backend: NbdBackend = new MemoryBackend(SIZE)): Promise<NbdServer> {
    const server = new NbdServer({ exports: { '': backend }, closeTimeout: 1, ...options });
    await server.listenUnix(join(this.#folder, 'server'));
    this.#server = server;
    return server;
  }

  /** Ends the server, and its connections first. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    this.cut();
    await server?.close();
  }

  /** Ends all connections. */
  cut(): void {
    for (const [client, upstream] of this.#sockets) {
      client.destroy();
      upstream.destroy();
    }
  }

  /** Keeps what the server says. */
  holdBack(): void {
    this.#held = [];
  }

  /** Resolves when something has been kept. */
  async held(): Promise<void> {
    while (this.#held === null || this.#held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** Passes it on in one piece, with more behind it. */
  release(more: Buffer): void {
    const bytes = Buffer.concat([...(this.#held ?? []), more]);
    this.#held = null;
    for (const client of this.#sockets.keys()) client.write(bytes);
  }

  /** Says something to all clients that no server would. */
  disturb(): void {
    for (const client of this.#sockets.keys()) client.write(Buffer.alloc(64, 0xee));
  }

  /** Its listeners and sockets keep no process alive. */
  unref(): void {
    this.#proxy?.unref();
    for (const [client, upstream] of this.#sockets) {
      client.unref();
      upstream.unref();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await new Promise<void>((resolve) => {
      this.#proxy?.close(() => resolve());
    });
    await rm(this.#folder, { recursive: true, force: true });
  }
}
