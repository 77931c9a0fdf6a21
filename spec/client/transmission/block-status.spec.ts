import { describe, expect, it } from '@jest/globals';

import { CMD_FLAG_PAYLOAD_LEN, CMD_FLAG_REQ_ONE, type NbdConnection, type NbdError } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw, type OpenOptions, type RawPeer } from '../../support/raw-server.js';

const TWO = { 1: 'base:allocation', 7: 'x:y' };
const TIB = 2 ** 40;

const open = (options: OpenOptions = {}): Promise<{ connection: NbdConnection; peer: RawPeer }> =>
  openRaw({ contexts: { 1: 'base:allocation' }, ...options });

/** Calls, lets the server send `reply`, and returns the outcome. */
async function ask<T>(peer: RawPeer, call: Promise<T>, reply: (cookie: bigint) => Buffer[]): Promise<T> {
  peer.write(...reply((await peer.request()).cookie));
  return call;
}

const extended = (cookie: bigint, extents: readonly (readonly [number | bigint, number | bigint])[], id = 1): Buffer =>
  g.extendedChunk(
    g.DONE,
    g.STATUS_EXT,
    cookie,
    0,
    g.cat(g.u32(id), g.u32(extents.length), ...extents.flat().map(g.u64)),
  );

describe('blockStatus', () => {
  it('resolves with the extents of each context, in order', async () => {
    const { connection, peer } = await open({ contexts: TWO });
    const map = await ask(peer, connection.blockStatus(65536, 4096), (cookie) => [
      g.statusChunk(cookie, 7, [[65536, 9]], 0),
      g.statusChunk(cookie, 1, [
        [4096, 3],
        [61440, 0],
      ]),
    ]);
    expect([...map.keys()].sort()).toEqual(['base:allocation', 'x:y']);
    const extents = map.get('base:allocation')!;
    expect(extents.entries).toEqual(Uint32Array.of(4096, 3, 61440, 0));
    expect([...extents]).toEqual([
      { offset: 4096n, length: 4096, flags: 3 },
      { offset: 8192n, length: 61440, flags: 0 },
    ]);
    expect([...map.get('x:y')!]).toEqual([{ offset: 4096n, length: 65536, flags: 9 }]);
  });

  it('with a callback calls it once per context, with flat pairs, and resolves with nothing', async () => {
    const { connection, peer } = await open({ contexts: TWO });
    const told: unknown[][] = [];
    const asked: Promise<unknown> = connection.blockStatus(65536, 4096, (...args) => void told.push(args));
    const result = await ask(peer, asked, (cookie) => [
      g.statusChunk(cookie, 1, [[65536, 3]], 0),
      g.statusChunk(cookie, 7, [[65536, 0]]),
    ]);
    expect(result).toBeUndefined();
    expect(told).toEqual([
      ['base:allocation', 4096n, Uint32Array.of(65536, 3)],
      ['x:y', 4096n, Uint32Array.of(65536, 0)],
    ]);
  });

  it('flags and signal come after the callback, or without it', async () => {
    const { connection, peer } = await open();
    const { signal } = new AbortController();
    const calls = [
      connection.blockStatus(512, 0, CMD_FLAG_REQ_ONE, signal),
      connection.blockStatus(512, 0, () => undefined, CMD_FLAG_REQ_ONE, signal),
      connection.blockStatus64(512, 0, CMD_FLAG_REQ_ONE, signal),
      connection.blockStatus64(512, 0, () => undefined, CMD_FLAG_REQ_ONE, signal),
    ];
    const requests = await peer.requests(4);
    expect(requests.map(({ flags }) => flags)).toEqual([8, 8, 8, 8]);
    peer.answer(...requests);
    await Promise.all(calls);
    expect(await rejection(connection.blockStatus(512, 0, undefined, AbortSignal.abort('x')))).toBe('x');
  });

  it('refuses by rejecting, with a callback or without', async () => {
    const { connection } = await open();
    const nothing = (): void => undefined;
    for (const error of [
      await rejection(connection.blockStatus(0, 0)),
      await rejection(connection.blockStatus(0, 0, nothing)),
      await rejection(connection.blockStatus64(0, 0, nothing)),
      await rejection(connection.blockStatus(512, 0, 'x' as never)),
      await rejection(connection.blockStatus(512, 0, null as never)),
    ]) {
      expect(error).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
    }
    expect(connection.aioInFlight()).toBe(0);
  });

  it('of one extent keeps the first, whatever the server sends', async () => {
    const { connection, peer } = await open();
    const map = await ask(peer, connection.blockStatus(8192, 0, CMD_FLAG_REQ_ONE), (cookie) => [
      g.statusChunk(cookie, 1, [
        [4096, 0],
        [4096, 3],
      ]),
    ]);
    expect([...map.get('base:allocation')!.entries]).toEqual([4096, 0]);
  });

  it.each<[string, OpenOptions, [number, number][], number[]]>([
    [
      'an extent past the request is kept',
      {},
      [
        [4096, 3],
        [65536, 0],
      ],
      [4096, 3, 65536, 0],
    ],
    [
      'an extent of length 0 later ends the list',
      {},
      [
        [4096, 0],
        [0, 1],
        [4096, 1],
      ],
      [4096, 0],
    ],
    [
      'extents behind the request are dropped',
      {},
      [
        [65536, 0],
        [65536, 3],
      ],
      [65536, 0],
    ],
    [
      'sums past 2^32 do not wrap',
      { size: TIB },
      [
        [2 ** 31, 0],
        [2 ** 31, 0],
        [2 ** 31, 0],
      ],
      [2 ** 31, 0],
    ],
  ])('%s', async (_title, options, sent, kept) => {
    const { connection, peer } = await open(options);
    const map = await ask(peer, connection.blockStatus(65536, 0), (cookie) => [g.statusChunk(cookie, 1, sent)]);
    expect([...map.get('base:allocation')!.entries]).toEqual(kept);
  });

  it.each<[string, (cookie: bigint) => Buffer[], RegExp]>([
    ['a context that was not negotiated', (c) => [g.statusChunk(c, 9, [[512, 0]])], /context 9/],
    ['the same context twice', (c) => [g.statusChunk(c, 1, [[512, 0]], 0), g.statusChunk(c, 1, [[512, 0]])], /twice/],
    ['one of two contexts', (c) => [g.statusChunk(c, 1, [[512, 0]])], /did not report on x:y/],
    ['no context', (c) => [g.chunk(g.DONE, g.NONE, c)], /did not report on base:allocation, x:y/],
    ['a simple reply', (c) => [g.simple(c)], /simple reply/],
    ['a first extent of length 0', (c) => [g.statusChunk(c, 1, [[0, 0]])], /length 0/],
    ['an extent past the export', (c) => [g.statusChunk(c, 1, [[2 ** 21, 0]])], /extends beyond the export/],
  ])('%s: EPROTO, and the connection lives', async (_title, reply, says) => {
    const { connection, peer } = await open({ contexts: TWO });
    for (const call of [connection.blockStatus(512, 0), connection.blockStatus64(512, 0, () => undefined)]) {
      const error = (await ask(peer, rejection(call), reply)) as NbdError;
      expect(error).toMatchObject({ code: 'EPROTO', count: 512n });
      expect(error.message).toMatch(says);
    }
    void peer.serve();
    await connection.flush();
  });
});

