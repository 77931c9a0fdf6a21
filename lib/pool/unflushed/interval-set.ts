// A set of bytes as sorted, disjoint intervals, cheap to add to: additions are collected and sorted in lots.
// Invariant: it never holds less than what was added; beyond `limit` intervals it joins the nearest neighbours, so that
// it may hold more.

import type { ByteRange } from '../../errors.js';
import { add, type U64 } from '../../util/u64.js';

/** Intervals that a set has at most. */
export const MOST_INTERVALS = 65_536;
/** Additions that are sorted in at a time, at least. */
const LOT = 4096;

interface Interval {
  start: U64;
  end: U64;
}

const byStart = (a: Interval, b: Interval): number => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0);

export class IntervalSet {
  readonly #limit: number;
  /** Sorted, disjoint and apart from each other. */
  #sorted: Interval[] = [];
  #lot: Interval[] = [];
  #last: Interval | null = null;

  constructor(limit = MOST_INTERVALS) {
    this.#limit = limit;
  }

  get isEmpty(): boolean {
    return this.#last === null;
  }

  /** Adds [start, start + length); nothing where the length is 0. */
  add(start: U64, length: U64): void {
    if (length <= 0) return;
    const end = add(start, length);
    const last = this.#last;
    // What follows on what was added last, as in a copy, is the same interval.
    if (last !== null && start >= last.start && start <= last.end) {
      if (end > last.end) last.end = end;
      return;
    }
    // Places that are written again and again cost a search, not a place in the next lot.
    if (this.#covers(start, end)) return;
    this.#last = { start, end };
    this.#lot.push(this.#last);
    // A longer list is gone through less often.
    if (this.#lot.length >= Math.max(LOT, this.#sorted.length >> 2)) this.#settle();
  }

  /** Whether [start, end) is within one of the sorted intervals. */
  #covers(start: U64, end: U64): boolean {
    const sorted = this.#sorted;
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((sorted[middle] as Interval).start <= start) low = middle + 1;
      else high = middle;
    }
    return low > 0 && (sorted[low - 1] as Interval).end >= end;
  }

  addAll(other: IntervalSet): void {
    other.#settle();
    for (const { start, end } of other.#sorted) {
      this.#last = { start, end };
      this.#lot.push(this.#last);
    }
    this.#settle();
  }

  clear(): void {
    this.#sorted = [];
    this.#lot = [];
    this.#last = null;
  }

  /** How many intervals there are. */
  get size(): number {
    this.#settle();
    return this.#sorted.length;
  }

  /** In order, none touching another. */
  ranges(): ByteRange[] {
    this.#settle();
    return this.#sorted.map(({ start, end }) => ({ offset: BigInt(start), length: BigInt(end) - BigInt(start) }));
  }

  #settle(): void {
    if (this.#lot.length === 0) return;
    const lot = this.#lot.sort(byStart);
    const old = this.#sorted;
    const joined: Interval[] = [];
    let last: Interval | null = null;
    for (let i = 0, j = 0; i < old.length || j < lot.length;) {
      const a = old[i];
      const b = lot[j];
      const next = (b === undefined || (a !== undefined && a.start <= b.start) ? old[i++] : lot[j++]) as Interval;
      if (last !== null && next.start <= last.end) {
        if (next.end > last.end) last.end = next.end;
      } else {
        last = next;
        joined.push(next);
      }
    }
    this.#lot = [];
    this.#sorted = joined.length > this.#limit ? joinNearest(joined, (this.#limit * 3) >> 2) : joined;
    // What comes next may not grow an interval that has neighbours.
    this.#last = { start: 0, end: -1 };
  }
}

/** `most` intervals: the smallest gaps are closed. */
function joinNearest(intervals: readonly Interval[], most: number): Interval[] {
  const gaps = intervals.map(({ start }, i) => {
    const before = intervals[i - 1];
    return before === undefined ? Infinity : Number(BigInt(start) - BigInt(before.end));
  });
  const surplus = intervals.length - most;
  const widest = Float64Array.from(gaps).sort()[surplus - 1] ?? Infinity;
  // Of gaps that are as wide as the widest, as many as it takes.
  let left = surplus - gaps.filter((gap) => gap < widest).length;
  const joined: Interval[] = [];
  intervals.forEach((interval, i) => {
    const gap = gaps[i] as number;
    const last = joined.at(-1);
    if (last === undefined || gap > widest || (gap === widest && left-- <= 0)) joined.push(interval);
    else last.end = interval.end;
  });
  return joined;
}
