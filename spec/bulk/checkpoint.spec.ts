// Copies that go on where an earlier one has ended: no more is read again than one checkpoint's worth, nothing is taken
// for done that was not flushed, and what does not belong together is refused.

import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { type CheckpointStore, copy, type CopyDestination, type CopySource, fileCheckpoint } from '../../lib/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';

const EVERY = 65_536;
const REQUEST = 8192;
const CRASH = new Error('the power is gone');

/** A source that counts what is read of each 512 bytes of it. */
function counting(random: Random, size: number): { bytes: Buffer; reads: Uint8Array; from: CopySource } {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 4096)
    if (!random.oneIn(3)) bytes.fill(random.between(1, 255), at, Math.min(at + 4096, size));
  const reads = new Uint8Array(Math.ceil(size / 512));
  const from: CopySource = {
    size,
    identity: 'disk',
    read: async (buffer, offset) => {
      for (let at = offset; at < offset + buffer.length; at += 512) reads[Math.floor(at / 512)]!++;
      await new Promise(setImmediate);
      bytes.copy(buffer, 0, offset, offset + buffer.length);
    },
  };
  return { bytes, reads, from };
}

/** A destination with a cache that a crash empties: only what was flushed stays. */
class Cached implements CopyDestination {
  readonly size: number;
  readonly identity = 'backup';
  readonly disk: Buffer;
  cache: { readonly offset: number; readonly bytes: Buffer }[] = [];
  flushes = 0;
  #crashesAt = Infinity;
  #operations = 0;
  #isDown = false;

  constructor(size: number) {
    this.size = size;
    this.disk = Buffer.alloc(size, 0xaa);
  }

  /** Comes up again, and goes down at this operation. */
  start(crashesAt: number): void {
    this.cache = [];
    this.#operations = 0;
    this.#crashesAt = crashesAt;
    this.#isDown = false;
  }

  async write(buffer: Buffer, offset: number): Promise<void> {
    const bytes = Buffer.from(buffer);
    await this.#operation();
    this.cache.push({ offset, bytes });
  }

  async zero(offset: number, count: number): Promise<boolean> {
    await this.write(Buffer.alloc(count), offset);
    return true;
  }

  async flush(): Promise<void> {
    const cached = this.cache.length;
    await this.#operation();
    for (const { offset, bytes } of this.cache.splice(0, cached)) bytes.copy(this.disk, offset);
    this.flushes++;
  }

