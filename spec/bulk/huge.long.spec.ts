// Exports beyond 2^53 bytes, and maps of very many extents.

import { once } from 'node:events';

import { describe, expect, it } from '@jest/globals';

import {
  compare,
  copy,
  createReadStream,
  createWriteStream,
  extents,
  NbdConnection,
  prefetch,
  STATE_ZERO,
} from '../../lib/index.js';
import { MemoryBackend, type NbdBackend, NbdServer } from '../../lib/server/index.js';

const HUGE = 2n ** 63n - 65_536n;
/** Where the data is: around 2^53, and at the end. */
const PLACES = [0n, 2n ** 53n - 1000n, 2n ** 53n + 65_537n, HUGE - 5000n];

describe('exports of nearly 2^63 bytes', () => {
  async function pair(): Promise<{ server: NbdServer; from: NbdConnection; to: NbdConnection }> {
    const origin: NbdBackend = mapped(PLACES.map((place) => [place, place + 5000n]));
    const server = new NbdServer({ exports: { from: origin, to: new MemoryBackend(HUGE) } });
    const open = (exportName: string): Promise<NbdConnection> =>
      NbdConnection.connect(server.connectMemory(), { exportName, metaContexts: ['base:allocation'] });
    return { server, from: await open('from'), to: await open('to') };
  }

  it('are copied, compared, prefetched and read, to the last byte', async () => {
    const { server, from, to } = await pair();
    const { total, read } = await copy(from, to, { destinationIsZero: true, sparse: 0, requestSize: 512 });
    expect(total).toBe(HUGE);
    expect(read).toBeLessThan(10n * 65_536n);
    for (const place of PLACES) {
      expect((await to.pread(5000, place)).every((byte) => byte === 1)).toBe(true);
      expect(await to.pread(16, place === 0n ? 5000n : place - 16n)).toEqual(Buffer.alloc(16));
    }
    // The map of the destination is of pages, so that only one side knows its zeroes where there is data.
    const { cached, skipped } = await prefetch(from, { read: true });
    expect([cached, cached + skipped]).toEqual([20_000n, HUGE]);
    const chunks = await createReadStream(from, { offset: HUGE - 5001n }).toArray();
    expect(Buffer.concat(chunks as Buffer[])).toEqual(Buffer.concat([Buffer.alloc(1), Buffer.alloc(5000, 1)]));
    await once(createWriteStream(to, { offset: HUGE - 3n }).end('end'), 'finish');
    expect(String(await to.pread(3, HUGE - 3n))).toBe('end');
    const same = await compare(from, from);
    expect(same).toMatchObject({ equal: true, compared: HUGE, skipped: HUGE - 20_000n, sizes: [HUGE, HUGE] });
    from.close();
    to.close();
    await server.close();
  });

  it('take a small copy, and a source of the caller gets numbers or bigints as its size needs', async () => {
    const { server, from, to } = await pair();
    const small: unknown[] = [];
    const read = (seen: unknown[]) => async (buffer: Buffer, offset: number | bigint) => {
      seen.push(typeof offset);
      buffer.fill(7);
    };
    await copy({ size: 5000n, read: read(small) }, to);
    expect(await to.pread(5000, 0)).toEqual(Buffer.alloc(5000, 7));
    expect(new Set(small)).toEqual(new Set(['number']));
    const large: unknown[] = [];
    const zeroRuns = async function* () {
      yield { offset: 0, length: 2n ** 53n, isZero: true };
      yield { offset: 2n ** 53n, length: 512, isZero: false };
    };
    await copy({ size: 2n ** 53n + 512n, read: read(large), zeroRuns }, to, { destinationIsZero: true });
    expect(new Set(large)).toEqual(new Set(['bigint']));
    expect(await to.pread(512, 2n ** 53n)).toEqual(Buffer.alloc(512, 7));
    from.close();
    to.close();
    await server.close();
  });
});

/** Ones in these ranges, and a map that is exact. */
function mapped(data: (readonly [start: bigint, end: bigint])[]): NbdBackend {
  return {
    size: HUGE,
    read(buffer, at) {
      const offset = BigInt(at);
      buffer.fill(0);
      for (const [start, end] of data) {
        const from = start > offset ? start - offset : 0n;
        const until = end - offset;
        if (from < BigInt(buffer.length) && until > from) {
          buffer.fill(1, Number(from), Number(until < BigInt(buffer.length) ? until : BigInt(buffer.length)));
        }
      }
    },
    extents(at, count) {
      const found = [];
      let reached = BigInt(at);
      const end = reached + BigInt(count);
      for (const [start, until] of data) {
        if (until <= reached || start >= end) continue;
        if (start > reached) found.push({ length: start - reached, flags: 3 });
        const from = start > reached ? start : reached;
        found.push({ length: until - from, flags: 0 });
        reached = until;
      }
      if (reached < end) found.push({ length: end - reached, flags: 3 });
      return found;
    },
  };
}

describe('a map of very many extents', () => {
  it('is walked in bounded memory, and leaves the event loop alive', async () => {
    const GRAIN = 4096;
    const COUNT = 600_000;
    const SIZE = COUNT * GRAIN;
    /** What one reply of nbdkit's has at the most. */
    const A_REPLY = 2 ** 18;
    const fine = {
      getSize: () => BigInt(SIZE),
      getBlockSize: () => 0,
      getExtendedHeadersNegotiated: () => false,
      isReadOnly: () => true,
      canFlush: () => false,
      canZero: () => false,
      canMultiConn: () => true,
      canMetaContext: () => true,
      preadInto: async () => undefined,
      blockStatus64: async (count: bigint, offset: bigint) => {
        await new Promise((done) => setImmediate(done));
        const first = Number(offset) / GRAIN;
        const many = Math.min(Math.ceil(Number(count) / GRAIN), A_REPLY);
        const entries = new BigUint64Array(many * 2).fill(BigInt(GRAIN));
        for (let at = 0; at < many; at++) entries[at * 2 + 1] = BigInt(((first + at) % 2) * 3);
        return new Map([['base:allocation', { entries }]]);
      },
    } as unknown as NbdConnection;
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const before = process.memoryUsage().rss;
    let [count, data, peak] = [0, 0n, 0];
    for await (const { length, flags } of extents(fine)) {
      if ((flags & BigInt(STATE_ZERO)) === 0n) data += length;
      if ((++count & 0xffff) === 0) peak = Math.max(peak, process.memoryUsage().rss);
    }
    clearInterval(timer);
    expect([count, data]).toEqual([COUNT, BigInt(SIZE / 2)]);
    expect(peak - before).toBeLessThan(200e6);
    expect(turns).toBeGreaterThan(5);
  });
});
