// Sockets whose reads go into a buffer that the receiver chooses, which costs half as much as 'data' events. Node accepts
// such a buffer (`onread`) when it makes a socket that connects, not for TLS over a socket that is connected already.

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

/** Where a socket keeps the members of `onread`. */
interface Slots {
  readonly buffer: symbol;
  readonly generator: symbol;
  readonly callback: symbol;
}

/** `_handle` of a socket: the part of Node that reads. */
interface Handle {
  useUserBuffer?: (buffer: Uint8Array) => void;
}

let slots: Slots | null | undefined;

/**
 * Finds them by comparing a socket that has `onread` with one that has not, so that no name of Node's is relied on. Null
 * if they are not to be found.
 */
function findSlots(): Slots | null {
  if (runtimeName() !== 'Node.js') return null;
  const onread: OnRead = { buffer: () => new Uint8Array(1), callback: () => true };
  const having = new Socket({ onread } as object) as unknown as Record<symbol, unknown>;
  const without = new Socket() as unknown as Record<symbol, unknown>;
  const find = (value: unknown): symbol | null => {
    const found = Object.getOwnPropertySymbols(having).filter((key) => having[key] === value && without[key] === null);
    return found.length === 1 ? (found[0] ?? null) : null;
  };
  // Where the buffer comes from a function, Node marks its place with `true` until the handle is there.
  const [buffer, generator, callback] = [find(true), find(onread.buffer), find(onread.callback)];
  return buffer === null || generator === null || callback === null ? null : { buffer, generator, callback };
}

/**
 * Does for a connected socket without `onread` what the option does: from now on it reads into the buffers of the
 * receiver. What it has read before is passed on first. Returns false, with nothing changed, if this is not possible; the
 * socket has 'data' events then.
 */
export function readInto(socket: Socket, receiver: Pick<Receiver, 'target' | 'advance' | 'push'>): boolean {
  if (slots === undefined) slots = findSlots();
  const parts = socket as unknown as Record<symbol, unknown> & { readonly _handle?: Handle | null };
  const handle = parts._handle;
  if (slots === null || typeof handle?.useUserBuffer !== 'function') return false;
  const { buffer, generator, callback } = slots;
  if ([buffer, generator, callback].some((key) => parts[key] !== null)) return false;
  for (let early = readEarly(socket); early !== null; early = readEarly(socket)) receiver.push(early);
  if (socket.destroyed) return true;
  const first = receiver.target();
  parts[callback] = (length: number): boolean => {
    receiver.advance(length);
    return true;
  };
  parts[generator] = (): Uint8Array => receiver.target();
  parts[buffer] = first;
  handle.useUserBuffer(first);
  socket.read(0);
  return true;
}

const readEarly = (socket: Socket): Uint8Array | null =>
  socket.destroyed ? null : (socket.read() as Uint8Array | null);

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
