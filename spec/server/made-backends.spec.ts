// Backends for tests: an overlay over another backend, random data that follows from a seed, and literal data.

import { describe, expect, it } from '@jest/globals';
import { compare, copy, extents, NbdConnection } from '../../lib/index.js';
import { MemoryBackend, type NbdBackend, NbdServer, OverlayBackend, RandomBackend } from '../../lib/server/index.js';
import { Random, seedOf } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { settled } from '../support/waiting.js';

const SIZE = 1 << 20;

const bytesOf = async (backend: NbdBackend, length = Number(backend.size), offset = 0): Promise<Buffer> => {
  const bytes = Buffer.alloc(length, 0xee);
  await backend.read(bytes, offset);
  return bytes;
};

/** A backend whose calls take a turn of the event loop, as those of a file. */
function slow(backend: MemoryBackend): NbdBackend {
  const late = async <T>(work: () => T): Promise<T> => {
    await new Promise(setImmediate);
    return work();
  };
  return {
    size: backend.size,
    read: (buffer, offset) => late(() => backend.read(buffer, offset)),
    write: (data, offset) => late(() => backend.write(data, offset)),
    zero: (offset, count) => late(() => backend.zero(offset, count)),
    flush: () => late(() => undefined),
    extents: (offset, count) => late(() => [...backend.extents(offset, count)]),
  };
}

describe(withSeed('OverlayBackend'), () => {
  it('reads as what was written over the base, until commit() or reset()', async () => {
    for (const [round, make] of [(base: MemoryBackend): NbdBackend => base, slow].entries()) {
      const random = new Random(seedOf(SEED, 700 + round));
      const base = MemoryBackend.of(SIZE, [{ offset: 100_000, data: Buffer.alloc(300_000, 'base') }]);
      const before = await bytesOf(base);
      const overlay = new OverlayBackend(make(base));
      const model = Buffer.from(before);
      const marked = new Uint8Array(SIZE);
      for (let change = 0; change < 60; change++) {
        const offset = random.below(SIZE - 40_000);
        const length = random.between(1, 40_000);
        if (random.oneIn(3)) {
          await overlay.zero(offset, length);
          model.fill(0, offset, offset + length);
        } else {
          await overlay.write(Buffer.alloc(length, change), offset);
          model.fill(change, offset, offset + length);
        }
        marked.fill(1, offset, offset + length);
      }
      expect((await bytesOf(overlay)).equals(model)).toBe(true);
      expect((await bytesOf(base)).equals(before)).toBe(true);
      // The changes are a dirty bitmap, and the extents are true.
      let at = 0;
      for (const { length, flags } of overlay.changes.extents(0, SIZE)) {
        expect(marked.subarray(at, at + Number(length)).every((mark) => mark === flags)).toBe(true);
        at += Number(length);
      }
      expect(at).toBe(SIZE);
      at = 0;
      for (const { length, flags } of await overlay.extents(0, SIZE)) {
        if (flags !== 0) expect(model.subarray(at, at + Number(length)).every((byte) => byte === 0)).toBe(true);
        at += Number(length);
      }
      expect(at).toBe(SIZE);

      await overlay.commit();
      expect((await bytesOf(base)).equals(model)).toBe(true);
      expect([overlay.allocated, [...overlay.changes.extents(0, SIZE)].length]).toEqual([0, 1]);
      await overlay.write(Buffer.from('again'), 5);
      await overlay.reset();
      expect((await bytesOf(overlay)).equals(model)).toBe(true);
    }
  });

  it('keeps its changes when commit() fails, and writes wait for it', async () => {
    const base = new MemoryBackend(SIZE);
    let failing = true;
    let flushed = 0;
    const overlay = new OverlayBackend({
      size: SIZE,
      read: (buffer, offset) => base.read(buffer, offset),
      write: async (data, offset) => {
        await settled();
        if (failing) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
        base.write(data, offset);
      },
      flush: () => void (flushed += 1),
    });
    await overlay.write(Buffer.from('one'), 0);
    await overlay.zero(70_000, 10);
    const commits = [overlay.commit(), overlay.commit()].map((each) => each.catch((error: unknown) => error));
    const waiting = overlay.write(Buffer.from('two'), 100);
    expect((await bytesOf(overlay, 3, 100)).toString('hex')).toBe('000000');
    expect(await Promise.all(commits)).toMatchObject([{ code: 'ENOSPC' }, { code: 'ENOSPC' }]);
    await waiting;
    expect([flushed, (await bytesOf(overlay, 3)).toString(), (await bytesOf(overlay, 3, 100)).toString()]).toEqual([
      0,
      'one',
      'two',
    ]);
    failing = false;
    await overlay.commit();
    expect([flushed, (await bytesOf(base, 3)).toString(), (await bytesOf(base, 3, 100)).toString()]).toEqual([
      1,
      'one',
      'two',
    ]);
  });

  it('is writable over a base that is not, and refuses to commit', async () => {
    const base = MemoryBackend.from(Buffer.from('read-only'), { readOnly: true });
    await using server = new NbdServer({ exports: { '': new OverlayBackend(base) } });
    await using connection = await NbdConnection.connect(server.connectMemory());
    await connection.pwrite(Buffer.from('W'), 0);
    expect((await connection.pread(9, 0)).toString()).toBe('Wead-only');
    await expect(new OverlayBackend(base).commit()).rejects.toMatchObject({ name: 'NbdStrictError', code: 'EPERM' });
  });

  it('works at any size, and checks what it is given', async () => {
    const far = 2n ** 62n;
    const overlay = new OverlayBackend(new RandomBackend(2n ** 63n, { percent: 100 }));
    await overlay.write(Buffer.from('far'), far);
    const bytes = await bytesOf(overlay, 6, 0);
    expect(bytes.equals(await bytesOf(new RandomBackend(100, { percent: 100 }), 6))).toBe(true);
    const there = Buffer.alloc(3);
    await overlay.read(there, far);
    expect(there.toString()).toBe('far');
    expect(() => new OverlayBackend({} as NbdBackend)).toThrow(/must be a backend/);
    expect(() => new OverlayBackend(null as unknown as NbdBackend)).toThrow(/must be a backend/);
    expect(() => new OverlayBackend(new MemoryBackend(1), { sise: 1 } as object)).toThrow(/"sise"/);
  });
});

