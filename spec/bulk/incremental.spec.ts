// Incremental copies: what a dirty bitmap marks arrives, zeroes among it are zeroed, and nothing else is touched.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { compare, copy, type CopySource, NbdConnection, nullDestination } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { describeWith, startNbdkit, startQemuNbd } from '../support/real-servers.js';

const BLOCK = 4096;
const BITMAP = 'qemu:dirty-bitmap:b0';

describe(withSeed('copy with a bitmap'), () => {
  it('makes the destination what the source is, touching what has changed only', async () => {
    for (let number = 0; number < 30; number++) {
      const random = new Random(seedOf(SEED, number));
      const blocks = random.between(1, 300);
      const size = blocks * BLOCK;
      const before = randomBytes(size);
      const now = Buffer.from(before);
      const dirty = Array.from({ length: blocks }, () => random.oneIn(3));
      const source = new MemoryBackend(size);
      let marked = 0;
      dirty.forEach((isDirty, at) => {
        if (!isDirty) return;
        marked++;
        now.fill(random.oneIn(2) ? 0 : random.between(1, 255), at * BLOCK, (at + 1) * BLOCK);
      });
      for (let at = 0; at < blocks; at++) {
        const block = now.subarray(at * BLOCK, (at + 1) * BLOCK);
        if (block.some((byte) => byte !== 0)) source.write(block, at * BLOCK);
      }
      const target = new MemoryBackend(size);
      target.write(before, 0);
      const extents = (offset: number | bigint, count: number | bigint): { length: number; flags: number }[] => {
        const found = [];
        for (let at = Number(offset); at < Number(offset) + Number(count); at += BLOCK)
          found.push({ length: BLOCK, flags: dirty[Math.floor(at / BLOCK)] === true ? 1 : 0 });
        return found;
      };
      await using server = new NbdServer({
        exports: { from: { backend: source, metaContexts: { [BITMAP]: { extents } } }, to: target },
      });
      const open = (exportName: string): Promise<NbdConnection> =>
        NbdConnection.connect(server.connectMemory(), { exportName, metaContexts: ['base:allocation', BITMAP] });
      await using from = await open('from');
      await using to = await open('to');
      const result = await copy(from, to, { bitmap: random.oneIn(2) ? 'b0' : BITMAP, requestSize: 8192 });
      const there = Buffer.alloc(size);
      target.read(there, 0);
      expect({ number, differs: there.compare(now), total: result.total }).toEqual({
        number,
        differs: 0,
        total: BigInt(marked * BLOCK),
      });
      const half = BigInt(random.below(size));
      const { total } = await copy(from, to, {
        bitmap: 'b0',
        offset: half,
        length: 1000n < BigInt(size) - half ? 1000 : 0,
      });
      expect(total).toBeLessThanOrEqual(1000n);
    }
  });

  it('fails before anything is read where the bitmap is missing, or fails half way', async () => {
    const backend = new MemoryBackend(1 << 20);
    let failing = false;
    const extents = (offset: number | bigint, count: number | bigint): { length: number; flags: number }[] => {
      if (failing && BigInt(offset) > 0n) throw Object.assign(new Error('the bitmap is broken'), { code: 'EIO' });
      return [{ length: Math.min(Number(count), 65_536), flags: 1 }];
    };
    await using server = new NbdServer({
      exports: { '': { backend, metaContexts: { [BITMAP]: { extents } } } },
    });
    await using plain = await NbdConnection.connect(server.connectMemory());
    await expect(copy(plain, nullDestination(), { bitmap: 'b0' })).rejects.toMatchObject({ code: 'ENOTSUP' });
    await using connection = await NbdConnection.connect(server.connectMemory(), { metaContexts: [BITMAP] });
    failing = true;
    await expect(copy(connection, nullDestination(), { bitmap: 'b0' })).rejects.toMatchObject({ code: 'EIO' });
    expect(server.statistics.requests.pread).toBe(0);
  });

  it('checks what an end of its own says of its changes', async () => {
    const source = (runs: { offset: number; length: number; isZero: boolean }[]): CopySource => ({
      size: 10_000,
      read: async (buffer) => void buffer.fill(1),
      changedRuns: async function* () {
        yield* runs;
      },
    });
    const run = (offset: number, length: number): { offset: number; length: number; isZero: boolean } => ({
      offset,
      length,
      isZero: false,
    });
    const wrong = [
      [run(5000, 10), run(0, 10)],
      [run(0, 10), run(5, 10)],
      [run(0, 10_001)],
      [run(-1, 5)],
      [run(0, 1.5)],
    ];
    for (const runs of wrong)
      await expect(copy(source(runs), nullDestination(), { bitmap: 'x' })).rejects.toMatchObject({ code: 'EINVAL' });
    expect(
      await copy(source([run(0, 10), run(10, 5), run(9000, 1000)]), nullDestination(), { bitmap: 'x' }),
    ).toMatchObject({ total: 1015n, read: 1015n });
  });
});

describeWith(['qemu-nbd', 'qemu-img', 'nbdkit'], 'copy with a bitmap of qemu-nbd', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-incremental-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('follows random writes, zeroes and trims', async () => {
    const size = 8 << 20;
    const random = new Random(seedOf(SEED, 99));
    await using source = await startQemuNbd({ size, bitmap: 'b0' });
    await using target = await startNbdkit({ args: [String(size)] });
    await using from = await NbdConnection.connect(source.uri(), { metaContexts: ['base:allocation', BITMAP] });
    await using to = await NbdConnection.connect(target.uri(), { metaContexts: ['base:allocation'] });
    await copy(from, to);
    for (let round = 0; round < 3; round++) {
      for (let change = 0; change < 20; change++) {
        const offset = 512 * random.below(size / 512 - 256);
        const length = 512 * random.between(1, 256);
        if (random.oneIn(3)) await from.zero(length, offset);
        else if (random.oneIn(2)) await from.trim(length, offset);
        else await from.pwrite(randomBytes(length), offset);
      }
      await from.flush();
      const { total } = await copy(from, to, { bitmap: 'b0' });
      expect(total).toBeGreaterThan(0n);
      expect(total).toBeLessThan(BigInt(size));
      expect(await compare(from, to)).toMatchObject({ equal: true });
    }
  });
});
