// A client whose bytes a spec writes itself, for the embedded server and for scripted servers. Its streams, and the
// servers that were made here, are closed after each test.

import { afterEach } from '@jest/globals';
import { once } from 'node:events';
import { connect } from 'node:net';
import { type Duplex } from 'node:stream';

import { NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import * as g from './golden.js';

const servers = new Set<NbdServer>();
const clients = new Set<RawClient>();

afterEach(async () => {
  for (const client of clients) client.stream.destroy();
  clients.clear();
  await Promise.all([...servers].map((server) => server.close()));
  servers.clear();
});

/** A server that is closed after the test; its closeTimeout is short by default. */
export function newServer(options: NbdServerOptions): NbdServer {
  const server = new NbdServer({ closeTimeout: 200, ...options });
  servers.add(server);
  return server;
}

type Address = { readonly path: string } | { readonly host: string; readonly port: number };

export interface HandshakeOptions {
  name?: string;
  style?: 'simple' | 'structured' | 'extended';
  /** Metadata contexts to select. */
  contexts?: readonly string[];
}

/** A chunk of a structured or extended reply. */
export interface Chunk {
  readonly flags: number;
  readonly type: number;
  readonly cookie: number;
  /** Of extended replies. */
  readonly offset?: bigint;
  readonly payload: Buffer;
}

export interface SendOptions {
  flags?: number;
  cookie?: number;
  offset?: number | bigint;
  count?: number | bigint;
  /** Sent behind the header; its length is the count unless one is given. */
  payload?: Uint8Array | string;
}

export class RawClient {
  readonly stream: Duplex;
  /** Resolves when the server has sent its last byte. */
  readonly ended: Promise<void>;
  /** Segments that have arrived. */
  segments = 0;
  /** Why the stream broke, if it did. */
  error: NodeJS.ErrnoException | undefined;
  style: 'simple' | 'structured' | 'extended' = 'simple';
  size = 0n;
  flags = 0;
  #cookie = 0;
  #bytes = Buffer.alloc(0);
  #wake: (() => void) | null = null;
  #isEnded = false;

  constructor(stream: Duplex) {
    this.stream = stream;
    clients.add(this);
    stream.on('error', (error) => (this.error = error));
    stream.on('data', (bytes: Buffer) => {
      this.segments += 1;
      this.#bytes = Buffer.concat([this.#bytes, bytes]);
      this.#wake?.();
    });
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.#isEnded = true;
        this.#wake?.();
        resolve();
      };
      stream.once('end', end);
      stream.once('close', end);
    });
  }

  /** A client on a stream in memory. */
  static of(server: NbdServer): RawClient {
    return new RawClient(server.connectMemory());
  }

  /** A client on the server's first TCP port or Unix socket. */
  static dial(server: NbdServer): RawClient {
    const { address } = server;
    if (address === null) throw new Error('the server does not listen');
    return RawClient.to(address);
  }

  /** A client on a Unix socket or a TCP port. */
  static to(address: Address, allowHalfOpen = false): RawClient {
    return new RawClient(connect({ ...address, noDelay: true, allowHalfOpen }));
  }

  /** Bytes that have arrived and were not taken. */
  get buffered(): number {
    return this.#bytes.length;
  }

  /** The next `length` bytes; rejects when the server ends before. */
  async take(length: number): Promise<Buffer> {
    const taken = await this.upTo(length);
    if (taken.length < length) throw new Error(`the server ended after ${taken.length} of ${length} bytes`);
    return taken;
  }

  /** The next `length` bytes, or fewer when the server ends before. */
  async upTo(length: number): Promise<Buffer> {
    while (this.#bytes.length < length && !this.#isEnded) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  /** Everything until the server ends. */
  async rest(): Promise<Buffer> {
    await this.ended;
    return this.take(this.#bytes.length);
  }

  write(...parts: (Uint8Array | string)[]): void {
    this.stream.write(g.cat(...parts));
  }

  /** Resolves when the stream is closed on both sides. */
  async closed(): Promise<void> {
    if (!this.stream.closed) await once(this.stream, 'close').catch(() => undefined);
  }

  sendOption(number: number, data: Uint8Array | string = ''): void {
    this.write(g.option(number, data));
  }

  /** NBD_OPT_GO. */
  sendGo(name = ''): void {
    this.sendOption(g.OPT.GO, g.cat(g.u32(name.length), name, g.u16(0)));
  }

  /** Sends an option and resolves with its final reply: the type, and the payloads of the replies before it. */
  async option(number: number, data: Uint8Array | string = ''): Promise<{ type: number; payloads: Buffer[] }> {
    this.sendOption(number, data);
    const payloads: Buffer[] = [];
    for (;;) {
      const header = await this.take(20);
      const type = header.readUInt32BE(12);
      const payload = await this.take(header.readUInt32BE(16));
      if (type === g.ACK || type >= 0x80000000) return { type, payloads };
      payloads.push(payload);
    }
  }

  /** From the greeting to the transmission phase. */
  async handshake(options: HandshakeOptions = {}): Promise<this> {
    const { name = '', style = 'simple', contexts = [] } = options;
    await this.take(18);
    this.write(g.u32(3));
    this.style = style;
    if (style === 'structured') await this.option(g.OPT.STRUCTURED_REPLY);
    if (style === 'extended') await this.option(g.OPT.EXTENDED);
    const named = g.cat(g.u32(name.length), name);
    if (contexts.length > 0) {
      const queries = contexts.map((context) => g.cat(g.u32(context.length), context));
      await this.option(g.OPT.SET_META, g.cat(named, g.u32(contexts.length), ...queries));
    }
    const { type, payloads } = await this.option(g.OPT.GO, g.cat(named, g.u16(0)));
    if (type !== g.ACK) throw new Error(`GO was answered with 0x${type.toString(16)}`);
    this.size = payloads[0]!.readBigUInt64BE(2);
    this.flags = payloads[0]!.readUInt16BE(10);
    return this;
  }

  /** The bytes of a request. */
  request(type: number, options: SendOptions = {}): Buffer {
    const { flags = 0, offset = 0, payload = '' } = options;
    const cookie = options.cookie ?? (this.#cookie += 1);
    const count = options.count ?? Buffer.byteLength(payload);
    const extended = this.style === 'extended';
    return g.cat(
      g.u32(extended ? 0x21e41c71 : 0x25609513),
      g.u16(flags),
      g.u16(type),
      g.u64(cookie),
      g.u64(offset),
      extended ? g.u64(count) : g.u32(Number(count)),
      payload,
    );
  }

  send(type: number, options: SendOptions = {}): void {
    this.write(this.request(type, options));
  }

  /** The error and the cookie of a simple reply. */
  async simple(): Promise<{ error: number; cookie: number }> {
    const bytes = await this.take(16);
    if (bytes.readUInt32BE(0) !== 0x67446698) throw new Error(`not a simple reply: ${bytes.toString('hex')}`);
    return { error: bytes.readUInt32BE(4), cookie: Number(bytes.readBigUInt64BE(8)) };
  }

  async chunk(): Promise<Chunk> {
    const extended = this.style === 'extended';
    const bytes = await this.take(extended ? 32 : 20);
    if (bytes.readUInt32BE(0) !== (extended ? 0x6e8a278c : 0x668e33ef)) {
      throw new Error(`not a chunk: ${bytes.toString('hex')}`);
    }
    return {
      flags: bytes.readUInt16BE(4),
      type: bytes.readUInt16BE(6),
      cookie: Number(bytes.readBigUInt64BE(8)),
      ...(extended ? { offset: bytes.readBigUInt64BE(16) } : {}),
      payload: await this.take(extended ? Number(bytes.readBigUInt64BE(24)) : bytes.readUInt32BE(16)),
    };
  }

  /** The chunks of one reply. */
  async chunks(): Promise<Chunk[]> {
    const all: Chunk[] = [];
    do all.push(await this.chunk());
    while (all.at(-1)!.flags === 0);
    return all;
  }

  /** Sends a request and resolves with the errno of its reply; 0 for success without data. */
  async ask(type: number, options: SendOptions = {}): Promise<number> {
    this.send(type, options);
    if (this.style === 'simple') return (await this.simple()).error;
    const last = (await this.chunks()).at(-1)!;
    return last.type === g.ERROR ? last.payload.readUInt32BE(0) : 0;
  }

  /** A read that must succeed, put together from its chunks. */
  async read(offset: number, count: number, flags = 0): Promise<Buffer> {
    this.send(g.CMD.READ, { offset, count, flags });
    if (this.style === 'simple') {
      const { error } = await this.simple();
      if (error !== 0) throw new Error(`read: ${error}`);
      return this.take(count);
    }
    const data = Buffer.alloc(count, 0xee);
    for (const { type, payload } of await this.chunks()) {
      if (type === g.ERROR) throw new Error(`read: ${payload.readUInt32BE(0)} ${payload.toString('utf8', 6)}`);
      const at = Number(payload.readBigUInt64BE(0)) - offset;
      if (type === g.DATA) payload.copy(data, at, 8);
      else if (type === g.HOLE) data.fill(0, at, at + payload.readUInt32BE(8));
    }
    return data;
  }
}
