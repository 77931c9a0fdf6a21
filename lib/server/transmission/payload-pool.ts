// Memory for the payload of writes, used again and again: a fresh megabyte for each costs more than the write itself,
// in page faults and garbage collection. Only for backends that keep no reference to what they were given.

/** Smaller ones are cheap to make. */
const POOLED = 65536;

export class PayloadPool {
  readonly #limit: number;
  // Free memory by size, sizes being powers of two.
  readonly #free = new Map<number, ArrayBufferLike[]>();
  #freeBytes = 0;
  // What came from here: a payload may also lie in a chunk of the stream's, which holds other requests too.
  readonly #lent = new WeakSet<Buffer>();

  /** Keeps at most `limit` bytes for later. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** `length` bytes that hold anything. */
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

  /** Nobody looks at this buffer any more. Ignores one that take() did not give. */
  give(buffer: Buffer): void {
    const size = buffer.buffer.byteLength;
    if (!this.#lent.delete(buffer) || this.#freeBytes + size > this.#limit) return;
    this.#freeBytes += size;
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [buffer.buffer]);
    else free.push(buffer.buffer);
  }
}
