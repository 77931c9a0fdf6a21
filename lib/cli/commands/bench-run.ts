// The measurement of `nbd bench`: keeps a number of requests in flight until the time is over.

import { type NbdConnection, SIZE_MINIMUM } from '../../index.js';

export interface BenchSettings {
  readonly depth: number;
  /** Bytes per request. */
  readonly size: number;
  /** Percentage of requests that write. */
  readonly mix: number;
  readonly seconds: number;
  readonly sequential: boolean;
}

export interface BenchResult {
  readonly requests: number;
  readonly elapsed: number;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Milliseconds. */
  readonly latency: Readonly<Record<'mean' | 'p50' | 'p90' | 'p99' | 'p99.9' | 'max', number>>;
}

/** A histogram of latencies. Its buckets grow by 2 %, so that a long run needs no more memory than a short one. */
const GROWTH = Math.log(1.02);
const SHORTEST = 0.001;

class Latencies {
  readonly #counts: number[] = [];
  #count = 0;
  #sum = 0;
  #max = 0;

  add(milliseconds: number): void {
    const at = Math.max(0, Math.ceil(Math.log(milliseconds / SHORTEST) / GROWTH));
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#count++;
    this.#sum += milliseconds;
    if (milliseconds > this.#max) this.#max = milliseconds;
  }

  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  get max(): number {
    return this.#max;
  }

  /** The latency that this share of the requests did not exceed. */
  percentile(share: number): number {
    let rest = Math.ceil(this.#count * share);
    for (let at = 0; at < this.#counts.length; at++) {
      rest -= this.#counts[at] ?? 0;
      if (rest <= 0) return Math.min(SHORTEST * Math.exp(at * GROWTH), this.#max);
    }
    return this.#max;
  }
}

export async function runBench(
  connections: readonly NbdConnection[],
  settings: BenchSettings,
  signal: AbortSignal,
): Promise<BenchResult> {
  const { size, mix, depth, sequential } = settings;
  const [first] = connections;
  if (first === undefined) throw new Error('there is no connection');
  const alignment = Math.max(size, first.getBlockSize(SIZE_MINIMUM));
  const places = Math.max(Math.floor(Number(first.getSize()) / alignment), 1);
  const rubbish = Buffer.alloc(size, 'nbd bench ');
  const latencies = new Latencies();
  const begun = performance.now();
  const end = begun + settings.seconds * 1000;
  let requests = 0;
  let next = 0;

  const lane = async (connection: NbdConnection): Promise<void> => {
    const buffer = Buffer.alloc(size);
    for (let now = performance.now(); now < end; now = performance.now()) {
      signal.throwIfAborted();
      const place = sequential ? next++ % places : Math.floor(Math.random() * places);
      const offset = place * alignment;
      if (mix > 0 && Math.random() * 100 < mix) await connection.pwrite(rubbish, offset, 0, signal);
      else await connection.preadInto(buffer, offset, 0, signal);
      latencies.add(performance.now() - now);
      requests++;
    }
  };
  await Promise.all(Array.from({ length: depth }, (_, at) => lane(connections[at % connections.length] ?? first)));
  const elapsed = (performance.now() - begun) / 1000;
  return {
    requests,
    elapsed,
    requestsPerSecond: requests / elapsed,
    bytesPerSecond: (requests * size) / elapsed,
    latency: {
      mean: latencies.mean,
      p50: latencies.percentile(0.5),
      p90: latencies.percentile(0.9),
      p99: latencies.percentile(0.99),
      'p99.9': latencies.percentile(0.999),
      max: latencies.max,
    },
  };
}
