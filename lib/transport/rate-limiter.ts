// A limit of bytes per second that several pieces of work may share. First come, first served: each caller gets the
// time at which its bytes are due, so that no timer is needed for the limiter itself.

import { addAbortListener, removeAbortListener } from '../util/abort.js';
import { wholeNumber } from '../util/option-checks.js';
import { clearTimeout, setTimeout } from '../util/timers.js';

/** Milliseconds whose bytes may pass at once after a pause. */
const BURST = 50;
/** Longest delay of Node's timers. */
const MAX_DELAY = 2 ** 31 - 1;

/**
 * Lets at most `bytesPerSecond` bytes pass, however many copies share it.
 *
 * @example
 * const night = new RateLimiter(50e6);
 * await Promise.all(disks.map(([from, to]) => copy(from, to, { rate: night })));
 */
export class RateLimiter {
  /** Bytes per second. */
  readonly bytesPerSecond: number;
  /** When the next bytes are due, on the clock of `performance.now()`. */
  #due = 0;

  /** @throws NbdStrictError `EINVAL` for what is not a whole number from 1. */
  constructor(bytesPerSecond: number) {
    this.bytesPerSecond = wholeNumber(1)('RateLimiter: bytesPerSecond', bytesPerSecond);
  }

  /** Resolves when `count` more bytes may pass. Rejects with the signal's reason, and the bytes do not count then. */
  async take(count: number, signal?: AbortSignal): Promise<void> {
    wholeNumber(0)('RateLimiter.take: count', count);
    signal?.throwIfAborted();
    const now = performance.now();
    const due = Math.max(this.#due, now - BURST);
    const cost = (count * 1000) / this.bytesPerSecond;
    this.#due = due + cost;
    try {
      for (let left = due - now; left > 0; left = due - performance.now()) {
        signal?.throwIfAborted();
        await delay(left, signal);
      }
    } catch (error) {
      this.#due -= cost;
      throw error;
    }
  }
}

function delay(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(
      () => {
        if (signal !== undefined) removeAbortListener(signal, aborted);
        resolve();
      },
      Math.min(Math.ceil(milliseconds), MAX_DELAY),
    );
    // One real listener, however many pieces wait.
    if (signal !== undefined) addAbortListener(signal, aborted);
  });
}
