// The extents of one metadata context: an iterable view of the flat pairs of a reply.

/** One extent: a run of bytes with the same status. Lengths and flags are bigint in the 64-bit calls. */
export interface Extent<N extends number | bigint = number> {
  /** Offset of the first byte in the export. */
  readonly offset: bigint;
  /** Number of bytes, at least 1. */
  readonly length: N;
  /** Flags as the context defines them: `STATE_HOLE | STATE_ZERO` for `base:allocation`. */
  readonly flags: N;
}

/**
 * The extents that a block status reported for one context, in order and without gaps. Iterating creates one
 * {@link Extent} at a time, so that a map of a million extents does not take a million objects.
 */
export class Extents<N extends number | bigint = number> implements Iterable<Extent<N>> {
  /** Offset of the first extent in the export. */
  readonly offset: bigint;
  /** The extents as flat (length, flags) pairs. */
  readonly entries: N extends number ? Uint32Array : BigUint64Array;

  /** Creates a view of `entries`; the array is not copied. */
  constructor(offset: bigint, entries: N extends number ? Uint32Array : BigUint64Array) {
    this.offset = offset;
    this.entries = entries;
  }

  /** Number of extents. */
  get length(): number {
    return this.entries.length / 2;
  }

  /** Yields the extents in order. */
  *[Symbol.iterator](): IterableIterator<Extent<N>> {
    const entries = this.entries as unknown as ArrayLike<N>;
    let offset = this.offset;
    for (let i = 0; i + 1 < entries.length; i += 2) {
      const length = entries[i] as N;
      yield { offset, length, flags: entries[i + 1] as N };
      offset += BigInt(length);
    }
  }
}
