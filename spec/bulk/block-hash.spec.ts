// The block hash, held against python3's hashlib, which is given the bytes and the formula and nothing of ours.

import { spawnSync } from 'node:child_process';

import { describe, expect, it } from '@jest/globals';

import { blockHash, BlockHasher, copy, NbdConnection, nullDestination } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { caught, rejection } from '../support/caught.js';

const PYTHON = `import hashlib,struct,sys
while True:
  line=sys.stdin.buffer.readline().split()
  if not line: break
  name,size=line[0].decode(),int(line[1]); data=sys.stdin.buffer.read(int(line[2]))
  digests=b''.join(hashlib.new(name,data[at:at+size]).digest() for at in range(0,len(data),size))
  print(hashlib.new(name,digests+struct.pack('<Q',len(data))).hexdigest())`;

interface Case {
  readonly bytes: Buffer;
  readonly algorithm: string;
  readonly blockSize: number;
}

function references(cases: readonly Case[]): string[] {
  const input = cases.flatMap(({ bytes, algorithm, blockSize }) => [
    Buffer.from(`${algorithm} ${blockSize} ${bytes.length}\n`),
    bytes,
  ]);
  const run = spawnSync('/usr/bin/python3', ['-c', PYTHON], { input: Buffer.concat(input) });
  if (run.status !== 0) throw new Error(String(run.stderr));
  return run.stdout.toString().trim().split('\n');
}

/** Stretches of zeroes and of other bytes. */
function contents(random: Random, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size;) {
    const end = Math.min(at + random.pick([1, 511, 4096, 65_536, 200_000]), size);
    if (random.oneIn(2)) for (let byte = at; byte < end; byte++) bytes[byte] = (byte * 31 + (byte >> 8)) & 255;
    at = end;
  }
  return bytes;
}

const SIZES = [0, 1, 511, 65_535, 65_536, 65_537, 131_072, 1_000_001];

describe('blockHash', () => {
  it.each(SIZES)('of %d bytes is what python3 computes, with and without extents', async (size) => {
    const bytes = contents(new Random(seedOf(SEED, size)), size);
    const backend = new MemoryBackend(size);
    // What is zero is left a hole, so that there is something to skip.
    for (let at = 0; at < size; at += 4096) {
      const piece = bytes.subarray(at, at + 4096);
      if (piece.some((byte) => byte !== 0)) backend.write(Buffer.from(piece), at);
    }
    await using server = await new NbdServer({ exports: { '': backend } }).listenTcp();
    await using connection = await NbdConnection.connect(server.uri(), { metaContexts: ['base:allocation'] });
    const [expected, small] = references([
      { bytes, algorithm: 'sha256', blockSize: 65536 },
      { bytes, algorithm: 'md5', blockSize: 512 },
    ]);
    expect([SEED, await blockHash(connection)]).toEqual([SEED, expected]);
    expect(await blockHash(connection, { extents: false })).toBe(expected);
    expect(await blockHash(connection, { algorithm: 'md5', blockSize: 512 })).toBe(small);
    const hasher = new BlockHasher();
    await copy(connection, nullDestination(), { hash: hasher });
    expect(await hasher.digest()).toBe(expected);
  });

  it('of holes too large to read is computed without reading', async () => {
    const size = 2 ** 40;
    await using server = await new NbdServer({ exports: { '': new MemoryBackend(size) } }).listenTcp();
    await using connection = await NbdConnection.connect(server.uri(), { metaContexts: ['base:allocation'] });
    const blockSize = 2 ** 26;
    const seen: bigint[] = [];
    const found = await blockHash(connection, { blockSize, onProgress: ({ done }) => seen.push(done) });
    expect(seen.at(-1)).toBe(2n ** 40n);
    expect(server.statistics.requests.pread).toBe(0);
    const hasher = new BlockHasher({ blockSize });
    hasher.zero(0, 2n ** 40n);
    expect(await hasher.digest()).toBe(found);
  });

  it('of very many zero blocks leaves the event loop alive, and is ended by a signal', async () => {
    const hasher = new BlockHasher({ blockSize: 512 });
    hasher.zero(0, 2n ** 62n);
    const reason = new Error('enough');
    let turns = 0;
    const controller = new AbortController();
    const timer = setInterval(() => {
      if (++turns === 5) controller.abort(reason);
    }, 1);
    expect(await rejection(hasher.digest(undefined, controller.signal))).toBe(reason);
    clearInterval(timer);
  });
});

