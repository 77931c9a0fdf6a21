// Parts of exports: what is chosen arrives, byte for byte, and nothing else is touched.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import {
  blockHash,
  compare,
  copy,
  type CopyDestination,
  type CopySource,
  hash,
  NbdConnection,
  nullDestination,
  type Progress,
} from '../../lib/index.js';
import { IntervalSet } from '../../lib/bulk/intervals.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';

const CASES = Number(process.env['LIVES'] ?? 200);
const OLD = 0xaa;

describe(withSeed('parts of exports'), () => {
  /** Random bytes with stretches of zeroes, and a map that knows most of them. */
  function source(random: Random, size: number, minimumBlock: number): { bytes: Buffer; from: CopySource } {
    const bytes = Buffer.alloc(size);
    const runs: { offset: number; length: number; isZero: boolean }[] = [];
    for (let offset = 0; offset < size;) {
      const length = Math.min(random.pick([1, 512, 4096, 10_000, 50_000]), size - offset);
      const isZero = random.oneIn(2);
      if (!isZero) bytes.fill(random.between(1, 255), offset, offset + length);
      runs.push({ offset, length, isZero: isZero && !random.oneIn(4) });
      offset += length;
    }
    const check = checked(size, minimumBlock);
    const from: CopySource = {
      size,
      minimumBlock,
      maximumRequest: 65_536,
      read: async (buffer, offset) => {
        check(offset, buffer.length, 65_536);
        await pause(random);
        bytes.copy(buffer, 0, offset, offset + buffer.length);
      },
      async *zeroRuns(offset, length) {
        for (const run of runs) if (run.offset + run.length > offset && run.offset < offset + length) yield run;
      },
    };
    return { bytes, from };
  }

  function target(random: Random, size: number, minimumBlock: number): { bytes: Buffer; to: CopyDestination } {
    const bytes = Buffer.alloc(size, OLD);
    const check = checked(size, minimumBlock);
    const to: CopyDestination = {
      size,
      minimumBlock,
      maximumRequest: 32_768,
      preferredBlock: Math.max(minimumBlock, random.pick([1, 4096])),
      write: async (buffer, offset) => {
        check(offset, buffer.length, 32_768);
        await pause(random);
        buffer.copy(bytes, offset);
      },
      read: async (buffer, offset) => {
        await pause(random);
        bytes.copy(buffer, 0, offset, offset + buffer.length);
      },
      zero: async (offset, count) => {
        check(offset, count, Infinity);
        if (random.oneIn(4)) return false;
        await pause(random);
        bytes.fill(0, offset, offset + count);
        return true;
      },
    };
    return { bytes, to };
  }

  const pause = async (random: Random): Promise<void> => {
    for (let turns = random.below(3); turns > 0; turns--) await new Promise(setImmediate);
  };

  /** What an end refuses to be asked. */
  const checked =
    (size: number, block: number) =>
    (offset: number, length: number, most: number): void => {
      const isWhole = offset % block === 0 && (length % block === 0 || offset + length === size);
      if (!isWhole || length < 1 || length > most || offset + length > size)
        throw new Error(`${length} at ${offset} of ${size}, in blocks of ${block}`);
    };

  it('are copied to wherever they are wanted, whatever the blocks of the ends', async () => {
    for (let number = 0; number < CASES; number++) {
      const random = new Random(seedOf(SEED, number));
      const size = random.pick([1, 512, 100_000, 300_001]);
      const { bytes, from } = source(random, size, random.pick([1, 512, 4096]));
      const offset = random.oneIn(2) ? 0 : random.below(size);
      const length = random.between(0, size - offset);
      const destinationOffset = random.pick([offset, offset + 512, 0, random.below(10_000)]);
      const { bytes: written, to } = target(random, destinationOffset + size + 5000, random.pick([1, 512, 4096]));
      const ranges = Array.from({ length: random.below(6) }, () => {
        const first = random.below(size);
        return { offset: first, length: BigInt(random.between(0, Math.min(size - first, 60_000))) };
      });
      const expected = Buffer.from(written);
      let total = 0n;
      const wanted = new IntervalSet();
      const whole = [{ offset, length: BigInt(length) }];
      const isListed = random.oneIn(2);
      for (const range of isListed ? ranges : whole) {
        const start = Math.max(range.offset, offset);
        const end = Math.min(range.offset + Number(range.length), offset + length);
        if (end > start) wanted.add(BigInt(start), BigInt(end));
      }
      for (const { start, end } of wanted.spans) {
        bytes.copy(expected, Number(start) - offset + destinationOffset, Number(start), Number(end));
        total += end - start;
      }
      const told: Progress[] = [];
      const result = await copy(from, to, {
        offset,
        length,
        destinationOffset,
        ...(isListed ? { ranges: random.oneIn(2) ? ranges : new Set(ranges) } : {}),
        requestSize: random.pick([512, 4096, 65_536]),
        requests: random.pick([1, 3, 8, 'auto']),
        sparse: random.pick([0, 512, 4096]),
        extents: !random.oneIn(4),
        onProgress: (progress) => void told.push(progress),
      });
      const where = { number, seed: SEED };
      expect({ ...where, differs: written.compare(expected), total: result.total }).toEqual({
        ...where,
        differs: 0,
        total,
      });
      if (total > 0n) {
        expect(told.at(-1)).toMatchObject({ done: total, total, at: wanted.spans.at(-1)?.end, eta: 0 });
      }
    }
  });

  it('are compared and hashed as if nothing else were there', async () => {
    const random = new Random(seedOf(SEED, 1 << 20));
    const backend = new MemoryBackend(200_000);
    const bytes = Buffer.alloc(200_000);
    for (let at = 10_000; at < 150_000; at++) bytes[at] = random.below(256);
    backend.write(bytes, 0);
    await using server = new NbdServer({ exports: { '': backend } });
    await using connection = await NbdConnection.connect(server.connectMemory(), { metaContexts: ['base:allocation'] });
    for (let number = 0; number < 20; number++) {
      const offset = random.below(bytes.length);
      const length = random.between(0, bytes.length - offset);
      const range = { offset, length };
      const part = bytes.subarray(offset, offset + length);
      const alone = new MemoryBackend(Math.max(length, 1));
      alone.write(part, 0);
      await using other = new NbdServer({ exports: { '': alone } });
      await using copied = await NbdConnection.connect(other.connectMemory());
      const all = { length };
      expect(await hash(connection, range)).toBe(await hash(copied, all));
      expect(await blockHash(connection, { ...range, blockSize: 4096 })).toBe(
        await blockHash(copied, { ...all, blockSize: 4096 }),
      );
      const changed = Buffer.from(bytes);
      const place = random.below(bytes.length);
      changed[place] = (changed[place] ?? 0) ^ 1;
      const isWithin = place >= offset && place < offset + length;
      const end: CopySource = { size: bytes.length, read: async (buffer, at) => void changed.copy(buffer, 0, at) };
      for (const options of [range, { ranges: [range, range] }]) {
        expect(await compare(connection, end, options)).toMatchObject({
          equal: !isWithin,
          firstDifference: isWithin ? BigInt(place) : null,
          compared: BigInt(length),
        });
      }
    }
  });
});

