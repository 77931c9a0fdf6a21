// The seam between byte streams and what is made of them. A transport moves bytes and knows no NBD word.
// Invariant: a receiver's close() is called exactly once, last, and after it no other method of it.

/** What a stream delivers to. None of these may throw: an exception in a socket callback ends the process. */
export interface ChunkReceiver {
  /** Bytes in a buffer of the transport's own, which may be reused as soon as push() returns. */
  push(chunk: Uint8Array): void;
  /** The peer sends no more; our side may still write. */
  end(): void;
  /** The stream is gone: `null` after an ordinary end or destroy(), else what broke it. */
  close(error: Error | null): void;
}

/** What any transport delivers to. */
export interface Receiver extends ChunkReceiver {
  /**
   * Where the next bytes should land. A transport that can read into a given buffer asks once before the first
   * read and again after each advance(), so the answer always holds for exactly one read.
   */
  target(): Uint8Array;
  /** `length` bytes have landed at the start of the buffer that target() gave last. */
  advance(length: number): void;
}

/** A connected byte stream. */
export interface Transport {
  /** What it is connected to, for messages and getUri: `host:port`, a socket's path, or a word. */
  readonly description: string;
  /** Begins to deliver. Called once; nothing is lost that arrived before. */
  start(receiver: Receiver): void;
  /**
   * Sends the buffers in order, with one writev where the stream can. They must stay unchanged until `flushed` is
   * called, asynchronously, when the stream has taken them; it is not called if the stream ends before.
   */
  write(buffers: readonly Uint8Array[], flushed: () => void): void;
  /** Bytes that were written and that the system has not taken yet, where that is known: while it changes, some leave. */
  readonly unsent?: number;
  /** Half-closes after what was written. */
  end(): void;
  /** Ends both directions at once; close(null) follows, unless it has come already. Idempotent. */
  destroy(): void;
  /** Whether the stream alone keeps the process alive. */
  ref(): void;
  unref(): void;
}
