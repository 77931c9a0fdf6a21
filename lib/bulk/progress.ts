// How far whole-export work has come: what `onProgress` gets.

import { report } from './lanes.js';

/** How much of a whole export has been gone through. */
export interface Progress {
  /** Bytes that are done, those known to be zero included. */
  readonly done: bigint;
  /** Bytes in all. */
  readonly total: bigint;
  /** The highest offset reached; pieces below it may still be in flight. */
  readonly at: bigint;
  /** Bytes moved per second, as an average of the last five seconds. Zeroes that are not moved do not count. */
  readonly rate: number;
  /** Milliseconds left, estimated from the average since the beginning; null while there is nothing to estimate from. */
  readonly eta: number | null;
}

/** Milliseconds over which the rate is averaged, and between two samples. */
const WINDOW = 5000;
const SAMPLE = 100;
/** An estimate from less than this many milliseconds would jump. */
const SETTLING = 500;

interface Sample {
  readonly time: number;
  readonly moved: number;
}

/** Bytes per second, as an average of the last five seconds. */
export class MovingRate {
  readonly #samples: Sample[];
  #moved = 0;

  constructor(now: number) {
    this.#samples = [{ time: now, moved: 0 }];
  }

  /** Counts bytes that were moved since the last call, and returns the rate. */
  moved(bytes: number, now: number): number {
    this.#moved += bytes;
    const samples = this.#samples;
    while (samples.length > 1 && (samples[1] as Sample).time <= now - WINDOW) samples.shift();
    const first = samples[0] as Sample;
    const rate = now > first.time ? ((this.#moved - first.moved) * 1000) / (now - first.time) : 0;
    if (now - (samples.at(-1) as Sample).time >= SAMPLE) samples.push({ time: now, moved: this.#moved });
    return rate;
  }
}

export class ProgressMeter {
  readonly #onProgress: ((progress: Progress) => unknown) | undefined;
  readonly #total: bigint;
  readonly #clock: () => number;
  readonly #begun: number;
  /** Done by an earlier run, which does not count for the speed of this one. */
  readonly #before: bigint;
  readonly #rate: MovingRate;
  /** Moved since the rate was last computed. */
  #moved = 0;
  #at: bigint;

  constructor(
    onProgress: ((progress: Progress) => unknown) | undefined,
    { total, at, before = 0n }: { readonly total: bigint; readonly at: bigint; readonly before?: bigint },
    clock = (): number => performance.now(),
  ) {
    this.#onProgress = onProgress;
    this.#total = total;
    this.#at = at;
    this.#before = before;
    this.#clock = clock;
    this.#begun = clock();
    this.#rate = new MovingRate(this.#begun);
  }

  /** A piece that ends at `end` is done, `done` bytes in all; `moved` bytes of it were not only known to be zero. */
  async piece(end: bigint, done: bigint, moved: number): Promise<void> {
    if (end > this.#at) this.#at = end;
    this.#moved += moved;
    if (this.#onProgress === undefined) return;
    await report(this.#onProgress, this.#progress(done));
  }

  #progress(done: bigint): Progress {
    const now = this.#clock();
    const rate = this.#rate.moved(this.#moved, now);
    this.#moved = 0;
    return { done, total: this.#total, at: this.#at, rate, eta: this.#eta(now, done) };
  }

  #eta(now: number, done: bigint): number | null {
    const elapsed = now - this.#begun;
    const mine = Number(done - this.#before);
    if (done >= this.#total) return 0;
    if (elapsed < SETTLING || mine <= 0) return null;
    return Math.round((Number(this.#total - done) * elapsed) / mine);
  }
}
