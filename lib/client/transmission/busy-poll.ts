// Busy-polling for replies. While an immediate is scheduled, the event loop polls its sockets without sleeping;
// sleeping and waking up take longer than a server on the same machine needs for a command. Invariants: it ends with
// the last command in flight, and at most the limit after the last received bytes; it backs off when replies take
// longer.

import { nodeModule } from '../../util/platform.js';
import { inNextTurn } from '../../util/timers.js';

/** With more small commands in flight, the next reply arrives before the last one has been handled. */
const FEW = 8;
/** Bytes of payload per command from which polling also pays with more commands in flight. */
const LARGE_PAYLOADS = 32 * 1024;
/** After several failed attempts in a row, at most this many requests are sent before the next attempt. */
const MAX_SKIPPED = 256;
/** With a single processor, a server on this machine needs that processor to answer. In a browser there is no poll to hurry. */
const IS_ALONE = (nodeModule('node:os')?.availableParallelism() ?? 1) === 1;

export class BusyPoll {
  /** Milliseconds without a reply. */
  readonly #limit: number;
  #isActive = false;
  #isExpecting = false;
  #deadline = 0;
  /** How many requests are still sent without polling, and how many it was after the last failed attempt. */
  #skip = 0;
  #lastSkip = 0;

  /** `limit` in microseconds; 0 disables polling. */
  constructor(limit: number) {
    this.#limit = IS_ALONE ? 0 : limit / 1000;
  }

  /** A request was written. `inFlight` commands are outstanding, with `averageWeight` bytes of payload each. */
  sent(inFlight: number, averageWeight: number): void {
    if (this.#limit === 0 || (inFlight > FEW && averageWeight < LARGE_PAYLOADS)) return;
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

  /** Bytes were received; `inFlight` commands are still outstanding. */
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
