// Where the results of reads come from. Invariant: no two results overlap, and none is used again by us.

/** Results up to this are cut from slabs: memory of its own costs as much as all the rest of a small read. */
const POOLED_LENGTH = 16 * 1024;
/** What a result that is kept may hold at the most. */
const SLAB_LENGTH = 64 * 1024;

/**
 * glibc gives free memory back to the system beyond twice the largest block that was ever freed, and takes it anew,
 * page fault by page fault, for the next results: half the cost of reading 256 KiB or 1 MiB. Freeing one block of
 * this length, of which no page is ever touched, sets that limit to 62 MiB; glibc does not learn from blocks above
 * 32 MiB. Elsewhere it does nothing.
 */
const LESSON_LENGTH = 31 * 1024 * 1024;
/** Who reads less than this in all has nothing to gain. */
const LESSON_DUE = 16 * 1024 * 1024;

/** Bytes of results made in this process until the lesson was given. */
let made = 0;

export class ResultMemory {
  #slab = Buffer.alloc(0);
  #slabUsed = 0;

  /** Memory for the result of a read, every byte of which will be written. */
  readonly allocate = (length: number): Buffer<ArrayBuffer> => {
    if (length > POOLED_LENGTH) return makeBuffer(length);
    if (this.#slabUsed + length > this.#slab.length) {
      this.#slab = makeBuffer(SLAB_LENGTH);
      this.#slabUsed = 0;
    }
    const start = this.#slabUsed;
    // Multiples of 8, so that any typed array can be laid over a result.
    this.#slabUsed = (start + length + 7) & ~7;
    // A third cheaper than subarray(), which looks up what to construct.
    return Buffer.from(this.#slab.buffer, start, length);
  };
}

function makeBuffer(length: number): Buffer<ArrayBuffer> {
  if (made < LESSON_DUE) {
    made += length;
    if (made >= LESSON_DUE) Buffer.allocUnsafeSlow(LESSON_LENGTH);
  }
  return Buffer.allocUnsafeSlow(length);
}
