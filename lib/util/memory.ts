// Memory for data from a server: large blocks with short lives.

/**
 * glibc returns free memory to the system beyond twice the largest block that was ever freed, and gets it back page
 * fault by page fault for the next block: half the cost of reading 256 KiB or 1 MiB, or of a large block map. Freeing
 * one block of this length, whose pages are never touched, raises that threshold (M_TRIM_THRESHOLD, mallopt(3)) to
 * 62 MiB; blocks above 32 MiB have no effect. With other C libraries this does nothing.
 */
const LESSON_LENGTH = 31 * 1024 * 1024;
/** Done once this process has allocated this many bytes in total: with less there is nothing to gain. */
const LESSON_DUE = 16 * 1024 * 1024;

/** Bytes allocated so far; not counted any further once the block has been freed. */
let taken = 0;

/** Uninitialised memory that is not shared with other buffers. */
export function allocate(length: number): Buffer<ArrayBuffer> {
  if (taken < LESSON_DUE) {
    taken += length;
    if (taken >= LESSON_DUE) Buffer.allocUnsafeSlow(LESSON_LENGTH);
  }
  return Buffer.allocUnsafeSlow(length);
}
