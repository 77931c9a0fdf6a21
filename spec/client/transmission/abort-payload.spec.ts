import { describe, expect, it } from '@jest/globals';

import { type NbdError } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw, type OpenOptions } from '../../support/raw-server.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Whether the promise settles within `ms`. */
async function settles(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const late = Symbol('late');
  const first = await Promise.race([promise, new Promise((resolve) => setTimeout(resolve, ms, late))]);
  return first !== late;
}

const OVER: readonly (readonly [string, OpenOptions])[] = [
  ['a socket', { over: 'unix' }],
  ['a stream', { over: 'memory' }],
];

describe.each(OVER)('a read that is aborted on the wire, over %s', (_title, over) => {
  it.each([
    ['simple', false],
    ['structured', true],
  ])('drops a late %s reply without touching the buffer', async (_kind, structured) => {
    const { connection, peer } = await openRaw({ ...over, structured });
    const buffer = Buffer.alloc(4096);
    const controller = new AbortController();
    const aborted = rejection(connection.preadInto(buffer, 0, 0, controller.signal));
    const request = await peer.request();
    controller.abort('enough');
    expect(await aborted).toBe('enough');
    buffer.fill(0x77);
    peer.answer(request);
    const next = connection.pread(4096, 8192);
    peer.answer(await peer.request());
    expect((await next).equals(g.content(8192, 4096))).toBe(true);
    expect(buffer.equals(Buffer.alloc(4096, 0x77))).toBe(true);
  });

  it('between two chunks: the chunks behind it are dropped, and still looked at', async () => {
    for (const good of [true, false]) {
      const { connection, peer } = await openRaw(over);
      const buffer = Buffer.alloc(300);
      const controller = new AbortController();
      const aborted = rejection(connection.preadInto(buffer, 0, 0, controller.signal));
      const { cookie } = await peer.request();
      const data = g.content(0, 300);
      peer.write(g.dataChunk(cookie, 0, data.subarray(0, 100), 0));
      while (buffer[99] !== data[99]) await new Promise((resolve) => setImmediate(resolve));
      controller.abort('enough');
      expect(await aborted).toBe('enough');
      buffer.fill(0x77);
      if (good) {
        peer.write(g.dataChunk(cookie, 100, data.subarray(100, 200), 0), g.dataChunk(cookie, 200, data.subarray(200)));
        const next = connection.pread(300, 0);
        peer.answer(await peer.request());
        expect((await next).equals(data)).toBe(true);
      } else {
        const closed = new Promise((resolve) => connection.once('close', resolve));
        peer.write(g.dataChunk(cookie, 250, data.subarray(0, 100)));
        expect(await closed).toMatchObject({ code: 'EPROTO' });
      }
      expect(buffer.equals(Buffer.alloc(300, 0x77))).toBe(true);
    }
  });

  it('in the middle of a large payload: not a byte changes after the rejection', async () => {
    for (const structured of [false, true]) {
      const { connection, peer } = await openRaw({ ...over, structured });
      const length = 512 * KIB;
      const buffer = Buffer.alloc(length);
      const controller = new AbortController();
      const aborted = rejection(connection.preadInto(buffer, 0, 0, controller.signal));
      const reply = peer.goodReply(await peer.request());
      const half = 100 * KIB;
      peer.write(reply.subarray(0, half));
      const last = g.content(0, length)[half - 100];
      while (buffer[half - 100] !== last) await new Promise((resolve) => setImmediate(resolve));
      controller.abort('enough');
      // Where the transport may be reading into the buffer, the rejection waits for that read.
      peer.write(reply.subarray(half, half + 1000));
      expect(await aborted).toBe('enough');
      buffer.fill(0x77);
      peer.write(reply.subarray(half + 1000));
      const next = connection.pread(length, length);
      peer.answer(await peer.request());
      expect((await next).equals(g.content(length, length))).toBe(true);
      expect(buffer.equals(Buffer.alloc(length, 0x77))).toBe(true);
    }
  });

  it('in the middle of a large payload, when the connection ends: rejects with the reason', async () => {
    const { connection, peer } = await openRaw({ ...over, structured: false });
    const buffer = Buffer.alloc(512 * KIB);
    const controller = new AbortController();
    const aborted = rejection(connection.preadInto(buffer, 0, 0, controller.signal));
    const reply = peer.goodReply(await peer.request());
    peer.write(reply.subarray(0, 100 * KIB));
    while (buffer[90 * KIB + 1] === 0) await new Promise((resolve) => setImmediate(resolve));
    controller.abort('enough');
    peer.stream.end();
    expect(await aborted).toBe('enough');
  });

  it('does not call its chunk callback again', async () => {
    const { connection, peer } = await openRaw(over);
    const controller = new AbortController();
    const told: bigint[] = [];
    const chunk = (_subbuf: Buffer, offset: bigint): void => {
      told.push(offset);
      controller.abort('from within');
    };
    const aborted = rejection(connection.preadStructured(200, 0, chunk, 0, controller.signal));
    const { cookie } = await peer.request();
    peer.write(g.dataChunk(cookie, 0, g.content(0, 100), 0), g.dataChunk(cookie, 100, g.content(100, 100)));
    expect(await aborted).toBe('from within');
    void peer.serve();
    await connection.flush();
    expect(told).toEqual([0n]);
  });
});

