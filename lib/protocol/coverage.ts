// Tracks which bytes of a read have arrived. Overlaps are refused, so that the sum of the accepted lengths equals the
// read's length only if every byte has arrived: a chunk sent twice cannot hide a missing one.

/** Chunks in order cost one comparison; the first one out of order creates a bitmap with one bit per byte. */
export class Coverage {
  readonly #length: number;
  #covered = 0;
  #bits: Uint32Array | null = null;

  constructor(length: number) {
    this.#length = length;
  }

  get isComplete(): boolean {
    return this.#covered === this.#length;
  }

  get covered(): number {
    return this.#covered;
  }

  /** Adds [start, start + length), which must lie within the read; false if any byte of it had already arrived. */
  add(start: number, length: number): boolean {
    if (this.#bits === null) {
      if (start === this.#covered) {
        this.#covered += length;
        return true;
      }
      if (start < this.#covered) return false;
      this.#bits = new Uint32Array((this.#length + 31) >>> 5);
      this.#mark(this.#bits, 0, this.#covered);
    }
    if (!this.#mark(this.#bits, start, length)) return false;
    this.#covered += length;
    return true;
  }

  #mark(bits: Uint32Array, start: number, length: number): boolean {
    const end = start + length;
    let clean = true;
    for (let at = start; at < end;) {
      const word = at >>> 5;
      const from = at & 31;
      const count = Math.min(32 - from, end - at);
      const mask = count === 32 ? 0xffff_ffff : ((1 << count) - 1) << from;
      const before = bits[word] ?? 0;
      if ((before & mask) !== 0) clean = false;
      bits[word] = before | mask;
      at += count;
    }
    return clean;
  }
}
