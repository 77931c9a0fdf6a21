import { describe, expect, it } from '@jest/globals';

import {
  CMD_FLAG_FAST_ZERO,
  CMD_FLAG_FUA,
  CMD_FLAG_NO_HOLE,
  CMD_FLAG_REQ_ONE,
  type NbdConnection,
  NbdCommandError,
} from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw, type OpenOptions } from '../../support/raw-server.js';
import { EACH_CALL } from '../calls.js';

const KIB = 1024;
const CONTEXTS = { 1: 'base:allocation' };

interface WireRow {
  readonly title: string;
  readonly call: (c: NbdConnection) => Promise<unknown>;
  /** flags, type, offset and length of the request. */
  readonly wire: readonly [flags: number, type: number, offset: bigint, length: number];
  readonly open?: OpenOptions;
}

const TIB = 2 ** 40;
const ROWS: readonly WireRow[] = [
  { title: 'pread', call: (c) => c.pread(512, 4096), wire: [0, 0, 4096n, 512] },
  { title: 'pwrite with FUA', call: (c) => c.pwrite(Buffer.alloc(3), 5, CMD_FLAG_FUA), wire: [1, 1, 5n, 3] },
  { title: 'flush', call: (c) => c.flush(), wire: [0, 3, 0n, 0] },
  { title: 'trim', call: (c) => c.trim(4096, 0), wire: [0, 4, 0n, 4096] },
  { title: 'trim with FUA', call: (c) => c.trim(4096n, 4096n, 1), wire: [1, 4, 4096n, 4096] },
  { title: 'cache', call: (c) => c.cache(1 << 20, 0), wire: [0, 5, 0n, 1 << 20] },
  {
    ...{ title: 'zero with every flag', wire: [0x13, 6, 0n, 512] },
    call: (c) => c.zero(512, 0, CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO),
  },
  { title: 'blockStatus of one', call: (c) => c.blockStatus(512, 0, CMD_FLAG_REQ_ONE), wire: [8, 7, 0n, 512] },
  {
    ...{ title: 'trim of 3 GiB, whose length has no sign', open: { size: TIB }, wire: [0, 4, 0n, 3 * 2 ** 30] },
    call: (c) => c.trim(3 * 2 ** 30, 0),
  },
  {
    ...{ title: 'an offset of 2^53 + 1', open: { size: 2n ** 63n }, wire: [0, 5, 2n ** 53n + 1n, 1] },
    call: (c) => c.cache(1, 2n ** 53n + 1n),
  },
  {
    ...{ title: 'extended: a zero of 2^40', open: { size: TIB, extended: true }, wire: [0, 6, 0n, TIB] },
    call: (c) => c.zero(TIB, 0),
  },
  {
    ...{ title: 'extended: a write carries PAYLOAD_LEN', open: { extended: true }, wire: [0x20, 1, 0n, 3] },
    call: (c) => c.pwrite(Buffer.alloc(3), 0),
  },
  {
    ...{ title: 'extended: a read does not', open: { extended: true }, wire: [0, 0, 0n, 3] },
    call: (c) => c.pread(3, 0),
  },
  {
    ...{ title: 'PAYLOAD_LEN is taken back without extended headers', wire: [0, 1, 0n, 3] },
    call: (c) => c.pwrite(Buffer.alloc(3), 0, 0x20),
  },
];

describe('on the wire', () => {
  it.each(ROWS.map((row) => [row.title, row] as const))('%s', async (_title, { call, wire, open }) => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS, ...open });
    const done = call(connection);
    const request = await peer.request();
    const { flags, type, offset, length, cookie } = request;
    expect([flags, type, offset, length]).toEqual(wire);
    expect(cookie).toBe(1n);
    peer.answer(request);
    await done;
  });
});

