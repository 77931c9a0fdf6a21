// A WebSocket as a transport: each write is one binary message. Invariants: what is sent is a copy, so that no buffer of
// a caller's is in use once write() has returned; and what waits in memory is bounded in both directions.
//
// A WebSocket has no event for "sent", so that `bufferedAmount` is polled; and its reading cannot be paused, so that
// what arrives meanwhile is kept, up to a limit.

import { concat } from '../../util/bytes.js';
import { clearTimeout, setTimeout } from '../../util/timers.js';
import { isUint8Array } from '../../util/views.js';
import type { ChunkReceiver, PausableTransport } from '../transport.js';
import type { WebSocketEventLike, WebSocketLike } from './types.js';

/** Milliseconds between two looks at `bufferedAmount`. */
const POLL = 5;
/** Bytes that may arrive while reading is paused. Above it the peer sends more than it may, and the socket is closed. */
export const MAX_UNREAD = 128 * 1024 * 1024;

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 3;
/** Closed in good order: by the protocol's normal closure, by a page that is left, or without a code. */
const CLEAN_CODES = [1000, 1001, 1005];

interface Waiter {
  /** The number of sent bytes at which it is called. */
  readonly at: number;
  readonly callback: () => void;
}

export interface WebSocketTransportOptions {
  /** Bytes that may still be on their way when a write is reported as flushed: without them each would wait for a poll. */
  readonly ahead: number;
  /** Default {@link MAX_UNREAD}. */
  readonly maxUnread?: number | undefined;
}

export class WebSocketTransport implements PausableTransport {
  readonly description: string;
  readonly #socket: WebSocketLike & { terminate?: () => void };
  readonly #ahead: number;
  readonly #maxUnread: number;
  #receiver: ChunkReceiver | null = null;
  /** Messages that wait for start() or resume(). */
  #unread: Uint8Array[] = [];
  /** How many of them have been delivered. */
  #head = 0;
  #unreadBytes = 0;
  #isPaused = false;
  #isDelivering = false;
  /** Messages that wait for the socket to open. */
  #early: Uint8Array<ArrayBuffer>[] = [];
  #earlyBytes = 0;
  /** Bytes passed to write() so far. */
  #written = 0;
  #waiters: Waiter[] = [];
  #timer: ReturnType<typeof setTimeout> | null = null;
  #isEnding = false;
  /** The socket is of no use any more; `error` says why, null for an ordinary end. */
  #end: { readonly error: Error | null; readonly isByPeer: boolean } | null = null;
  #failure: WebSocketEventLike | null = null;

