// A mutable map of status flags over an export: sorted runs in canonical form, in which neighbours always differ. Users
// serve it as a metadata context, for example a dirty bitmap; a memory backend tracks zeroed ranges with it.

import { add, type U64 } from '../../util/u64.js';
import type { BackendExtent } from './backend.js';

/**
 * Flags over the range 0 to `size`. Setting takes time proportional to the number of runs: suitable for thousands of
 * runs, not for millions.
 *
 * @example
 * const dirty = new ExtentMap(backend.size);
 * dirty.set(65536, 4096, 1);
 * new NbdServer({ exports: { '': { backend, metaContexts: { 'qemu:dirty-bitmap:b0': dirty } } } });
 */
export class ExtentMap {
  /** Number of bytes that the map covers. */
  readonly size: U64;
  // Run i goes from #starts[i] to #starts[i + 1], the last one to size.
  #starts: U64[];
  #flags: (number | bigint)[];

  /** Creates a map of `size` bytes whose flags are all `initial`. Default 0. */
  constructor(size: number | bigint, initial: number | bigint = 0) {
    this.size = add(size, 0);
    this.#starts = [0];
    this.#flags = [initial];
  }

  /** Sets the flags of `count` bytes from `offset` on; bytes beyond the size are ignored. */
  set(offset: number | bigint, count: number | bigint, flags: number | bigint): void {
    const start = add(offset, 0);
    const end = min(add(offset, count), this.size);
    if (start >= end) return;
    const first = this.#find(start);
    const last = this.#find(end);
    const startsHere = this.#starts[first] === start;
    // The runs before the range, the range, and the rest of the run that it ends in.
    const keepLeft = startsHere ? first : first + 1;
    const tailFlags = this.#flags[last] ?? 0;
    const endsOnStart = end === this.size || this.#starts[last] === end;
    const starts: U64[] = [start];
    const values: (number | bigint)[] = [flags];
    if (!endsOnStart) {
      starts.push(end);
      values.push(tailFlags);
    }
    const keepRight = end === this.size ? this.#starts.length : endsOnStart ? last : last + 1;
    this.#starts.splice(keepLeft, keepRight - keepLeft, ...starts);
    this.#flags.splice(keepLeft, keepRight - keepLeft, ...values);
    this.#join(keepLeft - 1, keepLeft + starts.length + 1);
  }

  /** Yields the runs of `count` bytes from `offset` on, limited to that range. */
  *extents(offset: number | bigint, count: number | bigint): Generator<BackendExtent, void> {
    const end = min(add(offset, count), this.size);
    let at: U64 = add(offset, 0);
    for (let i = this.#find(at); at < end; i += 1) {
      const next = min(this.#starts[i + 1] ?? this.size, end);
      yield { length: subtract(next, at), flags: this.#flags[i] ?? 0 };
      at = next;
    }
  }

  /** Index of the run that contains `offset`. */
  #find(offset: number | bigint): number {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#starts[middle] ?? 0) <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Joins runs from `from` to `to` with an equal predecessor. */
  #join(from: number, to: number): void {
    for (let i = Math.min(to, this.#starts.length - 1); i > Math.max(from, 0); i -= 1) {
      if (this.#flags[i] === this.#flags[i - 1]) {
        this.#starts.splice(i, 1);
        this.#flags.splice(i, 1);
      }
    }
  }
}

const min = (a: U64, b: U64): U64 => (a < b ? a : b);

/** a - b for a >= b, in canonical form. */
export function subtract(a: U64, b: U64): U64 {
  return typeof a === 'number' && typeof b === 'number' ? a - b : add(BigInt(a) - BigInt(b), 0);
}
