// How many connections a pool has: one more when all are busy and another command comes, within what the server takes;
// fewer when they have been idle for a while. One at a time in either direction.

import { unrefTimer } from '../../util/timers.js';

/** What the sizing is about. */
export interface SizingOwner {
  /** Makes one more connection; false, or a rejection, when it did not come. */
  grow(signal: AbortSignal): Promise<boolean>;
  /**
   * Looks at the connections and closes one that was idle at that many looks in a row. Returns false when none can be
   * closed, now or later.
   */
  shrink(looks: number): boolean;
}

/** After a connection did not come, the next one is tried no sooner than this, then after twice as long. */
const FIRST_PENALTY = 5_000;
const LONGEST_PENALTY = 300_000;
/** A connection is dismissed when it was idle at four looks: after half a minute. */
const LOOK = 7_500;
const LOOKS = 4;

export class Sizing {
  readonly #owner: SizingOwner;
  #aborter: AbortController | null = null;
  #penalty: NodeJS.Timeout | null = null;
  #penaltyTime = FIRST_PENALTY;
  #idleTimer: NodeJS.Timeout | null = null;
  /** Read for every command. */
  mayGrow = true;

  constructor(owner: SizingOwner) {
    this.#owner = owner;
  }

  /** All are busy, and there are fewer than there may be. */
  grow(): void {
    if (!this.mayGrow) return;
    this.mayGrow = false;
    const aborter = new AbortController();
    this.#aborter = aborter;
    this.#owner.grow(aborter.signal).then(
      (isThere) => {
        this.#ended(aborter, isThere);
      },
      () => {
        this.#ended(aborter, false);
      },
    );
  }

  #ended(aborter: AbortController, isThere: boolean): void {
    if (this.#aborter !== aborter) return;
    this.#aborter = null;
    if (isThere) {
      this.#penaltyTime = FIRST_PENALTY;
      this.mayGrow = true;
      this.#watch();
      return;
    }
    this.#penalty = setTimeout(() => {
      this.#penalty = null;
      this.mayGrow = true;
    }, this.#penaltyTime);
    unrefTimer(this.#penalty);
    this.#penaltyTime = Math.min(2 * this.#penaltyTime, LONGEST_PENALTY);
  }

  #watch(): void {
    if (this.#idleTimer !== null) return;
    this.#idleTimer = setInterval(() => {
      if (!this.#owner.shrink(LOOKS)) this.#rest();
    }, LOOK);
    unrefTimer(this.#idleTimer);
  }

  #rest(): void {
    if (this.#idleTimer !== null) clearInterval(this.#idleTimer);
    this.#idleTimer = null;
  }

  stop(): void {
    this.mayGrow = false;
    this.#aborter?.abort();
    this.#aborter = null;
    if (this.#penalty !== null) clearTimeout(this.#penalty);
    this.#rest();
  }
}