  constructor(socket: WebSocketLike, description: string, options: WebSocketTransportOptions) {
    this.#socket = socket;
    this.description = description;
    this.#ahead = options.ahead;
    this.#maxUnread = options.maxUnread ?? MAX_UNREAD;
    socket.binaryType = 'arraybuffer';
    // At once: a message without a listener is lost.
    socket.addEventListener('open', this.#onOpen);
    socket.addEventListener('message', this.#onMessage);
    socket.addEventListener('error', this.#onError);
    socket.addEventListener('close', this.#onClose);
    if (socket.readyState === CLOSED) this.#finish(problem('the WebSocket is closed', 'ENOTCONN'));
  }

  start(receiver: ChunkReceiver): void {
    this.#receiver = receiver;
    queueMicrotask(this.#deliver);
  }

  write(buffers: readonly Uint8Array[], flushed: () => void): void {
    if (this.#end !== null || this.#isEnding) return;
    const message = concat(buffers);
    this.#written += message.length;
    this.#send(message);
    this.#waiters.push({ at: this.#written - this.#ahead, callback: flushed });
    queueMicrotask(this.#look);
  }

  get unsent(): number {
    return this.#earlyBytes + this.#socket.bufferedAmount;
  }

  get buffered(): number {
    return this.unsent;
  }

  get undelivered(): number {
    return this.#unreadBytes;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    if (this.#unread.length > 0) queueMicrotask(this.#deliver);
  }

  /** Closes the socket behind everything that was written: a WebSocket has no half-closed state. */
  end(gone?: () => void): void {
    if (this.#isEnding || this.#end !== null) return;
    this.#isEnding = true;
    if (this.#early.length === 0) this.#socket.close(1000);
    if (gone === undefined) return;
    this.#waiters.push({ at: this.#written, callback: gone });
    queueMicrotask(this.#look);
  }

  destroy(): void {
    this.#finish(null);
  }

  ref(): void {
    // A WebSocket cannot be unreferenced.
  }

  unref(): void {
    // See ref().
  }

  #send(message: Uint8Array<ArrayBuffer>): void {
    if (this.#socket.readyState !== CONNECTING) {
      this.#socket.send(message);
      return;
    }
    this.#early.push(message);
    this.#earlyBytes += message.length;
  }

  readonly #onOpen = (): void => {
    for (const message of this.#early.splice(0)) this.#socket.send(message);
    this.#earlyBytes = 0;
    if (this.#isEnding) this.#socket.close(1000);
    this.#look();
  };

  readonly #onMessage = (event: WebSocketEventLike): void => {
    const { data } = event;
    const bytes = isUint8Array(data) ? data : isArrayBuffer(data) ? new Uint8Array(data) : null;
    if (bytes === null) {
      this.#finish(problem(`the peer sent ${typeof data === 'string' ? 'text' : 'no bytes'}`, 'EPROTO'));
      return;
    }
    this.#unread.push(bytes);
    this.#unreadBytes += bytes.length;
    this.#deliver();
    if (this.#unreadBytes > this.#maxUnread) {
      this.#finish(problem(`${this.#unreadBytes} bytes wait to be read, more than ${this.#maxUnread}`, 'ENOBUFS'));
    }
    // A peer that sends has probably read as well.
    if (this.#waiters.length > 0) this.#look();
  };

  readonly #onError = (event: WebSocketEventLike): void => {
    this.#failure ??= event;
  };

  readonly #onClose = (event: WebSocketEventLike): void => {
    const { code = 1006, reason = '' } = event;
    const isClean = CLEAN_CODES.includes(code);
    this.#finish(isClean ? null : closeError(code, reason, this.#failure), true);
  };

  /** Passes on what has arrived, as far as the receiver wants it. */
  readonly #deliver = (): void => {
    if (this.#isDelivering || this.#receiver === null) return;
    this.#isDelivering = true;
    while (this.#mayDeliver() && this.#head < this.#unread.length) {
      const chunk = this.#unread[this.#head++] as Uint8Array;
      this.#unreadBytes -= chunk.length;
      this.#receiver.push(chunk);
    }
    this.#unread = this.#unread.slice(this.#head);
    this.#head = 0;
    this.#isDelivering = false;
    if (this.#end !== null) this.#notifyEnd();
  };

  /** What arrived before the peer closed is delivered; nothing is after destroy(). */
  #mayDeliver(): boolean {
    return !this.#isPaused && (this.#end === null || this.#end.isByPeer);
  }

  /** Calls those whose bytes have left, and looks again later while others wait. */
  readonly #look = (): void => {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const sent = this.#written - this.unsent;
    while (this.#end === null) {
      const next = this.#waiters[0];
      if (next === undefined || next.at > sent) break;
      this.#waiters.shift();
      next.callback();
    }
    if (this.#waiters.length > 0 && this.#end === null) this.#timer = setTimeout(this.#look, POLL);
  };

  /** The end of everything: no callback but the receiver's close() follows. */
  #finish(error: Error | null, isByPeer = false): void {
    if (this.#end !== null) return;
    this.#end = { error, isByPeer };
    this.#waiters = [];
    this.#early = [];
    this.#earlyBytes = 0;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const socket = this.#socket;
    socket.removeEventListener('open', this.#onOpen);
    socket.removeEventListener('message', this.#onMessage);
    socket.removeEventListener('close', this.#onClose);
    // The listener for errors stays: closing a socket that is connecting is reported as one.
    if (!this.#isEnding && socket.terminate !== undefined && socket.readyState === OPEN) socket.terminate();
    else if (socket.readyState !== CLOSED) socket.close();
    queueMicrotask(this.#deliver);
  }

  #notifyEnd(): void {
    const receiver = this.#receiver;
    if (this.#end === null || receiver === null) return;
    this.#receiver = null;
    this.#unread = [];
    this.#unreadBytes = 0;
    receiver.close(this.#end.error);
  }
}

/** Of any realm. */
const isArrayBuffer = (value: unknown): value is ArrayBuffer =>
  Object.prototype.toString.call(value) === '[object ArrayBuffer]';

const problem = (message: string, code: string): Error => Object.assign(new Error(message), { code });

/** Why a socket was closed: browsers do not report the reason of a failed connection, others do. */
export function closeError(code: number, reason: string, failure: WebSocketEventLike | null, fallback?: string): Error {
  const cause = failure?.error as { readonly code?: unknown; readonly message?: unknown } | null | undefined;
  const text = [cause?.message, failure?.message].find((each) => typeof each === 'string' && each !== '');
  const why = reason !== '' ? `: ${reason}` : typeof text === 'string' ? `: ${text}` : '';
  const known = typeof cause?.code === 'string' ? cause.code : (fallback ?? 'ECONNRESET');
  return problem(`the WebSocket was closed with code ${code}${why}`, known);
}
