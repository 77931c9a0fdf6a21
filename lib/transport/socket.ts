// A socket that this package opened: reads go into a buffer that the receiver chooses, which costs half as much as
// 'data' events. Node accepts such a buffer only at connect() (`onread`).

import { type NetConnectOpts, Socket } from 'node:net';
import { runtimeName } from '../util/platform.js';
import { StreamTransport } from './stream.js';
import type { Receiver } from './transport.js';

// Until there is a receiver; a peer's first messages are short.
const FIRST_LENGTH = 4096;

/**
 * Whether TLS can take over a socket that has such a buffer. With Deno the handshake never gets a byte and the process
 * does not end, so its sockets have none.
 */
const TAKES_OVER = runtimeName() !== 'Deno';

/** The undocumented part of `net.Socket`'s options for reading into the caller's buffer. */
interface OnRead {
  buffer: () => Uint8Array;
  callback: (length: number, buffer: Uint8Array) => boolean;
}

export class SocketTransport extends StreamTransport {
  readonly socket: Socket;
  readonly #reader: Reader | null;
  #receiver: Receiver | null = null;

  private constructor(socket: Socket, reader: Reader | null, description: string) {
    super(socket, description);
    this.socket = socket;
    this.#reader = reader;
  }

  /** Starts connecting; the caller waits for the socket's 'connect' or 'error'. */
  static open(options: NetConnectOpts, description: string): SocketTransport {
    // noDelay and keepAlive only take effect here: connect() ignores them.
    const settings = { ...options, allowHalfOpen: true };
    if (!TAKES_OVER) {
      const plain = new Socket(settings);
      plain.connect(options);
      return new SocketTransport(plain, null, description);
    }
    const reader = new Reader();
    const onread: OnRead = {
      buffer: () => reader.next(),
      callback: (length, buffer) => {
        reader.take(length, buffer);
        return true;
      },
    };
    const socket = new Socket({ ...settings, ...({ onread } as object) });
    socket.connect(options);
    return new SocketTransport(socket, reader, description);
  }

  override start(receiver: Receiver): void {
    this.#receiver = receiver;
    super.start(receiver);
  }

  protected override listen(): void {
    if (this.#reader === null) super.listen();
    else this.#reader.start(this.#receiver);
  }

  override detach(): Socket {
    this.#reader?.start(null);
    super.detach();
    return this.socket;
  }
}

/** Connects the socket, which needs a buffer from the start, with the receiver, which comes later. */
class Reader {
  #receiver: Receiver | null = null;
  #early: Uint8Array[] = [];
  #first: Uint8Array | null = Buffer.allocUnsafeSlow(FIRST_LENGTH);
  /** The receiver that chose the current read buffer. */
  #chosenBy: Receiver | null = null;

  start(receiver: Receiver | null): void {
    this.#receiver = receiver;
    if (receiver === null) return;
    const early = this.#early;
    this.#early = [];
    for (const bytes of early) receiver.push(bytes);
  }

  next(): Uint8Array {
    this.#chosenBy = this.#receiver;
    if (this.#receiver !== null) {
      this.#first = null;
      return this.#receiver.target();
    }
    this.#first ??= Buffer.allocUnsafeSlow(FIRST_LENGTH);
    return this.#first;
  }

  take(length: number, buffer: Uint8Array): void {
    const receiver = this.#receiver;
    if (receiver === null) this.#early.push(Uint8Array.from(buffer.subarray(0, length)));
    else if (receiver === this.#chosenBy) receiver.advance(length);
    else receiver.push(buffer.subarray(0, length));
  }
}