describe.each(OVER)('a write that is aborted on the wire, over %s', (_title, over) => {
  it('large: the rejection waits until its bytes have left, and they are the original ones', async () => {
    const { connection, peer } = await openRaw({ ...over, size: 64 * MIB });
    peer.stream.pause();
    const buffer = Buffer.alloc(8 * MIB, 0x61);
    const controller = new AbortController();
    const aborted = rejection(connection.pwrite(buffer, 0, 0, controller.signal));
    // Its header goes out before its payload can.
    while (connection.statsChunksSent() < 4n) await new Promise((resolve) => setImmediate(resolve));
    controller.abort('enough');
    expect(await settles(aborted, 30)).toBe(false);
    expect(connection.aioInFlight()).toBe(1);
    peer.stream.resume();
    const request = await peer.request();
    expect(await aborted).toBe('enough');
    buffer.fill(0x62);
    expect(request.payload.equals(Buffer.alloc(8 * MIB, 0x61))).toBe(true);
    const next = connection.pread(512, 0);
    peer.answer(request, await peer.request());
    expect((await next).equals(g.content(0, 512))).toBe(true);
  });

  it('small: rejects at once, because its bytes were copied', async () => {
    const { connection, peer } = await openRaw(over);
    const buffer = Buffer.alloc(4096, 0x61);
    const controller = new AbortController();
    const aborted = rejection(connection.pwrite(buffer, 0, 0, controller.signal));
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort('enough');
    expect(await aborted).toBe('enough');
    buffer.fill(0x62);
    const request = await peer.request();
    expect(request.payload.equals(Buffer.alloc(4096, 0x61))).toBe(true);
    peer.answer(request);
    void peer.serve();
    await connection.flush();
  });

  it('that fails before the server has read the payload: the stream stays in step', async () => {
    const { connection, peer } = await openRaw({ ...over, size: 64 * MIB });
    const failed = rejection(connection.pwrite(Buffer.alloc(8 * MIB, 0x61), 0));
    const header = await peer.header();
    peer.write(g.simple(header.cookie, 28));
    const payload = await peer.take(header.length);
    expect(payload.equals(Buffer.alloc(8 * MIB, 0x61))).toBe(true);
    expect(await failed).toMatchObject({ code: 'ENOSPC', syscall: 'pwrite' });
    void peer.serve();
    await connection.flush();
  });
});

// Over a socket only: a stream in memory takes all bytes at once.
describe('a write that is answered before its payload has left', () => {
  it('resolves when both have happened', async () => {
    const { connection, peer } = await openRaw({ size: 64 * MIB });
    const buffer = Buffer.alloc(8 * MIB, 0x61);
    let settled = false;
    const written = connection.pwrite(buffer, 0).then(() => {
      settled = true;
      // The moment the promise resolves the buffer is the caller's again.
      buffer.fill(0x62);
    });
    const header = await peer.header();
    peer.stream.pause();
    peer.write(g.simple(header.cookie));
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(settled).toBe(false);
    expect(connection.aioInFlight()).toBe(1);
    peer.stream.resume();
    const payload = await peer.take(header.length);
    await written;
    expect(payload.equals(Buffer.alloc(8 * MIB, 0x61))).toBe(true);
    expect(connection.aioInFlight()).toBe(0);
  });

  it('that is aborted then rejects with the reason once its payload has left', async () => {
    const { connection, peer } = await openRaw({ size: 64 * MIB });
    const controller = new AbortController();
    const aborted = rejection(connection.pwrite(Buffer.alloc(8 * MIB, 0x61), 0, 0, controller.signal));
    const header = await peer.header();
    peer.stream.pause();
    peer.write(g.simple(header.cookie));
    await new Promise((resolve) => setTimeout(resolve, 20));
    controller.abort('enough');
    expect(await settles(aborted, 20)).toBe(false);
    peer.stream.resume();
    await peer.take(header.length);
    expect(await aborted).toBe('enough');
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('a write that was answered, and whose payload never leaves', () => {
  it.each(['close', 'reset'] as const)('ends with the connection: %s', async (how) => {
    const { connection, peer } = await openRaw({
      ...{ over: 'tcp', size: 64 * MIB, blockSize: [1, 512, 64 * MIB], client: { maxInFlightBytes: Infinity } },
    });
    const codes: (string | undefined)[] = [];
    // More than the buffers of any socket.
    const good = Buffer.alloc(64 * MIB);
    const write = connection.pwrite(good, 0).then(
      () => 'resolved',
      (error: unknown) => (error as NbdError).code,
    );
    connection.aioPwrite(good, 0, (error) => void codes.push(error?.code));
    const header = await peer.header();
    peer.stream.pause();
    peer.write(g.simple(header.cookie));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const closed = new Promise((resolve) => connection.once('close', resolve));
    if (how === 'close') connection.close();
    else peer.reset();
    await closed;
    // The reply had come, but not all of the bytes can have: it is not known to be written.
    expect(await write).toBe('ENOTCONN');
    expect(codes).toEqual(['ENOTCONN']);
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('a buffer that is taken away while its read is in flight', () => {
  it('fails the read with EFAULT; the connection lives', async () => {
    const { connection, peer } = await openRaw({ structured: false });
    const bytes = new Uint8Array(64 * KIB);
    const failed = rejection(connection.preadInto(bytes, 0));
    const request = await peer.request();
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    peer.answer(request);
    expect(await failed).toMatchObject({ code: 'EFAULT', syscall: 'pread' });
    void peer.serve();
    await connection.flush();
  });
});
