// A pair of connected streams within one process.

import { Duplex } from 'node:stream';
import { setImmediate } from 'node:timers';

class MemoryStream extends Duplex {
  peer: MemoryStream | null = null;
  #resume: (() => void) | null = null;

  constructor() {
    super({ allowHalfOpen: true, highWaterMark: 1024 * 1024 });
  }

  override _read(): void {
    const resume = this.#resume;
    this.#resume = null;
    resume?.();
  }

  override _write(chunk: Buffer, _encoding: string, callback: (error?: Error) => void): void {
    this.#deliver([chunk], callback);
  }

  override _writev(chunks: { chunk: Buffer }[], callback: (error?: Error) => void): void {
    const buffers = chunks.map(({ chunk }) => chunk);
    // Later: the peer may reply at once, our side write again, and Node drops what is written during _writev().
    queueMicrotask(() => {
      this.#deliver(buffers, callback);
    });
  }

  #deliver(chunks: readonly Buffer[], callback: (error?: Error) => void): void {
    const { peer } = this;
    if (peer === null || peer.destroyed) {
      callback(Object.assign(new Error('the other end of the stream is closed'), { code: 'EPIPE' }));
      return;
    }
    // Copied, as a kernel would: the writer may reuse its buffer after the callback.
    let room = true;
    for (const chunk of chunks) room = peer.push(Buffer.from(chunk));
    // Called later even if there is room, so that two peers that reply to each other cannot recurse.
    if (room) setImmediate(callback);
    else peer.#resume = () => setImmediate(callback);
  }

  override _final(callback: (error?: Error) => void): void {
    this.peer?.push(null);
    callback();
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    const resume = this.#resume;
    this.#resume = null;
    resume?.();
    const { peer } = this;
    this.peer = null;
    if (peer !== null && !peer.destroyed) {
      if (error !== null) peer.destroy(Object.assign(new Error('reset by the other end'), { code: 'ECONNRESET' }));
      else if (!peer.readableEnded) peer.push(null);
    }
    callback(error);
  }
}

/** Two connected streams: what is written to one is read from the other. */
export function duplexPair(): [Duplex, Duplex] {
  const [a, b] = [new MemoryStream(), new MemoryStream()];
  a.peer = b;
  b.peer = a;
  return [a, b];
}
