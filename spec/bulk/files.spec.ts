// Files as ends of a copy: holes are found and made, what is there stays where it is to stay, and a file that came to
// nothing is removed.

import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { compare, copy, type CopySource, fileCheckpoint, fileDestination, fileSource } from '../../lib/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';

const MIB = 1 << 20;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-files-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A sparse file of random stretches, and its bytes. */
async function sparse(random: Random, name: string, size: number): Promise<{ path: string; bytes: Buffer }> {
  const path = join(folder, name);
  const bytes = Buffer.alloc(size);
  const file = await open(path, 'w');
  await file.truncate(size);
  for (let at = 0; at < size; at += 65_536) {
    if (random.oneIn(2)) continue;
    const piece = randomBytes(Math.min(random.between(1, 65_536), size - at));
    piece.copy(bytes, at);
    await file.write(piece, 0, piece.length, at);
  }
  await file.close();
  return { path, bytes };
}

describe(withSeed('files'), () => {
  it('are copied with their holes, whole and in parts, over what was there', async () => {
    for (let number = 0; number < 12; number++) {
      const random = new Random(seedOf(SEED, number));
      const size = random.pick([0, 1, 500_000, 3 * MIB + 17]);
      const { path, bytes } = await sparse(random, 'from', size);
      await using from = await fileSource(path, { extents: !random.oneIn(4) });
      const target = join(folder, `to-${number}`);
      const old = random.oneIn(2) ? Buffer.alloc(0) : randomBytes(random.below(4 * MIB));
      if (old.length > 0) await writeFile(target, old);
      const replace = random.oneIn(2);
      const offset = random.oneIn(2) ? 0 : random.below(size + 1);
      {
        await using to = await fileDestination(target, { size, replace });
        await copy(from, to, { offset, requestSize: random.pick([4096, 65_536]), flush: true });
      }
      const expected = Buffer.alloc(Math.max(size, replace ? 0 : old.length));
      if (!replace) old.copy(expected);
      bytes.copy(expected, offset, offset);
      // Nothing to copy is nothing done.
      const isUntouched = offset === size && size > 0 && !replace;
      const there = await readFile(target);
      if (!isUntouched) expect([number, there.equals(expected)]).toEqual([number, true]);
      if (replace && size > MIB) expect((await stat(target)).blocks * 512).toBeLessThan(size);
      await using back = await fileSource(target);
      const equal = await compare(from, back, { offset, length: size - offset });
      expect(equal.equal).toBe(true);
    }
  });

  it('are zeroed where they hold data, and keep their holes', async () => {
    const path = join(folder, 'kept');
    const file = await open(path, 'w');
    await file.truncate(8 * MIB);
    await file.write(Buffer.alloc(MIB, 1), 0, MIB, 2 * MIB);
    await file.close();
    const source: CopySource = {
      size: 8 * MIB,
      read: async () => undefined,
      async *zeroRuns(offset, length) {
        yield { offset, length, isZero: true };
      },
    };
    {
      await using to = await fileDestination(path);
      await copy(source, to, { length: 6 * MIB });
    }
    expect((await readFile(path)).equals(Buffer.alloc(8 * MIB))).toBe(true);
    expect((await stat(path)).blocks * 512).toBeLessThanOrEqual(MIB + 65_536);
  });

  it('are continued from a checkpoint, and not where the file is another one', async () => {
    const random = new Random(SEED);
    const { path, bytes } = await sparse(random, 'origin', 2 * MIB);
    const target = join(folder, 'resumed');
    const options = (): object => ({
      checkpoint: fileCheckpoint(join(folder, 'state'), { every: 65_536 }),
      requestSize: 4096,
      requests: 2,
    });
    const attempt = async (reads: number): Promise<unknown> => {
      await using from = await fileSource(path);
      await using to = await fileDestination(target, { size: 2 * MIB, replace: true });
      let left = reads;
      const failing: CopySource<number | bigint> = {
        ...from,
        read: async (...args) => {
          if (left-- === 0) throw new Error('enough for now');
          await from.read(...args);
        },
      };
      return await copy(failing, to, options()).catch((error: unknown) => error);
    };
    expect(await attempt(60)).toBeInstanceOf(Error);
    const kept = await readFile(target);
    await rm(target);
    expect(await attempt(0)).toMatchObject({ code: 'ESTALE' });
    expect(await readdir(folder)).not.toContain('resumed');
    await writeFile(join(folder, 'pushed'), '');
    await writeFile(target, kept);
    const again = await attempt(Infinity);
    // Where the new file has the number of the old one, it is taken for it, and its bytes are the same.
    if (again instanceof Error) expect(again).toMatchObject({ code: 'ESTALE' });
    else expect((await readFile(target)).equals(bytes)).toBe(true);
  });

  it('of a handle stay open, and what came to nothing is removed', async () => {
    const { path, bytes } = await sparse(new Random(SEED), 'handle', 100_000);
    const handle = await open(path, 'r');
    const written = await open(join(folder, 'by-handle'), 'w+');
    {
      await using from = await fileSource(handle);
      await using to = await fileDestination(written, { size: 100_000 });
      await copy(from, to);
    }
    expect((await readFile(join(folder, 'by-handle'))).equals(bytes)).toBe(true);
    await handle.close();
    await written.close();
    {
      await using to = await fileDestination(join(folder, 'nothing'), { size: 10 });
      const failing: CopySource = { size: 10, read: () => Promise.reject(new Error('no')) };
      await expect(copy(failing, to)).rejects.toThrow('no');
    }
    expect(await readdir(folder)).not.toContain('nothing');
  });

  it.each([
    ['a missing source', () => fileSource(join(folder, 'missing')), 'ENOENT'],
    ['a folder', () => fileSource(folder), 'EINVAL'],
    ['a pipe', () => fileSource('/dev/null'), 'EINVAL'],
    ['an empty path', () => fileSource(''), 'EINVAL'],
    ['a number', () => fileSource(3 as never), 'EINVAL'],
    ['an unknown option', () => fileSource(folder, { size: 1 } as never), 'EINVAL'],
    ['a new file without a size', () => fileDestination(join(folder, 'sizeless')), 'EINVAL'],
    ['a wrong size', () => fileDestination(join(folder, 'sizeless'), { size: -1 }), 'EINVAL'],
    ['a size beyond what can be written', () => fileDestination(join(folder, 'vast'), { size: 2n ** 53n }), 'EFBIG'],
    ['a device that is not there', () => fileDestination('/dev/nbd-none', { size: 1 }), 'ENOENT'],
  ])('refuse %s', async (_title, act, code) => {
    await expect(act()).rejects.toMatchObject({ code });
    expect((await readdir(folder)).filter((name) => name === 'sizeless' || name === 'vast')).toEqual([]);
  });

  it('above 2^53 bytes are read, where the file system has them', async () => {
    const path = join(folder, 'vast-source');
    await writeFile(path, 'x');
    const size = 2n ** 53n + 4096n;
    const can = await truncate(path, Number(size)).then(
      () => true,
      () => false,
    );
    if (!can) return;
    await using from = await fileSource(path);
    expect(from.size).toBe(size);
    const bytes = Buffer.alloc(512, 1);
    await from.read(bytes, size - 512n, 0);
    expect(bytes.equals(Buffer.alloc(512))).toBe(true);
  });
});
