// An export of maps alone, for specs of block status: how it answers is up to the spec. Time is counted in rounds: all
// questions that are in flight at the same moment are answered together.

import type { ExportLike } from '../../lib/index.js';

/** The runs of one context, which cover the export. */
export type Runs = readonly (readonly [length: bigint, flags: bigint])[];

/** A question, as the export gets it. */
export interface Asked {
  readonly offset: bigint;
  readonly count: bigint;
  /** From 0, in the order of arrival. */
  readonly number: number;
}

export interface FakeOptions {
  readonly contexts: Readonly<Record<string, Runs>>;
  readonly minimum?: number;
  readonly extendedHeaders?: boolean;
  /**
   * Changes what the export would answer, which is exact and covers the question: throws, cuts pairs off, lengthens them
   * or leaves contexts out.
   */
  readonly answer?: (found: Map<string, bigint[]>, asked: Asked) => Map<string, bigint[]>;
  /** Names that were negotiated besides those of the maps. */
  readonly negotiated?: readonly string[];
}

export const sizeOf = (runs: Runs): bigint => runs.reduce((sum, [length]) => sum + length, 0n);

export class FakeExport {
  readonly size: bigint;
  readonly asked: Asked[] = [];
  rounds = 0;
  mostInFlight = 0;
  #inFlight = 0;
  #round: Promise<void> | null = null;
  readonly #options: FakeOptions;
  /** For each context the ends of its runs. */
  readonly #ends = new Map<string, bigint[]>();

  constructor(options: FakeOptions) {
    this.#options = options;
    for (const [name, runs] of Object.entries(options.contexts)) {
      let end = 0n;
      this.#ends.set(
        name,
        runs.map(([length]) => (end += length)),
      );
    }
    this.size = sizeOf(Object.values(options.contexts)[0] ?? []);
  }

  /** What the functions take. */
  get connection(): ExportLike {
    const { contexts, minimum = 1, extendedHeaders = false, negotiated = [] } = this.#options;
    return {
      getSize: () => this.size,
      getBlockSize: (type: number) => (type === 0 ? minimum : 0),
      getExtendedHeadersNegotiated: () => extendedHeaders,
      getCanonicalExportName: () => null,
      isReadOnly: () => true,
      canFlush: () => false,
      canZero: () => false,
      canMultiConn: () => true,
      canMetaContext: (name: string) => Object.hasOwn(contexts, name) || negotiated.includes(name),
      preadInto: () => Promise.reject(new Error('nothing is read in this spec')),
      blockStatus64: (count: bigint, offset: bigint, _flags: number, signal?: AbortSignal) =>
        this.#blockStatus(count, offset, signal),
    } as unknown as ExportLike;
  }

  async #blockStatus(count: bigint, offset: bigint, signal?: AbortSignal): Promise<unknown> {
    const asked = { count, offset, number: this.asked.length };
    this.asked.push(asked);
    this.mostInFlight = Math.max(this.mostInFlight, ++this.#inFlight);
    this.#round ??= new Promise((resolve) => {
      setImmediate(() => {
        this.rounds++;
        this.#round = null;
        resolve();
      });
    });
    await this.#round;
    this.#inFlight--;
    signal?.throwIfAborted();
    const exact = new Map<string, bigint[]>();
    for (const [name, runs] of Object.entries(this.#options.contexts)) exact.set(name, this.#pairs(name, runs, asked));
    const found = this.#options.answer?.(exact, asked) ?? exact;
    return new Map([...found].map(([name, pairs]) => [name, { offset, entries: BigUint64Array.from(pairs) }]));
  }

  #pairs(name: string, runs: Runs, { offset, count }: Asked): bigint[] {
    const ends = this.#ends.get(name) ?? [];
    const pairs: bigint[] = [];
    let [low, high] = [0, ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((ends[middle] as bigint) <= offset) low = middle + 1;
      else high = middle;
    }
    for (let [index, at] = [low, offset]; at < offset + count && index < runs.length; index++) {
      const end = ends[index] as bigint;
      const until = end < offset + count ? end : offset + count;
      pairs.push(until - at, runs[index]?.[1] as bigint);
      at = until;
    }
    return pairs;
  }

  /** The most answers that reported on any byte. */
  overlaps(reach: (asked: Asked) => bigint = ({ count }) => count): number {
    const marks = this.asked.flatMap((asked) => [
      [asked.offset, 1] as const,
      [asked.offset + reach(asked), -1] as const,
    ]);
    marks.sort(([a, up], [b, other]) => (a === b ? up - other : a < b ? -1 : 1));
    let [now, most] = [0, 0];
    for (const [, change] of marks) most = Math.max(most, (now += change));
    return most;
  }
}

/** All that an iterable yields. */
export async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** A number of bytes with its unit: `size(8, 'T')`. */
export const size = (count: number, unit: 'K' | 'M' | 'G' | 'T'): bigint =>
  BigInt(count) << { K: 10n, M: 20n, G: 30n, T: 40n }[unit];
