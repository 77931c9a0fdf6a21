import { subscribe, unsubscribe } from 'node:diagnostics_channel';

import { afterEach, describe, expect, it } from '@jest/globals';

import { type CommandTrace, type NbdConnection } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { memoryPeer, newConnection, openRaw, type RawPeer } from '../../support/raw-server.js';
import { EACH_CALL } from '../calls.js';

const stats = (c: NbdConnection): Record<string, bigint> => ({
  sent: c.statsBytesSent(),
  received: c.statsBytesReceived(),
  chunksSent: c.statsChunksSent(),
  chunksReceived: c.statsChunksReceived(),
});

describe('statistics of the handshake', () => {
  it('are 0 before connecting', () => {
    expect(stats(newConnection())).toEqual({ sent: 0n, received: 0n, chunksSent: 0n, chunksReceived: 0n });
  });

  it('count every byte; chunks are options sent, and the greeting received', async () => {
    const { connection, peer } = await openRaw({ client: { exportName: 'disk' }, blockSize: [1, 4096, 1 << 25] });
    // Client flags, three options: EXTENDED_HEADERS, STRUCTURED_REPLY, GO with a name and one request.
    const sent = 4 + 16 + 16 + (16 + 4 + 4 + 2 + 2);
    // Greeting, a refusal, an ACK, NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE, an ACK.
    const received = 18 + 20 + 20 + (20 + 12) + (20 + 14) + 20;
    expect(stats(connection)).toEqual({
      ...{ sent: BigInt(sent), received: BigInt(received), chunksSent: 3n, chunksReceived: 1n },
    });
    expect(peer.bytesReceived).toBe(sent);
    expect(peer.options.map(({ number }) => number)).toEqual([g.OPT.EXTENDED, g.OPT.STRUCTURED_REPLY, g.OPT.GO]);
  });

  it('an oldstyle greeting is 152 bytes', async () => {
    const { stream, peer } = memoryPeer();
    const connection = newConnection();
    peer.write(g.oldstyle(1 << 20, 1));
    await connection.connectSocket(stream);
    expect(stats(connection)).toEqual({ sent: 0n, received: 152n, chunksSent: 0n, chunksReceived: 1n });
  });
});

describe('statistics of commands', () => {
  const difference = async (
    run: (connection: NbdConnection) => Promise<unknown>,
    reply?: (cookie: bigint) => Buffer[],
    options = {},
  ): Promise<number[]> => {
    const { connection, peer } = await openRaw({ contexts: { 1: 'base:allocation' }, ...options });
    const before = stats(connection);
    const done = run(connection).catch(() => undefined);
    const request = await peer.request();
    if (reply === undefined) peer.answer(request);
    else peer.write(...reply(request.cookie));
    await done;
    return Object.entries(stats(connection)).map(([name, value]) => Number(value - before[name]!));
  };

  it.each(EACH_CALL)('%s', async (_name, call) => {
    const written = call.type === g.CMD.WRITE ? 512 : 0;
    const back = call.type === g.CMD.READ ? 20 + 8 + 512 : call.type === g.CMD.STATUS ? 20 + 4 + 8 : 16;
    expect(await difference((c) => call.promise(c))).toEqual([28 + written, back, 1, 1]);
  });

  it('a flush is 28 bytes out and 16 in; 32 and 32 with extended headers', async () => {
    expect(await difference((c) => c.flush())).toEqual([28, 16, 1, 1]);
    expect(await difference((c) => c.flush(), undefined, { extended: true })).toEqual([32, 32, 1, 1]);
  });

  it('a simple read is 16 bytes and the data in', async () => {
    expect(await difference((c) => c.pread(100_000, 0), undefined, { structured: false })).toEqual([28, 100_016, 1, 1]);
  });

  it('a large write is its bytes out, one chunk', async () => {
    expect(await difference((c) => c.pwrite(Buffer.alloc(300_000), 0))).toEqual([300_028, 16, 1, 1]);
  });

  it('every chunk of a reply counts', async () => {
    const reply = (cookie: bigint): Buffer[] => [
      g.dataChunk(cookie, 0, Buffer.alloc(100), 0),
      g.holeChunk(cookie, 100, 100, 0),
      g.chunk(g.DONE, g.NONE, cookie),
    ];
    expect(await difference((c) => c.pread(200, 0), reply)).toEqual([28, 128 + 32 + 20, 1, 3]);
  });

  it('an error with a message', async () => {
    expect(
      await difference(
        (c) => c.flush(),
        (cookie) => [g.errorChunk(cookie, 5, 'bad')],
      ),
    ).toEqual([28, 29, 1, 1]);
  });

  it('stay after the end', async () => {
    const { connection, peer } = await openRaw();
    void peer.serve();
    await connection.flush();
    const before = stats(connection);
    await connection.shutdown();
    expect(stats(connection)).toEqual({
      ...before,
      sent: before['sent']! + 28n,
      chunksSent: before['chunksSent']! + 1n,
    });
  });

  it('agree with what the server saw, whatever goes to and fro', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 7 } });
    void peer.serve();
    await Promise.all(
      Array.from({ length: 200 }, (_, i) =>
        i % 3 === 0 ? connection.pwrite(Buffer.alloc(i * 100 + 1), 0) : connection.pread(i * 50 + 1, i),
      ),
    );
    expect(connection.statsBytesSent()).toBe(BigInt(peer.bytesReceived));
    expect(connection.statsChunksSent()).toBe(203n);
  });
});

