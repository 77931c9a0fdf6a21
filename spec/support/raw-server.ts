// A server's end of a connection that a spec plays itself, byte by byte: it reads what the client sends, answers with
// golden bytes, and keeps count. Everything that was opened here is closed after each test.

import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Duplex } from 'node:stream';

import { NbdConnection, type NbdConnectionOptions } from '../../lib/index.js';
import { duplexPair } from '../../lib/transport/memory.js';
import * as g from './golden.js';

/** A request as it was on the wire. */
export interface RawRequest {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly length: number;
  readonly payload: Buffer;
}

/** What the server sends in the handshake. */
export interface RawExport {
  /** Default 1 MiB. */
  size?: number | bigint;
  /** Transmission flags; default {@link g.ALL_FLAGS}. */
  flags?: number;
  /** Whether structured replies are granted; default true. */
  structured?: boolean;
  /** Whether extended headers are granted; default false. */
  extended?: boolean;
  /** Contexts by ID, all granted whatever is requested. */
  contexts?: Readonly<Record<number, string>>;
  blockSize?: readonly [minimum: number, preferred: number, maximum: number];
  /** Payloads of further information replies. */
  infos?: readonly Buffer[];
}

/** Bytes that have arrived, to be taken by count. */
export class RawPeer {
  readonly stream: Duplex;
  /** Resolves when the client has sent its last byte. */
  readonly ended: Promise<void>;
  /** Resolves when the stream is gone. */
  readonly closed: Promise<void>;
  /** All that the client has sent. */
  bytesReceived = 0;
  /** The options that the client has sent, in order. */
  readonly options: { readonly number: number; readonly data: Buffer }[] = [];
  extended = false;
  structured = true;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #wake: (() => void) | null = null;
  #isEnded = false;

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('data', (bytes: Buffer) => {
      this.bytesReceived += bytes.length;
      this.#chunks.push(bytes);
      this.#buffered += bytes.length;
      this.#wake?.();
    });
    stream.on('error', () => undefined);
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.#isEnded = true;
        this.#wake?.();
        resolve();
      };
      stream.once('end', end);
      stream.once('close', end);
    });
    this.closed = new Promise((resolve) => stream.once('close', () => resolve()));
  }

  /** Bytes that have arrived and were not taken. */
  get buffered(): number {
    return this.#buffered;
  }

  /** The next `length` bytes; rejects when the client ends before. */
  async take(length: number): Promise<Buffer> {
    while (this.#buffered < length) {
      if (this.#isEnded) throw new Error(`the client ended with ${this.#buffered} of ${length} bytes due`);
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
    const first = this.#chunks[0] ?? Buffer.alloc(0);
    const all = first.length >= length ? first : Buffer.concat(this.#chunks);
    if (all === first) this.#chunks.shift();
    else this.#chunks = [];
    if (all.length > length) this.#chunks.unshift(all.subarray(length));
    this.#buffered -= length;
    return all.subarray(0, length);
  }

  write(...parts: (Uint8Array | string)[]): void {
    this.stream.write(g.cat(...parts));
  }

  /** Breaks a connection over TCP off, so that the client sees a reset. */
  reset(): void {
    (this.stream as Partial<Socket>).resetAndDestroy?.();
  }

  /** The header of the next request; a write's payload stays to be taken. */
  async header(): Promise<RawRequest> {
    const bytes = await this.take(this.extended ? 32 : 28);
    const magic = bytes.readUInt32BE(0);
    if (magic !== (this.extended ? 0x21e41c71 : 0x25609513)) throw new Error(`not a request: ${bytes.toString('hex')}`);
    return {
      flags: bytes.readUInt16BE(4),
      type: bytes.readUInt16BE(6),
      cookie: bytes.readBigUInt64BE(8),
      offset: bytes.readBigUInt64BE(16),
      length: this.extended ? Number(bytes.readBigUInt64BE(24)) : bytes.readUInt32BE(24),
      payload: Buffer.alloc(0),
    };
  }

  /** The next request with its payload. */
  async request(): Promise<RawRequest> {
    const header = await this.header();
    return header.type === g.CMD.WRITE ? { ...header, payload: await this.take(header.length) } : header;
  }

  async requests(count: number): Promise<RawRequest[]> {
    const found: RawRequest[] = [];
    while (found.length < count) found.push(await this.request());
    return found;
  }

  /** Answers as a good server would, in the negotiated style. */
  answer(...requests: RawRequest[]): void {
    this.write(...requests.map((request) => this.goodReply(request)));
  }

  goodReply({ type, cookie, offset, length }: RawRequest): Buffer {
    if (type === g.CMD.READ) {
      const data = g.content(Number(offset), length);
      if (!this.structured) return g.simple(cookie, 0, data);
      if (!this.extended) return g.dataChunk(cookie, offset, data);
      return g.extendedChunk(g.DONE, g.DATA, cookie, offset, g.cat(g.u64(offset), data));
    }
    if (type === g.CMD.STATUS) {
      if (!this.extended) return g.statusChunk(cookie, 1, [[length, 0]]);
      const payload = g.cat(g.u32(1), g.u32(1), g.u64(length), g.u64(0));
      return g.extendedChunk(g.DONE, g.STATUS_EXT, cookie, offset, payload);
    }
    return this.extended ? g.extendedChunk(g.DONE, g.NONE, cookie, offset) : g.simple(cookie);
  }

  /** Answers every request as it comes until the client ends or disconnects; `each` sees them first. */
  async serve(each: (request: RawRequest) => void = () => undefined): Promise<void> {
    try {
      for (;;) {
        const request = await this.request();
        each(request);
        if (request.type === g.CMD.DISC) break;
        this.answer(request);
      }
    } catch {
      // The client has gone.
    }
    this.stream.end();
  }

  /** Resolves after `ms` with the number of bytes that came meanwhile; for showing that nothing is sent. */
  async quiet(ms = 20): Promise<number> {
    const before = this.bytesReceived;
    await new Promise((resolve) => setTimeout(resolve, ms));
    return this.bytesReceived - before;
  }

  /** The server's half of a fixed newstyle handshake, up to the end of GO. */
  async handshake(served: RawExport = {}): Promise<void> {
    const { size = 1 << 20, flags = g.ALL_FLAGS, structured = true, extended = false, contexts = {} } = served;
    this.structured = structured || extended;
    this.extended = false;
    this.write(g.greeting());
    await this.take(4);
    for (;;) {
      const { number } = await this.option();
      if (number === g.OPT.EXTENDED && extended) {
        this.extended = true;
        this.write(g.reply(number, g.ACK));
      } else if (number === g.OPT.STRUCTURED_REPLY && structured) {
        this.write(g.reply(number, g.ACK));
      } else if (number === g.OPT.SET_META) {
        const names = Object.entries(contexts).map(([id, name]) => g.metaContext(Number(id), name));
        this.write(...names.map((name) => g.reply(number, g.META, name)), g.reply(number, g.ACK));
      } else if (number === g.OPT.GO) {
        const infos = [g.infoExport(size, flags), ...(served.infos ?? [])];
        if (served.blockSize !== undefined) infos.push(g.infoBlockSize(...served.blockSize));
        this.write(...infos.map((info) => g.reply(number, g.INFO, info)), g.reply(number, g.ACK));
        return;
      } else {
        this.write(g.reply(number, g.ERR_UNSUP));
      }
    }
  }

  /** The next option of the client. */
  async option(): Promise<{ readonly number: number; readonly data: Buffer }> {
    const head = await this.take(16);
    if (head.toString('latin1', 0, 8) !== 'IHAVEOPT') throw new Error(`not an option: ${head.toString('hex')}`);
    const found = { number: head.readUInt32BE(8), data: await this.take(head.readUInt32BE(12)) };
    this.options.push(found);
    return found;
  }
}

/** A listening socket whose connections are handed to the spec one by one. */
export interface RawServer {
  /** What NbdConnection.connect takes. */
  readonly target: { readonly path: string } | { readonly host: string; readonly port: number };
  /** The next connection. */
  accept(): Promise<RawPeer>;
}

let folder: string | undefined;
let sockets = 0;
const servers = new Set<Server>();
const streams = new Set<Duplex>();
const connections = new Set<NbdConnection>();

export async function listenRaw(over: 'unix' | 'tcp' = 'unix'): Promise<RawServer> {
  const waiting: RawPeer[] = [];
  const takers: ((peer: RawPeer) => void)[] = [];
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket: Socket) => {
    streams.add(socket);
    const peer = new RawPeer(socket);
    const taker = takers.shift();
    if (taker === undefined) waiting.push(peer);
    else taker(peer);
  });
  servers.add(server);
  folder ??= mkdtempSync(join(tmpdir(), 'nbd-raw-'));
  const path = join(folder, `s${++sockets}`);
  await new Promise<void>((resolve) => {
    if (over === 'unix') server.listen(path, resolve);
    else server.listen(0, '127.0.0.1', resolve);
  });
  return {
    target: over === 'unix' ? { path } : { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    accept: () => {
      const peer = waiting.shift();
      return peer !== undefined ? Promise.resolve(peer) : new Promise((resolve) => takers.push(resolve));
    },
  };
}

/** A connection that is closed after the test. */
export function newConnection(options?: NbdConnectionOptions): NbdConnection {
  const connection = new NbdConnection(options);
  connections.add(connection);
  return connection;
}

/** Two ends of a stream in memory: the client's, to be given to connectSocket, and the peer on the other. */
export function memoryPeer(): { readonly stream: Duplex; readonly peer: RawPeer } {
  const [stream, other] = duplexPair();
  streams.add(stream).add(other);
  return { stream, peer: new RawPeer(other) };
}

export interface OpenOptions extends RawExport {
  over?: 'unix' | 'tcp' | 'memory';
  client?: NbdConnectionOptions;
}

/** A connection that is ready, and the peer that plays its server. */
export async function openRaw(options: OpenOptions = {}): Promise<{ connection: NbdConnection; peer: RawPeer }> {
  const { over = 'unix', client = {}, ...served } = options;
  const asked = Object.values(served.contexts ?? {});
  const connection = newConnection({ ...(asked.length > 0 ? { metaContexts: asked } : {}), ...client });
  if (over === 'memory') {
    const { stream, peer } = memoryPeer();
    await Promise.all([connection.connectSocket(stream), peer.handshake(served)]);
    return { connection, peer };
  }
  const server = await listenRaw(over);
  const accepted = server.accept();
  const connected =
    'path' in server.target
      ? connection.connectUnix(server.target.path)
      : connection.connectTcp(server.target.host, server.target.port);
  const peer = await accepted;
  await Promise.all([connected, peer.handshake(served)]);
  return { connection, peer };
}

/** Closes everything; runs by itself after each test. */
export function closeAll(): void {
  for (const connection of connections) connection.close();
  for (const stream of streams) stream.destroy();
  for (const server of servers) server.close();
  connections.clear();
  streams.clear();
  servers.clear();
}

afterEach(closeAll);
afterAll(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  folder = undefined;
});
