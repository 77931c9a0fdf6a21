// How much is in flight: as much as pays, so that depth hides latency, and a fast server is not drowned.
//
// Over a long link the beginning decides: a copy of a GiB takes ten round trips. So the first phase, the opening, goes by
// the time that requests take. While they come back about as soon as the quickest one did, none of them waits in a queue,
// and more may be in flight. Afterwards, and where requests are quick, the bytes in flight are doubled while that raises
// the throughput measurably, and halved again when it does not.

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
/** A server that answers within this many milliseconds is near: what is in flight at the start hides them. */
const NEAR = 4;
/** A request that takes less than this many times the quickest one has not waited in a queue: the rest is noise. */
const PROMPT = 1.5;
/** One that takes more than this has waited as long as a round trip takes. */
const QUEUED = 2;
/** Of the first requests of a process a part of the time is the process's own; they do not let more go out. */
const COLD = 4;
/** For each prompt request this many go out, so that the bytes in flight are multiplied by it in a round trip. */
const OPENING_FACTOR = 4;
/** The opening ends here: what more would bring has to be measured, since it costs memory. */
const OPENING_MOST = 128 * 1024 * 1024;
/**
 * Bytes per millisecond: no process here moves more, so that what is in flight need not be more than this in the time of
 * the quickest request. Memory that is new to the process costs as much as reading into it.
 */
const FASTEST = 4 * 1024 * 1024;
/** Milliseconds from its start in which a process becomes faster by itself, while V8 compiles: nothing is measured. */
const WARM_AT = 1500;
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
  /** Requests move no data through this process: as much as possible may be in flight at once. */
  readonly isWeightless?: boolean;
  /** Milliseconds. For specs. */
  readonly clock?: (() => number) | undefined;
}

/** When a request began, and how many bytes were wanted in flight then. */
export interface Begun {
  readonly at: number;
  readonly wanted: number;
  /** Milliseconds; null until {@link InFlight.arrived}, which is for what is looked at later than it arrives. */
  took: number | null;
  /** For streams: something has waited for this one or for one before it. */
  isAwaited: boolean;
}

export class InFlight {
  readonly #base: number;
  readonly #longest: number;
  readonly #most: number;
  readonly #mostOpening: number;
  readonly #isFixed: boolean;
  readonly #clock: () => number;
  readonly #warmAt: number;
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
  #isOpening = true;
  #answered = 0;
  readonly #first: number;
  /** Milliseconds of the quickest request. */
  #quickest = Infinity;
  /** Bytes since the last prompt request, and of prompt requests since as much is in flight as an opening reaches. */
  #late = 0;
  #prompt = 0;

  constructor(options: InFlightOptions) {
    const { requestSize, requests = 'auto', queueSize = 'auto', start, startBytes = Infinity } = options;
    this.#base = requestSize;
    this.#longest = Math.max(Math.min(options.longestRequest ?? requestSize, LONGEST_REQUEST), requestSize);
    this.#most = queueSize === 'auto' ? Math.max(MOST_BYTES, requestSize) : queueSize;
    this.#mostOpening = options.isWeightless === true ? this.#most : Math.min(this.#most, OPENING_MOST);
    this.#isFixed = requests !== 'auto';
    const first = requests === 'auto' ? Math.min(start, Math.floor(startBytes / requestSize)) : requests;
    this.#wanted = Math.max(Math.min(first, Math.floor(this.#most / requestSize)), 1) * requestSize;
    this.#first = this.#wanted;
    this.#before = this.#wanted;
    this.#stale = this.#wanted;
    this.#clock = options.clock ?? ((): number => performance.now());
    this.#warmAt = options.clock === undefined ? WARM_AT : 0;
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

  /** A request begins. */
  begin(): Begun {
    return { at: this.#clock(), wanted: this.#wanted, took: null, isAwaited: false };
  }

  arrived(begun: Begun): void {
    begun.took = this.#clock() - begun.at;
  }

  /**
   * A request has moved this many bytes. `begun` is left out where the time that it took shows nothing, because fewer
   * requests were in flight than might have been.
   */
  moved(bytes: number, begun?: Begun): void {
    if (this.#isFixed || bytes === 0) return;
    const now = this.#clock();
    if (this.#isOpening && begun !== undefined) this.#open(bytes, begun, now);
    else this.#measure(bytes, now);
  }

  #open(bytes: number, begun: Begun, now: number): void {
    const took = begun.took ?? now - begun.at;
    this.#quickest = Math.min(this.#quickest, took);
    const most = Math.min(this.#mostOpening, Math.max(this.#quickest * FASTEST, this.#first));
    if (this.#quickest < NEAR || this.#first >= most) {
      // However much more went out while the process itself was slow.
      this.#endOpening(this.#first);
    } else if (took <= this.#quickest * PROMPT) {
      this.#late = 0;
      if (++this.#answered <= COLD) return;
      if (this.#wanted < most) {
        this.#wanted = Math.min(this.#wanted + bytes * (OPENING_FACTOR - 1), most);
        return;
      }
      this.#prompt += bytes;
      if (this.#prompt < most) return;
      this.#endOpening(most);
      this.#restsUntil = now + this.#pause;
    } else {
      this.#late += bytes;
      if (this.#late < this.#wanted) return;
      // What a queue holds is not under way: with less in flight the throughput is the same.
      const enough = took > this.#quickest * QUEUED ? (QUEUED * begun.wanted * this.#quickest) / took : Infinity;
      this.#endOpening(Math.min(Math.max(enough, this.#first), this.#wanted));
    }
  }

  #endOpening(wanted: number): void {
    this.#isOpening = false;
    this.#wanted = wanted;
    this.#before = wanted;
    this.#stale = wanted;
  }

  #measure(bytes: number, now: number): void {
    if (now < this.#restsUntil) return;
    if (this.#stale > 0 || now < this.#warmAt) {
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