describe('tracing', () => {
  const names = ['command:start', 'command:end', 'command:error', 'connection:open', 'connection:close'];
  let stop = (): void => undefined;
  afterEach(() => {
    stop();
  });

  const listen = (): [string, unknown][] => {
    const seen: [string, unknown][] = [];
    const listeners = names.map((name) => [name, (message: unknown): void => void seen.push([name, message])] as const);
    for (const [name, listener] of listeners) subscribe(`nbd:${name}`, listener);
    stop = () => {
      for (const [name, listener] of listeners) unsubscribe(`nbd:${name}`, listener);
    };
    return seen;
  };

  it('publishes the connection and each command, start and end with the same object', async () => {
    const seen = listen();
    const { connection, peer } = await openRaw();
    const good = connection.cache(512, 4096);
    const bad = rejection(connection.pread(512, 0));
    const [first, second] = await peer.requests(2);
    peer.write(g.simple(first!.cookie), g.simple(second!.cookie, 5));
    await good;
    const error = await bad;
    connection.close();
    expect(seen.map(([name]) => name)).toEqual([
      ...['connection:open', 'command:start', 'command:start', 'command:end'],
      // As in Node's own tracing channels, an error is followed by the end.
      ...['command:error', 'command:end', 'connection:close'],
    ]);
    const [open, start, , end, failed, , close] = seen.map(([, message]) => message as CommandTrace);
    expect(open).toMatchObject({ connection });
    expect(start).toMatchObject({ connection, method: 'cache', cookie: 1n, count: 512n, offset: 4096n });
    expect(end).toBe(start);
    expect(failed).toMatchObject({ method: 'pread', cookie: 2n, error });
    expect(close?.connection).toBe(connection);
  });

  it('publishes nothing about calls that were refused', async () => {
    const { connection } = await openRaw();
    const seen = listen();
    await rejection(connection.cache(0, 0));
    await rejection(connection.flush(0, AbortSignal.abort()));
    expect(seen).toEqual([]);
  });

  it('publishes an abort as an error, once', async () => {
    const { connection, peer } = await openRaw();
    const seen = listen();
    const controller = new AbortController();
    const aborted = rejection(connection.flush(0, controller.signal));
    const request = await peer.request();
    controller.abort('stop');
    await aborted;
    peer.answer(request);
    void peer.serve();
    await connection.pread(16, 0);
    const of = seen.filter(([, message]) => (message as CommandTrace).method === 'flush');
    expect(of.map(([name]) => name)).toEqual(['command:start', 'command:error', 'command:end']);
    expect(of[1]![1]).toMatchObject({ error: 'stop' });
  });

  it('costs nothing without subscribers', async () => {
    const { connection, peer }: { connection: NbdConnection; peer: RawPeer } = await openRaw();
    void peer.serve();
    await connection.flush();
    const seen = listen();
    await connection.flush();
    expect(seen.map(([name]) => name)).toEqual(['command:start', 'command:end']);
  });
});
