// The pieces of work of a copy, in order: requests, and stretches of zeroes that are joined. Invariant: the pieces cover
// the runs that they are made of, each byte once; their ends lie on multiples of the request size in the destination,
// unless a run that is copied begins or ends there.

import type { Run } from '../ends/runs.js';

/** Zeroes are not joined across this, so that one command is not too much for a server. As nbdcopy's work unit. */
const UNIT = 128n * 1024n * 1024n;

export interface JobOptions {
  /** Added to an offset, it is aligned as requests are to be. */
  readonly shift: bigint;
  /** Bytes of the next request. */
  readonly requestSize: () => number;
  /** Zeroes need no command. */
  readonly destinationIsZero: boolean;
}

/** Runs that may have gaps between them, one ahead. */
class Cursor {
  readonly #runs: AsyncIterator<Run>;
  #ahead: Run | null | undefined;

  constructor(runs: AsyncIterator<Run>) {
    this.#runs = runs;
  }

  async peek(): Promise<Run | null> {
    if (this.#ahead === undefined) {
      const next = await this.#runs.next();
      this.#ahead = next.done === true ? null : next.value;
    }
    return this.#ahead;
  }

  async take(): Promise<Run | null> {
    const run = await this.peek();
    this.#ahead = run === null ? null : undefined;
    return run;
  }

  /** The next run where it begins at `end`, which is taken; else null. */
  async takeAt(end: bigint): Promise<Run | null> {
    const next = await this.peek();
    return next?.start === end ? this.take() : null;
  }
}

/** A request is zero when all of it is known to be. */
export async function* jobsOf(
  runs: AsyncGenerator<Run, void, undefined>,
  { shift, requestSize, destinationIsZero }: JobOptions,
): AsyncGenerator<Run, void, undefined> {
  const cursor = new Cursor(runs);
  /** The first multiple of `size` behind `offset`, and the last one up to it, where they lie in the destination. */
  const above = (offset: bigint, size: bigint): bigint => offset + size - ((offset + shift) % size);
  const below = (offset: bigint, size: bigint): bigint => offset - ((offset + shift) % size);
  try {
    for (let run = await cursor.take(); run !== null; run = await cursor.take()) {
      let offset = run.start;
      let zeroFrom = -1n;
      while (offset < run.end) {
        const size = BigInt(requestSize());
        const unitEnd = above(offset, UNIT);
        let end = above(offset, size);
        if (end > unitEnd) end = unitEnd;
        let { isZero } = run;
        let isLast = false;
        while (run.end < end) {
          const next = await cursor.takeAt(run.end);
          if (next === null) {
            isLast = true;
            end = run.end;
            break;
          }
          isZero &&= next.isZero;
          run = next;
        }
        if (isZero && destinationIsZero) {
          const until = run.end === end || (await cursor.peek())?.start !== run.end ? run.end : below(run.end, size);
          if (until > end) end = until;
          yield { start: zeroFrom === -1n ? offset : zeroFrom, end, isZero: true };
          zeroFrom = -1n;
        } else if (isZero) {
          // Most of a sparse export: the rest of the unit at once.
          if (run.end >= unitEnd) end = unitEnd;
          if (zeroFrom === -1n) zeroFrom = offset;
        } else {
          if (zeroFrom !== -1n) yield { start: zeroFrom, end: offset, isZero: true };
          zeroFrom = -1n;
          yield { start: offset, end, isZero: false };
        }
        offset = end;
        if (offset === run.end && !isLast) {
          const next = await cursor.takeAt(run.end);
          if (next !== null) run = next;
        }
        if (zeroFrom !== -1n && (offset === unitEnd || offset === run.end)) {
          yield { start: zeroFrom, end: offset, isZero: true };
          zeroFrom = -1n;
        }
      }
    }
  } finally {
    await runs.return();
  }
}
