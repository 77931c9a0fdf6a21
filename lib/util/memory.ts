// Memory for data from a server: large blocks with short lives.

import { Buffer, type OwnBuffer } from './buffer.js';

/**
 * glibc returns free memory to the system beyond twice the largest block that was ever freed, and gets it back page
 * fault by page fault for the next block: half the cost of reading 256 KiB or 1 MiB, or of a large block map. Freeing
 * one block of this length, whose pages are never touched, raises that threshold (M_TRIM_THRESHOLD, mallopt(3)) to
 * 62 MiB; blocks above 32 MiB have no effect. With other C libraries this does nothing.
 */
const TRIM_THRESHOLD_BLOCK = 31 * 1024 * 1024;
/** Done once this process has allocated this many bytes in total: with less there is nothing to gain. */
const WARM_UP_AFTER = 16 * 1024 * 1024;

/** Bytes allocated so far; not counted any further once the block has been freed. */
let allocated = 0;

/** Uninitialised memory that is not shared with other buffers. */
export function allocate(length: number): OwnBuffer {
  if (allocated < WARM_UP_AFTER) {
    allocated += length;
    if (allocated >= WARM_UP_AFTER) Buffer.allocUnsafeSlow(TRIM_THRESHOLD_BLOCK);
  }
  return Buffer.allocUnsafeSlow(length);
}
