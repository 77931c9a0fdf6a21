// The ways in which a client or a stream may end or stand still, and what the server lets go of then.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemoryBackend, type NbdBackend, type NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import * as g from '../support/golden.js';
import { newServer, RawClient } from '../support/raw-client.js';
import { describeWith } from '../support/tools.js';
import { until } from '../support/waiting.js';

const { CMD, OPT, cat, option, u16, u32 } = g;
const SIZE = 1 << 20;
const MIB = 1 << 20;
const GO = option(OPT.GO, cat(u32(0), u16(0)));

let folder: string;
let errors: Error[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-connections-'));
  errors = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

type Transport = 'tcp' | 'unix';

async function listening(transport: Transport, options: NbdServerOptions = {}): Promise<NbdServer> {
  const server = newServer({
    exports: { '': new MemoryBackend(SIZE) },
    onConnectionError: (error) => errors.push(error),
    ...options,
  });
  if (transport === 'tcp') await server.listenTcp();
  else await server.listenUnix(join(folder, 'socket'));
  return server;
}

const isEmpty = (server: NbdServer) => (): boolean => server.statistics.openConnections === 0;

describeWith(['openssl'], 'a client that leaves in the TLS handshake', () => {
  let pki: Certificates;
  beforeAll(async () => {
    pki = await makeCertificates();
  });
  afterAll(() => pki.remove());

  const secured = (transport: Transport): Promise<NbdServer> =>
    listening(transport, { tls: 'require', tlsOptions: pki.server, handshakeTimeout: 0 });

  it.each<[Transport, string, (stream: Duplex) => void]>([
    ['tcp', 'before its first byte', (stream) => stream.end()],
    ['tcp', 'before its first byte, for good', (stream) => stream.destroy()],
    ['tcp', 'by a reset', (stream) => (stream as Socket).resetAndDestroy()],
    ['tcp', 'in its first message', (stream) => stream.end(Buffer.from('160301020001', 'hex'))],
    ['unix', 'before its first byte', (stream) => stream.end()],
    ['unix', 'in its first message', (stream) => stream.end(Buffer.from('160301020001', 'hex'))],
    ['unix', 'with what is not TLS', (stream) => stream.end('GET / HTTP/1.1\r\n\r\n')],
  ])('over %s, %s, is let go at once', async (transport, _, leave) => {
    const server = await secured(transport);
    const client = RawClient.dial(server);
    await client.take(18);
    client.write(u32(3));
    await client.option(OPT.STARTTLS);
    leave(client.stream);
    await until(isEmpty(server), 'the server has let go');
    expect(errors.map(({ message }) => message)).toEqual(['the TLS handshake failed']);
  });

  it('gets a reset where a fault requests one, under TLS too', async () => {
    const server = await secured('tcp');
    const plain = RawClient.dial(server);
    await plain.take(18);
    plain.write(u32(3));
    await plain.option(OPT.STARTTLS);
    plain.stream.removeAllListeners('data');
    const socket = connectTls({ socket: plain.stream, rejectUnauthorized: false });
    const codes: unknown[] = [];
    plain.stream.on('error', (error: NodeJS.ErrnoException) => codes.push(error.code));
    socket.on('error', (error: NodeJS.ErrnoException) => codes.push(error.code));
    const client = new RawClient(socket);
    await client.option(OPT.GO, cat(u32(0), u16(0)));
    server.faults.push({ cut: 'reset' });
    client.send(CMD.FLUSH);
    await client.ended;
    await until(() => codes.length > 0, 'the reset has come');
    expect(codes).toContain('ECONNRESET');
    await until(isEmpty(server), 'the server has let go');
  });

  it('still answers a client that half-closes when TLS stands', async () => {
    const server = await secured('tcp');
    const plain = RawClient.dial(server);
    await plain.take(18);
    plain.write(u32(3));
    await plain.option(OPT.STARTTLS);
    plain.stream.removeAllListeners('data');
    const client = new RawClient(
      connectTls({ socket: plain.stream, rejectUnauthorized: false, maxVersion: 'TLSv1.2' }),
    );
    await client.option(OPT.GO, cat(u32(0), u16(0)));
    client.send(CMD.READ, { count: SIZE });
    client.stream.end();
    expect((await client.take(16 + SIZE)).length).toBe(16 + SIZE);
    await client.ended;
  });
});

describe('a cut', () => {
  it.each(['reset', 'close'] as const)(
    '%s on a Unix socket or in memory ends the connection, and nothing else',
    async (cut) => {
      const server = await listening('unix');
      server.faults.push({ command: 'flush', cut });
      for (const make of [() => RawClient.dial(server), () => RawClient.of(server)]) {
        const client = await make().handshake();
        client.send(CMD.FLUSH);
        await client.ended;
        client.stream.destroy();
      }
      await until(isEmpty(server), 'both are gone');
      server.faults.clear();
      server.faults.push({ afterBytes: 5, then: cut });
      const early = RawClient.dial(server);
      await early.ended;
      expect(early.buffered).toBe(5);
    },
  );
});

describe('serve()', () => {
  it('reads from a socket that was paused, whatever has arrived by then', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    const listener = createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(join(folder, 'paused'));
    const served = once(listener, 'connection');
    const socket = connect(join(folder, 'paused'));
    socket.write(u32(3));
    const [incoming] = (await served) as [Socket];
    incoming.pause();
    server.serve(incoming);
    const client = new RawClient(socket);
    await client.take(18);
    client.write(GO);
    await client.take(32 + 20);
    expect((await client.read(0, 16)).length).toBe(16);
    socket.destroy();
    listener.close();
  });

  it.each([undefined, null, 3, 'socket', {}, { on: () => undefined }])('refuses %p', (stream) => {
    const server = newServer({});
    expect(() => server.serve(stream as unknown as Duplex)).toThrow(
      expect.objectContaining({ name: 'NbdStrictError', code: 'EINVAL' }),
    );
  });

  it('asks the kernel whether an idle client is there', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    const calls: unknown[] = [];
    const listener = createServer((socket) => {
      const setKeepAlive = socket.setKeepAlive.bind(socket);
      socket.setKeepAlive = (...words) => {
        calls.push(words);
        return setKeepAlive(...words);
      };
      server.serve(socket);
    }).listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const socket = connect(listener.address() as { port: number });
    const client = await new RawClient(socket).handshake();
    expect(calls).toEqual([[true, 60_000]]);
    client.stream.destroy();
    listener.close();
  });
});

