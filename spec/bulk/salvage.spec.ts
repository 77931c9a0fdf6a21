// Copies of what fails in places, of what a lost connection has put at risk, and at a limited rate.

import { getEventListeners } from 'node:events';

import { describe, expect, it } from '@jest/globals';

import {
  type ByteRange,
  copy,
  type CopyDestination,
  type CopySource,
  NbdCommandError,
  NbdConnection,
  NbdConnectionError,
  NbdError,
  nullDestination,
  type Progress,
  RateLimiter,
} from '../../lib/index.js';
import { type NbdBackend, NbdServer } from '../../lib/server/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { IS_LONG } from '../support/long.js';

const MIB = 1 << 20;
const CASES = IS_LONG ? 60 : 20;

/** A source of ones in which some ranges cannot be read. */
function bad(size: number, ranges: readonly (readonly [number, number])[], error: Error, block = 1): CopySource {
  return {
    size,
    minimumBlock: block,
    read: async (buffer, offset) => {
      if (ranges.some(([start, end]) => start < offset + buffer.length && offset < end)) throw error;
      buffer.fill(1);
    },
  };
}

const EIO = new NbdCommandError('pread: the server reported Input/output error (EIO)', { code: 'EIO' });

describe(withSeed('onReadError'), () => {
  const into = (bytes: Buffer): CopyDestination => ({
    size: bytes.length,
    write: async (buffer, offset) => void buffer.copy(bytes, offset),
  });

  it.each([
    ['a sector', 512 * 1024, [[512, 1024]], 1, [[512, 1024]]],
    ['one byte, as a sector', 100_000, [[5000, 5001]], 1, [[4608, 5120]]],
    ['a block', 1 << 20, [[40_960, 40_961]], 4096, [[40_960, 45_056]]],
    ['the short end', 10_100, [[10_099, 10_100]], 1, [[9728, 10_100]]],
    ['what lies across requests', 600_000, [[262_000, 262_600]], 1, [[261_632, 262_656]]],
    ['all of it', 3000, [[0, 3000]], 1, [[0, 3000]]],
  ] as const)('zeroes %s that cannot be read, and lists it', async (_title, size, ranges, block, missing) => {
    const there = Buffer.alloc(size, 0xaa);
    const result = await copy(bad(size, ranges, EIO, block), into(there), { onReadError: 'zero' });
    expect(result.missing).toEqual(
      missing.map(([start, end]) => ({ offset: BigInt(start), length: BigInt(end - start) })),
    );
    const expected = Buffer.alloc(size, 1);
    for (const [start, end] of missing) expected.fill(0, start, end);
    expect(there.equals(expected)).toBe(true);
    await expect(copy(bad(size, ranges, EIO, block), into(there))).rejects.toMatchObject({ code: 'EIO' });
  });

  it.each([
    ['a lost connection', new NbdConnectionError('gone', { code: 'ENOTCONN' })],
    ['a server that shuts down', new NbdCommandError('going', { code: 'ESHUTDOWN' })],
    ['a program that is wrong', new TypeError('x is not a function')],
  ])('does not take %s for a bad place', async (_title, error) => {
    const copying = copy(bad(1000, [[0, 1]], error), nullDestination(), { onReadError: 'zero' });
    await expect(copying).rejects.toMatchObject({ cause: error });
  });

  it('works on a server, and the list survives a checkpoint', async () => {
    const random = new Random(seedOf(SEED, 1));
    const bytes = Buffer.alloc(2 * MIB, 7);
    const place = 4096 * random.below(500);
    const failing: NbdBackend = {
      size: 2 * MIB,
      read: (buffer, at) => {
        const offset = Number(at);
        if (offset < place + 512 && place < offset + buffer.length)
          throw Object.assign(new Error('bad sector'), { code: 'EIO' });
        bytes.copy(buffer, 0, offset, offset + buffer.length);
      },
    };
    await using server = new NbdServer({ exports: { '': failing } });
    await using connection = await NbdConnection.connect(server.connectMemory());
    let text: string | null = null;
    const there = Buffer.alloc(2 * MIB);
    let writes = 0;
    const to: CopyDestination = {
      ...into(there),
      write: async (buffer, offset) => {
        if (text !== null && text.includes('missing\\":[[') && writes++ === 0) throw new Error('crash');
        buffer.copy(there, offset);
      },
      flush: async () => undefined,
    };
    const options = {
      onReadError: 'zero',
      requestSize: 4096,
      requests: 2,
      checkpoint: {
        every: 65_536,
        load: () => text,
        save: (now: string) => void (text = now),
        clear: () => void (text = null),
      },
    } as const;
    let result = await copy(connection, to, options).catch((error: unknown) => error);
    if (result instanceof Error) result = await copy(connection, to, options);
    expect((result as { missing: unknown }).missing).toEqual([{ offset: BigInt(place), length: 512n }]);
    expect(JSON.parse(JSON.stringify(result))).toMatchObject({ missing: [{ offset: place, length: 512 }] });
    bytes.fill(0, place, place + 512);
    expect(there.equals(bytes)).toBe(true);
  });
});

class Unflushed extends NbdError {}
Object.defineProperty(Unflushed.prototype, 'name', { value: 'NbdUnflushedError' });