describe('BlockHasher', () => {
  it(
    withSeed('takes bytes in any order and in any pieces'),
    async () => {
      const cases: Case[] = [];
      const found: string[] = [];
      for (let number = 0; number < 60; number++) {
        const random = new Random(seedOf(SEED, number));
        const blockSize = random.pick([1, 512, 4096, 65_536]);
        const bytes = contents(random, random.between(0, blockSize === 1 ? 2000 : 300_000));
        const pieces: [number, number][] = [];
        for (let at = 0; at < bytes.length;) {
          const end = Math.min(at + random.pick([1, 100, 512, 4096, 70_000, 200_000]), bytes.length);
          pieces.push([at, end]);
          at = end;
        }
        for (let at = pieces.length - 1; at > 0; at--) {
          const other = random.between(0, at);
          [pieces[at], pieces[other]] = [pieces[other]!, pieces[at]!];
        }
        const hasher = new BlockHasher({ blockSize, algorithm: 'sha1' });
        for (const [start, end] of pieces) {
          const piece = Buffer.from(bytes.subarray(start, end));
          if (piece.every((byte) => byte === 0) && random.oneIn(2)) hasher.zero(BigInt(start), end - start);
          else hasher.update(start, piece);
          piece.fill(0xee);
        }
        found.push(await hasher.digest(bytes.length));
        cases.push({ bytes, algorithm: 'sha1', blockSize });
      }
      expect(found).toEqual(references(cases));
    },
    600_000,
  );

  it.each([
    [
      'a gap',
      [
        [0, 512],
        [1024, 512],
      ],
      undefined,
    ],
    [
      'a gap within a block',
      [
        [0, 100],
        [101, 411],
      ],
      undefined,
    ],
    ['a missing end', [[0, 512]], 513],
    ['a missing beginning', [[1, 1000]], undefined],
    ['a size that is less', [[0, 1024]], 512],
  ] as const)('has no digest with %s', async (_what, pieces, size) => {
    for (const isZero of [true, false]) {
      const hasher = new BlockHasher({ blockSize: 512 });
      for (const [offset, length] of pieces) {
        if (isZero) hasher.zero(offset, length);
        else hasher.update(offset, Buffer.alloc(length, 1));
      }
      expect(await rejection(hasher.digest(size))).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
    }
  });

  it.each([
    ['a block', [0, 512], [0, 512]],
    ['a part of a block', [0, 100], [99, 10]],
    ['a part of a block that is done', [512, 512], [600, 1]],
    ['a block within zeroes', [512, 512 * 1000], [1024, 512]],
    ['zeroes over a block', [1024, 512], [512, 512 * 1000]],
    ['what was hashed already', [0, 1024], [100, 1]],
  ] as [string, [number, number], [number, number]][])('refuses %s that is given twice', (_what, first, second) => {
    const hasher = new BlockHasher({ blockSize: 512 });
    hasher.zero(...first);
    expect(caught(() => hasher.zero(...second))).toMatchObject({ code: 'EINVAL' });
    expect(caught(() => hasher.update(second[0], Buffer.alloc(second[1])))).toMatchObject({ code: 'EINVAL' });
  });

  it('refuses bad arguments, and anything after the digest', async () => {
    for (const options of [{ blockSize: 1000 }, { blockSize: 0 }, { algorithm: 'no-such' }, { algo: 'md5' }, null]) {
      expect(caught(() => new BlockHasher(options as never))).toMatchObject({ code: 'EINVAL' });
    }
    const hasher = new BlockHasher();
    for (const bad of [-1, 1.5, NaN, '0', 2n ** 63n]) {
      expect(caught(() => hasher.update(bad as never, Buffer.alloc(1)))).toMatchObject({ code: 'EINVAL' });
      expect(caught(() => hasher.zero(0, bad as never))).toMatchObject({ code: 'EINVAL' });
    }
    expect(caught(() => hasher.update(0, 'bytes' as never))).toMatchObject({ code: 'EINVAL' });
    await hasher.digest();
    expect(caught(() => hasher.zero(0, 1))).toMatchObject({ code: 'EINVAL' });
    expect(await rejection(hasher.digest())).toMatchObject({ code: 'EINVAL' });
  });
});
