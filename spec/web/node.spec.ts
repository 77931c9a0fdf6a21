// WebSockets and web streams in Node: the main entries with those of the package ws, and `nbd-sdk/web` itself.

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { AddressInfo } from 'node:net';
import { NbdConnection, type NbdError } from 'nbd-sdk';
import { BlobBackend, MemoryBackend, NbdServer } from 'nbd-sdk/server';
import * as web from 'nbd-sdk/web';
import { copy } from 'nbd-sdk/web/bulk';
import { WebSocket, WebSocketServer } from 'ws';

import { rejection } from '../support/caught.js';
import { until } from '../support/waiting.js';

const SIZE = 4 * 1024 * 1024;
const contents = Uint8Array.from({ length: SIZE }, (_, at) => (at * 7) ^ (at >> 9));

let listener: WebSocketServer;
let url: string;
let server: NbdServer;
const errors: Error[] = [];

beforeEach(async () => {
  errors.length = 0;
  server = new NbdServer({
    exports: { '': MemoryBackend.from(contents), blob: new BlobBackend(new Blob([contents])) },
    onConnectionError: (error) => errors.push(error),
  });
  listener = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await new Promise((resolve) => listener.once('listening', resolve));
  listener.on('connection', (socket) => {
    server.serve(socket);
  });
  url = `ws://127.0.0.1:${(listener.address() as AddressInfo).port}/disk?token=secret`;
});
afterEach(async () => {
  await server.close();
  for (const client of listener.clients) client.terminate();
  await new Promise((resolve) => listener.close(resolve));
});

/** Two ends of streams in memory. */
function pairOfStreams(): [web.WebStreams, web.WebStreams] {
  const there = new TransformStream<Uint8Array, Uint8Array>();
  const back = new TransformStream<Uint8Array, Uint8Array>();
  return [
    { readable: back.readable, writable: there.writable },
    { readable: there.readable, writable: back.writable },
  ];
}

