import { describe, expect, it, jest } from '@jest/globals';

import { CMD_FLAG_DF, type NbdError, READ_DATA, READ_ERROR, READ_HOLE } from '../../../lib/index.js';
import { allocateForReads } from '../../../lib/util/memory.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { newConnection, openRaw, type OpenOptions } from '../../support/raw-server.js';

const KIB = 1024;
const MIB = 1024 * KIB;

// Every kind of reply, over every kind of stream.
const SETTINGS: readonly (readonly [string, OpenOptions])[] = [
  ['simple replies over a socket', { structured: false }],
  ['structured replies over a socket', {}],
  ['extended replies over a socket', { extended: true }],
  ['simple replies over TCP', { structured: false, over: 'tcp' }],
  ['structured replies over a stream', { over: 'memory' }],
];

describe.each(SETTINGS)('reads with %s', (_title, settings) => {
  it('of all sizes are right, alone and at once', async () => {
    const { connection, peer } = await openRaw({ size: 64 * MIB, ...settings });
    void peer.serve();
    const sizes = [1, 511, 512, 4096, 64 * KIB, 128 * KIB - 1, 128 * KIB, 256 * KIB + 1, MIB, 5 * MIB];
    for (const size of sizes) {
      const data = await connection.pread(size, size);
      expect(Buffer.compare(data, g.content(size, size))).toBe(0);
    }
    const all = await Promise.all([...sizes, ...sizes].map((size, i) => connection.pread(size, i)));
    expect(all.map((data, i) => Buffer.compare(data, g.content(i, data.length)))).toEqual(all.map(() => 0));
  });

  it('into the buffer of the caller touch nothing beside it', async () => {
    const { connection, peer } = await openRaw({ size: 64 * MIB, ...settings });
    void peer.serve();
    for (const size of [1, 4096, 300 * KIB]) {
      for (const whole of [new Uint8Array(size + 20), allocateForReads(size + 20)]) {
        whole.fill(0x55);
        await expect(connection.preadInto(whole.subarray(10, 10 + size), 77)).resolves.toBeUndefined();
        expect(Buffer.compare(whole.subarray(10, 10 + size), g.content(77, size))).toBe(0);
        expect(Buffer.from(whole.subarray(0, 10)).equals(Buffer.alloc(10, 0x55))).toBe(true);
        expect(Buffer.from(whole.subarray(10 + size)).equals(Buffer.alloc(10, 0x55))).toBe(true);
      }
    }
  });
});

describe('a large read', () => {
  it.each([
    ['memory for reads: the socket writes into it, and it is not cleared', () => allocateForReads(4 * MIB), false],
    ['a buffer of the caller: it is cleared, and the decoder writes into it', () => Buffer.alloc(4 * MIB), true],
  ] as const)('into %s', async (_title, allocate, isCopied) => {
    const { connection, peer } = await openRaw({ size: 64 * MIB });
    void peer.serve();
    const bytes = allocate().fill(1);
    const copies = jest.spyOn(Buffer.prototype, 'copy');
    const reading = connection.preadInto(bytes, 99);
    expect(bytes[0]).toBe(isCopied ? 0 : 1);
    await reading;
    const copied = copies.mock.results.map(({ value }, index) =>
      (copies.mock.calls[index]?.[0] as Uint8Array | undefined)?.buffer === bytes.buffer ? Number(value) : 0,
    );
    copies.mockRestore();
    const sum = copied.reduce((total, each) => total + each, 0);
    expect(Buffer.compare(bytes, g.content(99, bytes.length))).toBe(0);
    // What comes behind a header in the same read is copied in any case.
    if (isCopied) expect(sum).toBe(bytes.length);
    else expect(sum).toBeLessThan(MIB);
  });
});