describe('the work of a client that has gone', () => {
  it.each(['zero', 'write zeroes', 'trim', 'write'])('is given up: %s', async (kind) => {
    let signal: AbortSignal | undefined;
    let pieces = 0;
    const pending = (options: { signal?: AbortSignal | undefined }): Promise<void> => {
      signal = options.signal;
      return new Promise((_, reject) => {
        signal?.addEventListener('abort', () => reject(new Error('gone')));
      });
    };
    const backend: NbdBackend = {
      size: 1n << 36n,
      read: (buffer) => void buffer.fill(0),
      write: async (_data, _offset, options) => {
        pieces += 1;
        if (kind === 'write') return pending(options);
        signal = options.signal;
        return sleep(1);
      },
      ...(kind === 'zero' ? { zero: (_offset, _count, options) => pending(options) } : {}),
      trim: (_offset, _count, options) => pending(options),
    };
    const server = await listening('tcp', { exports: { '': backend } });
    const client = await RawClient.dial(server).handshake({ style: 'extended' });
    const type = kind === 'trim' ? CMD.TRIM : kind === 'write' ? CMD.WRITE : CMD.ZERO;
    if (kind === 'write') client.send(type, { payload: 'x' });
    else client.send(type, { count: 1n << 35n });
    await until(() => signal !== undefined, 'the work has begun');
    expect(signal?.aborted).toBe(false);
    client.stream.destroy();
    await until(() => signal?.aborted === true, 'it is given up');
    const done = pieces;
    await sleep(30);
    expect(pieces).toBeLessThanOrEqual(done + 1);
  });
});

