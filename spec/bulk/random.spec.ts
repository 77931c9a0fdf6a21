// Random work on whole exports, some of which fails or is aborted on the way: what resolves is right to the last byte,
// what rejects contains the reason, and nothing is still running afterwards.

import { pipeline } from 'node:stream/promises';

import { describe, expect, it } from '@jest/globals';

import {
  compare,
  copy,
  type CopyDestination,
  type CopySource,
  createReadStream,
  createWriteStream,
  NbdConnection,
  type ZeroRun,
} from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { Random, segments, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { IS_LONG } from '../support/long.js';

const CASES = Number(process.env['LIVES'] ?? (IS_LONG ? 600 : 150));
const OLD = 0xaa;
const BROKEN = Object.assign(new Error('a bad sector'), { code: 'EIO' });
const ENOUGH = new Error('enough');

/** Bytes with stretches of zeroes in them, a few of which are not multiples of anything. */
function contents(random: Random, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size;) {
    const length = random.pick([1, 511, 512, 4096, 10_000, 65_536]);
    if (random.oneIn(2)) bytes.fill(random.between(1, 255), at, Math.min(at + length, size));
    at += length;
  }
  return bytes;
}

/** The runs that may be reported as zero: every run of zeroes, or some. */
function* zeroRuns(random: Random, bytes: Buffer): Generator<ZeroRun> {
  for (let offset = 0; offset < bytes.length;) {
    const isZero = bytes[offset] === 0;
    let end = offset + 1;
    while (end < bytes.length && (bytes[end] === 0) === isZero) end++;
    const cut = random.oneIn(4) ? random.between(offset + 1, end) : end;
    yield { offset, length: cut - offset, isZero: isZero && !random.oneIn(5) };
    offset = cut;
  }
}

/** Two ends in memory that take their time, and fail on purpose. */
class Ends {
  readonly #random: Random;
  /** The operation, counted from 1, that fails, and the one at which the signal is aborted. */
  readonly #failsAt: number;
  readonly #abortsAt: number;
  readonly controller = new AbortController();
  readonly from: Buffer;
  readonly to: Buffer;
  readonly source: CopySource;
  readonly destination: CopyDestination;
  readonly problems: string[] = [];
  #operations = 0;
  running = 0;
  isOver = false;

  constructor(random: Random, isZeroed: boolean) {
    this.#random = random;
    const size = random.pick([0, 1, 511, 512, 65_536, 100_000, 300_001]);
    this.#failsAt = random.oneIn(3) ? random.between(1, 40) : Infinity;
    this.#abortsAt = random.oneIn(4) ? random.between(1, 40) : Infinity;
    this.from = contents(random, size);
    this.to = Buffer.alloc(size + random.pick([0, 0, 1, 4096]), isZeroed ? 0 : OLD);
    const maximumRequest = random.pick([Infinity, 4096, 65_536]);
    const preferredBlock = random.pick([1, 512, 4096]);
    const canZero = random.pick(['always', 'never', 'sometimes', 'missing']);
    const within = (what: string, offset: number, length: number, most: number): void => {
      if (length < 1 || length > most || offset < 0 || offset + length > size)
        this.problems.push(`${what} of ${length} at ${offset}`);
    };
    this.source = {
      size,
      maximumRequest,
      preferredBlock,
      read: (buffer, offset) => {
        within('read', offset, buffer.length, maximumRequest);
        return this.#operation(() => void this.from.copy(buffer, 0, offset, offset + buffer.length));
      },
      ...(random.oneIn(4)
        ? {}
        : {
            zeroRuns: async function* (this: void) {
              yield* zeroRuns(random, from);
            },
          }),
    };
    const { from, to } = this;
    this.destination = {
      size: to.length,
      maximumRequest,
      preferredBlock,
      write: (buffer, offset) => {
        within('write', offset, buffer.length, maximumRequest);
        const before = Buffer.from(buffer);
        return this.#operation(() => {
          if (!before.equals(buffer)) this.problems.push(`the buffer of the write at ${offset} changed meanwhile`);
          buffer.copy(to, offset);
        });
      },
      ...(canZero === 'missing'
        ? {}
        : {
            zero: async (offset: number, count: number) => {
              within('zero', offset, count, Infinity);
              if (canZero === 'never' || (canZero === 'sometimes' && random.oneIn(2))) return false;
              await this.#operation(() => void to.fill(0, offset, offset + count));
              return true;
            },
          }),
    };
  }

  async #operation(act: () => void): Promise<void> {
    if (this.isOver) this.problems.push('something began after the end');
    const number = ++this.#operations;
    this.running++;
    // What fails does so at once, so that what began beside it is still running.
    const turns = number === this.#failsAt ? 0 : this.#random.below(5);
    for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
    this.running--;
    if (number === this.#abortsAt) this.controller.abort(ENOUGH);
    if (number === this.#failsAt) throw BROKEN;
    act();
  }
}

/** `'ok'`, or what it rejected with. */
const ending = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => 'ok').catch((error: unknown) => error);

