// A proxy in front of a real server that breaks the connection at a chosen byte of either direction.
// Invariant: until a fault strikes, every byte goes through unchanged, and no faster than the other side reads.

import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Address } from './server-process.js';

/** Whose bytes. */
export type Side = 'client' | 'server';

/** What happens when the byte comes; it and what is behind it are affected, what was before it has gone through. */
export type FaultKind =
  /** That direction stands still for `milliseconds`; nothing is lost. */
  | 'delay'
  /** The next `bytes` of that direction come one by one, `milliseconds` apart. */
  | 'trickle'
  /** The client sees a reset; over TCP only; a Unix socket has no reset. */
  | 'reset'
  /** That direction ends; the other one goes on. */
  | 'half-close'
  /** Both sides are closed. */
  | 'close'
  /** Everything in both directions is swallowed, also the end of either; both sides stay open. */
  | 'black-hole';

export interface Fault {
  readonly kind: FaultKind;
  readonly of: Side;
  /** So many bytes of that side go through before. */
  readonly at: number;
  readonly milliseconds?: number;
  /** Default Infinity. */
  readonly bytes?: number;
}

/** One connection through the proxy. */
export class FaultyLink {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #passed: Record<Side, number> = { client: 0, server: 0 };
  #fault: Fault | undefined;
  #isDark = false;
  #strike: () => void = () => undefined;
  /** Resolves when the fault has struck. */
  readonly struck = new Promise<void>((resolve) => (this.#strike = resolve));
  hasStruck = false;
  /** Resolves when the client has ended its side, or all of it. */
  readonly gone: Promise<void>;

  constructor(client: Socket, server: Socket, fault: Fault | undefined) {
    this.#client = client;
    this.#server = server;
    this.#fault = fault;
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
    }
    this.gone = new Promise((resolve) => client.once('end', resolve).once('close', () => resolve()));
    client.once('close', () => server.destroy());
    server.once('close', () => {
      if (!this.#isDark) client.destroySoon();
    });
    void this.#pump('client', client, server);
    void this.#pump('server', server, client);
  }

  /** Bytes of that side that have gone through. */
  passed(side: Side): number {
    return this.#passed[side];
  }

  /** The fault strikes at byte `at` from now on. */
  arm(fault: Fault): void {
    this.#fault = { ...fault, at: this.#passed[fault.of] + fault.at };
  }

  /** Without waiting for a byte. */
  async strikeNow(kind: FaultKind, of: Side = 'server'): Promise<void> {
    await this.#apply({ kind, of, at: 0 }, Buffer.alloc(0));
  }

  async #pump(side: Side, from: Socket, to: Socket): Promise<void> {
    try {
      for await (const chunk of from.iterator({ destroyOnReturn: false })) await this.#pass(side, to, chunk as Buffer);
      if (!this.#isDark) to.end();
    } catch {
      // A socket that breaks is closed, and its other half with it.
      from.destroy();
    }
  }

  async #pass(side: Side, to: Socket, bytes: Buffer): Promise<void> {
    const fault = this.#fault;
    const before = fault?.of === side ? fault.at - this.#passed[side] : Infinity;
    if (fault === undefined || before >= bytes.length) {
      await this.#write(side, to, bytes);
      return;
    }
    this.#fault = undefined;
    await this.#write(side, to, bytes.subarray(0, before));
    await this.#apply(fault, bytes.subarray(before));
  }

  async #apply(fault: Fault, rest: Buffer): Promise<void> {
    const { kind, of, milliseconds = 1 } = fault;
    const to = of === 'client' ? this.#server : this.#client;
    this.hasStruck = true;
    this.#strike();
    switch (kind) {
      case 'delay':
        await sleep(milliseconds);
        await this.#write(of, to, rest);
        return;
      case 'trickle':
        await this.#trickle(fault, to, rest);
        return;
      case 'reset':
        this.#client.resetAndDestroy();
        return;
      case 'half-close':
        to.end();
        return;
      case 'close':
        this.#client.destroy();
        this.#server.destroy();
        return;
      case 'black-hole':
        this.#isDark = true;
        return;
    }
  }

  async #trickle({ of, milliseconds = 1, bytes = Infinity }: Fault, to: Socket, rest: Buffer): Promise<void> {
    const slow = Math.min(bytes, rest.length);
    for (let at = 0; at < slow && !to.destroyed; at++) {
      await this.#write(of, to, rest.subarray(at, at + 1));
      await sleep(milliseconds);
    }
    await this.#write(of, to, rest.subarray(slow));
    if (bytes > slow) {
      this.#fault = { kind: 'trickle', of, at: this.#passed[of], milliseconds, bytes: bytes - slow };
    }
  }

  async #write(side: Side, to: Socket, bytes: Buffer): Promise<void> {
    if (bytes.length === 0 || this.#isDark || to.destroyed || to.writableEnded) return;
    this.#passed[side] += bytes.length;
    if (to.write(bytes)) return;
    await new Promise<void>((resolve) => {
      const go = (): void => {
        to.off('drain', go).off('close', go);
        resolve();
      };
      to.on('drain', go).on('close', go);
    });
  }
}

export class FaultProxy implements AsyncDisposable {
  readonly #listener: Server;
  readonly #folder: string;
  readonly #sockets = new Set<Socket>();
  readonly #links: FaultyLink[] = [];
  /** Where clients connect. */
  readonly address: Address;

  private constructor(listener: Server, folder: string, address: Address) {
    this.#listener = listener;
    this.#folder = folder;
    this.address = address;
  }

  /** Listens as the server does, on TCP or a Unix socket; `fault` is every connection's, from its first byte on. */
  static async start(server: Address, fault?: Fault): Promise<FaultProxy> {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-fault-'));
    const isUnix = 'socketPath' in server;
    const listener = createServer({ allowHalfOpen: true });
    const path = join(folder, 'socket');
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject);
      listener.listen(isUnix ? { path } : { host: '127.0.0.1', port: 0 }, resolve);
    });
    const bound = listener.address();
    const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
    const proxy = new FaultProxy(listener, folder, isUnix ? { socketPath: path } : { host: '127.0.0.1', port });
    listener.on('connection', (client) => {
      const upstream = connect({ ...(isUnix ? { path: server.socketPath } : server), allowHalfOpen: true });
      for (const socket of [client, upstream]) {
        proxy.#sockets.add(socket);
        socket.once('close', () => proxy.#sockets.delete(socket));
      }
      proxy.#links.push(new FaultyLink(client, upstream, fault));
    });
    return proxy;
  }

  /** What NbdConnection.connect takes. */
  get target(): { readonly path: string } | { readonly host: string; readonly port: number } {
    return 'socketPath' in this.address ? { path: this.address.socketPath } : this.address;
  }

  /** All connections that were made. */
  get links(): readonly FaultyLink[] {
    return this.#links;
  }

  /** The last connection that was made. */
  get link(): FaultyLink {
    const link = this.#links.at(-1);
    if (link === undefined) throw new Error('nobody has connected');
    return link;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#listener.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    await rm(this.#folder, { recursive: true, force: true });
  }
}