describe('blockStatus64', () => {
  it('gives bigints, also for 32-bit replies', async () => {
    const { connection, peer } = await open();
    const map = await ask(peer, connection.blockStatus64(65536, 0), (cookie) => [
      g.statusChunk(cookie, 1, [[65536, 3]]),
    ]);
    expect(map.get('base:allocation')!.entries).toEqual(BigUint64Array.of(65536n, 3n));
    expect([...map.get('base:allocation')!]).toEqual([{ offset: 0n, length: 65536n, flags: 3n }]);
  });

  it('of 2^40 bytes in one extent', async () => {
    const { connection, peer } = await open({ size: TIB, extended: true });
    const map = await ask(peer, connection.blockStatus64(TIB, 0), (cookie) => [extended(cookie, [[TIB, 2n ** 63n]])]);
    expect([...map.get('base:allocation')!]).toEqual([{ offset: 0n, length: 2n ** 40n, flags: 2n ** 63n }]);
  });

  it('the 32-bit call shortens what it cannot represent, and fails where nothing can be represented', async () => {
    const { connection, peer } = await open({ size: TIB, extended: true });
    const cut = await ask(peer, connection.blockStatus(TIB, 0), (cookie) => [extended(cookie, [[TIB, 1]])]);
    expect([...cut.get('base:allocation')!.entries]).toEqual([2 ** 32 - 65536, 1]);
    const failed = await ask(peer, rejection(connection.blockStatus(TIB, 0)), (c) => [extended(c, [[512, 2n ** 32n]])]);
    expect(failed).toMatchObject({ code: 'EOVERFLOW' });
  });
});

