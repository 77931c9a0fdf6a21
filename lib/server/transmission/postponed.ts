// Requests and replies of one connection that wait: for a fault's delay, for the rate, or until they are released.
// Invariant: each goes on once, or never after cancel(); nothing of them is left then.

import { clearTimeout, setTimeout } from '../../util/timers.js';

/** What waits: the bytes that it holds, and what to do then. */
export interface Waiting {
  readonly bytes: number;
  readonly goOn: () => void;
}

export class Postponed {
  /** What ends the wait of each, without going on. */
  readonly #waiting = new Map<Waiting, () => void>();
  readonly #held = new Set<Waiting>();
  /** Called after each that went on. */
  readonly #wentOn: () => void;
  #bytes = 0;

  constructor(wentOn: () => void) {
    this.#wentOn = wentOn;
  }

  /** How many wait. */
  get count(): number {
    return this.#waiting.size;
  }

  /** Bytes that they hold. */
  get bytes(): number {
    return this.#bytes;
  }

  /** For a number of milliseconds. */
  delay(milliseconds: number, what: Waiting): void {
    const timer = setTimeout(() => {
      this.#goOn(what);
    }, milliseconds);
    this.#add(what, () => {
      clearTimeout(timer);
    });
  }

  /** Until the promise resolves. It rejects only when the connection has ended. */
  after(promise: Promise<void>, what: Waiting): void {
    this.#add(what, () => undefined);
    promise.then(
      () => {
        this.#goOn(what);
      },
      () => undefined,
    );
  }

  /** Until it is released; `hold` returns a function that ends that. */
  hold(hold: (released: () => void) => () => void, what: Waiting): void {
    this.#held.add(what);
    let forget = (): void => undefined;
    this.#add(what, () => {
      forget();
    });
    forget = hold(() => {
      this.#goOn(what);
    });
  }

  /** Releases what is held: the server closes. */
  releaseHeld(): void {
    for (const what of [...this.#held]) {
      this.#waiting.get(what)?.();
      this.#goOn(what);
    }
  }

  /** Drops all: the connection has ended. */
  cancel(): void {
    for (const end of this.#waiting.values()) end();
    this.#waiting.clear();
    this.#held.clear();
    this.#bytes = 0;
  }

  #add(what: Waiting, end: () => void): void {
    this.#waiting.set(what, end);
    this.#bytes += what.bytes;
  }

  #goOn(what: Waiting): void {
    if (!this.#waiting.delete(what)) return;
    this.#held.delete(what);
    this.#bytes -= what.bytes;
    what.goOn();
    this.#wentOn();
  }
}
