// Memory for the results of reads. Invariants: no two results overlap, none is reused by the library, and transferring
// one cannot detach others: the memory that small results share cannot be transferred.

import { Buffer, type OwnBuffer } from '../../util/buffer.js';
import type { ResultAllocator } from '../platform.js';
import { allocate, markUntransferable } from '../../util/memory.js';

/** Results up to this are cut from slabs: a separate allocation costs as much as the rest of a small read. */
const POOLED_LENGTH = 16 * 1024;
/** The most memory that one small result can keep alive. */
const SLAB_LENGTH = 64 * 1024;

function allocateShared(): OwnBuffer {
  const slab = allocate(SLAB_LENGTH);
  markUntransferable(
    slab.buffer,
    `a result of up to ${POOLED_LENGTH} bytes shares its memory with others: copy it first`,
  );
  return slab;
}

export class ResultMemory implements ResultAllocator {
  readonly allocateZeroed = (length: number): Buffer => Buffer.alloc(length);
  #slab = Buffer.alloc(0);
  #slabUsed = 0;

  /** Memory for the result of a read, which will overwrite every byte. */
  readonly allocate = (length: number): OwnBuffer => {
    if (length > POOLED_LENGTH) return allocate(length);
    if (this.#slabUsed + length > this.#slab.length) {
      this.#slab = allocateShared();
      this.#slabUsed = 0;
    }
    const start = this.#slabUsed;
    // Multiples of 8, so that any typed array can use a result's memory.
    this.#slabUsed = (start + length + 7) & ~7;
    // A third cheaper than subarray(), which looks up what to construct.
    return Buffer.from(this.#slab.buffer, start, length);
  };
}