describe('pwrite', () => {
  it.each([1, 4096, 8 * KIB, 8 * KIB + 1, 100 * KIB, 3 * 1024 * KIB])(
    'sends its %d bytes, no others',
    async (length) => {
      const { connection, peer } = await openRaw({ size: 2 ** 30 });
      const memory = g.content(0, length + 20);
      const written = connection.pwrite(memory.subarray(10, 10 + length), 4096);
      const request = await peer.request();
      expect(request).toMatchObject({ offset: 4096n, length });
      expect(Buffer.compare(request.payload, memory.subarray(10, 10 + length))).toBe(0);
      peer.answer(request);
      await expect(written).resolves.toBeUndefined();
    },
  );

  it('of many sizes at once, between other commands, stays in step', async () => {
    const { connection, peer } = await openRaw({ size: 2 ** 30, client: { maxInFlight: 16 } });
    const seen = new Map<number, Buffer>();
    void peer.serve(({ type, offset, payload }) => {
      if (type === g.CMD.WRITE) seen.set(Number(offset), payload);
    });
    const sizes = Array.from({ length: 60 }, (_, i) => ((i * 7919) % 40_000) + 1);
    await Promise.all(
      sizes.flatMap((size, i) => [
        connection.pwrite(g.content(i, size), i * 65536),
        i % 3 === 0 ? connection.flush() : connection.pread(size, i),
      ]),
    );
    expect(seen.size).toBe(60);
    sizes.forEach((size, i) => {
      if (!seen.get(i * 65536)?.equals(g.content(i, size))) throw new Error(`write ${i} of ${size} bytes is wrong`);
    });
  });

  it('takes any Uint8Array', async () => {
    const { connection, peer } = await openRaw();
    void peer.serve();
    await connection.pwrite(new Uint8Array([1, 2, 3]), 0);
    await connection.pwrite(new Uint8ClampedArray(3) as never, 0).catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'EINVAL' });
    });
    await connection.pwrite(new Uint8Array(new SharedArrayBuffer(16)), 0);
  });

  it('to two peers that both write before they read does not lock', async () => {
    const { connection, peer } = await openRaw({ size: 2 ** 30 });
    // Far more in both directions than any socket buffers: a peer that reads only after it has written stands still.
    const length = 8 * 1024 * KIB;
    const reads = [connection.pread(length, 0), connection.pread(length, 0)];
    const requests = await peer.requests(2);
    const write = connection.pwrite(Buffer.alloc(length), 0);
    peer.stream.pause();
    peer.answer(...requests);
    for (const data of await Promise.all(reads)) expect(data.length).toBe(length);
    peer.stream.resume();
    peer.answer(await peer.request());
    await write;
  });
});

describe.each(EACH_CALL)('an error of the server for %s', (name, call) => {
  it.each([...g.WIRE_ERRORS, [9999, 'EINVAL']])(
    '%d is %s, by promise and raw; the connection lives',
    async (wire, code) => {
      const { connection, peer } = await openRaw({ contexts: CONTEXTS });
      const failed = rejection(call.promise(connection));
      const told = new Promise<unknown>((resolve) => call.aio(connection, {}, resolve));
      const [first, second] = await peer.requests(2);
      peer.write(g.simple(first!.cookie, wire), g.errorChunk(second!.cookie, wire, 'because'));
      const method = name === 'preadInto' ? /^pread(Into)?/ : new RegExp(`^${name}`);
      for (const [error, cookie, said] of [
        [await failed, 1n, undefined],
        [await told, 2n, 'because'],
      ] as const) {
        expect(error).toBeInstanceOf(NbdCommandError);
        expect(error).toMatchObject({ code, cookie, ...(call.hasRange ? { count: 512n, offset: 0n } : {}) });
        expect((error as NbdCommandError).serverMessage).toBe(said);
        expect((error as Error).message).toMatch(method);
        if (call.hasRange) expect((error as Error).message).toContain('of 512 bytes at offset 0: ');
      }
      void peer.serve();
      await connection.flush();
    },
  );
});
