// Writes that a loss may have undone: reported once to every flush that could have relied on them, or written again.

import { setTimeout as sleep } from 'node:timers/promises';

import { describe, expect, it } from '@jest/globals';

import { CMD_FLAG_FUA, NbdPool, type NbdPoolOptions, NbdUnflushedError } from '../../lib/index.js';
import { MemoryBackend } from '../../lib/server/index.js';
import { rejection } from '../support/caught.js';
import { Place, SIZE } from './place.js';

const OPTIONS: NbdPoolOptions = { connections: 1, reconnect: { minDelay: 1, maxDelay: 20 } };

const connect = (place: Place, options: NbdPoolOptions = {}): Promise<NbdPool> =>
  NbdPool.connect(place.target, { ...OPTIONS, ...options });

async function lose(place: Place, pool: NbdPool): Promise<void> {
  const lost = new Promise((resolve) => pool.once('lost', resolve));
  place.cut();
  await lost;
}

const ranges = (error: unknown): [number, number][] => {
  expect(error).toBeInstanceOf(NbdUnflushedError);
  expect(error).toMatchObject({ code: 'EIO', transient: false });
  return (error as NbdUnflushedError).ranges.map(({ offset, length }) => [Number(offset), Number(length)]);
};

describe('writes that were acknowledged and not flushed', () => {
  it('are reported once: writes, zeroes and trims; those with FUA are safe', async () => {
    await using place = await Place.open();
    await using pool = await connect(place);
    await pool.pwrite(Buffer.alloc(512), 0);
    await pool.flush();
    await pool.pwrite(Buffer.alloc(512), 4096);
    await pool.zero(512, 8192);
    await pool.trim(1024, 16384);
    await pool.pwrite(Buffer.alloc(512), 32768, CMD_FLAG_FUA);
    await pool.zero(512, 65536, CMD_FLAG_FUA);
    await lose(place, pool);
    expect(ranges(await rejection(pool.flush()))).toEqual([
      [4096, 512],
      [8192, 512],
      [16384, 1024],
    ]);
    await pool.flush();
  });

  it('are reported to every flush that was called before the report', async () => {
    await using place = await Place.open();
    await using pool = await connect(place);
    await pool.pwrite(Buffer.alloc(512), 512);
    place.server.faults.push({ command: 'flush', times: 2, stall: true });
    const before = [rejection(pool.flush()), rejection(pool.flush())];
    await sleep(20);
    await lose(place, pool);
    const after = [rejection(pool.flush()), rejection(pool.flush())];
    for (const error of await Promise.all([...before, ...after])) expect(ranges(error)).toEqual([[512, 512]]);
    await pool.flush();
  });

  it('stay at risk while flushes fail or are aborted', async () => {
    await using place = await Place.open();
    await using pool = await connect(place);
    await pool.pwrite(Buffer.alloc(512), 0);
    await lose(place, pool);
    await pool.pread(512, 0);
    place.server.faults.push({ command: 'flush', nth: 1, error: 'ENOSPC' });
    expect(await rejection(pool.flush())).toMatchObject({ code: 'ENOSPC' });
    expect(await rejection(pool.flush(0, AbortSignal.abort('no')))).toBe('no');
    expect(ranges(await rejection(pool.flush()))).toEqual([[0, 512]]);
  });

  it('are reported by shutdown(), once, and by await using', async () => {
    await using place = await Place.open();
    const pool = await connect(place);
    await pool.pwrite(Buffer.alloc(512), 0);
    await lose(place, pool);
    await pool.pread(512, 0);
    const both = await Promise.all([rejection(pool.shutdown()), rejection(pool.shutdown())]);
    for (const error of both) expect(ranges(error)).toEqual([[0, 512]]);
    await pool.shutdown();
    const scope = async (): Promise<void> => {
      await using other = await connect(place);
      await other.pwrite(Buffer.alloc(512), 1024);
      await lose(place, other);
    };
    expect(ranges(await rejection(scope()))).toEqual([[1024, 512]]);
  });

  it('in the answer that comes with the end of the connection are at risk', async () => {
    await using place = await Place.open();
    await using pool = await connect(place);
    place.holdBack();
    const writing = pool.pwrite(Buffer.alloc(512), 0);
    await place.held();
    const lost = new Promise((resolve) => pool.once('lost', resolve));
    place.release(Buffer.alloc(64, 0xee));
    await Promise.all([writing, lost]);
    expect(ranges(await rejection(pool.flush()))).toEqual([[0, 512]]);
  });

  it('of a server without flush are reported by shutdown()', async () => {
    await using place = await Place.open({
      exports: { '': { backend: new MemoryBackend(SIZE), flags: { flush: false } } },
    });
    const pool = await connect(place);
    expect(await rejection(pool.flush())).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
    await pool.pwrite(Buffer.alloc(512), 0);
    await lose(place, pool);
    expect(ranges(await rejection(pool.shutdown()))).toEqual([[0, 512]]);
  });
});