describe('pread', () => {
  it('hands out Buffers that do not touch each other, large ones with memory of their own', async () => {
    const { connection, peer } = await openRaw();
    void peer.serve();
    const [first, second] = await Promise.all([connection.pread(13, 0), connection.pread(16, 0)]);
    expect(first).toBeInstanceOf(Buffer);
    expect(first).toHaveLength(13);
    // Typed arrays can be laid over a result, whatever came before it.
    expect(second.byteOffset % 8).toBe(0);
    first.fill(0);
    expect(second.equals(g.content(0, 16))).toBe(true);
    const [small, large] = [await connection.pread(16384, 0), await connection.pread(16385, 0)];
    // What a small result that is kept may hold is bounded; a large one holds itself.
    expect(small.buffer.byteLength).toBeLessThanOrEqual(65536);
    expect(large.buffer.byteLength).toBe(16385);
  });

  it('never hands out the same memory twice', async () => {
    const { connection, peer } = await openRaw();
    void peer.serve();
    const results: Buffer[] = [];
    for (let i = 0; i < 100; i++) results.push(await connection.pread(1000 + i, 0));
    for (const result of results) result.fill(0);
    expect((await connection.pread(1100, 0)).equals(g.content(0, 1100))).toBe(true);
    results.forEach((result, index) => {
      result.fill(index + 1);
    });
    expect(results.every((result, index) => result.every((byte) => byte === index + 1))).toBe(true);
  });

  it('of no bytes, where that is allowed, is an empty Buffer', async () => {
    for (const structured of [false, true]) {
      const { connection, peer } = await openRaw({ structured, client: { strictMode: 0 } });
      const reading = connection.pread(0, 0);
      const request = await peer.request();
      expect(request.length).toBe(0);
      peer.write(structured ? g.chunk(g.DONE, g.NONE, request.cookie) : g.simple(request.cookie));
      expect(await reading).toEqual(Buffer.alloc(0));
    }
  });

  it('is exact far beyond 2^53', async () => {
    const size = 2n ** 63n + 512n;
    const { connection, peer } = await openRaw({ size });
    const offset = 2n ** 53n + 1n;
    const reading = connection.pread(3, offset);
    const request = await peer.request();
    expect(request.offset).toBe(offset);
    peer.write(g.dataChunk(request.cookie, offset + 2n, 'c', 0), g.dataChunk(request.cookie, offset, 'ab'));
    expect((await reading).toString()).toBe('abc');
  });
});

describe('a read that the server gets wrong', () => {
  const cover =
    (chunks: (cookie: bigint) => Buffer[]): ((cookie: bigint) => Buffer) =>
    (cookie) =>
      g.cat(...chunks(cookie));
  const d = g.content(0, 512);
  const part = (cookie: bigint, from: number, to: number, flags = 0): Buffer =>
    g.dataChunk(cookie, from, d.subarray(from, to), flags);

  it.each<[string, (cookie: bigint) => Buffer, string]>([
    ['half of it', cover((c) => [part(c, 0, 256, 1)]), 'EPROTO'],
    ['a half twice', cover((c) => [part(c, 0, 256), part(c, 0, 256, 1)]), 'EPROTO'],
    ['a gap hidden by an overlap', cover((c) => [part(c, 0, 257), part(c, 256, 511, 1)]), 'EPROTO'],
    ['nothing', cover((c) => [g.chunk(g.DONE, g.NONE, c)]), 'EPROTO'],
    ['all of it, then an error', cover((c) => [part(c, 0, 512), g.errorChunk(c, 5)]), 'EIO'],
    ['an error without a number', cover((c) => [g.errorChunk(c, 0)]), 'EPROTO'],
  ])('%s: never fewer bytes, the read fails and the connection lives', async (_title, reply, code) => {
    const { connection, peer } = await openRaw();
    const failed = rejection(connection.pread(512, 0));
    const told: unknown[] = [];
    const raw = connection.aioPread(Buffer.alloc(512), 0, (error) => void told.push(error));
    const requests = await peer.requests(2);
    peer.write(reply(requests[0]!.cookie), reply(requests[1]!.cookie));
    expect(await failed).toMatchObject({ code, syscall: 'pread', cookie: 1n, count: 512n, offset: 0n });
    void peer.serve();
    expect((await connection.pread(512, 4096)).equals(g.content(4096, 512))).toBe(true);
    // The completion of a raw read gets the error as well.
    expect(told).toEqual([expect.objectContaining({ code })]);
    expect(caught(() => connection.aioCommandCompleted(raw))).toBe(told[0]);
  });
});

