// The ranges of writes, cheap to add to: additions are collected, then sorted and joined in lots. They are kept in typed
// arrays, because an object for each write that is not flushed soon would move to V8's old generation.
// Invariant: it never holds less than what was added; beyond `limit` ranges it joins the nearest neighbours, so that it
// may hold more.

import type { ByteRange } from '../../errors.js';
import { add, fromBigInt, type U64 } from '../../util/u64.js';

/** Ranges that are kept at most. */
export const MOST_RANGES = 65_536;
/** Additions that are sorted in at a time, at least. */
const LOT = 4096;
const FIRST_CAPACITY = 16;

/** Offsets in bytes: bigints once one of them has exceeded 2^53 - 1. */
type Offsets = Float64Array | BigUint64Array;

const NONE = new Float64Array(0);

export class WrittenRanges {
  readonly #limit: number;
  #isWide = false;
  /** Where each range starts and ends: sorted, disjoint and apart from each other. */
  #starts: Offsets = NONE;
  #ends: Offsets = NONE;
  /** The same of the additions that have not been sorted in, in any order. */
  #lotStarts: Offsets = NONE;
  #lotEnds: Offsets = NONE;
  #lotLength = 0;

  constructor(limit = MOST_RANGES) {
    this.#limit = limit;
  }

  get isEmpty(): boolean {
    return this.#lotLength === 0 && this.#starts.length === 0;
  }

  /** Adds [start, start + length); nothing where the length is 0. */
  add(start: U64, length: U64): void {
    if (length <= 0) return;
    const end = add(start, length);
    if (typeof end === 'bigint' && !this.#isWide) this.#widen();
    const last = this.#lotLength - 1;
    // What follows on what was added last, as in a copy, is the same range.
    if (last >= 0 && start >= at(this.#lotStarts, last) && start <= at(this.#lotEnds, last)) {
      if (end > at(this.#lotEnds, last)) put(this.#lotEnds, last, end);
      return;
    }
    // Places that are written again and again cost a search, not a place in the next lot.
    if (this.#covers(start, end)) return;
    if (this.#lotLength === this.#lotStarts.length) this.#grow();
    put(this.#lotStarts, this.#lotLength, start);
    put(this.#lotEnds, this.#lotLength++, end);
    // A longer list is gone through less often.
    if (this.#lotLength >= Math.max(LOT, this.#starts.length >> 2)) this.#settle();
  }

  /** Whether [start, end) is within one of the sorted ranges. */
  #covers(start: U64, end: U64): boolean {
    const starts = this.#starts;
    let low = 0;
    let high = starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (at(starts, middle) <= start) low = middle + 1;
      else high = middle;
    }
    return low > 0 && at(this.#ends, low - 1) >= end;
  }

  addAll(other: WrittenRanges): void {
    other.#settle();
    const { length } = other.#starts;
    for (let i = 0; i < length; i++) {
      const start = BigInt(at(other.#starts, i));
      this.add(fromBigInt(start), fromBigInt(BigInt(at(other.#ends, i)) - start));
    }
  }

  /** How many ranges there are. */
  get size(): number {
    this.#settle();
    return this.#starts.length;
  }

  /** In order, none touching another. */
  ranges(): ByteRange[] {
    this.#settle();
    return Array.from(this.#starts as ArrayLike<U64>, (start, i) => ({
      offset: BigInt(start),
      length: BigInt(at(this.#ends, i)) - BigInt(start),
    }));
  }

  #grow(): void {
    const capacity = Math.max(FIRST_CAPACITY, this.#lotLength * 2);
    this.#lotStarts = lengthened(this.#lotStarts, capacity, this.#isWide);
    this.#lotEnds = lengthened(this.#lotEnds, capacity, this.#isWide);
  }

  #widen(): void {
    this.#isWide = true;
    this.#starts = wide(this.#starts);
    this.#ends = wide(this.#ends);
    this.#lotStarts = wide(this.#lotStarts);
    this.#lotEnds = wide(this.#lotEnds);
  }

  #settle(): void {
    if (this.#lotLength === 0) return;
    const starts = merged(this.#starts, this.#lotStarts.subarray(0, this.#lotLength).sort(), this.#isWide);
    const ends = merged(this.#ends, this.#lotEnds.subarray(0, this.#lotLength).sort(), this.#isWide);
    this.#lotLength = 0;
    // Starts and ends are sorted by themselves: where the next start lies behind an end, as many ranges have started as
    // have ended, and none is open there.
    let length = 0;
    let begin = at(starts, 0);
    for (let i = 0; i < starts.length; i++) {
      const end = at(ends, i);
      const next = i + 1 < starts.length ? at(starts, i + 1) : null;
      if (next !== null && next <= end) continue;
      put(starts, length, begin);
      put(ends, length++, end);
      if (next !== null) begin = next;
    }
    if (length > this.#limit) length = joinNearest(starts, ends, length, (this.#limit * 3) >> 2);
    this.#starts = starts.slice(0, length);
    this.#ends = ends.slice(0, length);
  }
}

const at = (offsets: Offsets, index: number): U64 => offsets[index] as U64;

function put(offsets: Offsets, index: number, value: U64): void {
  if (typeof offsets[index] === 'number') offsets[index] = value;
  else offsets[index] = BigInt(value);
}

const made = (length: number, isWide: boolean): Offsets =>
  isWide ? new BigUint64Array(length) : new Float64Array(length);

const wide = (offsets: Offsets): BigUint64Array => BigUint64Array.from(offsets as ArrayLike<U64>, BigInt);

function lengthened(offsets: Offsets, length: number, isWide: boolean): Offsets {
  const longer = made(length, isWide);
  // The compiler does not know that both are of one kind.
  (longer as Float64Array).set(offsets as Float64Array);
  return longer;
}

/** Two sorted lists as one. */
function merged(a: Offsets, b: Offsets, isWide: boolean): Offsets {
  const all = made(a.length + b.length, isWide);
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    const takesA = j === b.length || (i < a.length && at(a, i) <= at(b, j));
    put(all, i + j, takesA ? at(a, i) : at(b, j));
    if (takesA) i++;
    else j++;
  }
  return all;
}

/** Closes the smallest gaps until there are `most` ranges; returns their number. */
function joinNearest(starts: Offsets, ends: Offsets, length: number, most: number): number {
  const gaps = new Float64Array(length).fill(Infinity);
  for (let i = 1; i < length; i++) gaps[i] = Number(BigInt(at(starts, i)) - BigInt(at(ends, i - 1)));
  const surplus = length - most;
  const widest = gaps.slice().sort()[surplus - 1] ?? Infinity;
  // Of gaps that are as wide as the widest, as many as it takes.
  let left = surplus - gaps.filter((gap) => gap < widest).length;
  let joined = 0;
  for (let i = 0; i < length; i++) {
    const gap = gaps[i] as number;
    if (joined === 0 || gap > widest || (gap === widest && left-- <= 0)) {
      put(starts, joined, at(starts, i));
      put(ends, joined++, at(ends, i));
    } else {
      put(ends, joined - 1, at(ends, i));
    }
  }
  return joined;
}