describe(withSeed('whole exports'), () => {
  it('copy() is right or rejects with the reason', async () => {
    const seen = { ok: 0, broken: 0, aborted: 0 };
    for (let number = 0; number < CASES; number++) {
      const random = new Random(seedOf(SEED, number));
      const destinationIsZero = random.oneIn(4);
      const ends = new Ends(random, destinationIsZero);
      const size = BigInt(ends.from.length);
      const told: bigint[] = [];
      const options = {
        requestSize: random.pick([512, 4096, 65_536, 262_144]),
        requests: random.between(1, 8),
        queueSize: random.pick([512, 65_536, 1 << 25]),
        sparse: random.pick([0, 512, 4096]),
        allocated: random.oneIn(4),
        destinationIsZero,
        extents: !random.oneIn(4),
        signal: ends.controller.signal,
        onProgress: ({ done }: { readonly done: bigint }) => void told.push(done),
      };
      const copying = copy(ends.source, ends.destination, options);
      const ended = await ending(copying);
      const left = ends.running;
      ends.isOver = true;
      await new Promise(setImmediate);
      const where = `case ${number} of seed ${SEED}, ${JSON.stringify(options)}`;
      expect([where, ends.problems, left]).toEqual([where, [], 0]);
      // Nothing beyond the source is touched.
      const rest = ends.to.subarray(ends.from.length);
      expect(rest.equals(Buffer.alloc(rest.length, destinationIsZero ? 0 : OLD))).toBe(true);
      if (ended === 'ok') {
        seen.ok++;
        expect([where, ends.to.compare(ends.from, 0, ends.from.length, 0, ends.from.length)]).toEqual([where, 0]);
        const { total, written, zeroed } = await copying;
        expect([where, total, written + zeroed, told.at(-1) ?? 0n]).toEqual([where, size, size, size]);
      } else if (ended === ENOUGH) {
        seen.aborted++;
      } else {
        seen.broken++;
        expect(ended).toMatchObject({ code: 'EIO', syscall: 'copy', cause: BROKEN });
      }
    }
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
  });

  it('compare() finds what a comparison of all bytes finds', async () => {
    for (let number = 0; number < CASES; number++) {
      const random = new Random(seedOf(SEED + 1, number));
      const left = contents(random, random.pick([0, 1, 4096, 100_001]));
      const right = Buffer.alloc(Math.max(left.length + random.pick([0, 0, 0, -1, 1, 5000]), 0));
      left.copy(right);
      for (let flips = random.pick([0, 0, 1, 5]); flips > 0 && right.length > 0; flips--) {
        const at = random.below(right.length);
        right[at] = (right[at] ?? 0) ^ 1;
      }
      const side = (bytes: Buffer): CopySource => ({
        size: bytes.length,
        read: async (buffer, offset) => {
          for (let turns = random.below(3); turns > 0; turns--) await new Promise(setImmediate);
          bytes.copy(buffer, 0, offset, offset + buffer.length);
        },
        ...(random.oneIn(3)
          ? {}
          : {
              zeroRuns: async function* (this: void) {
                yield* zeroRuns(random, bytes);
              },
            }),
      });
      const most = Math.min(left.length, right.length);
      const differing = Array.from({ length: most }, (_, at) => at).filter((at) => left[at] !== right[at]);
      const found = await compare(side(left), side(right), {
        requestSize: random.pick([512, 4096, 65_536]),
        requests: random.between(1, 4),
      });
      expect({ number, ...found }).toMatchObject({
        number,
        equal: differing.length === 0 && left.length === right.length,
        firstDifference: differing.length === 0 ? null : BigInt(differing[0] ?? 0),
        differing: BigInt(differing.length),
        compared: BigInt(most),
      });
    }
  });

  it('streams carry every byte in order, or are destroyed with what went wrong', async () => {
    const seen = { ok: 0, failed: 0 };
    for (let number = 0; number < Math.ceil(CASES / 3); number++) {
      const random = new Random(seedOf(SEED + 2, number));
      const bytes = contents(random, random.pick([1, 511, 100_000, 300_001]));
      const from = new MemoryBackend(bytes.length);
      from.write(bytes, 0);
      const to = new MemoryBackend(bytes.length + random.pick([0, 1000]));
      to.write(Buffer.alloc(bytes.length, OLD), 0);
      await using server = new NbdServer({ exports: { from, to } });
      const fails = random.oneIn(3);
      const nth = random.between(1, 5);
      server.faults.push({ command: 'write', nth: random.between(1, 5), delay: 3 });
      if (fails)
        server.faults.push({
          command: random.pick(['read', 'write', 'zero', 'blockStatus']),
          nth,
          error: 'EIO',
        });
      const open = (exportName: string): Promise<NbdConnection> =>
        NbdConnection.connect(server.connectMemory(), { exportName, metaContexts: ['base:allocation'] });
      await using source = await open('from');
      await using destination = await open('to');
      const offset = random.below(bytes.length);
      const length = random.between(0, bytes.length - offset);
      const readable = createReadStream(source, {
        ...{ offset, length, requestSize: random.pick([512, 4096, 65_536]), requests: random.between(1, 8) },
        extents: !random.oneIn(3),
      });
      const place = random.between(0, bytes.length - length);
      const writable = createWriteStream(destination, {
        ...{ offset: place, requestSize: random.pick([512, 4096, 65_536]), requests: random.between(1, 8) },
        sparse: random.pick([0, 512, 4096]),
        flush: random.oneIn(2),
      });
      // Chunks of other sizes than requests have.
      const recut = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
        for await (const chunk of chunks) yield* segments(chunk, random);
      };
      const ended = await ending(pipeline(readable, recut, writable));
      if (ended === 'ok') {
        seen.ok++;
        const expected = Buffer.alloc(bytes.length, OLD);
        bytes.copy(expected, place, offset, offset + length);
        const there = Buffer.alloc(bytes.length);
        to.read(there, 0);
        expect([number, there.equals(expected)]).toEqual([number, true]);
      } else {
        seen.failed++;
        expect([number, fails]).toEqual([number, true]);
        expect(ended).toMatchObject({ code: 'EIO' });
      }
    }
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
  });
});