describe.each([
  ['nbd-sdk', NbdConnection],
  ['nbd-sdk/web', web.NbdConnection],
] as const)('NbdConnection of %s', (entry, Connection) => {
  const connect = Connection.connect;

  it('reads and writes over a URL, with the class that is given', async () => {
    await using connection = await connect(url, { webSocket: WebSocket });
    const bytes = await connection.pread(SIZE, 0);
    expect(Buffer.compare(bytes, contents)).toBe(0);
    expect(Buffer.isBuffer(bytes)).toBe(entry === 'nbd-sdk');
    await Promise.all(
      Array.from({ length: 64 }, (_, at) => connection.pwrite(new Uint8Array(4096).fill(at), at * 4096)),
    );
    expect([...(await connection.pread(2, 63 * 4096 + 4094))]).toEqual([63, 63]);
    expect(connection.getUri()).toBe(url);
  });

  it('reads over a WebSocket, which may be connecting, and over web streams', async () => {
    await using first = await connect(new WebSocket(url));
    expect([...(await first.pread(4, 1))]).toEqual([...contents.subarray(1, 5)]);
    const [mine, theirs] = pairOfStreams();
    server.serve(theirs);
    await using second = await connect(mine, { exportName: 'blob' });
    expect(Buffer.compare(await second.pread(SIZE, 0), contents)).toBe(0);
    expect(second.isReadOnly()).toBe(true);
    const target = new web.NbdServer({ exports: { '': new web.MemoryBackend(SIZE) } });
    const [one, other] = pairOfStreams();
    target.serve(other);
    await using third = await connect(one);
    await copy(second, third, { flush: true });
    expect(Buffer.compare(await third.pread(SIZE, 0), contents)).toBe(0);
    await third.shutdown();
    await target.close();
  });

  it('reports why a WebSocket cannot be opened, without the query of its URL', async () => {
    await new Promise((resolve) => listener.close(resolve));
    const error = (await rejection(connect(url, { webSocket: WebSocket }))) as NbdError;
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ECONNREFUSED', transient: true });
    expect(error.message).toMatch(/^connect to ws:\/\/127\.0\.0\.1:\d+\/disk: the WebSocket was closed with code 1006/);
    expect(error.message).not.toContain('secret');
  });

  it('obeys a signal and connectTimeout while the WebSocket opens', async () => {
    class Never extends EventTarget implements web.WebSocketLike {
      binaryType = 'blob';
      readyState = 0;
      bufferedAmount = 0;
      closed = 0;
      override addEventListener = super.addEventListener;
      override removeEventListener = super.removeEventListener;
      send(): void {
        throw new Error('not open');
      }
      close(): void {
        this.closed++;
      }
    }
    const aborted = new Never();
    const controller = new AbortController();
    const connecting = connect(aborted, { signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(connecting).rejects.toThrow('enough');
    expect(aborted.closed).toBeGreaterThan(0);
    const late = new Never();
    expect(await rejection(connect(late, { connectTimeout: 20 }))).toMatchObject({ code: 'ETIMEDOUT' });
    expect(late.closed).toBeGreaterThan(0);
  });

  it.each([
    ['text', (socket: WebSocket) => socket.send('hello'), /the peer sent text/],
    ['an unclean end', (socket: WebSocket) => socket.terminate(), /closed with code 1006/],
    ['an end with a reason', (socket: WebSocket) => socket.close(1011, 'no such host'), /code 1011: no such host/],
  ])('ends with %s', async (_, act, message) => {
    listener.removeAllListeners('connection');
    listener.once('connection', (socket) => act(socket));
    const error = await rejection(connect(url, { webSocket: WebSocket }));
    expect((error as Error).message).toMatch(message);
  });

  it('fails everything that is in flight when the connection is lost', async () => {
    server.faults.push({ stall: true, command: 'pread' });
    const connection = await connect(url, { webSocket: WebSocket });
    const reads = [0, 1, 2].map((offset) => rejection(connection.pread(1, offset)));
    await until(() => server.statistics.requests.pread === 3);
    for (const client of listener.clients) client.terminate();
    for (const error of await Promise.all(reads)) {
      expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN', sent: true });
    }
    expect(connection.aioIsDead()).toBe(true);
  });

  it('refuses what it cannot do before anything is opened', async () => {
    const refused = async (target: unknown, options: object = {}): Promise<unknown> =>
      rejection(connect(target as string, options));
    const strict = (code: string): object => ({ name: 'NbdStrictError', code });
    expect(await refused(url, { webSocket: WebSocket, tls: web.TLS_REQUIRE })).toMatchObject(strict('ENOTSUP'));
    expect(await refused(url, { webSocket: 7 })).toMatchObject(strict('EINVAL'));
    expect(await refused('ws://')).toMatchObject(strict('EINVAL'));
    expect(await refused('ws://localhost/#disk')).toMatchObject(strict('EINVAL'));
    expect(await refused(url, { uriAllowTransports: web.ALLOW_TRANSPORT_UNIX })).toMatchObject(strict('EPERM'));
    expect(await refused(url, { uriAllowTls: web.TLS_REQUIRE })).toMatchObject(strict('EPERM'));
    expect(await refused('wss://localhost/', { uriAllowTls: web.TLS_DISABLE })).toMatchObject(strict('EPERM'));
    const [locked] = pairOfStreams();
    (locked.readable as ReadableStream).getReader();
    expect(await refused(locked)).toMatchObject(strict('EINVAL'));
    if (!('WebSocket' in globalThis)) expect(await refused(url)).toMatchObject(strict('ENOTSUP'));
    expect(server.statistics.connections).toBe(0);
  });
});

describe('nbd-sdk/web', () => {
  it('refuses what needs Node, naming what there is instead', async () => {
    const connection = new web.NbdConnection();
    const enotsup = { name: 'NbdStrictError', code: 'ENOTSUP' };
    for (const failing of [
      connection.connectTcp('localhost', 10809),
      connection.connectUnix('/run/nbd'),
      connection.connectVsock(2, 10809),
      connection.connectCommand(['nbdkit']),
      connection.connectSystemdSocketActivation(['nbdkit']),
      connection.connectUri('nbd://localhost'),
    ]) {
      const error = await rejection(failing);
      expect(error).toMatchObject(enotsup);
      expect((error as Error).message).toContain('connect to a ws: or wss: URL');
    }
    for (const options of [
      { ca: 'x' },
      { tlsCertificates: '/x' },
      { tlsPskFile: '/x' },
      { subprocessStderr: 'inherit' },
    ]) {
      expect(() => new web.NbdConnection(options as web.NbdConnectionOptions)).toThrow(
        expect.objectContaining(enotsup),
      );
    }
    expect(() => connection.setTlsHostname('x')).toThrow(expect.objectContaining(enotsup));
    expect(() => new web.NbdServer({ tls: 'on', tlsOptions: { cert: 'x', key: 'x' } })).toThrow(
      expect.objectContaining(enotsup),
    );
    expect([connection.supportsTls(), connection.supportsVsock()]).toEqual([false, false]);
    expect(() => connection.killSubprocess()).toThrow(expect.objectContaining({ code: 'ESRCH' }));
  });
});

describe('a server', () => {
  it('closes a client that sends more than may wait while it does not read', async () => {
    listener.removeAllListeners('connection');
    const limit = 64 * 1024;
    listener.once('connection', (socket) => {
      server.serve(socket, { maxUnread: limit });
    });
    server.faults.push({ delay: 60_000, command: 'pwrite' });
    const connection = await NbdConnection.connect(url, { webSocket: WebSocket, maxInFlight: 1000 });
    const piece = new Uint8Array(4096);
    const writes = Array.from({ length: 200 }, (_, at) => rejection(connection.pwrite(piece, at * 4096)));
    for (const error of await Promise.all(writes)) expect(error).toMatchObject({ code: 'ENOTCONN' });
    await until(() => errors.length > 0);
    expect(String(errors[0])).toMatch(/\d+ bytes wait to be read, more than 65536/);
  });

  it.each([[{}], [null], [{ readable: true, writable: true }]])('refuses to serve on %j', (stream) => {
    expect(() => server.serve(stream as never)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    const other = new web.NbdServer();
    expect(() => other.serve(stream as never)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => server.serve(stream as never, { unread: 1 } as never)).toThrow(/unknown option/);
  });

  it('reports a file that has changed as EIO', async () => {
    const blob = { size: 8, slice: () => blob, arrayBuffer: () => Promise.resolve(new ArrayBuffer(4)) };
    server.addExport('short', new BlobBackend(blob));
    await using connection = await NbdConnection.connect(server.connectMemory(), { exportName: 'short' });
    expect(await rejection(connection.pread(8, 0))).toMatchObject({ name: 'NbdCommandError', code: 'EIO' });
    expect(() => new BlobBackend('x' as never)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});
