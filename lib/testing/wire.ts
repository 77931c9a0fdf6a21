// The byte stream of a scripted peer: reads by count, sends at once, can switch to TLS, and can end in every way that a
// stream can. A client that misbehaves or goes away never causes an exception in a callback.

import { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { createSecureContext, TLSSocket, type TlsOptions } from 'node:tls';

import type { PeerRecording } from './recording.js';

/** Thrown by a read when the client has ended its side. */
export class EndOfStream extends Error {}

/** Bytes of unread input above which the stream is paused, unless a read waits for more. */
const HIGH_WATER = 1024 * 1024;
const CAPTURE_LIMIT = 64 * 1024;
const TAIL = 20;

export class Wire {
  readonly #stream: Duplex;
  readonly #recording: PeerRecording;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #wanted = 0;
  #wake: (() => void) | undefined;
  #ended = false;
  #closed = false;
  #finished = false;
  #silent = false;
  #tap: Tap | undefined;
  #tls: TLSSocket | undefined;
  #tlsOver: (() => void) | undefined;
  #head: Buffer[] = [];
  #headLength = 0;
  #tail = Buffer.alloc(0);

  constructor(stream: Duplex, recording: PeerRecording) {
    this.#stream = stream;
    this.#recording = recording;
    if (stream instanceof Socket) stream.setNoDelay(true);
    stream.on('data', (bytes: Buffer) => {
      recording.received(bytes);
      if (this.#tap === undefined) this.#deliver(bytes);
      else this.#tap.push(bytes);
    });
    stream.on('end', () => {
      if (recording.ending === 'open') recording.ending = 'fin';
      this.#tap?.push(null);
      this.#end();
    });
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (recording.ending === 'open') recording.ending = 'error';
      recording.errorCode ??= error.code;
      this.#end();
    });
    stream.on('close', () => {
      this.#closed = true;
      this.#tls?.destroy();
      this.#end();
    });
  }

  /** Bytes received but not read. */
  get buffered(): number {
    return this.#buffered;
  }

  /** False once data can no longer be sent. */
  get isWritable(): boolean {
    // A destroyed stream fails each write on the next tick: a loop of writes would keep its 'close' from coming.
    return !this.#closed && !this.#finished && !this.#silent && !this.#stream.destroyed;
  }

  /** Whether data is read through TLS. */
  get isSecure(): boolean {
    return this.#tls !== undefined;
  }

  /** True after a stall: nothing is sent any more. */
  get isSilent(): boolean {
    return this.#silent;
  }

  /** The first 64 KiB sent since {@link capture}. */
  get captured(): Buffer {
    return Buffer.concat(this.#head);
  }

  /** The last 20 bytes sent since {@link capture}. */
  get capturedTail(): Buffer {
    return this.#tail;
  }

  /** Starts keeping the sent bytes. */
  capture(): void {
    this.#head = [];
    this.#headLength = 0;
    this.#tail = Buffer.alloc(0);
  }

  silence(): void {
    this.#silent = true;
  }

  /** Resolves with the next `count` bytes, or rejects with {@link EndOfStream}. */
  async read(count: number): Promise<Buffer> {
    while (this.#buffered < count) {
      if (this.#ended) throw new EndOfStream();
      this.#wanted = count;
      this.#stream.resume();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    this.#wanted = 0;
    const all = this.#chunks.length === 1 ? (this.#chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#chunks);
    this.#chunks = all.length > count ? [all.subarray(count)] : [];
    this.#buffered -= count;
    if (this.#buffered < HIGH_WATER) this.#stream.resume();
    return all.subarray(0, count);
  }

  /** Reads and discards everything until the client closes; resolves with the number of bytes. */
  async drain(): Promise<number> {
    let count = 0;
    for (;;) {
      count += this.#buffered;
      this.#chunks = [];
      this.#buffered = 0;
      if (this.#ended) return count;
      this.#wanted = 1;
      this.#stream.resume();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** Resolves when the stream has written the bytes, or when it never will. */
  write(bytes: Uint8Array): Promise<void> {
    if (!this.isWritable || bytes.length === 0) return Promise.resolve();
    this.#keep(bytes);
    return this.#send(this.#tls ?? this.#stream, bytes);
  }

  /** Like {@link write}, but below TLS. */
  writeRaw(bytes: Uint8Array): Promise<void> {
    return this.isWritable ? this.#send(this.#stream, bytes) : Promise.resolve();
  }

  /** Sends what was written, then a FIN; continues to read. */
  fin(): void {
    if (this.#finished || this.#closed) return;
    this.#finished = true;
    this.#stream.end();
  }

  /** Sends what was written, then closes. */
  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#recording.ending === 'open') this.#recording.ending = 'closed';
    this.#finished = true;
    await new Promise<void>((resolve) => {
      this.#stream.once('close', resolve);
      this.#stream.end(resolve);
    });
    this.#stream.destroy();
  }

  /** Resets the connection, or closes it if the stream has no reset. */
  reset(): void {
    if (this.#recording.ending === 'open') this.#recording.ending = 'closed';
    this.#finished = true;
    try {
      // Throws for a Unix socket.
      if (this.#stream instanceof Socket) this.#stream.resetAndDestroy();
      else this.#stream.destroy();
    } catch {
      this.#stream.destroy();
    }
  }

  destroy(): void {
    if (this.#recording.ending === 'open') this.#recording.ending = 'closed';
    this.#stream.destroy();
  }

  /** Performs the server's half of a TLS handshake, starting with unread input. Resolves even if it fails. */
  startTls(options: TlsOptions): Promise<void> {
    const tap = new Tap(this.#stream);
    this.#tap = tap;
    for (const bytes of this.#chunks) tap.push(bytes);
    this.#chunks = [];
    this.#buffered = 0;
    const socket = new TLSSocket(tap, {
      ...options,
      isServer: true,
      secureContext: createSecureContext(options),
      // The secure context does not include these two.
      requestCert: options.requestCert ?? false,
      rejectUnauthorized: options.rejectUnauthorized ?? options.requestCert ?? false,
    });
    this.#tls = socket;
    socket.on('data', (bytes: Buffer) => {
      this.#deliver(bytes);
    });
    return new Promise((resolve) => {
      // A client that goes away in the middle of the handshake does not end the TLS socket.
      this.#tlsOver = resolve;
      socket.once('secure', () => {
        this.#recording.tls = true;
        resolve();
      });
      socket.on('error', (error: NodeJS.ErrnoException) => {
        this.#recording.errorCode ??= error.code;
        this.#end();
      });
      socket.once('close', () => this.#end());
      socket.once('end', () => this.#end());
    });
  }

  #deliver(bytes: Buffer): void {
    this.#chunks.push(bytes);
    this.#buffered += bytes.length;
    if (this.#buffered >= HIGH_WATER && this.#buffered >= this.#wanted) this.#stream.pause();
    this.#wakeUp();
  }

  #end(): void {
    this.#ended = true;
    this.#tlsOver?.();
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #keep(bytes: Uint8Array): void {
    if (this.#headLength < CAPTURE_LIMIT) {
      this.#head.push(Buffer.from(bytes.subarray(0, CAPTURE_LIMIT - this.#headLength)));
      this.#headLength += bytes.length;
    }
    this.#tail = Buffer.concat([this.#tail, bytes.subarray(-TAIL)]).subarray(-TAIL);
  }

  #send(stream: Duplex, bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        stream.off('close', done);
        resolve();
      };
      // A stream that is destroyed during a write does not always call back.
      stream.once('close', done);
      stream.write(bytes, done);
    });
  }
}

/** The socket for TLS: writes to the peer's stream, and reads the bytes that the wire pushes. */
class Tap extends Duplex {
  readonly #stream: Duplex;

  constructor(stream: Duplex) {
    super();
    this.#stream = stream;
  }

  override _read(): void {
    // The wire pushes.
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (this.#stream.destroyed || this.#stream.writableEnded) callback();
    else this.#stream.write(bytes, () => callback());
  }
}
