// Waiting for replies without sleeping. While an immediate is due, the event loop looks at its sockets and goes on;
// without one it sleeps, and to be put to sleep and woken takes longer than a server on the same machine needs for a
// command. Invariants: it ends with the last command in flight, and at most the limit after the last sign of life;
// where replies take longer than that, it is hardly ever begun.

import { availableParallelism } from 'node:os';
import { inNextTurn } from '../../util/timers.js';

/** With more commands in flight, and small ones, the next reply is there before the last has been dealt with. */
const FEW = 8;
const LARGE_AVERAGE = 32 * 1024;
/** After several waits in vain in a row, this many requests go out before the next attempt. */
const MAX_SKIPPED = 256;
/** On a single processor a server of this machine needs it to answer. */
const IS_ALONE = availableParallelism() === 1;

export class BusyPoll {
  /** Milliseconds without a reply. */
  readonly #limit: number;
  #isActive = false;
  #isExpecting = false;
  #deadline = 0;
  /** Requests that still go out without a wait, and how many there were to be after the last one in vain. */
  #skip = 0;
  #lastSkip = 0;

  /** `limit` in microseconds; 0 for none. */
  constructor(limit: number) {
    this.#limit = IS_ALONE ? 0 : limit / 1000;
  }

  /** A request has gone out; so many are in flight, with so many bytes of payload each. */
  sent(inFlight: number, averageWeight: number): void {
    if (this.#limit === 0 || (inFlight > FEW && averageWeight < LARGE_AVERAGE)) return;
    this.#isExpecting = true;
    if (this.#isActive) {
      this.#deadline = performance.now() + this.#limit;
    } else if (this.#skip > 0) {
      this.#skip--;
    } else {
      this.#isActive = true;
      this.#deadline = performance.now() + this.#limit;
      inNextTurn(this.#look);
    }
  }

  /** Bytes have come; so many commands are still in flight. */
  received(inFlight: number): void {
    this.#isExpecting = inFlight > 0;
    if (!this.#isActive) return;
    this.#lastSkip = 0;
    if (inFlight > 0) this.#deadline = performance.now() + this.#limit;
  }

  stop(): void {
    this.#isExpecting = false;
  }

  readonly #look = (): void => {
    if (this.#isExpecting && performance.now() < this.#deadline) {
      inNextTurn(this.#look);
      return;
    }
    this.#isActive = false;
    if (this.#isExpecting) this.#skip = this.#lastSkip = Math.min(2 * this.#lastSkip + 1, MAX_SKIPPED);
  };
}
