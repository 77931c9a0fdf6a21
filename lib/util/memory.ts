// Memory for what a server sends: large pieces that live for a moment.

/**
 * glibc gives free memory back to the system beyond twice the largest block that was ever freed, and takes it anew,
 * page fault by page fault, for the next piece: half the cost of reading 256 KiB or 1 MiB, or of a large block map.
 * Freeing one block of this length, of which no page is ever touched, sets that limit to 62 MiB; glibc does not learn
 * from blocks above 32 MiB. Elsewhere it does nothing.
 */
const TRIM_THRESHOLD_BLOCK = 31 * 1024 * 1024;
/** Bytes that this process allocates before the block is freed: below, it has nothing to gain. */
const WARM_UP_AFTER = 16 * 1024 * 1024;

/** Bytes allocated in this process, counted up to WARM_UP_AFTER. */
let allocated = 0;

/** Memory of its own, with whatever is in it. */
export function allocate(length: number): Buffer<ArrayBuffer> {
  if (allocated < WARM_UP_AFTER) {
    allocated += length;
    if (allocated >= WARM_UP_AFTER) Buffer.allocUnsafeSlow(TRIM_THRESHOLD_BLOCK);
  }
  return Buffer.allocUnsafeSlow(length);
}
