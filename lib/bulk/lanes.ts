// Running many pieces of work a few at a time: what copying, prefetching and hashing share. Invariant: when it
// rejects, nothing that it started is still running, but for what does not heed an abort.

import { inNextTurn } from '../util/timers.js';

/** How many pieces run at a time, where that changes on the way. */
export interface Depth {
  readonly limit: number;
}

/**
 * What an aborted piece of work has to settle: this many turns of a timer, of this many milliseconds at least. Commands of
 * a connection settle at once. Turns, because a process that gets no processor time for a while has had none to settle in.
 */
const GRACE_TURNS = 20;
const GRACE_TURN = 10;
/** A lane costs some memory, even one that never gets anything to do. */
const MOST_LANES = 65_536;

/** Resolves in the next turn of the event loop. */
export const anotherTurn = (): Promise<void> => new Promise(inNextTurn);

/** Milliseconds after which the event loop gets a turn: a quarter of what is promised, as a busy machine takes its share. */
const TURN = 5;

/**
 * Made for a loop that may run for long without waiting for anything but promises that are resolved already: it returns
 * null, or, when the event loop has been held for a while, a promise to wait for.
 */
export function makeBreather(): () => Promise<void> | null {
  let since = performance.now();
  let calls = 0;
  return () => {
    // A look at the clock costs more than an extent.
    if ((++calls & 15) !== 0 || performance.now() - since < TURN) return null;
    return anotherTurn().then(() => {
      since = performance.now();
    });
  };
}

/**
 * Calls `work` for every item, at most `depth` at a time. `work` gets the number of its lane, 0 to `depth` - 1, of
 * which each runs one item at a time, so that a lane can own a buffer; `left` is called for one that a lower depth has
 * ended. The first failure stops the taking of further items, and is thrown when what runs has settled. An abort is
 * thrown when what runs has settled, or after a moment.
 */
export async function inLanes<Item>(
  items: Iterator<Item> | AsyncIterator<Item>,
  depth: number | Depth,
  work: (item: Item, lane: number) => Promise<void> | void,
  signal?: AbortSignal,
  left?: (lane: number) => void,
): Promise<void> {
  let failure: { readonly error: unknown } | null = null;
  let done = false;
  // Taking from an async source is one at a time: its order is the order of the work.
  let turn: Promise<unknown> = Promise.resolve();
  const breathe = makeBreather();
  const take = (): Promise<IteratorResult<Item>> => {
    const next = turn.then(async () => {
      const pause = breathe();
      if (pause !== null) await pause;
      return done ? { done: true as const, value: undefined } : items.next();
    });
    turn = next.catch(() => undefined);
    return next;
  };

  const limit = (): number => Math.min(typeof depth === 'number' ? depth : depth.limit, MOST_LANES);
  const running = new Set<number>();
  let ended = (): void => undefined;
  const lanes = new Promise<void>((resolve) => {
    ended = resolve;
  });
  const lane = async (number: number): Promise<void> => {
    try {
      while (!done && number < limit()) {
        signal?.throwIfAborted();
        const result = await take();
        if (result.done === true) {
          done = true;
          return;
        }
        signal?.throwIfAborted();
        await work(result.value, number);
        if (typeof depth !== 'number') start();
      }
    } catch (error) {
      failure ??= { error };
      done = true;
    }
  };
  const start = (): void => {
    if (running.size >= limit()) return;
    for (let number = 0; number < limit() && !done; number++) {
      if (running.has(number)) continue;
      running.add(number);
      void lane(number).then(() => {
        running.delete(number);
        left?.(number);
        if (running.size === 0) ended();
      });
    }
  };
  start();
  const settled = signal === undefined ? await lanes.then(() => true) : await settledInTime(lanes, signal);
  done = true;
  const failed = failure as { readonly error: unknown } | null;
  if (!settled) {
    // Where next() never settles, return() does not either.
    void Promise.resolve(items.return?.()).catch(() => undefined);
    throw failed === null ? signal?.reason : failed.error;
  }
  if (failed !== null) {
    await items.return?.();
    throw failed.error;
  }
}

/** Resolves with true when the lanes have settled, with false some time after an abort. */
function settledInTime(lanes: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let turns = 0;
    const aborted = (): void => {
      if (turns++ === GRACE_TURNS) resolve(false);
      else timer = setTimeout(aborted, GRACE_TURN);
    };
    if (signal.aborted) aborted();
    else signal.addEventListener('abort', aborted, { once: true });
    void lanes.then(() => {
      clearTimeout(timer);
      signal.removeEventListener('abort', aborted);
      resolve(true);
    });
  });
}

/**
 * Calls an `onProgress`. One that returns a promise is waited for, so that its rejection fails the work as a throw does,
 * and is not left unhandled.
 */
export async function report<Value>(onProgress: ((value: Value) => unknown) | undefined, value: Value): Promise<void> {
  const result = onProgress?.(value);
  if (typeof result === 'object' && result !== null) await (result as PromiseLike<unknown>);
}
