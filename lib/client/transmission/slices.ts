// Settles a long list without blocking the event loop: a part at once, the rest in later turns of the loop. The time
// that users' continuations take counts as well. Invariant: every entry is visited once, in order, list after list.

import { afterTick } from '../../util/platform.js';
import { inNextTurn } from '../../util/timers.js';

/** Entries visited before continuations can run; usually all commands of a connection that ends. */
const PART = 1024;
/** Milliseconds that one turn of the event loop may take. */
const TURN = 20;

interface Work<Entry> {
  /** Visited entries are cleared, so that the lists do not hold them. */
  readonly lists: (Entry | undefined)[][];
  next: number;
  readonly visit: (entry: Entry) => void;
  readonly done: (() => void) | null;
}

export class Slices<Entry> {
  #works: Work<Entry>[] = [];
  #isRunning = false;
  #isScheduled = false;
  #turnEnds = 0;

  /**
   * Visits lists after those added before, and clears them. Starts at once, unless a visit has called it: a part is
   * visited before it returns, however long that takes, because callers promise it.
   */
  add(lists: (Entry | undefined)[][], visit: (entry: Entry) => void, done: (() => void) | null = null): void {
    this.#works.push({ lists, next: 0, visit, done });
    if (this.#isRunning || this.#isScheduled) return;
    const begun = performance.now();
    this.#turnEnds = Infinity;
    this.#run();
    this.#turnEnds = begun + TURN;
  }

  readonly #run = (): void => {
    this.#isScheduled = false;
    this.#isRunning = true;
    let left = PART;
    for (let work = this.#works[0]; work !== undefined; work = this.#works[0]) {
      for (let list = work.lists[0]; list !== undefined && left > 0; list = work.lists[0]) {
        for (; left > 0 && work.next < list.length; left--) {
          const entry = list[work.next];
          list[work.next++] = undefined;
          if (entry !== undefined) work.visit(entry);
          if (left % 64 === 0 && performance.now() > this.#turnEnds) left = 1;
        }
        if (work.next < list.length) break;
        work.lists.shift();
        work.next = 0;
      }
      if (work.lists.length > 0) break;
      this.#works.shift();
      work.done?.();
    }
    this.#isRunning = false;
    if (this.#works.length === 0) return;
    this.#isScheduled = true;
    // A tick scheduled from a microtask runs after the continuations of this part, which may use up the turn.
    queueMicrotask(this.#afterMicrotasks);
  };

  readonly #afterMicrotasks = (): void => {
    afterTick(this.#goOn);
  };

  readonly #goOn = (): void => {
    if (performance.now() < this.#turnEnds) this.#run();
    else inNextTurn(this.#takeTurn);
  };

  readonly #takeTurn = (): void => {
    this.#turnEnds = performance.now() + TURN;
    this.#run();
  };
}