describe('compare with trailingZeroes', () => {
  const end = (bytes: Buffer): CopySource => ({
    size: bytes.length,
    read: async (buffer, at) => void bytes.copy(buffer, 0, at),
  });
  const short = Buffer.alloc(1000, 1);
  const zeroes = Buffer.concat([short, Buffer.alloc(500_000)]);
  const more = Buffer.concat([short, Buffer.alloc(500), Buffer.alloc(1, 7)]);

  it.each([
    ['as a difference, unless asked otherwise', short, zeroes, {}, { equal: false, firstDifference: null }],
    ['as equal', short, zeroes, { trailingZeroes: 'equal' }, { equal: true, compared: 501_000n }],
    ['from either side', zeroes, short, { trailingZeroes: 'equal' }, { equal: true, compared: 501_000n }],
    ['but only zeroes', short, more, { trailingZeroes: 'equal' }, { equal: false, firstDifference: 1500n }],
    ['within a range', short, more, { trailingZeroes: 'equal', length: 1200 }, { equal: true, compared: 1200n }],
    ['a range of both', short, more, { offset: 500, length: 500 }, { equal: true, sizes: [1000n, 1501n] }],
  ] as const)('takes them %s', async (_title, one, other, options, expected) => {
    expect(await compare(end(one), end(other), options)).toMatchObject(expected);
  });
});

describe('a part that cannot be copied', () => {
  let server: NbdServer;
  let connection: NbdConnection;
  beforeAll(async () => {
    server = new NbdServer({ exports: { '': new MemoryBackend(65_536) } });
    connection = await NbdConnection.connect(server.connectMemory());
  });
  afterAll(async () => {
    await connection.shutdown();
    await server.close();
  });
  const room = (size: number): CopyDestination => ({ ...nullDestination(), size });

  it.each([
    ['beyond the source', room(65_536), { offset: 65_536, length: 1 }, 'EINVAL', /leaves the export/],
    [
      'behind the destination',
      room(4096),
      { offset: 4096, length: 1 },
      'ENOSPC',
      /has 4096 bytes, fewer than the 4097/,
    ],
    ['moved behind it', room(4096), { length: 4096, destinationOffset: 1 }, 'ENOSPC', /fewer than the 4097/],
    ['of both ways to choose', room(65_536), { ranges: [], bitmap: 'x' }, 'EINVAL', /use one of them/],
    ['of an end without bitmaps', room(65_536), { bitmap: 'qemu:dirty-bitmap:x' }, 'EINVAL', /bitmap/],
    ['onto itself', null, {}, 'EINVAL', /are the same/],
  ] as const)('%s is refused, and nothing is read', async (title, to, options, code, message) => {
    const before = JSON.stringify(server.statistics.requests);
    const source = title === 'of an end without bitmaps' ? room(1) : connection;
    const from = source === connection ? connection : { size: 65_536, read: async () => undefined };
    await expect(copy(from, to ?? connection, options)).rejects.toMatchObject({
      name: 'NbdStrictError',
      code,
      message: expect.stringMatching(message),
    });
    expect(JSON.stringify(server.statistics.requests)).toBe(before);
  });
});