describe('RandomBackend', () => {
  it('has the same contents however they are cut, which the seed decides', async () => {
    const backend = new RandomBackend(SIZE, { seed: 3, percent: 50, runLength: 4096 });
    const whole = await bytesOf(backend);
    const random = new Random(seedOf(SEED, 720));
    for (let part = 0; part < 300; part++) {
      const offset = random.below(SIZE - 9000);
      const length = random.between(1, 9000);
      const bytes = await bytesOf(backend, length, offset);
      expect([offset, length, bytes.equals(whole.subarray(offset, offset + length))]).toEqual([offset, length, true]);
    }
    expect((await bytesOf(new RandomBackend(SIZE, { seed: 3, percent: 50, runLength: 4096 }))).equals(whole)).toBe(
      true,
    );
    expect((await bytesOf(new RandomBackend(SIZE, { seed: 4, percent: 50, runLength: 4096 }))).equals(whole)).toBe(
      false,
    );
    // A part of a larger export is the same.
    const large = new RandomBackend(2n ** 63n, { seed: 3, percent: 50, runLength: 4096 });
    expect((await bytesOf(large, SIZE)).equals(whole)).toBe(true);
  });

  it('is data and holes in that share, and its extents are true', async () => {
    const backend = new RandomBackend(64 << 20, { seed: 1, percent: 25 });
    let at = 0;
    let data = 0;
    for (const { length, flags } of backend.extents(0, backend.size)) {
      if (flags === 0) data += Number(length);
      const bytes = await bytesOf(backend, 4096, at);
      expect(bytes.every((byte) => byte === 0)).toBe(flags !== 0);
      at += Number(length);
    }
    expect(at).toBe(backend.size);
    // 1024 runs at 1/4: 256, with a standard deviation of 14; the seed makes it the same each time.
    expect(data / 65_536).toBeGreaterThan(200);
    expect(data / 65_536).toBeLessThan(312);
  });

  it('looks random: all byte values, half of the bits, no repeated blocks', async () => {
    const bytes = await bytesOf(new RandomBackend(4n << 32n, { percent: 100 }), 1 << 20, 0xfff8_0000);
    const counts = new Array<number>(256).fill(0);
    for (const byte of bytes) counts[byte] = (counts[byte] ?? 0) + 1;
    expect(Math.min(...counts)).toBeGreaterThan(3700);
    expect(Math.max(...counts)).toBeLessThan(4500);
    const blocks = new Set(Array.from({ length: 2048 }, (_, i) => bytes.toString('latin1', i * 512, i * 512 + 512)));
    expect(blocks.size).toBe(2048);
  });

  it('takes a copy that is right, and no other', async () => {
    const from = new RandomBackend(8 << 20, { seed: 9, percent: 30 });
    const to = new RandomBackend(8 << 20, { seed: 9, percent: 30, writable: true });
    await using server = new NbdServer({ exports: { from, to } });
    const open = (exportName: string): Promise<NbdConnection> =>
      NbdConnection.connect(server.connectMemory(), { exportName, metaContexts: ['base:allocation'] });
    await using source = await open('from');
    await using destination = await open('to');
    const { read, zeroed } = await copy(source, destination);
    expect(read > 0n && zeroed > 0n).toBe(true);
    expect(await compare(source, destination)).toMatchObject({ equal: true });
    server.faults.push({ command: 'pread', exportName: 'from', nth: 2, corrupt: 1 });
    await expect(copy(source, destination)).rejects.toMatchObject({ code: 'EIO' });
    expect(() => to.zero(0, 8 << 20)).toThrow(expect.objectContaining({ code: 'EIO' }));
  });

  it('reports the extents of an export of any size, piece by piece', async () => {
    for (const percent of [0, 1, 100]) {
      await using server = new NbdServer({
        exports: { '': new RandomBackend(percent === 1 ? 2n ** 60n : 2n ** 36n, { percent }) },
      });
      await using connection = await NbdConnection.connect(server.connectMemory(), {
        metaContexts: ['base:allocation'],
      });
      let runs = 0;
      for await (const { length } of extents(connection)) {
        expect(length).toBeGreaterThan(0n);
        if (++runs === 1000) break;
      }
      expect(runs).toBe(percent === 1 ? 1000 : 1);
    }
  });

  it.each([{ seed: 1.5 }, { percent: 101 }, { percent: -1 }, { runLength: 1000 }, { writeable: true }])(
    'refuses %j',
    (options) => {
      expect(() => new RandomBackend(1, options)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    },
  );
});

describe('MemoryBackend.of', () => {
  it('has these parts, and holes', async () => {
    const backend = MemoryBackend.of(2n ** 40n, [
      { offset: 0, data: 'boot' },
      { offset: 2n ** 39n, data: Uint8Array.of(1, 2, 3) },
      { offset: 2, data: 'O' },
    ]);
    expect((await bytesOf(backend, 5)).toString()).toBe('boOt\0');
    const far = Buffer.alloc(4);
    backend.read(far, 2 ** 39);
    expect(far).toEqual(Buffer.from([1, 2, 3, 0]));
    expect([...backend.extents(0, 2 ** 40)].map(({ flags }) => flags)).toEqual([0, 3, 0, 3]);
  });

  it.each([
    [{ offset: 8, data: 'abc' }, /3 bytes at 8 extend past the end of the export \(10 bytes\)/],
    [{ offset: -1, data: 'abc' }, /offset/],
    [{ offset: 0, data: [1, 2] }, /data: must be a Uint8Array or a string/],
  ])('refuses %j', (part, message) => {
    expect(() => MemoryBackend.of(10, [part as { offset: number; data: string }])).toThrow(message);
  });
});