describe('blockStatusFilter', () => {
  it.each<[string, OpenOptions, number, number]>([
    ['with extended headers and the flag', { extended: true }, CMD_FLAG_PAYLOAD_LEN, 12],
    ['with extended headers, without the flag', { extended: true }, 0, 0],
    ['with the flag, without extended headers', {}, CMD_FLAG_PAYLOAD_LEN, 0],
    ['without either', {}, 0, 0],
  ])('relaxed, %s: a payload only where the server reads one', async (_title, served, flags, payload) => {
    const { connection, peer } = await open({ ...served, flags: g.ALL_FLAGS | g.STATUS_PAYLOAD, contexts: TWO });
    connection.setStrictMode(0);
    const status = connection.blockStatusFilter(65536, 0, ['x:y'], flags);
    const request = await peer.request();
    expect(request).toMatchObject({ type: g.CMD.STATUS, flags, length: payload === 0 ? 65536 : payload });
    await peer.take(payload);
    const done = (id: number): Buffer =>
      served.extended === true
        ? extended(request.cookie, [[65536, 0]], id)
        : g.statusChunk(request.cookie, id, [[65536, 0]], 0);
    // A server that saw no filter reports on every context.
    if (payload > 0) peer.write(done(7));
    else if (served.extended === true) {
      const first = g.cat(g.u32(1), g.u32(1), g.u64(65536), g.u64(0));
      peer.write(g.extendedChunk(0, g.STATUS_EXT, request.cookie, 0, first), done(7));
    } else peer.write(done(1), g.statusChunk(request.cookie, 7, [[65536, 0]]));
    expect([...(await status).keys()]).toContain('x:y');
    // The next request begins where the server looks for it.
    const flushed = connection.flush();
    const next = await peer.request();
    expect(next.type).toBe(g.CMD.FLUSH);
    peer.answer(next);
    await flushed;
  });

  const filtered = (): Promise<{ connection: NbdConnection; peer: RawPeer }> =>
    open({ contexts: TWO, extended: true, flags: g.ALL_FLAGS | g.STATUS_PAYLOAD });

  it('sends the length of the range and the IDs of the contexts', async () => {
    const { connection, peer } = await filtered();
    const call = connection.blockStatusFilter(65536, 0, ['x:y']);
    const header = await peer.header();
    expect(header).toMatchObject({ type: g.CMD.STATUS, flags: 0x20, length: 12 });
    expect((await peer.take(12)).toString('hex')).toBe('000000000001000000000007');
    peer.write(extended(header.cookie, [[65536, 5]], 7));
    const map = await call;
    expect([...map.keys()]).toEqual(['x:y']);
    expect(map.get('x:y')!.entries).toEqual(BigUint64Array.of(65536n, 5n));
  });

  it('refuses contexts that were not negotiated, and servers that take no filter', async () => {
    const { connection } = await filtered();
    expect(await rejection(connection.blockStatusFilter(512, 0, ['no:such']))).toMatchObject({ code: 'EINVAL' });
    expect(await rejection(connection.blockStatusFilter(512, 0, 'x:y' as never))).toMatchObject({ code: 'EINVAL' });
    const without = await open({ contexts: TWO, extended: true });
    expect(await rejection(without.connection.blockStatusFilter(512, 0, ['x:y']))).toMatchObject({ code: 'EINVAL' });
    const narrow = await open({ contexts: TWO, flags: g.ALL_FLAGS | g.STATUS_PAYLOAD });
    expect(await rejection(narrow.connection.blockStatusFilter(512, 0, ['x:y']))).toMatchObject({ code: 'ENOTSUP' });
  });
});

describe('a million extents', () => {
  it('come as one array, and iterate to the end', async () => {
    const { connection, peer } = await open({ size: TIB });
    const count = 1_000_000;
    const payload = Buffer.alloc(4 + 8 * count);
    payload.writeUInt32BE(1, 0);
    for (let i = 0; i < count; i++) {
      payload.writeUInt32BE(512, 4 + 8 * i);
      payload.writeUInt32BE(i % 4, 8 + 8 * i);
    }
    const map = await ask(peer, connection.blockStatus(TIB / 2048, 0), (cookie) => [
      g.chunk(g.DONE, g.STATUS, cookie, payload),
    ]);
    const extents = map.get('base:allocation')!;
    expect(extents).toHaveLength(count);
    let end = 0n;
    let holes = 0;
    for (const { offset, length, flags } of extents) {
      if (offset !== end) throw new Error(`a gap before ${offset}`);
      end = offset + BigInt(length);
      holes += flags & 1;
    }
    expect([end, holes]).toEqual([512n * BigInt(count), count / 2]);
  });
});
