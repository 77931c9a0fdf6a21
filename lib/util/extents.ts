// Extents of one metadata context as users read them: an iterable view over the flat pairs of a reply.

/** One extent: a run of bytes with the same status. Lengths and flags are bigint in the 64-bit calls. */
export interface Extent<N extends number | bigint = number> {
  /** First byte, from the beginning of the export. */
  readonly offset: bigint;
  /** Number of bytes, at least 1. */
  readonly length: N;
  /** The context's own bits: `STATE_HOLE | STATE_ZERO` for `base:allocation`. */
  readonly flags: N;
}

/**
 * The extents that a block status reported for one context, in order and without gaps. `entries` holds them as flat
 * (length, flags) pairs; iterating makes an {@link Extent} at a time, so that a map of a million extents costs no
 * million objects.
 */
export class Extents<N extends number | bigint = number> implements Iterable<Extent<N>> {
  /** First byte of the first extent. */
  readonly offset: bigint;
  /** Pairs of length and flags, one after the other. */
  readonly entries: N extends number ? Uint32Array : BigUint64Array;

  constructor(offset: bigint, entries: N extends number ? Uint32Array : BigUint64Array) {
    this.offset = offset;
    this.entries = entries;
  }

  /** How many extents there are. */
  get length(): number {
    return this.entries.length / 2;
  }

  /** Iterates over the extents; may be called any number of times. */
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
