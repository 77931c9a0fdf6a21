// Feeds the same bytes in every way that a network may cut them, so that a codec's result is shown not to depend on
// segment borders. Each delivery gets a sink of its own.

/** Takes the segments of one delivery; `finish` is called after the last and makes the assertions. */
export interface Sink {
  push(segment: Uint8Array): void;
  finish(): void;
}

export interface DeliverOptions {
  /** How many random cuts; default 20. */
  random?: number;
  /** Seed of the random cuts; default a new one each time. A failure prints it. */
  seed?: number;
  /** Longer inputs are cut in two not at every byte but at about this many places, evenly spread; default 4096. */
  maxSplits?: number;
}

const SEGMENT_LIMIT = 64;

/**
 * Delivers `bytes` whole, byte by byte, in two at every place, and cut at random; `open` makes the sink of one
 * delivery. An error is thrown again with the delivery that showed it in front.
 */
export function deliver(bytes: Uint8Array, open: () => Sink, options: DeliverOptions = {}): void {
  const { random = 20, seed = Math.floor(Math.random() * 2 ** 32), maxSplits = 4096 } = options;
  run('whole', [bytes], open);
  run(
    'byte by byte',
    Array.from(bytes, (_, at) => bytes.subarray(at, at + 1)),
    open,
  );
  const step = Math.max(1, Math.ceil(bytes.length / maxSplits));
  for (let at = 1; at < bytes.length; at += step) {
    run(`in two at ${String(at)}`, [bytes.subarray(0, at), bytes.subarray(at)], open);
  }
  const next = randomNumbers(seed);
  for (let turn = 0; turn < random; turn++) {
    run(`at random, turn ${String(turn)} of seed ${String(seed)}`, cutAtRandom(bytes, next), open);
  }
}

/** The segments of one random cut, each 1 to 64 bytes or, one time in eight, up to the rest. */
export function cutAtRandom(bytes: Uint8Array, next: () => number): Uint8Array[] {
  const segments: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const limit = next() < 0.125 ? bytes.length - at : SEGMENT_LIMIT;
    const length = Math.min(bytes.length - at, 1 + Math.floor(next() * limit));
    segments.push(bytes.subarray(at, at + length));
    at += length;
  }
  return segments;
}

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function run(how: string, segments: readonly Uint8Array[], open: () => Sink): void {
  try {
    const sink = open();
    // A copy per segment, overwritten afterwards: a decoder that keeps a view of what it was given shows itself.
    for (const segment of segments) {
      const copy = new Uint8Array(segment);
      sink.push(copy);
      copy.fill(0xa5);
    }
    sink.finish();
  } catch (error) {
    if (error instanceof Error) error.message = `delivered ${how}: ${error.message}`;
    throw error;
  }
}
