import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FaultedRequest, MemoryBackend, type NbdBackend, NbdServer } from '../../lib/server/index.js';
import * as g from '../support/golden.js';
import { newServer, RawClient } from '../support/raw-client.js';

const { CMD, OPT } = g;
const SIZE = 1 << 20;

describe('NbdServer', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-server-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('listens on a free port and reports it', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    expect(server.address).toBeNull();
    expect(() => server.uri()).toThrow(expect.objectContaining({ code: 'ENOTCONN' }));
    expect(await server.listenTcp()).toBe(server);
    const { address } = server;
    expect(address).toEqual({ host: '127.0.0.1', port: expect.any(Number) });
    expect(server.uri()).toMatch(/^nbd:\/\/127\.0\.0\.1:[1-9]\d*\/$/);
    expect(server.uri('a b/ü')).toMatch(/\/a%20b%2F%C3%BC$/);
    expect((await (await RawClient.dial(server).handshake()).read(0, 4)).length).toBe(4);
    const port = address !== null && 'port' in address ? address.port : 0;
    const other = newServer({});
    await expect(other.listenTcp(port)).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await other.listenTcp();
  });

  it('listens on a Unix socket, beside TCP, and removes it', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    const path = join(folder, 'a socket');
    await server.listenUnix(path);
    await server.listenTcp(0, '::1').catch(() => undefined);
    expect(server.address).toEqual({ path });
    expect(server.uri('x')).toBe(`nbd+unix:///x?socket=${encodeURIComponent(path)}`);
    expect((await (await RawClient.dial(server).handshake()).read(0, 4)).length).toBe(4);
    await server.close();
    expect(existsSync(path)).toBe(false);
    await expect(server.listenTcp()).rejects.toMatchObject({ code: 'ESHUTDOWN' });
  });

  it('serves several exports, a default one, and forgets those that are removed', async () => {
    const server = newServer({
      exports: { a: new MemoryBackend(1000), b: { backend: new MemoryBackend(2000), description: 'second' } },
      defaultExport: 'b',
    });
    server.addExport('c', new MemoryBackend(3000));
    const sizes = [];
    for (const name of ['', 'a', 'b', 'c']) sizes.push((await RawClient.of(server).handshake({ name })).size);
    expect(sizes).toEqual([2000n, 1000n, 2000n, 3000n]);
    expect(server.removeExport('c')).toBe(true);
    expect(server.removeExport('c')).toBe(false);
    await expect(RawClient.of(server).handshake({ name: 'c' })).rejects.toThrow('0x80000006');
    const client = RawClient.of(server);
    await client.take(18);
    client.write(g.u32(3));
    const { payloads } = await client.option(OPT.LIST);
    expect(payloads.map(String)).toEqual(['\0\0\0\x01a', '\0\0\0\x01bsecond']);
  });

  it('counts what it does', async () => {
    const seen: FaultedRequest[] = [];
    const server = newServer({ exports: { x: new MemoryBackend(SIZE) }, onRequest: (request) => seen.push(request) });
    const client = await RawClient.of(server).handshake({ name: 'x' });
    await client.ask(CMD.WRITE, { offset: 5, payload: 'hello', flags: 1 });
    await client.ask(99);
    client.send(CMD.DISC);
    await client.ended;
    expect(server.statistics).toEqual({
      connections: 1,
      openConnections: 0,
      refusedConnections: 0,
      sessions: 1,
      requests: {
        pread: 0,
        pwrite: 1,
        disconnect: 1,
        flush: 0,
        trim: 0,
        cache: 0,
        zero: 0,
        blockStatus: 0,
        unknown: 1,
      },
      errors: 1,
      bytesWritten: 5,
      bytesSent: 18 + 32 + 20 + 16 + 16,
    });
    expect(seen[0]).toEqual({ command: 'pwrite', flags: 1, offset: 5, count: 5, exportName: 'x', connection: 1 });
    expect(seen.map(({ command }) => command)).toEqual(['pwrite', 'unknown', 'disconnect']);
  });

  it('speaks the oldstyle', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) }, style: 'oldstyle' });
    const client = RawClient.of(server);
    const hello = await client.take(152);
    expect(hello.equals(g.oldstyle(SIZE, hello.readUInt16BE(26)))).toBe(true);
    expect(hello.readUInt16BE(26) & g.SEND_DF).toBe(0);
    expect(await client.ask(CMD.WRITE, { payload: 'old' })).toBe(0);
    expect((await client.read(0, 3)).toString()).toBe('old');
  });

  it('drops connections and goes on listening', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    const client = await RawClient.of(server).handshake();
    server.dropConnections();
    await client.ended;
    expect((await (await RawClient.of(server).handshake()).read(0, 1)).length).toBe(1);
  });

  it('closes backends once, after the connections, and rejects when one fails', async () => {
    const order: string[] = [];
    const backend: NbdBackend = { size: 1, read: () => undefined, close: async () => void order.push('backend') };
    const server = new NbdServer({ exports: { a: backend, b: backend } });
    const client = await RawClient.of(server).handshake({ name: 'a' });
    void client.ended.then(() => order.unshift('connection'));
    await Promise.all([server.close(), server.close()]);
    await client.ended;
    expect(order).toEqual(['connection', 'backend']);
    server.serve(new RawClient(server.connectMemory()).stream);
    expect(server.statistics.refusedConnections).toBe(2);
    const failing: NbdBackend = { size: 1, read: () => undefined, close: () => Promise.reject(new Error('no')) };
    await expect(new NbdServer({ exports: { '': failing } }).close()).rejects.toThrow('no');
  });

  it('is disposed of at the end of its block', async () => {
    let client: RawClient;
    {
      await using server = new NbdServer({ exports: { '': new MemoryBackend(SIZE) } });
      client = await RawClient.of(server).handshake();
    }
    await client.ended;
  });

  it.each<[string, () => unknown]>([
    ['an invalid size', () => new NbdServer({ exports: { '': { size: -1, read: () => undefined } } })],
    [
      'a size of more than 64 bits',
      () => new NbdServer({ exports: { '': { size: 1n << 64n, read: () => undefined } } }),
    ],
    ['a fraction', () => new NbdServer({ exports: { '': { size: 0.5, read: () => undefined } } })],
    ['a name that is too long', () => new NbdServer({ exports: { ['x'.repeat(4097)]: new MemoryBackend(1) } })],
    ['TLS without a certificate', () => new NbdServer({ tls: 'require' })],
    ['an invalid certificate', () => new NbdServer({ tls: 'on', tlsOptions: { cert: 'x', key: 'y' } })],
  ])('refuses %s', (_name, make) => {
    expect(make).toThrow(expect.objectContaining({ name: 'NbdStrictError', code: 'EINVAL' }));
  });

  it('sends the block sizes it was given, and enforces them when requested', async () => {
    const blockSize = { minimum: 4096, preferred: 65536, maximum: 1 << 20 };
    const server = newServer({
      exports: { '': { backend: new MemoryBackend(SIZE), blockSize, requireBlockSize: true } },
    });
    await expect(RawClient.of(server).handshake()).rejects.toThrow('0x80000008');
    const client = RawClient.of(server);
    await client.take(18);
    client.write(g.u32(3));
    const { type, payloads } = await client.option(OPT.INFO, g.cat(g.u32(0), g.u16(1), g.u16(3)));
    expect(type).toBe(g.ACK);
    expect(payloads[1]!.equals(g.infoBlockSize(4096, 65536, 1 << 20))).toBe(true);
  });
});