describe('the buffer of the caller', () => {
  it('is cleared first, even where the call is refused', async () => {
    const buffer = (): Buffer => Buffer.alloc(64, 0x55);
    const zero = Buffer.alloc(64);
    const { connection } = await openRaw();
    const calls: ((bytes: Buffer) => unknown)[] = [
      (bytes) => rejection(connection.preadInto(bytes, 1 << 20)),
      (bytes) => caught(() => connection.aioPread(bytes, 1 << 20)),
      (bytes) => caught(() => connection.aioPreadStructured(bytes, 1 << 20, () => undefined)),
      (bytes) => rejection(newConnection().preadInto(bytes, 0)),
      (bytes) => caught(() => newConnection().aioPread(bytes, 0)),
    ];
    for (const call of calls) {
      const bytes = buffer();
      await call(bytes);
      expect(bytes.equals(zero)).toBe(true);
    }
    connection.setPreadInitialize(false);
    for (const call of calls.slice(0, 3)) {
      const bytes = buffer();
      await call(bytes);
      expect(bytes.equals(buffer())).toBe(true);
    }
  });

  it('holds no old bytes after a read that failed half-way', async () => {
    const { connection, peer } = await openRaw();
    const bytes = Buffer.alloc(512, 0x55);
    const failed = rejection(connection.preadInto(bytes, 0));
    const { cookie } = await peer.request();
    peer.write(g.dataChunk(cookie, 0, g.content(0, 256), 0), g.errorChunk(cookie, 5));
    expect(await failed).toMatchObject({ code: 'EIO' });
    expect(bytes.equals(g.cat(g.content(0, 256), Buffer.alloc(256)))).toBe(true);
  });

  it('reads as zeroes under a hole, also where it was not cleared', async () => {
    const { connection, peer } = await openRaw({ client: { preadInitialize: false } });
    const bytes = Buffer.alloc(512, 0x55);
    const reading = connection.preadInto(bytes, 0);
    const { cookie } = await peer.request();
    peer.write(g.holeChunk(cookie, 0, 512));
    await reading;
    expect(bytes.equals(Buffer.alloc(512))).toBe(true);
  });

  it.each([null, 'x', 7, [1, 2], new ArrayBuffer(8), new Uint16Array(4), new DataView(new ArrayBuffer(4))])(
    'that is not a Uint8Array is refused: %p',
    async (buffer) => {
      const { connection } = await openRaw();
      for (const error of [
        await rejection(connection.preadInto(buffer as never, 0)),
        caught(() => connection.aioPread(buffer as never, 0)),
        await rejection(connection.pwrite(buffer as never, 0)),
        caught(() => connection.aioPwrite(buffer as never, 0)),
      ] as NbdError[]) {
        expect(error).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
        expect(error.message).toMatch(/buffer must be a Uint8Array/);
      }
      expect(connection.aioInFlight()).toBe(0);
    },
  );
});

describe('counts and offsets', () => {
  it.each([NaN, -1, 1.5, Infinity, 2 ** 53, -1n, 2n ** 64n, '512', null, {}, []])(
    '%p is refused, by both routes',
    async (value) => {
      const { connection } = await openRaw();
      const bad = value as number;
      for (const error of [
        await rejection(connection.cache(bad, 0)),
        await rejection(connection.cache(512, bad)),
        caught(() => connection.aioCache(bad, 0)),
        caught(() => connection.aioCache(512, bad)),
        await rejection(connection.pread(bad, 0)),
        await rejection(connection.preadInto(Buffer.alloc(1), bad)),
        await rejection(connection.pwrite(Buffer.alloc(1), bad)),
        await rejection(connection.blockStatus(bad, 0)),
        caught(() => connection.aioTrim(512, bad)),
      ] as NbdError[]) {
        expect(error).toMatchObject({ code: 'EINVAL', errno: 22, name: 'NbdStrictError' });
        expect(error.message).toMatch(/^(cache|pread|preadInto|pwrite|blockStatus|trim): (count|offset) /);
      }
      expect(connection.aioFlush()).toBe(1n);
    },
  );

  it.each([NaN, -1, 1.5, 2 ** 32, 1n, '0', null, true])('flags %p are refused', async (flags) => {
    const { connection } = await openRaw();
    const error = await rejection(connection.trim(512, 0, flags as number));
    expect(error).toMatchObject({ code: 'EINVAL', message: expect.stringMatching(/^trim: flags must be/) });
  });
});