describe(withSeed('a destination that loses writes'), () => {
  /** As a pool's: a flush after a loss rejects once, with what had been written and not flushed. */
  class Losing implements CopyDestination {
    readonly size: number;
    readonly minimumBlock = 512;
    readonly bytes: Buffer;
    flushes = 0;
    #unflushed: { offset: number; before: Buffer }[] = [];
    #lost: ByteRange[] = [];
    readonly #random: Random;
    readonly #chance: number;

    constructor(random: Random, size: number, chance: number) {
      this.#random = random;
      this.#chance = chance;
      this.size = size;
      this.bytes = Buffer.alloc(size, 0xaa);
    }

    async read(buffer: Buffer, offset: number): Promise<void> {
      this.bytes.copy(buffer, 0, offset, offset + buffer.length);
    }

    async write(buffer: Buffer, offset: number): Promise<void> {
      await new Promise(setImmediate);
      const before = Buffer.from(this.bytes.subarray(offset, offset + buffer.length));
      this.#unflushed.push({ offset, before });
      buffer.copy(this.bytes, offset);
      if (this.#random.oneIn(this.#chance)) this.lose();
    }

    lose(): void {
      for (const { offset, before } of this.#unflushed.splice(0).reverse()) {
        before.copy(this.bytes, offset);
        this.#lost.push({ offset: BigInt(offset), length: BigInt(before.length) });
      }
    }

    /** What others have written, and a loss has undone. */
    loseOf(range: ByteRange): void {
      this.#lost.push(range);
    }

    async flush(): Promise<void> {
      await new Promise(setImmediate);
      const ranges = this.#lost.splice(0);
      if (ranges.length === 0) {
        this.#unflushed = [];
        this.flushes++;
        return;
      }
      throw Object.assign(new Unflushed('writes were lost', { code: 'EIO' }), { ranges });
    }
  }

  it('has them written again, at the end and at checkpoints', async () => {
    let losses = 0;
    for (let number = 0; number < CASES; number++) {
      const random = new Random(seedOf(SEED + 7, number));
      const size = random.between(1, 200_000);
      const bytes = Buffer.alloc(size);
      for (let at = 0; at < size; at++) bytes[at] = at % 7 === 0 ? 0 : random.below(256);
      let reads = 0;
      const from: CopySource = {
        size,
        read: async (buffer, offset) => {
          reads += buffer.length;
          bytes.copy(buffer, 0, offset, offset + buffer.length);
        },
      };
      const to = new Losing(random, 201_000, 60);
      const place = random.below(1000);
      const checkpoint = { every: 16_384, load: () => null, save: () => undefined };
      await copy(from, to, {
        destinationOffset: place,
        requestSize: 2048,
        requests: random.between(1, 6),
        ...(random.oneIn(2) ? { checkpoint } : {}),
      });
      const expected = Buffer.alloc(201_000, 0xaa);
      bytes.copy(expected, place);
      to.lose();
      expect([number, to.bytes.compare(expected)]).toEqual([number, 0]);
      expect(to.flushes).toBeGreaterThan(0);
      if (reads > size) losses++;
    }
    expect(losses).toBeGreaterThan(IS_LONG ? 10 : 0);
  });

  it('fails where it was not the copy that wrote them, and where it goes on without end', async () => {
    const from: CopySource = { size: 10_000, read: async (buffer) => void buffer.fill(1) };
    const shared = new Losing(new Random(1), 65_536, 1e9);
    shared.loseOf({ offset: 32_768n, length: 512n });
    await expect(copy(from, shared)).rejects.toMatchObject({
      name: 'NbdUnflushedError',
      ranges: [{ offset: 32_768n, length: 512n }],
    });
    const endless = new Losing(new Random(1), 65_536, 1);
    await expect(copy(from, endless)).rejects.toMatchObject({ name: 'NbdUnflushedError' });
  });

  it('is flushed unless it is not wanted', async () => {
    const from: CopySource = { size: 10_000, read: async (buffer) => void buffer.fill(1) };
    for (const [flush, flushes] of [[undefined, 1] as const, [true, 1] as const, [false, 0] as const]) {
      const to = new Losing(new Random(1), 65_536, 1e9);
      await copy(from, to, flush === undefined ? {} : { flush });
      expect(to.flushes).toBe(flushes);
    }
  });
});

describe('rate', () => {
  it('limits what several copies read together', async () => {
    const from: CopySource = { size: 40_000, read: async (buffer) => void buffer.fill(1) };
    const rate = new RateLimiter(200_000);
    const begun = performance.now();
    const told: Progress[] = [];
    const options = { rate, requestSize: 2048, onProgress: (now: Progress) => void told.push(now) };
    await Promise.all([copy(from, nullDestination(), options), copy(from, nullDestination(), options)]);
    // 80,000 bytes at 200,000 a second, the first 50 ms of which may pass at once.
    expect(performance.now() - begun).toBeGreaterThan(330);
    expect(told.at(-1)?.rate).toBeLessThan(150_000);
  });

  it('has one listener on a signal, however many wait', async () => {
    const { signal } = new AbortController();
    const limiter = new RateLimiter(1_000_000);
    await limiter.take(100_000);
    const waiting = Array.from({ length: 50 }, () => limiter.take(10, signal));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    await Promise.all(waiting);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('ends with the reason of the signal, and gives back what was not used', async () => {
    const limiter = new RateLimiter(1000);
    await limiter.take(60_000);
    const abort = new AbortController();
    const waiting = limiter.take(1e9, abort.signal);
    abort.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    for (const wrong of [0, -1, NaN, 1.5, '1', null])
      expect(() => new RateLimiter(wrong as never)).toThrow(/EINVAL|must/);
  });
});
