// A caller's buffer that is detached (transferred to a worker, say) or resized while its write waits or leaves. Written
// short it would be answered as a success, or the server would take later requests for the rest of its bytes.

import { describe, expect, it } from '@jest/globals';

import { NbdConnectionError, type NbdError, NbdStrictError } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw } from '../../support/raw-server.js';

const MIB = 1 << 20;

/** Takes the bytes away, as postMessage() with a transfer list does. */
function detach(bytes: Uint8Array<ArrayBuffer>): void {
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  expect(bytes.length).toBe(0);
}

/** A view that follows its memory's size; Node 20 has it, ES2023's types do not. */
function resizable(length: number): { view: Uint8Array<ArrayBuffer>; resize: (length: number) => void } {
  const Resizable = ArrayBuffer as unknown as new (
    length: number,
    options: { maxByteLength: number },
  ) => ArrayBuffer & { resize(length: number): void };
  const memory = new Resizable(length, { maxByteLength: 4 * length });
  return { view: new Uint8Array(memory), resize: (to) => memory.resize(to) };
}

describe('the buffer of a write that has not been sent', () => {
  it.each([
    ['small', 512],
    ['large', 64 * 1024],
  ])('%s: detached in the same turn, the write fails and nothing of it is sent', async (_, length) => {
    const { connection, peer } = await openRaw();
    const bytes = new Uint8Array(length);
    const failed = rejection(connection.pwrite(bytes, 4096));
    detach(bytes);
    const next = connection.flush();
    const error = (await failed) as NbdError;
    expect(error).toBeInstanceOf(NbdStrictError);
    expect(error).toMatchObject({
      ...{ code: 'EFAULT', syscall: 'pwrite', offset: 4096n, count: BigInt(length), cookie: 1n, sent: false },
      message: `pwrite of ${length} bytes at offset 4096: the buffer was detached or resized before it was sent; nothing was written`,
    });
    // The stream is in step: the next request is whole, and the connection lives.
    const request = await peer.request();
    expect(request).toMatchObject({ type: g.CMD.FLUSH, cookie: 2n });
    peer.answer(request);
    await next;
    expect(connection.aioInFlight()).toBe(0);
  });

  it.each([
    ['detached', (bytes: ReturnType<typeof resizable>) => detach(bytes.view)],
    ['shrunk', (bytes: ReturnType<typeof resizable>) => bytes.resize(100)],
    ['grown', (bytes: ReturnType<typeof resizable>) => bytes.resize(2048)],
  ])('%s while it waits for a place: the next one has it', async (_, change) => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1 } });
    const first = connection.flush();
    const bytes = resizable(512);
    const told: unknown[] = [];
    connection.aioPwrite(bytes.view, 0, (error) => void told.push(error));
    const last = connection.pwrite(Buffer.alloc(512, 7), 512);
    const request = await peer.request();
    change(bytes);
    peer.answer(request);
    const write = await peer.request();
    expect(write).toMatchObject({ type: g.CMD.WRITE, cookie: 3n, offset: 512n, payload: Buffer.alloc(512, 7) });
    peer.answer(write);
    await Promise.all([first, last]);
    expect(told).toMatchObject([{ code: 'EFAULT', cookie: 2n }]);
    expect(connection.aioInFlight()).toBe(0);
  });

  it('detached, and its callback closes the connection: all others end with it, each once', async () => {
    const { connection } = await openRaw();
    const ends: string[] = [];
    const note = (name: string) => (error: NbdError | null) => {
      ends.push(`${name} ${error?.code}`);
      return true;
    };
    const spoiled = [new Uint8Array(512), new Uint8Array(512)] as const;
    connection.aioPwrite(spoiled[0], 0, (error) => {
      connection.close();
      return note('first')(error);
    });
    connection.aioFlush(note('flush'));
    connection.aioPwrite(spoiled[1], 0, note('second'));
    spoiled.forEach(detach);
    await new Promise((resolve) => connection.once('close', resolve));
    await new Promise(setImmediate);
    expect(ends.sort()).toEqual(['first EFAULT', 'flush ENOTCONN', 'second ENOTCONN']);
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('the buffer of a write that is leaving', () => {
  it('detached in the middle, the connection is given up: the server would wait for the rest', async () => {
    const { connection, peer } = await openRaw({ size: 64 * MIB });
    peer.stream.pause();
    const bytes = new Uint8Array(8 * MIB).fill(0x61);
    const failed = rejection(connection.pwrite(bytes, 0));
    const beside = rejection(connection.flush());
    await new Promise((resolve) => setTimeout(resolve, 50));
    detach(bytes);
    peer.stream.resume();
    const error = (await failed) as NbdError;
    expect(error).toBeInstanceOf(NbdConnectionError);
    expect(error).toMatchObject({ code: 'EFAULT', syscall: 'pwrite', cookie: 1n, sent: true });
    expect(error.message).toMatch(/detached or resized while it was being sent; .* the connection is given up$/);
    expect(await beside).toMatchObject({ code: 'ENOTCONN', cause: error });
    await peer.ended;
    // The header, and bytes of the payload: nothing that the server could take for a request.
    const header = await peer.header();
    expect(header).toMatchObject({ type: g.CMD.WRITE, length: 8 * MIB });
    const rest = await peer.take(peer.buffered);
    expect(rest.length).toBeLessThan(8 * MIB);
    expect(rest.equals(Buffer.alloc(rest.length, 0x61))).toBe(true);
  });
});
