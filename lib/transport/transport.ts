// The interface between byte streams and their users. A transport moves bytes and knows nothing about NBD.
// Invariant: a receiver's close() is called exactly once, and none of its methods is called after it.

/** Receives the chunks of a transport. No method may throw: an exception in a socket callback ends the process. */
export interface ChunkReceiver {
  /** Passes bytes in a buffer of the transport's, which may be reused as soon as push() returns. */
  push(chunk: Uint8Array): void;
  /** The peer has half-closed: it sends no more, but we may still write. */
  end(): void;
  /** The stream is closed: `null` after a normal end or destroy(), otherwise the error that broke it. */
  close(error: Error | null): void;
}

/** Receives the bytes of any transport, into buffers of its own where the transport supports that. */
export interface Receiver extends ChunkReceiver {
  /**
   * Returns the buffer for the next bytes. A transport that can read into a given buffer calls it once before the first
   * read and again after each advance(), so the buffer is used for exactly one read.
   */
  target(): Uint8Array;
  /** `length` bytes were read into the start of the buffer that target() returned last. */
  advance(length: number): void;
}

/** A connected byte stream. */
export interface Transport {
  /** The peer, for messages: `host:port`, a socket's path, or a word. */
  readonly description: string;
  /** Starts delivering. Called once; bytes that arrived earlier are delivered first. */
  start(receiver: Receiver): void;
  /**
   * Sends the buffers in order, with one writev if the stream supports it. They must not change until `flushed` is
   * called, asynchronously, when the stream has written them; it is not called if the stream ends before that.
   */
  write(buffers: readonly Uint8Array[], flushed: () => void): void;
  /** Written bytes that the system has not accepted yet, if known. While it changes, bytes are leaving. */
  readonly unsent?: number;
  /** Half-closes once everything written has been sent. */
  end(): void;
  /** Ends both directions at once; close(null) follows, unless the receiver was already closed. Idempotent. */
  destroy(): void;
  /** Lets the stream alone keep the process alive, until unref(). */
  ref(): void;
  unref(): void;
}

/** A transport whose user, a server, may stop reading for a while. Its chunks are never reused: it may keep them. */
export interface PausableTransport extends Transport {
  start(receiver: ChunkReceiver): void;
  /** Bytes that were written and that the stream still holds. */
  readonly buffered: number;
  /** Bytes that have arrived and have not been delivered: while paused, or behind the chunk that is being delivered. */
  readonly undelivered: number;
  /** Stops delivering: back-pressure towards the peer. */
  pause(): void;
  resume(): void;
  /** Half-closes after what was written, and calls back when that is out, or when it cannot be sent any more. */
  end(gone?: () => void): void;
}
