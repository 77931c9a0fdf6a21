// How much is in flight: as much as pays. The bytes in flight are doubled while that raises the throughput measurably,
// and halved again when it does not, so that depth hides latency, and a fast server is not drowned.

import { oneOf, type OptionCheck, wholeNumber } from '../util/option-checks.js';

/** A number, or `'auto'`. */
export type CountOrAuto = number | 'auto';

export const aCountOrAuto: OptionCheck<CountOrAuto> = (where, value) =>
  typeof value === 'string' ? oneOf('auto')(where, value) : wholeNumber(1)(where, value);

/** The most bytes that are tried. */
const MOST_BYTES = 256 * 1024 * 1024;
/** A connection sends this many commands at a time unless it was set to more: beyond it, requests are made longer. */
const MOST_COMMANDS = 64;
/** Longer requests hold up the replies behind them, and cost memory for each that is short. */
const LONGEST_REQUEST = 4 * 1024 * 1024;
/** A throughput is higher when it is higher by this factor: less is noise. */
const GAIN = 1.15;
/** A measurement takes this many milliseconds at least, and this many times the bytes in flight. */
const SHORTEST = 100;
const TURNS = 4;
/** Milliseconds until more is tried again, the first time and at most: links and servers change. */
const FIRST_PAUSE = 10_000;
const LONGEST_PAUSE = 300_000;

export interface InFlightOptions {
  /** Bytes of one request. */
  readonly requestSize: number;
  /** The longest request that the ends take; those that the caller has set do not grow. */
  readonly longestRequest?: number | undefined;
  /** What the caller has set. */
  readonly requests?: CountOrAuto | undefined;
  readonly queueSize?: CountOrAuto | undefined;
  /** Requests in flight at the start, and the most bytes of them. */
  readonly start: number;
  readonly startBytes?: number | undefined;
  /** Milliseconds. For specs. */
  readonly clock?: (() => number) | undefined;
}

export class InFlight {
  readonly #base: number;
  readonly #longest: number;
  readonly #most: number;
  readonly #isFixed: boolean;
  readonly #clock: () => number;
  /** Bytes that are wanted in flight. */
  #wanted: number;
  #before: number;
  /** Bytes per millisecond; 0 before the first measurement. */
  #best = 0;
  /** Bytes that are still under way from before a change, and are not measured. */
  #stale: number;
  #begun = 0;
  #measured = 0;
  #restsUntil = 0;
  #pause = FIRST_PAUSE;

  constructor(options: InFlightOptions) {
    const { requestSize, requests = 'auto', queueSize = 'auto', start, startBytes = Infinity } = options;
    this.#base = requestSize;
    this.#longest = Math.max(Math.min(options.longestRequest ?? requestSize, LONGEST_REQUEST), requestSize);
    this.#most = queueSize === 'auto' ? Math.max(MOST_BYTES, requestSize) : queueSize;
    this.#isFixed = requests !== 'auto';
    const first = requests === 'auto' ? Math.min(start, Math.floor(startBytes / requestSize)) : requests;
    this.#wanted = Math.max(Math.min(first, Math.floor(this.#most / requestSize)), 1) * requestSize;
    this.#before = this.#wanted;
    this.#stale = this.#wanted;
    this.#clock = options.clock ?? ((): number => performance.now());
  }

  /** Requests in flight. */
  get limit(): number {
    return Math.max(Math.floor(this.#wanted / this.requestSize), 1);
  }

  /** Bytes of one request: as at the start, times a power of two. */
  get requestSize(): number {
    let size = this.#base;
    if (this.#isFixed) return size;
    while (size * 2 <= this.#longest && size * MOST_COMMANDS < this.#wanted) size *= 2;
    return size;
  }

  /** Bytes in flight. */
  get bytes(): number {
    return this.limit * this.requestSize;
  }

  /** A request has moved this many bytes. */
  moved(bytes: number): void {
    if (this.#isFixed || bytes === 0) return;
    const now = this.#clock();
    if (now < this.#restsUntil) return;
    if (this.#stale > 0) {
      this.#stale -= bytes;
      this.#begun = now;
      this.#measured = 0;
      return;
    }
    this.#measured += bytes;
    const elapsed = now - this.#begun;
    if (elapsed < SHORTEST || this.#measured < TURNS * this.#wanted) return;
    this.#decide(this.#measured / elapsed, now);
  }

  #decide(rate: number, now: number): void {
    const isBetter = rate > this.#best * GAIN;
    if (isBetter && this.#wanted * 2 <= this.#most) {
      this.#best = rate;
      this.#before = this.#wanted;
      this.#wanted *= 2;
    } else {
      if (!isBetter) this.#wanted = this.#before;
      this.#before = this.#wanted;
      this.#best = 0;
      this.#restsUntil = now + this.#pause;
      this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
    }
    this.#stale = this.#wanted;
  }
}
