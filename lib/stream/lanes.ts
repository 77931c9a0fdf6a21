// Running many pieces of work a few at a time: what copying, prefetching and hashing share. Invariant: when it
// rejects, nothing that it started is still running.

/** How much of a whole export has been gone through. */
export interface Progress {
  /** Bytes. */
  readonly done: bigint;
  readonly total: bigint;
}

/**
 * Calls `work` for every item, at most `depth` at a time. `work` gets the number of its lane, 0 to `depth` - 1, of
 * which each runs one item at a time, so that a lane can own a buffer. The first failure stops the taking of further
 * items, and is thrown when what runs has settled.
 */
export async function inLanes<Item>(
  items: Iterator<Item> | AsyncIterator<Item>,
  depth: number,
  work: (item: Item, lane: number) => Promise<void> | void,
): Promise<void> {
  let failure: { readonly error: unknown } | null = null;
  let done = false;
  // Taking from an async source is one at a time: its order is the order of the work.
  let turn: Promise<unknown> = Promise.resolve();
  const take = (): Promise<IteratorResult<Item>> => {
    const next = turn.then(async () => (done ? { done: true as const, value: undefined } : items.next()));
    turn = next.catch(() => undefined);
    return next;
  };

  const lane = async (number: number): Promise<void> => {
    try {
      while (!done) {
        const result = await take();
        if (result.done === true) {
          done = true;
          return;
        }
        await work(result.value, number);
      }
    } catch (error) {
      failure ??= { error };
      done = true;
    }
  };
  await Promise.all(Array.from({ length: depth }, (_, number) => lane(number)));
  const failed = failure as { readonly error: unknown } | null;
  if (failed !== null) {
    await items.return?.();
    throw failed.error;
  }
}
