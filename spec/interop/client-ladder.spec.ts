import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from '@jest/globals';

import {
  CMD_FLAG_DF,
  CMD_FLAG_FAST_ZERO,
  CMD_FLAG_FUA,
  CMD_FLAG_NO_HOLE,
  CMD_FLAG_REQ_ONE,
  type Extents,
  type NbdConnection,
  READ_DATA,
  READ_HOLE,
  STATE_HOLE,
  STRICT_BOUNDS,
  STRICT_MASK,
} from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import { content } from '../support/golden.js';
import { describeWith } from '../support/real-servers.js';
import { type Kind, KINDS, type Served } from './client-servers.js';

const MIB = 1 << 20;
const SIZE = 8 * MIB;

/** The status of each byte range, neighbours of one kind taken together. */
function ranges(extents: Extents): [start: number, end: number, flags: number][] {
  const found: [number, number, number][] = [];
  for (const { offset, length, flags } of extents) {
    const last = found.at(-1);
    if (last?.[2] === flags) last[1] += length;
    else found.push([Number(offset), Number(offset) + length, flags]);
  }
  return found;
}

const LADDER = (kind: Kind): void => {
  const has = (feature: Kind['lacks'][number]): boolean => !kind.lacks.includes(feature);
  let server: Served;
  let c: NbdConnection;
  beforeAll(async () => {
    server = await kind.start(SIZE);
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    c = await server.connect({ metaContexts: ['base:allocation'] });
    await c.zero(SIZE, 0);
  });
  // In good order: nbdkit 1.32 can die of a client that leaves while replies are due to it.
  afterEach(() => c.shutdown());

  it('01 describes the export', () => {
    expect(c.getSize()).toBe(BigInt(SIZE));
    expect(c.getProtocol()).toBe('newstyle-fixed');
    expect([c.isReadOnly(), c.canFlush(), c.canTrim(), c.canZero()]).toEqual([false, true, true, true]);
    expect(c.canCache()).toBe(has('cache'));
    expect(c.canDf()).toBe(has('df'));
    expect(c.getStructuredRepliesNegotiated()).toBe(has('structured'));
    expect(c.connectionState()).toBe('ready');
  });

  it('02 reads zeroes, writes, reads back', async () => {
    expect(Buffer.alloc(4096).equals(await c.pread(4096, 0))).toBe(true);
    await c.pwrite(content(0, 100_000), 12_345);
    expect((await c.pread(100_000, 12_345)).equals(content(0, 100_000))).toBe(true);
    expect((await c.pread(2, 12_344)).equals(Buffer.from([0, content(0, 1)[0]!]))).toBe(true);
    const bytes = new Uint8Array(4096);
    await c.preadInto(bytes, 12_345);
    expect(Buffer.from(bytes).equals(content(0, 4096))).toBe(true);
  });

  it('03 writes and reads megabytes', async () => {
    const data = content(0, 5 * MIB + 1);
    await c.pwrite(data, 77);
    expect(Buffer.compare(await c.pread(data.length, 77), data)).toBe(0);
  });

  it('04 reads and writes many at once', async () => {
    const blocks = Array.from({ length: 200 }, (_, i) => content(i * 17, 4096 + i * 50));
    await Promise.all(blocks.map((block, i) => c.pwrite(block, i * 20_000)));
    const back = await Promise.all(blocks.map((block, i) => c.pread(block.length, i * 20_000)));
    expect(back.filter((block, i) => !block.equals(blocks[i]!))).toHaveLength(0);
  });

  it('05 reads across the last byte are refused here; with BOUNDS off, there', async () => {
    expect((await c.pread(1, SIZE - 1)).length).toBe(1);
    const sent = c.statsBytesSent();
    expect(await rejection(c.pread(2, SIZE - 1))).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
    expect(await rejection(c.pwrite(Buffer.alloc(2), SIZE - 1))).toMatchObject({ code: 'ENOSPC' });
    expect(c.statsBytesSent()).toBe(sent);
    c.setStrictMode(STRICT_MASK & ~STRICT_BOUNDS);
    expect(await rejection(c.pread(512, SIZE))).toMatchObject({ name: 'NbdCommandError' });
    expect(c.statsBytesSent()).toBe(sent + (c.getExtendedHeadersNegotiated() ? 32n : 28n));
    expect((await c.pread(1, 0)).length).toBe(1);
  });

  it('06 flushes, and writes through with FUA', async () => {
    await c.pwrite(content(0, 512), 0);
    await c.flush();
    if (c.canFua()) {
      await c.pwrite(content(0, 512), 512, CMD_FLAG_FUA);
      await c.trim(4096, 4096, CMD_FLAG_FUA);
      await c.zero(4096, 8192, CMD_FLAG_FUA);
    }
    expect((await c.pread(512, 0)).equals(content(0, 512))).toBe(true);
  });

  it('07 zeroes, with a hole and without', async () => {
    await c.pwrite(content(0, 256 * 1024), 0);
    await c.zero(64 * 1024, 64 * 1024);
    await c.zero(64 * 1024, 128 * 1024, CMD_FLAG_NO_HOLE);
    const back = await c.pread(256 * 1024, 0);
    expect(back.subarray(0, 65536).equals(content(0, 65536))).toBe(true);
    expect(back.subarray(65536, 3 * 65536).equals(Buffer.alloc(2 * 65536))).toBe(true);
    expect(back.subarray(3 * 65536).equals(content(3 * 65536, 65536))).toBe(true);
  });

  it('08 zeroes fast or reports that it cannot', async () => {
    if (!c.canFastZero()) {
      expect(await rejection(c.zero(4096, 0, CMD_FLAG_FAST_ZERO))).toMatchObject({
        code: 'EINVAL',
        name: 'NbdStrictError',
      });
      expect(has('fastZero')).toBe(false);
      return;
    }
    await c.pwrite(content(0, 65536), 0);
    try {
      await c.zero(65536, 0, CMD_FLAG_FAST_ZERO);
      expect((await c.pread(65536, 0)).equals(Buffer.alloc(65536))).toBe(true);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOTSUP' });
    }
  });

  it('09 trims', async () => {
    await c.pwrite(content(0, 256 * 1024), 0);
    await c.trim(128 * 1024, 64 * 1024);
    const back = await c.pread(256 * 1024, 0);
    expect(back.subarray(0, 65536).equals(content(0, 65536))).toBe(true);
    expect(back.subarray(3 * 65536).equals(content(3 * 65536, 65536))).toBe(true);
  });

  it('10 prefetches, by promise and raw', async () => {
    if (!has('cache')) {
      expect(await rejection(c.cache(4096, 0))).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
      return;
    }
    await c.cache(SIZE, 0);
    const told = new Promise((resolve) => {
      const cookie = c.aioCache(65536, 65536, (error, which) => resolve([error, which === cookie]));
    });
    expect(await told).toEqual([null, true]);
    const cookies = Array.from({ length: 100 }, (_, i) => c.aioCache(4096, i * 4096));
    expect(new Set(cookies).size).toBe(100);
    const waiting = new Set(cookies);
    while (waiting.size > 0) {
      await new Promise((resolve) => setImmediate(resolve));
      for (const cookie of waiting) if (c.aioCommandCompleted(cookie)) waiting.delete(cookie);
    }
    expect(c.aioInFlight()).toBe(0);
  });

  it('11 maps', async () => {
    if (!has('contexts')) {
      expect(await rejection(c.blockStatus(SIZE, 0))).toMatchObject({ code: 'ENOTSUP' });
      return;
    }
    expect(c.canMetaContext('base:allocation')).toBe(true);
    await c.pwrite(content(0, 64 * 1024), 1 * MIB);
    await c.flush();
    const found: [number, number, number][] = [];
    // A server may report on less than was asked.
    for (let at = 0; at < SIZE;) {
      const map = await c.blockStatus(SIZE - at, at);
      const part = ranges(map.get('base:allocation')!);
      found.push(...part);
      at = Math.min(SIZE, part.at(-1)![1]);
    }
    const data = found.filter(([, , flags]) => flags === 0);
    expect(data[0]![0]).toBe(MIB);
    expect(data.at(-1)![1]).toBe(MIB + 64 * 1024);
    expect(found[0]![2] & STATE_HOLE).toBe(STATE_HOLE);

    const one = await c.blockStatus(SIZE, 0, CMD_FLAG_REQ_ONE);
    expect(one.get('base:allocation')!).toHaveLength(1);
    const wide = await c.blockStatus64(SIZE - MIB, MIB, CMD_FLAG_REQ_ONE);
    expect([...wide.get('base:allocation')!][0]).toEqual({ offset: BigInt(MIB), length: 65536n, flags: 0n });
  });

  it('12 reports every chunk of a structured read', async () => {
    await c.pwrite(content(0, 64 * 1024), 64 * 1024);
    const told: [number, number, number][] = [];
    const chunk = (bytes: Buffer, offset: bigint, status: number): void =>
      void told.push([Number(offset), bytes.length, status]);
    const data = await c.preadStructured(192 * 1024, 0, chunk);
    expect(data.equals(Buffer.concat([Buffer.alloc(65536), content(0, 65536), Buffer.alloc(65536)]))).toBe(true);
    expect(told.reduce((sum, [, length]) => sum + length, 0)).toBe(192 * 1024);
    expect(told.every(([, , status]) => status === READ_DATA || status === READ_HOLE)).toBe(true);
    if (c.canDf()) {
      told.length = 0;
      await c.preadStructured(192 * 1024, 0, chunk, CMD_FLAG_DF);
      expect(told).toEqual([[0, 192 * 1024, READ_DATA]]);
    }
  });

  it('13 drops what was aborted and goes on', async () => {
    await c.pwrite(content(0, MIB), 0);
    const controller = new AbortController();
    const aborted = Promise.allSettled(
      Array.from({ length: 50 }, (_, i) => c.pread(64 * 1024, i * 1000, 0, controller.signal)),
    );
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort('enough');
    for (const result of await aborted) {
      if (result.status === 'rejected') expect(result.reason).toBe('enough');
    }
    expect((await c.pread(MIB, 0)).equals(content(0, MIB))).toBe(true);
  });

  it('14 is left in good order', async () => {
    const reading = c.pread(MIB, 0);
    await c.shutdown();
    expect((await reading).length).toBe(MIB);
    expect(c.aioIsClosed()).toBe(true);
    expect(c.getSize()).toBe(BigInt(SIZE));
    // And can be connected to again.
    expect((await (await server.connect()).pread(1, 0)).length).toBe(1);
  });

  it('15 does not know another export', async () => {
    if (kind.name.startsWith('nbdkit')) {
      // Its memory plugin serves every export name.
      expect((await server.connectTo('another')).getSize()).toBe(BigInt(SIZE));
      return;
    }
    const error = await rejection(server.connectTo('another'));
    expect(error).toMatchObject({ code: 'ENOENT', name: 'NbdOptionError', exportName: 'another' });
    expect((error as Error).message).toContain('"another"');
  });
};

for (const kind of KINDS) {
  describeWith(kind.needs, kind.name, () => {
    LADDER(kind);
  });
}