describe('with rewrite', () => {
  it('they are written again before anything else, in pieces, and flushed; nobody sees the loss', async () => {
    const size = 16 * 2 ** 20;
    await using place = await Place.open({ exports: { '': new MemoryBackend(size) } });
    const shadow = Buffer.alloc(size, 5);
    const asked: number[] = [];
    await using pool = await connect(place, {
      rewrite: async ({ offset, length }) => {
        asked.push(Number(length));
        await sleep(1);
        return shadow.subarray(Number(offset), Number(offset + length));
      },
    });
    for (let at = 0; at < size; at += 2 ** 20) await pool.pwrite(shadow.subarray(at, at + 2 ** 20), at);
    const away = new Promise((resolve) => pool.once('away', resolve));
    await place.stop();
    await away;
    const waiting = [pool.pread(4096, 0), pool.pread(4096, size - 4096), pool.flush()] as const;
    // The new server has nothing of it.
    const server = await place.start({ exports: { '': new MemoryBackend(size) } });
    const [first, last] = await Promise.all(waiting);
    expect(first.equals(shadow.subarray(0, 4096))).toBe(true);
    expect(last.equals(shadow.subarray(0, 4096))).toBe(true);
    expect(asked).toEqual(Array(4).fill(4 * 2 ** 20));
    expect(server.statistics.requests.pwrite).toBe(4);
    expect(server.statistics.requests.flush).toBe(2);
    await pool.shutdown();
  });

  it('a write that was on its way is issued again after them', async () => {
    await using place = await Place.open();
    await using pool = await connect(place, { rewrite: ({ length }) => Buffer.alloc(Number(length), 1) });
    await pool.pwrite(Buffer.alloc(512, 1), 0);
    place.server.faults.push({ command: 'write', nth: 1, stall: true });
    const newer = pool.pwrite(Buffer.alloc(512, 2), 0);
    await sleep(20);
    place.cut();
    await newer;
    expect((await pool.pread(512, 0)).equals(Buffer.alloc(512, 2))).toBe(true);
    await pool.flush();
  });

  it('goes on after another loss in the middle of it', async () => {
    await using place = await Place.open();
    let calls = 0;
    await using pool = await connect(place, {
      rewrite: ({ length }) => {
        if (++calls === 1) place.cut();
        return Buffer.alloc(Number(length), 1);
      },
    });
    await pool.pwrite(Buffer.alloc(512, 1), 0);
    await lose(place, pool);
    await pool.flush();
    expect(calls).toBe(2);
    expect(pool.statistics.reconnects).toBe(2);
  });

  it.each<[string, NonNullable<NbdPoolOptions['rewrite']>, object]>([
    ['throws', () => Promise.reject(new Error('no source')), { message: 'no source' }],
    ['supplies too little', () => Buffer.alloc(5), { code: 'EINVAL' }],
    ['supplies what is not bytes', () => 'bytes' as unknown as Buffer, { code: 'EINVAL' }],
  ])('that %s, the next flush reports them, with that as its cause', async (_title, rewrite, cause) => {
    await using place = await Place.open();
    await using pool = await connect(place, { rewrite });
    await pool.pwrite(Buffer.alloc(512), 0);
    await lose(place, pool);
    await pool.pread(512, 0);
    const error = await rejection(pool.flush());
    expect(ranges(error)).toEqual([[0, 512]]);
    expect(error).toMatchObject({ cause });
    await pool.flush();
  });

  it('shutdown() waits for it, closeTimeout at the most', async () => {
    await using place = await Place.open();
    const pool = await connect(place, {
      closeTimeout: 100,
      rewrite: () => new Promise(() => undefined),
    });
    await pool.pwrite(Buffer.alloc(512), 0);
    await lose(place, pool);
    await sleep(50);
    expect(ranges(await rejection(pool.shutdown()))).toEqual([[0, 512]]);
    const other = await connect(place, { rewrite: ({ length }) => sleep(50).then(() => Buffer.alloc(Number(length))) });
    await other.pwrite(Buffer.alloc(512), 0);
    await lose(place, other);
    await other.shutdown();
  });
});
