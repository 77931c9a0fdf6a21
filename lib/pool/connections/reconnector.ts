// The attempts to come back when no connection is left: pauses that grow, the next target in turn, an end in time.

import { NbdConnectionError } from '../../errors.js';
import type { Complete } from '../../util/option-checks.js';
import { refTimer, unrefTimer } from '../../util/timers.js';
import type { Opened, Opener } from './opener.js';
import type { ReconnectOptions } from '../options.js';

/** What the attempts lead to. */
export interface ReconnectOwner {
  /** A connection is there; the attempts are over. */
  reconnected(opened: Opened, attempts: number): void;
  /** The time is over, or a single round has failed; `attempts` in all. */
  gaveUp(error: unknown, attempts: number): void;
}

export class Reconnector {
  readonly #opener: Opener;
  readonly #limits: Complete<ReconnectOptions>;
  readonly #owner: ReconnectOwner;
  #aborter: AbortController | null = null;
  #timer: NodeJS.Timeout | null = null;
  #wake: (() => void) | null = null;
  #isReferenced = true;
  #tooLate: NbdConnectionError | null = null;
  /** Attempts since a command has last succeeded. */
  #failures = 0;

  constructor(opener: Opener, limits: Complete<ReconnectOptions>, owner: ReconnectOwner) {
    this.#opener = opener;
    this.#limits = limits;
    this.#owner = owner;
  }

  get isRunning(): boolean {
    return this.#aborter !== null;
  }

  /** Tries until it succeeds or `within` is over. */
  start(): void {
    void this.#run(performance.now() + this.#limits.within, false);
  }

  /** Tries each target once, now. */
  once(): void {
    void this.#run(performance.now(), true);
  }

  /** A command has succeeded: the next loss is a new one. */
  succeeded(): void {
    this.#failures = 0;
  }

  stop(): void {
    this.#aborter?.abort();
    this.#aborter = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#wake?.();
  }

  /** Whether a pause keeps the process alive. */
  setReferenced(isReferenced: boolean): void {
    this.#isReferenced = isReferenced;
    if (this.#timer === null) return;
    if (isReferenced) refTimer(this.#timer);
    else unrefTimer(this.#timer);
  }

  async #run(deadline: number, isOneRound: boolean): Promise<void> {
    const aborter = new AbortController();
    const { signal } = aborter;
    this.#aborter = aborter;
    let error: unknown;
    let attempts = 0;
    const isOver = (): boolean =>
      isOneRound ? attempts >= this.#opener.targets.length : performance.now() >= deadline;
    do {
      if (!isOneRound) await this.#pause(Math.max(0, deadline - performance.now()));
      if (signal.aborted) return;
      if (attempts > 0 && isOver()) break;
      attempts++;
      // Also a connection that is made counts as a failure until something has succeeded on it.
      this.#failures++;
      try {
        const opened = await this.#attempt(signal, isOneRound ? Infinity : deadline);
        // Before the owner is called: it may start anew from within.
        this.#aborter = null;
        this.#owner.reconnected(opened, attempts);
        return;
      } catch (failure) {
        if (aborter !== this.#aborter) return;
        // The error of an attempt that was cut short is less helpful than that of one that failed by itself.
        if (error === undefined || failure !== this.#tooLate) error = failure;
      }
    } while (!isOver());
    this.#aborter = null;
    this.#owner.gaveUp(error, attempts);
  }

  /** One attempt, which the deadline cuts short. */
  async #attempt(outer: AbortSignal, deadline: number): Promise<Opened> {
    const attempt = new AbortController();
    const onAbort = (): void => {
      attempt.abort(outer.reason);
    };
    outer.addEventListener('abort', onAbort);
    const left = deadline - performance.now();
    const onTime = (): void => {
      const why = 'the last attempt had not come to an end when the time was over (reconnect.within)';
      this.#tooLate = new NbdConnectionError(why, { code: 'ETIMEDOUT', syscall: 'connect' });
      attempt.abort(this.#tooLate);
    };
    const timer = left === Infinity ? null : setTimeout(onTime, Math.max(1, left));
    try {
      const opened = await this.#opener.next(attempt.signal);
      if (!attempt.signal.aborted) return opened;
      opened.connection.close();
      throw attempt.signal.reason;
    } finally {
      if (timer !== null) clearTimeout(timer);
      outer.removeEventListener('abort', onAbort);
    }
  }

  /** Doubles with every failure; half of it is random, so that many clients of one server do not come at once. */
  #pause(left: number): Promise<void> {
    const { minDelay, maxDelay } = this.#limits;
    const longest = Math.min(maxDelay, minDelay * 2 ** Math.min(this.#failures, 30));
    const delay = Math.min(left, longest * (0.5 + Math.random() / 2));
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        this.#timer = null;
        resolve();
      };
      this.#timer = setTimeout(this.#wake, delay);
      if (!this.#isReferenced) unrefTimer(this.#timer);
    });
  }
}
