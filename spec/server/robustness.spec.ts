// What a hostile or broken client does, and that the server lives through it. V01 to V10 are in serve.spec.ts and
// serve-cases.ts, V13 to V16 and V18 in commands.spec.ts and block-status.spec.ts.

import { describe, expect, it, jest } from '@jest/globals';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemoryBackend, type NbdBackend, type NbdServer } from '../../lib/server/index.js';
import * as g from '../support/golden.js';
import { atAnyPace } from '../support/pace.js';
import { newServer, RawClient } from '../support/raw-client.js';
import { settled, until } from '../support/waiting.js';

const { CMD, cat, option, u16, u32 } = g;
const SIZE = 1 << 20;
const GO = option(g.OPT.GO, cat(u32(0), u16(0)));

async function expectAlive(server: NbdServer): Promise<void> {
  const client = await RawClient.of(server).handshake();
  expect((await client.read(0, 512)).length).toBe(512);
  client.stream.destroy();
}

describe('a hostile client', () => {
  it('V11 may leave at every byte, in the handshake and in a payload', async () => {
    const errors: Error[] = [];
    const server = newServer({
      exports: { '': new MemoryBackend(SIZE) },
      onConnectionError: (error) => errors.push(error),
    });
    const ghost = new RawClient(server.connectMemory());
    const all = cat(
      u32(3),
      option(g.OPT.STRUCTURED_REPLY),
      option(g.OPT.SET_META, cat(u32(0), u32(1), u32(15), 'base:allocation')),
      GO,
      ghost.request(CMD.READ, { count: 512 }),
      ghost.request(CMD.WRITE, { payload: Buffer.alloc(100) }),
    );
    for (let length = 0; length <= all.length; length += 1) {
      for (const leave of ['destroy', 'end'] as const) {
        const stream = server.connectMemory();
        stream.on('error', () => undefined).resume();
        stream.write(all.subarray(0, length));
        await new Promise((resolve) => setImmediate(resolve));
        stream[leave]();
      }
    }
    ghost.stream.destroy();
    await until(() => server.statistics.openConnections === 0, 'all are gone');
    expect(server.statistics.connections).toBe(all.length * 2 + 3);
    await expectAlive(server);
  });

  it('V03, V14 may claim 4 GiB and gets no memory for it', async () => {
    const errors: string[] = [];
    const server = newServer({
      exports: { '': new MemoryBackend(1n << 40n) },
      onConnectionError: ({ message }) => errors.push(message),
    });
    const before = process.memoryUsage().arrayBuffers;
    const clients = [];
    for (let i = 0; i < 20; i += 1) {
      const client = await RawClient.of(server).handshake({ style: 'structured' });
      clients.push(client);
      expect(await client.ask(CMD.READ, { count: 0xffff_ffff })).toBe(75);
      client.send(CMD.WRITE, { count: 0xffff_ffff });
      await client.ended;
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 << 20);
    expect(errors).toEqual(
      Array.from(
        { length: 20 },
        () => 'the client broke the protocol: NBD_CMD_WRITE with 4294967295 bytes of payload, limit 33554432',
      ),
    );
  });

  it('V14 may send a payload of up to 32 MiB that is above the maximum, and the connection lives', async () => {
    const blockSize = { minimum: 1, preferred: 4096, maximum: 65536 };
    const server = newServer({ exports: { '': { backend: new MemoryBackend(1 << 30), blockSize } } });
    const client = await RawClient.of(server).handshake();
    expect(await client.ask(CMD.WRITE, { payload: Buffer.alloc(1 << 25) })).toBe(22);
    expect((await client.read(0, 65536)).length).toBe(65536);
    expect(server.statistics.bytesWritten).toBe(0);
  });

  it('may speak something else', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    const client = await RawClient.of(server).handshake();
    client.write('GET / HTTP/1.1\r\n\r\n');
    expect((await client.rest()).length).toBe(0);
    const early = RawClient.of(server);
    early.write('GET / HTTP/1.1\r\n\r\n');
    expect((await early.rest()).length).toBe(18);
    await expectAlive(server);
  });

  it.each(['V12 may send nothing', 'V12 may send one byte at a time'])('%s, until the deadline', async (how) => {
    const codes: unknown[] = [];
    const server = newServer({
      exports: { '': new MemoryBackend(SIZE) },
      handshakeTimeout: 60,
      onConnectionError: (error) => codes.push((error as NodeJS.ErrnoException).code),
    });
    const began = Date.now();
    const client = RawClient.of(server);
    const trickle = setInterval(() => {
      if (how.endsWith('time')) client.stream.write(Buffer.of(0));
    }, 10);
    await client.ended;
    clearInterval(trickle);
    expect(Date.now() - began).toBeGreaterThanOrEqual(50);
    expect(codes).toEqual(['ETIMEDOUT']);
  });

  it('may take its time once the handshake is over', async () => {
    await atAnyPace(async (pace) => {
      const server = newServer({ exports: { '': new MemoryBackend(SIZE) }, handshakeTimeout: 300 * pace });
      const client = await RawClient.of(server).handshake();
      await sleep(350 * pace);
      expect((await client.read(0, 1)).length).toBe(1);
    });
  });

  it('V20 finds a limit on connections', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) }, maxConnections: 100 });
    const clients = Array.from({ length: 1000 }, () => RawClient.of(server));
    expect(server.statistics).toMatchObject({ connections: 100, openConnections: 100, refusedConnections: 900 });
    expect((await clients[100]!.rest()).length).toBe(0);
    clients[5]!.stream.destroy();
    await until(() => server.statistics.openConnections === 99, 'one is gone');
    await expectAlive(server);
  });

  describe('that does not read', () => {
    let folder: string;
    const dial = async (server: NbdServer): Promise<Socket> => {
      folder = await mkdtemp(join(tmpdir(), 'nbd-v17-'));
      await server.listenUnix(join(folder, 'socket'));
      const socket = connect(join(folder, 'socket'));
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      return socket;
    };

    it('V17 is not read from either, and gets everything once it reads', async () => {
      const server = newServer({ exports: { '': MemoryBackend.from(g.content(0, SIZE)) } });
      const socket = await dial(server);
      const request = new RawClient(server.connectMemory());
      const COUNT = 100_000;
      const headers = Buffer.concat(
        Array.from({ length: COUNT }, (_, i) => request.request(CMD.READ, { cookie: i, offset: i, count: 4096 })),
      );
      socket.pause();
      const before = process.memoryUsage().arrayBuffers;
      socket.write(cat(u32(3), GO, headers));
      await sleep(300);
      // A megabyte of replies, what the kernel holds, and one chunk of requests.
      expect(server.statistics.requests.pread).toBeLessThan(2000);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(48 << 20);
      let received = 0;
      socket.on('data', (chunk: Buffer) => {
        received += chunk.length;
      });
      socket.resume();
      const HANDSHAKE = 18 + 32 + 20;
      const due = HANDSHAKE + COUNT * (16 + 4096);
      await until(() => received >= due, `all replies have come, ${due} bytes`);
      expect(received).toBe(due);
      socket.destroy();
      await rm(folder, { recursive: true, force: true });
    });

    it('is not answered without end in the handshake', async () => {
      const description = 'x'.repeat(4096);
      const exports = Object.fromEntries(
        Array.from({ length: 500 }, (_, i) => [String(i), { backend: new MemoryBackend(1), description }]),
      );
      const server = newServer({ exports });
      const socket = await dial(server);
      socket.pause();
      const before = process.memoryUsage().arrayBuffers;
      socket.write(cat(u32(3), ...Array.from({ length: 200 }, () => option(g.OPT.LIST))));
      await sleep(200);
      // All of it would be 400 MB.
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 << 20);
      let received = 0;
      socket.on('data', (chunk: Buffer) => {
        received += chunk.length;
      });
      socket.resume();
      await until(() => received > 200 * 500 * 4096, 'all lists have come');
      socket.destroy();
      await rm(folder, { recursive: true, force: true });
    });
  });
});

