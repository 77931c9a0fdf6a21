// Reuses the memory for payloads of writes: a fresh megabyte for each costs more than the write itself, in page faults
// and garbage collection. Only for backends that keep no reference to the data.

import { Buffer } from '../../util/buffer.js';

/** Smaller buffers are cheap to allocate. */
const POOLED = 65536;

export class PayloadPool {
  readonly #limit: number;
  // Free memory by size; sizes are powers of two.
  readonly #free = new Map<number, ArrayBufferLike[]>();
  #freeBytes = 0;
  // Buffers from this pool: a payload may also be part of a stream's chunk, which contains other requests too.
  readonly #lent = new WeakSet<Buffer>();

  /** The pool keeps at most `limit` free bytes. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Returns `length` uninitialised bytes. */
  take(length: number): Buffer {
    if (length < POOLED) return Buffer.allocUnsafe(length);
    const size = 2 ** Math.ceil(Math.log2(length));
    let memory = this.#free.get(size)?.pop();
    if (memory === undefined) memory = Buffer.allocUnsafeSlow(size).buffer;
    else this.#freeBytes -= size;
    const buffer = Buffer.from(memory, 0, length);
    this.#lent.add(buffer);
    return buffer;
  }

  /** Returns a buffer to the pool. Buffers that did not come from take() are ignored. */
  give(buffer: Buffer): void {
    const size = buffer.buffer.byteLength;
    if (!this.#lent.delete(buffer) || this.#freeBytes + size > this.#limit) return;
    this.#freeBytes += size;
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [buffer.buffer]);
    else free.push(buffer.buffer);
  }
}
