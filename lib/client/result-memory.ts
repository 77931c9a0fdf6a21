// Where the results of reads come from. Invariant: no two results overlap, and none is used again by us.

import { allocate } from '../util/memory.js';

/** Results up to this are cut from slabs: memory of its own costs as much as all the rest of a small read. */
const POOLED_LENGTH = 16 * 1024;
/** What a result that is kept may hold at the most. */
const SLAB_LENGTH = 64 * 1024;

export class ResultMemory {
  #slab = Buffer.alloc(0);
  #slabUsed = 0;

  /** Memory for the result of a read, every byte of which will be written. */
  readonly allocate = (length: number): Buffer<ArrayBuffer> => {
    if (length > POOLED_LENGTH) return allocate(length);
    if (this.#slabUsed + length > this.#slab.length) {
      this.#slab = allocate(SLAB_LENGTH);
      this.#slabUsed = 0;
    }
    const start = this.#slabUsed;
    // Multiples of 8, so that any typed array can be laid over a result.
    this.#slabUsed = (start + length + 7) & ~7;
    // A third cheaper than subarray(), which looks up what to construct.
    return Buffer.from(this.#slab.buffer, start, length);
  };
}
