// What is fuzzed: a kind of input, good examples of it, and the oracle that every input must satisfy. And the loop that
// goes through the inputs, reports how they ended, and makes a failing one small.

import { type MessageShape, mutate } from './mutate.js';
import { Random, seedOf } from './random.js';

/** A good input, and what else belongs to it. */
export interface Example {
  readonly bytes: Buffer;
  /** Where it comes from, for messages. */
  readonly origin: string;
}

export interface Family<E extends Example = Example> {
  readonly name: string;
  readonly shapes: readonly MessageShape[];
  /** The examples of one seed: recorded ones and made ones. */
  examples(seed: number): readonly E[];
  /** Runs an input. Throws when it does not go as it must; otherwise returns one word for the outcome. */
  check(example: E, bytes: Buffer, random: Random): string | Promise<string>;
}

export interface RunOptions {
  readonly seed: number;
  /** Inputs, from this one on. */
  readonly first?: number;
  readonly inputs: number;
  /** Ends earlier after this many milliseconds. */
  readonly time?: number;
}

export interface Failure {
  readonly family: string;
  readonly seed: number;
  readonly input: number;
  readonly origin: string;
  readonly error: string;
  readonly bytes: string;
  /** The shortest input found that fails in the same way. */
  readonly minimal: string;
}

export interface Report {
  readonly family: string;
  readonly inputs: number;
  readonly seconds: number;
  /** How often each ending was seen. */
  readonly endings: ReadonlyMap<string, number>;
  readonly failure: Failure | null;
}

export async function fuzz<E extends Example>(
  family: Family<E>,
  examples: readonly E[],
  options: RunOptions,
): Promise<Report> {
  const { seed, first = 0, inputs, time = Infinity } = options;
  const endings = new Map<string, number>();
  const begun = performance.now();
  const report = (done: number, failure: Failure | null): Report => {
    return { family: family.name, inputs: done, seconds: (performance.now() - begun) / 1000, endings, failure };
  };
  for (let input = first; input < first + inputs; input++) {
    const random = new Random(seedOf(seed, input));
    const example = random.pick(examples);
    const bytes = mutate(example.bytes, random.pick(examples).bytes, family.shapes, random);
    // The same numbers again for a smaller input.
    const checkSeed = random.below(2 ** 32);
    try {
      const running = family.check(example, bytes, new Random(checkSeed));
      const ending = typeof running === 'string' ? running : await running;
      endings.set(ending, (endings.get(ending) ?? 0) + 1);
    } catch (error) {
      const minimal = await minimize(bytes, textOf(error), async (smaller) => {
        try {
          await family.check(example, smaller, new Random(checkSeed));
          return null;
        } catch (other) {
          return textOf(other);
        }
      });
      return report(input - first + 1, {
        ...{ family: family.name, seed, input, origin: example.origin, error: stackOf(error) },
        ...{ bytes: bytes.toString('hex'), minimal: minimal.toString('hex') },
      });
    }
    if ((input & 255) === 0) {
      if (performance.now() - begun > time) return report(input - first + 1, null);
      // Garbage of streams and timers is let go.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  return report(inputs, null);
}

/** Numbers differ from input to input; the rest distinguishes one failure from another. */
const textOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/\d+/g, '#');
const stackOf = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error));

const MAX_TRIES = 3000;

/** Leaves out what can be left out, and makes zero what can be zero, as long as the failure stays the same. */
async function minimize(
  bytes: Buffer,
  failure: string,
  attempt: (bytes: Buffer) => Promise<string | null>,
): Promise<Buffer> {
  let best = bytes;
  let tries = 0;
  const accept = async (candidate: Buffer): Promise<boolean> => {
    if (tries++ >= MAX_TRIES || (await attempt(candidate)) !== failure) return false;
    best = candidate;
    return true;
  };
  for (let size = Math.max(1, best.length >> 1); size >= 1; size >>= 1) {
    for (let at = 0; at < best.length && tries < MAX_TRIES;) {
      if (!(await accept(Buffer.concat([best.subarray(0, at), best.subarray(at + size)])))) at += size;
    }
  }
  for (let at = 0; at < best.length && tries < MAX_TRIES; at++) {
    if (best[at] === 0) continue;
    const candidate = Buffer.from(best);
    candidate[at] = 0;
    await accept(candidate);
  }
  return best;
}

/** A failure as it is printed: all that is needed to see it again. */
export function describeFailure(failure: Failure): string {
  const { family, seed, input, origin, error, bytes, minimal } = failure;
  return [
    `${family}: input ${input} of seed ${seed} fails; it was made of ${origin}`,
    error,
    `again:   npm run fuzz -- --only ${family} --seed ${seed} --input ${input}`,
    `bytes:   ${shorten(bytes)}`,
    `minimal: ${shorten(minimal)}`,
  ].join('\n');
}

const MAX_SHOWN = 4096;

/** A long run of zeroes is shortened; the command above has all of it. */
function shorten(hex: string): string {
  const pairs = hex.replace(/../g, '$& ');
  const short = pairs.replace(/(?:00 ){64,}/g, (run) => `[${run.length / 3} zeroes] `).trimEnd();
  return short.length > MAX_SHOWN ? `${short.slice(0, MAX_SHOWN)}… (${hex.length / 2} bytes)` : short;
}
