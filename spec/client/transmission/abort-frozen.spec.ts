// Aborts on a link that has frozen: half of a payload is there and no more comes, or half of one is sent and no more is
// taken.

import { describe, expect, it } from '@jest/globals';

import { type NbdConnection } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { IS_LONG } from '../../support/long.js';
import { atAnyPace, handled } from '../../support/pace.js';
import { openRaw, type OpenOptions } from '../../support/raw-server.js';

const KIB = 1024;
const MIB = 1024 * KIB;

const LENGTHS = [64 * KIB, 128 * KIB, 512 * KIB, 4 * MIB];
const PARTS = [0.1, 0.5, 0.99];

const OVER: readonly (readonly [string, OpenOptions])[] = [
  ['a socket', { over: 'unix' }],
  ['TCP', { over: 'tcp' }],
  ['a stream', { over: 'memory' }],
];

type Read = (connection: NbdConnection, length: number, signal: AbortSignal) => Promise<unknown>;
const READS: readonly (readonly [string, Read])[] = [
  ['pread', (c, length, signal) => c.pread(length, 0, 0, signal)],
  ['preadInto', (c, length, signal) => c.preadInto(Buffer.alloc(length), 0, 0, signal)],
  ['preadStructured', (c, length, signal) => c.preadStructured(length, 0, () => undefined, 0, signal)],
];

describe.each(OVER)('a read whose payload stops, over %s', (_over, over) => {
  describe.each(READS)('%s', (_name, read) => {
    it.each(LENGTHS)('of %i bytes rejects at the abort', async (length) => {
      for (const structured of [false, true]) {
        // Each length has two of the parts, and each part two or three of the lengths.
        const first = (LENGTHS.indexOf(length) + Number(structured)) % PARTS.length;
        for (const part of IS_LONG ? PARTS : PARTS.slice(first, first + 1)) {
          const { connection, peer } = await openRaw({ ...over, size: 8 * MIB, structured });
          const controller = new AbortController();
          const aborted = rejection(read(connection, length, controller.signal));
          const reply = peer.goodReply(await peer.request());
          const sent = Math.floor(reply.length * part);
          peer.write(reply.subarray(0, sent));
          const before = connection.statsBytesReceived();
          while (connection.statsBytesReceived() < before + BigInt(sent) && connection.statsBytesReceived() < sent) {
            await new Promise((resolve) => setImmediate(resolve));
          }
          controller.abort('enough');
          expect(await aborted).toBe('enough');
          expect(connection.aioInFlight()).toBe(1);
          // The link thaws: the rest is dropped, and what follows is right.
          peer.write(reply.subarray(sent));
          const next = connection.pread(length, length);
          peer.answer(await peer.request());
          expect((await next).equals(g.content(length, length))).toBe(true);
          connection.close();
        }
      }
    });
  });
});

describe('the buffer of an aborted read', () => {
  it('is not written to by bytes that come later', async () => {
    const { connection, peer } = await openRaw({ size: 8 * MIB, structured: false });
    const buffer = Buffer.alloc(MIB);
    const controller = new AbortController();
    const aborted = rejection(connection.preadInto(buffer, 0, 0, controller.signal));
    const reply = peer.goodReply(await peer.request());
    peer.write(reply.subarray(0, MIB / 2));
    while (connection.statsBytesReceived() < MIB / 2) await new Promise((resolve) => setImmediate(resolve));
    controller.abort('enough');
    await aborted;
    buffer.fill(0x77);
    peer.write(reply.subarray(MIB / 2));
    const next = connection.pread(512, 0);
    peer.answer(await peer.request());
    await next;
    expect(buffer.equals(Buffer.alloc(MIB, 0x77))).toBe(true);
  });

  it('that is transferred away in the middle of a read is not written to by the socket', async () => {
    const { connection, peer } = await openRaw({ size: 8 * MIB, structured: false });
    const bytes = new Uint8Array(MIB);
    const failed = rejection(connection.preadInto(bytes, 0));
    const reply = peer.goodReply(await peer.request());
    peer.write(reply.subarray(0, MIB / 2));
    while (connection.statsBytesReceived() < MIB / 2) await new Promise((resolve) => setImmediate(resolve));
    const moved = Buffer.from(structuredClone(bytes.buffer, { transfer: [bytes.buffer] }));
    const before = Buffer.from(moved);
    peer.write(reply.subarray(MIB / 2));
    expect(await failed).toMatchObject({ code: 'EFAULT', syscall: 'pread' });
    expect(moved.equals(before)).toBe(true);
    const next = connection.pread(512, 0);
    peer.answer(await peer.request());
    await next;
  });
});

describe('an aborted write of which a part is sent', () => {
  const half = async (
    closeTimeout: number,
  ): Promise<Awaited<ReturnType<typeof openRaw>> & { aborted: Promise<unknown>; controller: AbortController }> => {
    const opened = await openRaw({ size: 64 * MIB, client: { closeTimeout } });
    opened.peer.stream.pause();
    const controller = new AbortController();
    const aborted = rejection(opened.connection.pwrite(Buffer.alloc(8 * MIB, 0x61), 0, 0, controller.signal));
    await opened.peer.quiet(30);
    return { ...opened, aborted, controller };
  };

  it('on a link that takes nothing, ends the connection after closeTimeout and rejects with the reason', async () => {
    const { connection, aborted, controller } = await half(200);
    const others = [rejection(connection.pread(512, 0)), rejection(connection.flush())];
    const closed = new Promise((resolve) => connection.once('close', resolve));
    const begun = performance.now();
    controller.abort('enough');
    expect(await aborted).toBe('enough');
    expect(performance.now() - begun).toBeGreaterThan(150);
    expect(await closed).toMatchObject({ code: 'ETIMEDOUT', message: expect.stringMatching(/closeTimeout/) });
    expect(connection.aioIsDead()).toBe(true);
    for (const error of await Promise.all(others)) expect(error).toMatchObject({ code: 'ENOTCONN' });
    expect(connection.aioInFlight()).toBe(0);
  });

  it('on a link that takes some now and then, waits for as long as it does', async () => {
    await atAnyPace(async (pace) => {
      const { connection, peer, aborted, controller } = await half(400 * pace);
      controller.abort('enough');
      // 16 times a tenth of the limit and more, but never the limit.
      for (let i = 0; i < 16; i++) {
        peer.stream.resume();
        await new Promise((resolve) => peer.stream.once('data', resolve).once('close', resolve));
        peer.stream.pause();
        await new Promise((resolve) => setTimeout(resolve, 60 * pace));
      }
      expect(connection.aioIsDead()).toBe(false);
      peer.stream.resume();
      expect(await aborted).toBe('enough');
      const request = await peer.request();
      expect(request.payload.equals(Buffer.alloc(8 * MIB, 0x61))).toBe(true);
      const next = handled(connection.flush());
      peer.answer(request, await peer.request());
      await next;
    });
  });

  it('ended with the connection meanwhile: rejects with the reason, once', async () => {
    const { connection, aborted, controller } = await half(60_000);
    controller.abort('enough');
    connection.close();
    expect(await aborted).toBe('enough');
    expect(connection.aioInFlight()).toBe(0);
  });
});
