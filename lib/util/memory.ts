// Memory for what a server sends: large pieces that live for a moment.

/**
 * glibc gives free memory back to the system beyond twice the largest block that was ever freed, and takes it anew,
 * page fault by page fault, for the next piece: half the cost of reading 256 KiB or 1 MiB, or of a large block map.
 * Freeing one block of this length, of which no page is ever touched, sets that limit to 62 MiB; glibc does not learn
 * from blocks above 32 MiB. Elsewhere it does nothing.
 */
const LESSON_LENGTH = 31 * 1024 * 1024;
/** Who takes less than this in all has nothing to gain. */
const LESSON_DUE = 16 * 1024 * 1024;

/** Bytes taken in this process until the lesson was given. */
let taken = 0;

/** Memory of its own, with whatever is in it. */
export function allocate(length: number): Buffer<ArrayBuffer> {
  if (taken < LESSON_DUE) {
    taken += length;
    if (taken >= LESSON_DUE) Buffer.allocUnsafeSlow(LESSON_LENGTH);
  }
  return Buffer.allocUnsafeSlow(length);
}
