// The writes that servers have acknowledged and that no flush has covered since, and those that a lost connection has
// put at risk. Invariant: a write leaves here only when a flush that began after its acknowledgement has succeeded, when
// it was written again and flushed, or when its loss was reported.

import type { ByteRange } from '../../errors.js';
import type { U64 } from '../../util/u64.js';
import { WrittenRanges, MOST_RANGES } from './written-ranges.js';

/** Writes that may be gone. One for all losses between two reports. */
export class Risk {
  readonly #ranges = new WrittenRanges();
  /** What the first loss was. */
  cause: unknown = undefined;
  /** They have been written again and flushed. */
  isRestored = false;

  get isEmpty(): boolean {
    return this.isRestored || this.#ranges.isEmpty;
  }

  add(ranges: WrittenRanges, cause: unknown): void {
    if (this.#ranges.isEmpty) this.cause = cause;
    this.#ranges.addAll(ranges);
  }

  addTo(set: WrittenRanges): void {
    set.addAll(this.#ranges);
  }
}

/** The ranges of all of them, in order. */
export function rangesOf(risks: readonly Risk[]): ByteRange[] {
  const all = new WrittenRanges();
  for (const risk of risks) risk.addTo(all);
  return all.ranges();
}

/** Writes that were acknowledged between two flushes' beginnings. */
interface Segment {
  readonly number: number;
  readonly ranges: WrittenRanges;
}

export class UnflushedWrites {
  #segments: Segment[] = [{ number: 1, ranges: new WrittenRanges() }];
  #open: Segment = this.#segments[0] as Segment;
  #risk = new Risk();

  /** What is at risk now, or has been since the last report. */
  get risk(): Risk {
    return this.#risk;
  }

  /** The segment in which a write that is acknowledged now is counted. */
  get segment(): number {
    return this.#open.number;
  }

  /** A write was acknowledged. */
  acknowledged(offset: U64, length: U64): void {
    this.#open.ranges.add(offset, length);
  }

  /** A flush begins: the number of the last segment that it covers. */
  beginFlush(): number {
    const covered = this.#open;
    if (!covered.ranges.isEmpty) this.#openNext();
    return covered === this.#open ? covered.number - 1 : covered.number;
  }

  /** That flush has succeeded. */
  flushed(covered: number): void {
    this.#segments = this.#segments.filter(({ number }) => number > covered);
  }

  /** A connection was lost: whatever is unflushed is at risk. */
  lost(cause: unknown): void {
    for (const { ranges } of this.#segments) if (!ranges.isEmpty) this.#risk.add(ranges, cause);
    this.#segments = [];
    this.#openNext();
  }

  /** The risk has been reported or removed; later losses start a new one. */
  forgetRisk(risk: Risk): void {
    if (this.#risk === risk) this.#risk = new Risk();
  }

  #openNext(): void {
    this.#open = { number: this.#open.number + 1, ranges: new WrittenRanges() };
    this.#segments.push(this.#open);
    this.#bound();
  }

  /** Flushes that fail one after the other leave many segments behind: together they hold no more than one may. */
  #bound(): void {
    if (this.#segments.length < 3) return;
    const total = this.#segments.reduce((sum, { ranges }) => sum + ranges.size, 0);
    if (this.#segments.length < 64 && total <= MOST_RANGES) return;
    const closed = this.#segments.slice(0, -1);
    const last = closed.at(-1) as Segment;
    for (const { ranges } of closed.slice(0, -1)) last.ranges.addAll(ranges);
    this.#segments = [last, this.#open];
  }
}