  async #operation(): Promise<void> {
    await new Promise(setImmediate);
    if (++this.#operations >= this.#crashesAt) this.#isDown = true;
    if (this.#isDown) throw CRASH;
  }
}

function memoryStore(every = EVERY): CheckpointStore & { text: string | null; saves: number } {
  return {
    every,
    text: null,
    saves: 0,
    load() {
      return this.text;
    },
    save(text) {
      this.text = text;
      this.saves++;
    },
    clear() {
      this.text = null;
    },
  };
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-checkpoint-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe(withSeed('a copy with a checkpoint'), () => {
  it('is right after any number of crashes, and reads no more again than one checkpoint has', async () => {
    let crashes = 0;
    for (let number = 0; number < 40; number++) {
      const random = new Random(seedOf(SEED, number));
      const size = random.between(100_000, 600_000);
      const { bytes, reads, from } = counting(random, size);
      const to = new Cached(size + 4096);
      const isListed = random.oneIn(3);
      const ranges = [
        { offset: 0, length: 50_000 },
        { offset: 60_000, length: size - 60_000 },
      ];
      const store = memoryStore();
      const options = {
        ...(isListed ? { ranges } : {}),
        destinationOffset: 512,
        checkpoint: store,
        requestSize: REQUEST,
        requests: random.between(1, 12),
      };
      for (let attempt = 0; ; attempt++) {
        to.start(attempt > 8 ? Infinity : random.between(1, 80));
        const before = reads.slice();
        const text = store.text;
        const result = await copy(from, to, options).catch((error: unknown) => error);
        // What the checkpoint has is not read again.
        const again = reads.filter((count, at) => count > before[at]! && before[at]! > 0).length * 512;
        expect([number, again <= EVERY + REQUEST]).toEqual([number, true]);
        if (!(result instanceof Error)) {
          const { resumed, total, written, zeroed } = result as Awaited<ReturnType<typeof copy>>;
          expect(resumed + written + zeroed).toBe(total);
          expect(resumed > 0n).toBe(text !== null);
          break;
        }
        expect(result).toMatchObject({ cause: CRASH });
        crashes++;
      }
      expect(store.text).toBeNull();
      const expected = Buffer.alloc(size + 4096, 0xaa);
      for (const { offset, length } of isListed ? ranges : [{ offset: 0, length: size }])
        bytes.copy(expected, 512 + offset, offset, offset + length);
      expect([number, to.disk.compare(expected)]).toEqual([number, 0]);
    }
    expect(crashes).toBeGreaterThan(20);
  });

  it('saves behind a flush only, and lets a store without clear() begin anew', async () => {
    const random = new Random(SEED);
    const { from } = counting(random, 500_000);
    const to = new Cached(500_000);
    to.start(Infinity);
    const store = memoryStore();
    const saved: number[] = [];
    const { save } = store;
    store.save = (text) => {
      expect(to.flushes).toBeGreaterThan(saved.length);
      saved.push(to.flushes);
      return save.call(store, text);
    };
    delete store.clear;
    await copy(from, to, { checkpoint: store, requestSize: REQUEST });
    expect(saved.length).toBeGreaterThan(4);
    const { resumed, read } = await copy(from, to, { checkpoint: store, requestSize: REQUEST });
    expect([resumed, read]).toEqual([0n, 500_000n]);
  });

  it('fails when the store fails, with its error as the cause', async () => {
    const { from } = counting(new Random(SEED), 500_000);
    const broken = new Error('no room');
    const failing = { every: EVERY, load: () => null, save: () => Promise.reject(broken) };
    const to = new Cached(500_000);
    await expect(copy(from, to, { checkpoint: failing })).rejects.toMatchObject({ cause: broken, syscall: 'copy' });
  });

  it('ends with the reason of its signal while a flush hangs', async () => {
    const { from } = counting(new Random(SEED), 500_000);
    const abort = new AbortController();
    const enough = new Error('enough');
    const to: CopyDestination = {
      size: 500_000,
      write: async () => undefined,
      flush: () => {
        setTimeout(() => abort.abort(enough), 1);
        return new Promise(() => undefined);
      },
    };
    const copying = copy(from, to, { checkpoint: memoryStore(), signal: abort.signal });
    await expect(copying).rejects.toBe(enough);
  });
});

describe('fileCheckpoint', () => {
  const source: CopySource = { size: 300_000, identity: 'disk', read: async (buffer) => void buffer.fill(1) };

  /** The text of a copy that a crash has ended. */
  async function left(path: string): Promise<string> {
    const to = new Cached(300_000);
    to.start(25);
    await expect(copy(source, to, options(path))).rejects.toMatchObject({ cause: CRASH });
    return readFile(path, 'utf8');
  }
  /** A text with a checksum that is right. */
  const sealed = (contents: unknown): string => {
    const body = JSON.stringify(contents);
    const sha256 = createHash('sha256').update(body).digest('hex');
    return `${JSON.stringify({ format: 'nbd-sdk copy checkpoint', version: 1, sha256, body })}\n`;
  };
  const options = (path: string): object => ({
    checkpoint: fileCheckpoint(path, { every: EVERY }),
    requestSize: REQUEST,
    requests: 4,
  });

  it('keeps a file that its user alone can read, and removes it in the end', async () => {
    const path = join(folder, 'kept');
    await left(path);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const to = new Cached(300_000);
    to.start(Infinity);
    const { resumed } = await copy(source, to, options(path));
    expect(resumed).toBeGreaterThan(0n);
    expect(await readdir(folder)).not.toContain('kept');
    expect((await readdir(folder)).filter((name) => name.includes('tmp'))).toEqual([]);
  });

  it.each([
    ['is empty', () => '', /it is empty/],
    ['is not one', () => 'root:x:0:0\n', /not a checkpoint/],
    ['is another JSON', () => '{"format":"x"}', /not a checkpoint/],
    ['was cut short', (text: string) => text.slice(0, text.length >> 1), /cut short/],
    ['was cut short early', (text: string) => text.slice(0, 12), /cut short/],
    ['has a byte changed', (text: string) => text.replace(/\\"done\\":\[\[\\"0/, '\\"done\\":[[\\"1'), /checksum/],
    [
      'has a right checksum of something else',
      () => sealed({ identity: {}, done: [['a', 'b']], missing: [] }),
      /contents/,
    ],
    ['has no ranges', () => sealed({ identity: {}, done: 3 }), /contents/],
    ['has nothing at all', () => sealed(null), /contents/],
    ['is of another version', (text: string) => text.replace('"version":1', '"version":2'), /version 2/],
  ])('refuses a file that %s, and leaves it as it is', async (_title, change, message) => {
    const path = join(folder, 'bad');
    const text = change(await left(path));
    await writeFile(path, text);
    const to = new Cached(300_000);
    await expect(copy(source, to, options(path))).rejects.toMatchObject({
      name: 'NbdStrictError',
      code: 'EINVAL',
      message: expect.stringMatching(message),
    });
    expect(await readFile(path, 'utf8')).toBe(text);
    expect(to.cache).toEqual([]);
    await rm(path);
  });

  it.each([
    ['source', { identity: 'other' }, {}, {}, /source is disk, and the one given is other/],
    ['size', { size: 299_999 }, {}, {}, /300000 bytes.*299999 bytes/],
    ['destination', {}, { identity: 'elsewhere' }, {}, /destination is backup, .* elsewhere/],
    ['size of the destination', {}, { size: 300_001 }, {}, /300000 bytes.*300001/],
    ['blocks', { minimumBlock: 512 }, {}, {}, /block sizes of the source/],
    ['ranges', {}, {}, { ranges: [{ offset: 0, length: 1 }] }, /ranges is 1 range, 300000 .* 1 range, 1 bytes/],
    ['offset', {}, {}, { offset: 1, destinationOffset: 1 }, /ranges|offset/],
    ['place', {}, { size: 300_001 }, { destinationOffset: 1 }, /300000 .* 300001/],
  ])('refuses to go on with another %s', async (_title, from, to, more, message) => {
    const path = join(folder, 'stale');
    const text = await left(path);
    const target = Object.assign(new Cached(300_000), to) as CopyDestination;
    await expect(copy({ ...source, ...from }, target, { ...options(path), ...more })).rejects.toMatchObject({
      code: 'ESTALE',
      message: expect.stringMatching(message),
    });
    expect(await readFile(path, 'utf8')).toBe(text);
    await rm(path);
  });

  it('refuses what cannot be: no flush, a hash, a folder', async () => {
    const checkpoint = fileCheckpoint(join(folder, 'never'));
    const to: CopyDestination = { size: 300_000, write: async () => undefined };
    await expect(copy(source, to, { checkpoint })).rejects.toMatchObject({
      code: 'EINVAL',
      message: expect.stringMatching(/cannot flush/),
    });
    await expect(copy(source, new Cached(300_000), { checkpoint: fileCheckpoint(folder) })).rejects.toMatchObject({
      code: 'EISDIR',
    });
    for (const every of [0, -1, 1.5, '1', null])
      expect(() => fileCheckpoint('x', { every } as never)).toThrow(/^fileCheckpoint: every/);
    for (const path of ['', 1, null, 'a\0b'])
      expect(() => fileCheckpoint(path as never)).toThrow(/^fileCheckpoint: path/);
    expect(() => fileCheckpoint('x', { ms: 1 } as never)).toThrow(/unknown option/);
  });
});
