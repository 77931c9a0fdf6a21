import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';

import { dialTcp, dialUnix } from '../../lib/transport/dial.js';
import { SocketTransport } from '../../lib/transport/socket.js';
import { rejection } from '../support/caught.js';
import { freePort } from '../support/server-process.js';
import { until } from '../support/waiting.js';
import { Recording } from './recording.js';

let folder: string;
let server: Server;
let path: string;
let accepted: Promise<Socket>;
const others: Server[] = [];

/** Another server, which ends with the test; resolves with its port. */
async function listen(other: Server, where: number | string, host?: string): Promise<number> {
  others.push(other);
  await new Promise<void>((resolve) =>
    other.listen({ ...(typeof where === 'string' ? { path: where } : { port: where }), host }, resolve),
  );
  return (other.address() as { port?: number }).port ?? 0;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nbd-socket-'));
  path = join(folder, 's');
  accepted = new Promise((resolve) => {
    server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on('error', () => undefined);
      resolve(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterEach(async () => {
  (await Promise.race([accepted, Promise.resolve(null)]))?.destroy();
  server.close();
  for (const other of others.splice(0)) other.close();
  rmSync(folder, { recursive: true, force: true });
});

const turns = async (): Promise<void> => {
  await new Promise((resolve) => setTimeout(resolve, 10));
};

describe('SocketTransport', () => {
  it('keeps what the peer sends before there is a receiver', async () => {
    const transport = await dialUnix(path);
    const peer = await accepted;
    peer.write('x'.repeat(6000));
    await until(() => transport.socket.bytesRead === 6000);
    peer.write('early');
    await until(() => transport.socket.bytesRead === 6005);
    const receiver = new Recording();
    transport.start(receiver);
    expect([receiver.bytes.length, receiver.bytes.replaceAll('x', '')]).toEqual([6005, 'early']);
    peer.write(' late');
    await receiver.until(() => receiver.bytes.endsWith(' late'));
    transport.destroy();
    await receiver.closed();
  });

  it('reads into the buffer that the receiver chose for this read', async () => {
    const transport = await dialUnix(path);
    const peer = await accepted;
    const receiver = new Recording();
    const first = (receiver.buffer = new Uint8Array(8));
    transport.start(receiver);
    peer.write('abc');
    await receiver.until(() => receiver.bytes.length === 3);
    // The read that was under way when the receiver came lands in a buffer of the socket's own.
    expect(receiver.calls[0]).toMatch(/push|advance/);
    const asked = receiver.targets;
    peer.write('defgh');
    await receiver.until(() => receiver.bytes.length === 8);
    expect(receiver.calls.at(-1)).toBe('advance');
    expect(receiver.targets).toBe(asked + 1);
    expect(Buffer.from(first.subarray(0, 5)).toString()).toBe('defgh');
    // A read that brings more than fits takes several targets.
    peer.write('0123456789012345678901234567890');
    await receiver.until(() => receiver.bytes.length === 8 + 31);
    expect(receiver.chunks.every((chunk) => chunk.length <= 8)).toBe(true);
    expect(receiver.bytes).toBe('abcdefgh0123456789012345678901234567890');
    transport.destroy();
    await receiver.closed();
  });

  it('hands everything over at detach(), to the next receiver', async () => {
    const transport = await dialUnix(path);
    const peer = await accepted;
    const receiver = new Recording();
    transport.start(receiver);
    peer.write('mine');
    await receiver.until(() => receiver.bytes === 'mine');
    const socket = transport.detach();
    expect(socket).toBe(transport.socket);
    expect(socket.listenerCount('error')).toBe(0);
    peer.write('not mine');
    await turns();
    expect(receiver.bytes).toBe('mine');
    socket.destroy();
  });

  it('is half-open: the peer may end and still be written to', async () => {
    const transport = await dialUnix(path);
    const peer = await accepted;
    const receiver = new Recording();
    transport.start(receiver);
    peer.end();
    await receiver.until(() => receiver.calls.includes('end'));
    const heard = new Promise((resolve) => peer.once('data', (bytes: Buffer) => resolve(bytes.toString())));
    transport.write([Buffer.from('still here')], () => undefined);
    expect(await heard).toBe('still here');
    transport.end();
    await receiver.closed();
    expect(receiver.calls).toEqual(['end', 'close']);
    expect(receiver.error).toBeNull();
  });

  it('reports a reset with its code', async () => {
    const port = await listen(
      createServer((socket) => socket.once('data', () => socket.resetAndDestroy())),
      0,
      '127.0.0.1',
    );
    const transport = await dialTcp('127.0.0.1', port);
    const receiver = new Recording();
    transport.start(receiver);
    transport.write([Buffer.from('x')], () => undefined);
    await receiver.closed();
    expect(receiver.error).toMatchObject({ code: 'ECONNRESET' });
  });
});

describe('a write that a reset cuts off', () => {
  it('is not reported as sent', async () => {
    const port = await listen(
      createServer((socket) => {
        socket.on('error', () => undefined);
        socket.once('data', () => {
          socket.pause();
          setTimeout(() => socket.resetAndDestroy(), 20);
        });
      }),
      0,
      '127.0.0.1',
    );
    for (const buffers of [1, 2]) {
      const transport = await dialTcp('127.0.0.1', port);
      const receiver = new Recording();
      transport.start(receiver);
      let told = false;
      // Far more than any socket buffers.
      transport.write(
        Array.from({ length: buffers }, () => Buffer.alloc(64 << 20)),
        () => (told = true),
      );
      await receiver.closed();
      await turns();
      expect(receiver.error).toMatchObject({ code: expect.stringMatching(/ECONNRESET|EPIPE/) });
      expect(told).toBe(false);
    }
  });
});

describe('dialling', () => {
  it('gives what it connected to', async () => {
    const transport = await dialUnix(path, undefined, 'a name');
    expect(transport).toBeInstanceOf(SocketTransport);
    expect(transport.description).toBe('a name');
    transport.start(new Recording());
    transport.destroy();
    const port = await listen(createServer(), 0, '::1');
    const six = await dialTcp('::1', port);
    expect(six.description).toBe(`[::1]:${port}`);
    six.start(new Recording());
    six.destroy();
  });

  it.each<[string, () => Promise<SocketTransport>, string]>([
    ['a path where nothing is', () => dialUnix(join(folder, 'nothing')), 'ENOENT'],
    ['a path of 108 bytes', () => dialUnix(`/${'é'.repeat(53)}x`), 'ENAMETOOLONG'],
    ['a port without a listener', async () => dialTcp('127.0.0.1', await freePort()), 'ECONNREFUSED'],
    ['two addresses without a listener', async () => dialTcp('localhost', await freePort()), 'ECONNREFUSED'],
  ])('%s rejects with %s', async (_title, dial, code) => {
    const error = await rejection(dial());
    expect(error).toMatchObject({ code });
    expect(error).not.toBeInstanceOf(AggregateError);
  });

  it('a path of 107 bytes is tried, an abstract one is reached', async () => {
    expect(await rejection(dialUnix(`/${'x'.repeat(106)}`))).toMatchObject({ code: 'ENOENT' });
    const name = `\0nbd-sdk-spec-${process.pid}-${Date.now()}`;
    await listen(
      createServer((socket) => socket.end('hello')),
      name,
    );
    const transport = await dialUnix(name);
    const receiver = new Recording();
    transport.start(receiver);
    await receiver.until(() => receiver.bytes === 'hello');
    transport.destroy();
  });

  it('can be given up: before it begins, and while it is under way', async () => {
    expect(await rejection(dialUnix(path, AbortSignal.abort('no')))).toBe('no');
    const controller = new AbortController();
    const dialling = [
      rejection(dialTcp('no-such-host.invalid', 1, controller.signal)),
      rejection(dialUnix(path, controller.signal)),
    ];
    controller.abort('enough');
    expect(await Promise.all(dialling)).toEqual(['enough', 'enough']);
    // Where the connection was made all the same, it is closed at once.
    const peer = await Promise.race([accepted, turns().then(() => null)]);
    if (peer !== null) await new Promise((resolve) => peer.on('end', () => resolve(undefined)).resume());
  });
});
