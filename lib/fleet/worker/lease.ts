// The lease of a range, and its fence. Invariant: after the time until which Redis is known to keep the lease for this
// worker, less a margin, nothing is written any more: the connections are closed, and every write is checked before.

import { performance } from 'node:perf_hooks';
import { NbdError } from '../../errors.js';
import type { RangeData } from '../ranges/queued.js';

/** Why a worker stops working on a range. */
export type FenceReason = 'expired' | 'lost' | 'cancelled' | 'shutdown' | 'emptied';

const WHY: Readonly<Record<FenceReason, string>> = {
  expired: 'the lease of the range was not renewed in time',
  lost: 'another worker has the range',
  cancelled: 'the export was cancelled',
  shutdown: 'the worker is ending',
  emptied: 'Redis has lost what was planned',
};

/** When a lease was asked for, by both clocks: one that stands still while the machine does not, and one that may jump. */
export interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}

export const thisMoment = (): Moment => ({ monotonic: performance.now(), wall: Date.now() });

/** Of a lease: what lies behind it is left for requests that are under way when it ends. */
const USABLE = 0.7;

export class Lease {
  readonly job: string;
  readonly token: string;
  readonly range: RangeData;
  /** Bytes that are done, for display. */
  done = 0n;
  readonly #duration: number;
  readonly #controller = new AbortController();
  readonly #closers = new Set<() => void>();
  readonly #onExpiry: () => void;
  #from: Moment;
  #timer: NodeJS.Timeout | undefined;
  #fenced: FenceReason | null = null;
  #isOver = false;

  /** `duration` is what Redis was asked for at the moment `from`. */
  constructor(job: string, token: string, range: RangeData, duration: number, from: Moment, onExpiry: () => void) {
    this.job = job;
    this.token = token;
    this.range = range;
    this.#duration = duration;
    this.#from = from;
    this.#onExpiry = onExpiry;
    this.#watch();
  }

  /** Aborted when the worker has to stop. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why it has ended; null while it holds. */
  get fenced(): FenceReason | null {
    return this.#fenced;
  }

  /** Redis has renewed it; asked at the moment `from`. */
  renewed(from: Moment): void {
    if (this.#fenced !== null) return;
    this.#from = from;
    this.#watch();
  }

  /** Called when it ends early: closes a connection. */
  onFence(close: () => void): void {
    if (this.#fenced !== null) close();
    else this.#closers.add(close);
  }

  /** Whether it still holds, by both clocks. */
  get holds(): boolean {
    return this.#fenced === null && this.#left() > 0;
  }

  /** @throws NbdError `ESTALE` when it does not hold any more; its connections have been closed then. */
  check(): void {
    if (this.#fenced === null && this.#left() <= 0) this.#expire();
    if (this.#fenced !== null) throw this.#controller.signal.reason;
  }

  /** Stops the work at once. */
  fence(reason: FenceReason): void {
    if (this.#fenced !== null) return;
    this.#fenced = reason;
    clearTimeout(this.#timer);
    for (const close of this.#closers) close();
    this.#closers.clear();
    this.#controller.abort(
      new NbdError(`fleet: ${WHY[reason]}`, { code: 'ESTALE', syscall: 'fleet', transient: true }),
    );
  }

  /** Whether the work is over: what Redis answers about the lease does not matter any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** The work is over. */
  end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#closers.clear();
  }

  #left(): number {
    const { monotonic, wall } = this.#from;
    const passed = Math.max(performance.now() - monotonic, Date.now() - wall);
    return this.#duration * USABLE - passed;
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => {
        if (this.#left() > 0) this.#watch();
        else this.#expire();
      },
      Math.max(this.#left(), 1),
    );
  }

  #expire(): void {
    if (this.#fenced !== null) return;
    this.fence('expired');
    this.#onExpiry();
  }
}
