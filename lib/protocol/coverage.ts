// Which bytes of a read have arrived. Overlaps are refused, so the sum of what was accepted equals the read's
// length only when every byte is there: a chunk sent twice cannot hide a missing one.

/** In-order chunks cost one comparison; the first one out of order brings in a bitmap, a bit per byte. */
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

  /** Takes [start, start + length), which lies within the read; false if a byte of it had arrived before. */
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
