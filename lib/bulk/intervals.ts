// Sets of byte ranges, kept as sorted intervals that neither overlap nor touch: what of an export has been done, was
// written, or is missing.

/** Bytes from `start` up to `end`. */
export interface Span {
  readonly start: bigint;
  readonly end: bigint;
}

export class IntervalSet {
  /** Sorted; each begins behind the end of the one before. */
  readonly #spans: Span[] = [];
  #bytes = 0n;

  constructor(spans: Iterable<Span> = []) {
    for (const { start, end } of spans) this.add(start, end);
  }

  /** Number of bytes in the set. */
  get bytes(): bigint {
    return this.#bytes;
  }

  /** The intervals in order. The array is a copy. */
  get spans(): Span[] {
    return [...this.#spans];
  }

  get isEmpty(): boolean {
    return this.#spans.length === 0;
  }

  add(start: bigint, end: bigint): void {
    if (start >= end) return;
    // The first that ends at or behind the start: it may touch.
    const first = this.#firstEndingAt(start);
    let behind = first;
    let from = start;
    let until = end;
    for (let span = this.#spans[behind]; span !== undefined && span.start <= end; span = this.#spans[++behind]) {
      if (span.start < from) from = span.start;
      if (span.end > until) until = span.end;
      this.#bytes -= span.end - span.start;
    }
    this.#spans.splice(first, behind - first, { start: from, end: until });
    this.#bytes += until - from;
  }

  remove(start: bigint, end: bigint): void {
    if (start >= end) return;
    const first = this.#firstEndingAt(start);
    let behind = first;
    const left: Span[] = [];
    for (let span = this.#spans[behind]; span !== undefined && span.start < end; span = this.#spans[++behind]) {
      this.#bytes -= span.end - span.start;
      if (span.start < start) left.push({ start: span.start, end: start });
      if (span.end > end) left.push({ start: end, end: span.end });
    }
    for (const span of left) this.#bytes += span.end - span.start;
    this.#spans.splice(first, behind - first, ...left.filter((span) => span.start < span.end));
  }

  /** What of a range is in the set, in order. */
  *within(start: bigint, end: bigint): Generator<Span, void, undefined> {
    for (let at = this.#firstEndingAt(start); at < this.#spans.length; at++) {
      const span = this.#spans[at] as Span;
      if (span.start >= end) return;
      const from = span.start > start ? span.start : start;
      const until = span.end < end ? span.end : end;
      if (from < until) yield { start: from, end: until };
    }
  }

  /** What of a range is not in the set, in order. */
  *outside(start: bigint, end: bigint): Generator<Span, void, undefined> {
    let from = start;
    for (const span of this.within(start, end)) {
      if (span.start > from) yield { start: from, end: span.start };
      from = span.end;
    }
    if (from < end) yield { start: from, end };
  }

  /** Whether any byte of a range is in the set. */
  touches(start: bigint, end: bigint): boolean {
    return this.within(start, end).next().done !== true;
  }

  /** The index of the first interval that ends at `offset` or behind it. */
  #firstEndingAt(offset: bigint): number {
    let low = 0;
    let high = this.#spans.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#spans[middle] as Span).end < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