describe('V19 close()', () => {
  const DEADLINE = 150;
  const stuck: NbdBackend = { size: SIZE, read: () => new Promise(() => undefined) };

  const timed = async (server: NbdServer): Promise<number> => {
    const began = Date.now();
    await server.close();
    return Date.now() - began;
  };

  it('does not wait for clients that do nothing', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) }, closeTimeout: 600_000 });
    await server.listenTcp();
    const early = RawClient.dial(server);
    const idle = await RawClient.dial(server).handshake();
    await early.take(18);
    expect(await timed(server)).toBeLessThan(600_000);
    await Promise.all([early.ended, idle.ended]);
  });

  it('waits for what runs, and refuses what comes', async () => {
    let finish = (): void => undefined;
    const backend: NbdBackend = {
      size: SIZE,
      read: () =>
        new Promise((resolve) => {
          finish = resolve;
        }),
    };
    const server = newServer({ exports: { '': backend }, closeTimeout: 600_000, maxInFlight: 1 });
    const client = await RawClient.of(server).handshake();
    client.send(CMD.READ, { cookie: 1, count: 4 });
    client.send(CMD.READ, { cookie: 2, count: 4 });
    await settled();
    const closing = server.close();
    await settled();
    finish();
    expect(await client.simple()).toEqual({ error: 0, cookie: 1 });
    await client.take(4);
    expect(await client.simple()).toEqual({ error: 108, cookie: 2 });
    await Promise.all([client.ended, closing]);
  });

  it('ends at its deadline when a backend does not answer', async () => {
    const server = newServer({ exports: { '': stuck }, closeTimeout: DEADLINE });
    const client = await RawClient.of(server).handshake();
    client.send(CMD.READ, { count: 4 });
    await settled();
    const took = await timed(server);
    expect(took).toBeGreaterThanOrEqual(DEADLINE - 20);
    expect(took).toBeLessThan(DEADLINE + 200_000);
  });

  it('ends at its deadline when a client takes no replies and keeps its socket', async () => {
    const server = newServer({ exports: { '': MemoryBackend.from(g.content(0, SIZE)) }, closeTimeout: DEADLINE });
    await server.listenTcp();
    const { address } = server;
    if (address === null || !('port' in address)) throw new Error('no port');
    const socket = connect({ ...address, allowHalfOpen: true });
    socket.on('error', () => undefined);
    socket.pause();
    const request = new RawClient(server.connectMemory());
    socket.write(cat(u32(3), GO, ...Array.from({ length: 50 }, () => request.request(CMD.READ, { count: SIZE }))));
    await sleep(100);
    expect(await timed(server)).toBeLessThan(DEADLINE + 200_000);
    expect(server.statistics.openConnections).toBe(0);
    socket.destroy();
  });

  it('leaves no timer, listener or socket behind', async () => {
    const kinds = (): string[] => process.getActiveResourcesInfo().filter((kind) => !/Immediate|Pipe/.test(kind));
    await sleep(20);
    const before = kinds().sort();
    const server = newServer({ exports: { '': stuck }, closeTimeout: 50 });
    await server.listenTcp();
    server.faults.push({ command: 'flush', delay: 60_000 });
    const client = await RawClient.dial(server).handshake();
    client.send(CMD.READ, { count: 1 });
    client.send(CMD.FLUSH);
    await sleep(20);
    await server.close();
    await client.ended;
    client.stream.destroy();
    // The runner has timers of its own that come and go: what the server left behind would stay for a minute.
    for (let tries = 0; tries < 1000 && kinds().length > before.length; tries++) await sleep(50);
    expect(kinds().length).toBeLessThanOrEqual(before.length);
  });

  it('a client that has sent DISC is not waited for when it keeps its end open', async () => {
    const server = newServer({ exports: { '': new MemoryBackend(SIZE) } });
    await server.listenTcp();
    const client = await RawClient.dial(server).handshake();
    client.send(CMD.DISC);
    await until(() => server.statistics.openConnections === 0, 'the server has let go');
  });
});

describe("the user's own functions may throw", () => {
  it('onRequest and a fault become the error of the command', async () => {
    let isBroken = true;
    const server = newServer({
      exports: { '': new MemoryBackend(SIZE) },
      onRequest: () => {
        if (isBroken) throw new Error('in onRequest');
      },
    });
    const client = await RawClient.of(server).handshake();
    expect(await client.ask(CMD.FLUSH)).toBe(5);
    isBroken = false;
    server.faults.push({
      when: () => {
        throw new Error('in when');
      },
      error: 'EIO',
    });
    expect(await client.ask(CMD.FLUSH)).toBe(5);
  });

  it('onConnectionError becomes a warning', async () => {
    const server = newServer({
      exports: { '': new MemoryBackend(SIZE) },
      onConnectionError: () => {
        throw new Error('in onConnectionError');
      },
    });
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const client = await RawClient.of(server).handshake();
    client.write('x'.repeat(28));
    await client.ended;
    await until(() => warn.mock.calls.length === 1, 'there is a warning');
    expect(warn.mock.calls[0]?.[0]).toMatch(/in onConnectionError/);
    warn.mockRestore();
    await expectAlive(server);
  });
});