describe('preadStructured', () => {
  it('reports every chunk as it arrives, with a view into the result', async () => {
    const { connection, peer } = await openRaw();
    const told: [Buffer, bigint, number, NbdError | null][] = [];
    const reading = connection.preadStructured(300, 1000, (...args) => void told.push(args));
    const { cookie, flags } = await peer.request();
    expect(flags).toBe(0);
    peer.write(g.dataChunk(cookie, 1200, g.content(1200, 100), 0));
    while (told.length < 1) await new Promise((resolve) => setImmediate(resolve));
    expect(told[0]).toEqual([g.content(1200, 100), 1200n, READ_DATA, null]);
    peer.write(g.holeChunk(cookie, 1100, 100, 0), g.dataChunk(cookie, 1000, g.content(1000, 100)));
    const data = await reading;
    expect(told.map(([bytes, offset, status]) => [bytes.length, offset, status])).toEqual([
      [100, 1200n, READ_DATA],
      [100, 1100n, READ_HOLE],
      [100, 1000n, READ_DATA],
    ]);
    expect(told[1]![0].equals(Buffer.alloc(100))).toBe(true);
    expect(data.equals(g.cat(g.content(1000, 100), Buffer.alloc(100), g.content(1200, 100)))).toBe(true);
    expect(told[0]![0].buffer).toBe(data.buffer);
  });

  it('reports an error with its offset', async () => {
    const { connection, peer } = await openRaw();
    const told: unknown[][] = [];
    const failed = rejection(connection.preadStructured(512, 4096, (...args) => void told.push(args)));
    const { cookie } = await peer.request();
    peer.write(
      g.dataChunk(cookie, 4096, g.content(4096, 256), 0),
      g.chunk(g.DONE, g.ERROR_OFFSET, cookie, g.cat(g.u32(5), g.u16(4), 'dead', g.u64(4352))),
    );
    const error = await failed;
    expect(error).toMatchObject({ code: 'EIO', serverMessage: 'dead' });
    expect(told[1]).toEqual([Buffer.alloc(0), 4352n, READ_ERROR, error]);
  });

  it('requests one chunk with DF, and accepts no more', async () => {
    const { connection, peer } = await openRaw();
    const good = connection.preadStructured(16, 0, () => undefined, CMD_FLAG_DF);
    const bad = rejection(connection.preadStructured(16, 0, () => undefined, CMD_FLAG_DF));
    const [first, second] = await peer.requests(2);
    expect(first!.flags).toBe(4);
    peer.answer(first!);
    peer.write(g.dataChunk(second!.cookie, 0, g.content(0, 8), 0), g.dataChunk(second!.cookie, 8, g.content(8, 8)));
    expect((await good).length).toBe(16);
    expect(await bad).toMatchObject({ code: 'EPROTO', syscall: 'preadStructured' });
  });

  it('raw: into the buffer of the caller, then the completion', async () => {
    const { connection, peer } = await openRaw();
    const order: string[] = [];
    const bytes = Buffer.alloc(200);
    const cookie = connection.aioPreadStructured(
      bytes,
      0,
      (_subbuf, offset) => void order.push(`chunk ${offset}`),
      () => void order.push('completion'),
    );
    peer.write(g.dataChunk(cookie, 100, g.content(100, 100), 0), g.dataChunk(cookie, 0, g.content(0, 100)));
    void peer.request().then(() => peer.serve());
    await connection.flush();
    expect(order).toEqual(['chunk 100', 'chunk 0', 'completion']);
    expect(bytes.equals(g.content(0, 200))).toBe(true);
    expect(connection.aioCommandCompleted(cookie)).toBe(true);
  });

  it('works with simple replies too, as one chunk', async () => {
    const { connection, peer } = await openRaw({ structured: false });
    void peer.serve();
    const told: unknown[][] = [];
    await connection.preadStructured(100, 50, (...args) => void told.push(args));
    expect(told).toEqual([[g.content(50, 100), 50n, READ_DATA, null]]);
  });
});