describe('memory', () => {
  /** Reads that take long enough for all of them to be under way at once. */
  const slow: NbdBackend = {
    size: 1 << 30,
    read: async (buffer) => {
      await sleep(1);
      buffer.fill(1);
    },
    write: () => sleep(5),
    copiesData: true,
  };
  /** A client that requests much and reads nothing. */
  async function deaf(server: NbdServer, requests: number, count: number): Promise<Socket> {
    const { address } = server;
    if (address === null) throw new Error('no address');
    const socket = connect('path' in address ? { path: address.path } : { ...address });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.pause();
    const request = new RawClient(server.connectMemory());
    socket.write(cat(u32(3), GO, ...Array.from({ length: requests }, () => request.request(CMD.READ, { count }))));
    request.stream.destroy();
    return socket;
  }
  const used = (): number => process.memoryUsage().arrayBuffers;

  it('of a client that takes no replies is a megabyte and a request, not all that may be under way', async () => {
    const server = await listening('unix', { exports: { '': slow } });
    const before = used();
    const socket = await deaf(server, 64, MIB);
    await until(() => server.statistics.requests.pread > 0, 'it has begun');
    await sleep(200);
    expect(server.statistics.requests.pread).toBeLessThanOrEqual(3);
    expect(used() - before).toBeLessThan(16 * MIB);
    socket.destroy();
  });

  it('is given to one that reads, so that many requests run at once', async () => {
    let running = 0;
    let most = 0;
    const backend: NbdBackend = {
      ...slow,
      read: async (buffer) => {
        most = Math.max(most, (running += 1));
        await sleep(5);
        buffer.fill(1);
        running -= 1;
      },
    };
    const server = await listening('unix', { exports: { '': backend } });
    const client = await RawClient.dial(server).handshake();
    for (let i = 0; i < 100; i += 1) client.send(CMD.READ, { count: MIB });
    for (let i = 0; i < 100; i += 1) await client.take(16 + MIB);
    expect(most).toBeGreaterThanOrEqual(4);
  });

  it('of all connections together is bounded, for replies and for payloads, and every client is served', async () => {
    const limit = 4 * MIB;
    let held = 0;
    let most = 0;
    const take = async (length: number): Promise<void> => {
      most = Math.max(most, (held += length));
      await sleep(2);
      held -= length;
    };
    const backend: NbdBackend = {
      size: 1 << 30,
      read: (buffer) => take(buffer.length),
      write: (data) => take(data.length),
      copiesData: true,
    };
    const server = await listening('unix', { exports: { '': backend }, maxTotalBytes: limit });
    const clients = await Promise.all(Array.from({ length: 12 }, () => RawClient.dial(server).handshake()));
    await Promise.all(
      clients.map(async (client, index) => {
        for (let round = 0; round < 6; round += 1) {
          if ((index + round) % 2 === 0) expect((await client.read(0, MIB)).length).toBe(MIB);
          else expect(await client.ask(CMD.WRITE, { payload: Buffer.alloc(MIB, round) })).toBe(0);
        }
      }),
    );
    expect(most).toBeLessThanOrEqual(limit);
    // One that is larger than all of it runs alone.
    expect((await (clients[0] as RawClient).read(0, 8 * MIB)).length).toBe(8 * MIB);
    expect(await (clients[1] as RawClient).ask(CMD.WRITE, { payload: Buffer.alloc(8 * MIB) })).toBe(0);
  });

  it('of clients that stop in a payload does not grow with what they claim', async () => {
    const server = await listening('unix', { exports: { '': slow }, maxTotalBytes: 40 * MIB });
    const before = used();
    const clients = await Promise.all(Array.from({ length: 20 }, () => RawClient.dial(server).handshake()));
    for (const client of clients) client.write(client.request(CMD.WRITE, { count: 32 * MIB }), Buffer.alloc(100_000));
    await sleep(100);
    expect(used() - before).toBeLessThan(64 * MIB);
    // Small requests of others are served meanwhile.
    const other = await RawClient.dial(server).handshake();
    expect((await other.read(0, 4096)).length).toBe(4096);
    for (const client of clients) client.stream.destroy();
    await until(() => server.statistics.openConnections === 1, 'they are gone');
    expect((await other.read(0, 8 * MIB)).length).toBe(8 * MIB);
  });
});
