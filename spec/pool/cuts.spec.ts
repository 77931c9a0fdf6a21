// Every command, cut at every kind of byte: in its request, in its payload, in the header of its reply, in an extent
// list, in a chunk of data. It is issued again in full, and nothing of the first try is part of its result.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { NbdPool } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { FaultProxy, type Side } from '../support/fault-proxy.js';
import { content } from '../support/golden.js';

const SIZE = 4 * 2 ** 20;
const LARGE = 256 * 1024;
const HOLE = 2 * 2 ** 20;

const backend = new MemoryBackend(SIZE);
let server: NbdServer;

beforeAll(async () => {
  backend.write(content(0, 2 ** 20), 0);
  for (let at = HOLE; at < HOLE + 2 ** 20; at += 131072) backend.write(Buffer.alloc(65536, 1), at);
  server = new NbdServer({ exports: { '': backend } });
  await server.listenTcp();
});
afterAll(() => server.close());

interface Cut {
  readonly name: string;
  /** Bytes of its request and of its reply. */
  readonly request: number;
  readonly reply: number;
  readonly call: (pool: NbdPool) => Promise<void>;
}

function written(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  backend.read(bytes, 2 ** 20);
  return bytes;
}

let fill = 1;

const CUTS: readonly Cut[] = [
  {
    ...{ name: 'pread', request: 32, reply: 4096 },
    call: async (pool) => expect((await pool.pread(4096, 512)).equals(content(512, 4096))).toBe(true),
  },
  {
    ...{ name: 'preadInto', request: 32, reply: LARGE },
    call: async (pool) => {
      const bytes = Buffer.alloc(LARGE);
      await pool.preadInto(bytes, 100);
      expect(bytes.equals(content(100, LARGE))).toBe(true);
    },
  },
  {
    // Data and holes in turn: several chunks.
    ...{ name: 'preadStructured', request: 32, reply: 3 * 65536 },
    call: async (pool) => {
      const reports: [bigint, number][] = [];
      await pool.preadStructured(6 * 65536, HOLE, (bytes, offset) => void reports.push([offset, bytes.length]));
      let at = BigInt(HOLE);
      for (const [offset, length] of reports.sort(([a], [b]) => Number(a - b))) {
        expect(offset).toBe(at);
        at += BigInt(length);
      }
      expect(at).toBe(BigInt(HOLE + 6 * 65536));
    },
  },
  {
    ...{ name: 'pwrite', request: 32 + LARGE, reply: 32 },
    call: async (pool) => {
      const bytes = Buffer.alloc(LARGE, fill++);
      await pool.pwrite(bytes, 2 ** 20);
      expect(written(LARGE).equals(bytes)).toBe(true);
    },
  },
  {
    ...{ name: 'zero', request: 32, reply: 32 },
    call: async (pool) => {
      await pool.zero(4096, 2 ** 20);
      expect(written(4096).equals(Buffer.alloc(4096))).toBe(true);
    },
  },
  { ...{ name: 'trim', request: 32, reply: 32 }, call: (pool) => pool.trim(4096, 2 ** 20) },
  { ...{ name: 'cache', request: 32, reply: 32 }, call: (pool) => pool.cache(4096, 0) },
  {
    ...{ name: 'blockStatus', request: 32, reply: 300 },
    call: async (pool) => {
      const extents = [...((await pool.blockStatus(2 ** 20, HOLE)).get('base:allocation') ?? [])];
      expect(extents.map(({ flags }) => flags)).toEqual(Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? 0 : 3)));
    },
  },
  {
    ...{ name: 'blockStatus64, with a callback', request: 32, reply: 300 },
    call: async (pool) => {
      const reports: number[] = [];
      await pool.blockStatus64(2 ** 20, HOLE, (_context, _offset, entries) => void reports.push(entries.length));
      expect(reports).toEqual([32]);
    },
  },
  {
    // What was written before is at risk then, which the flush reports.
    ...{ name: 'flush', request: 32, reply: 32 },
    call: (pool) =>
      pool.flush().catch((error: unknown) => {
        expect(error).toMatchObject({ name: 'NbdUnflushedError' });
      }),
  },
];

const PLACES: readonly [string, Side, (cut: Cut) => number][] = [
  ['before its request', 'client', () => 0],
  ['in the header of its request', 'client', () => 11],
  ['near the end of its request', 'client', ({ request }) => request - 5],
  ['in the middle of its request', 'client', ({ request }) => request >> 1],
  ['before its reply', 'server', () => 0],
  ['in the header of its reply', 'server', () => 9],
  ['in the middle of its reply', 'server', ({ reply }) => reply >> 1],
  ['near the end of its reply', 'server', ({ reply }) => reply - 1],
];

describe.each(CUTS)('$name', (cut) => {
  it.each(PLACES)('cut %s, is issued again', async (_where, of, place) => {
    await using proxy = await FaultProxy.start({ host: '127.0.0.1', port: (server.address as { port: number }).port });
    await using pool = await NbdPool.connect(proxy.target, {
      ...{ metaContexts: ['base:allocation'], connections: 1, reconnect: { minDelay: 1 } },
    });
    const { link } = proxy;
    link.arm({ kind: 'close', of, at: place(cut) });
    await cut.call(pool);
    // A reply may be shorter than the place: it is cut then behind its end.
    if (link.hasStruck) expect(pool.statistics).toMatchObject({ reconnects: 1, replayed: 1 });
    else expect(place(cut)).toBeGreaterThan(4);
    await pool.flush().catch(() => undefined);
  });
});
