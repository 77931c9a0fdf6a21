import { describe, expect, it } from '@jest/globals';

import { NbdCommandError, NbdConnectionError, NbdStateError } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { listenRaw, newConnection, openRaw, type RawPeer } from '../../support/raw-server.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('cache', () => {
  it('is one request without payload, and resolves with nothing', async () => {
    const { connection, peer } = await openRaw();
    const before = connection.statsBytesSent();
    const promise = connection.cache(65536, 4096);
    expect((await peer.take(28)).toString('hex')).toBe('25609513000000050000000000000001000000000000100000010000');
    expect(connection.aioInFlight()).toBe(1);
    expect(connection.connectionState()).toBe('ready');
    peer.write(g.simple(1));
    await expect(promise).resolves.toBeUndefined();
    expect(connection.aioInFlight()).toBe(0);
    expect(connection.statsBytesSent() - before).toBe(28n);
  });

  it.each<[string, (cookie: bigint) => Buffer]>([
    ['a simple reply', (cookie) => g.simple(cookie)],
    ['a structured reply', (cookie) => g.chunk(g.DONE, g.NONE, cookie)],
  ])('takes %s', async (_title, reply) => {
    const { connection, peer } = await openRaw();
    const promise = connection.cache(512, 0);
    peer.write(reply((await peer.request()).cookie));
    await promise;
  });

  it('takes bigints, up to the last byte of the largest export', async () => {
    const size = 2n ** 64n - 1n;
    const { connection, peer } = await openRaw({ size });
    const promise = connection.cache(1n, size - 1n);
    const request = await peer.request();
    expect(request).toMatchObject({ offset: size - 1n, length: 1 });
    peer.answer(request);
    await promise;
  });

  it('4 GiB and more go out in one command with extended headers', async () => {
    const { connection, peer } = await openRaw({ size: 2 ** 40, extended: true });
    const promise = connection.cache(2 ** 40, 0);
    const request = await peer.request();
    expect(request).toMatchObject({ length: 2 ** 40, flags: 0 });
    peer.answer(request);
    await promise;
  });

  it.each([
    [28, 'ENOSPC', 'No space left on device'],
    [5, 'EIO', 'Input/output error'],
    [22, 'EINVAL', 'Invalid argument'],
  ])('error %d of the server fails this command only', async (wire, code, text) => {
    const { connection, peer } = await openRaw();
    const [bad, good] = [rejection(connection.cache(512, 4096)), connection.cache(512, 0)];
    const [first, second] = await peer.requests(2);
    peer.write(g.simple(first!.cookie, wire), g.simple(second!.cookie));
    const error = await bad;
    expect(error).toBeInstanceOf(NbdCommandError);
    expect(error).toMatchObject({ code, syscall: 'cache', cookie: 1n, count: 512n, offset: 4096n });
    expect((error as Error).message).toBe(`cache of 512 bytes at offset 4096: the server reported ${text} (${code})`);
    await good;
    expect(connection.aioIsReady()).toBe(true);
  });
});

describe('in which states', () => {
  type State = readonly [
    name: string,
    code: string | null,
    reach: () => Promise<{ connection: ReturnType<typeof newConnection>; peer?: RawPeer }>,
  ];
  const STATES: readonly State[] = [
    ['created', 'ENOTCONN', () => Promise.resolve({ connection: newConnection() })],
    [
      'connecting',
      'EINVAL',
      async () => {
        const server = await listenRaw();
        const connection = newConnection();
        connection.aioConnectUnix((server.target as { path: string }).path);
        return { connection };
      },
    ],
    [
      'negotiating',
      'EINVAL',
      async () => {
        const server = await listenRaw();
        const connection = newConnection({ optMode: true, requestExtendedHeaders: false });
        const connected = connection.connectUnix((server.target as { path: string }).path);
        const peer = await server.accept();
        peer.write(g.greeting());
        await peer.take(4);
        await peer.option();
        peer.write(g.reply(g.OPT.STRUCTURED_REPLY, g.ACK));
        await connected;
        return { connection, peer };
      },
    ],
    ['ready', null, () => openRaw()],
    [
      'processing',
      null,
      async () => {
        const opened = await openRaw();
        opened.connection.aioFlush();
        const { cookie } = await opened.peer.request();
        opened.peer.write(g.simple(cookie).subarray(0, 6));
        while (!opened.connection.aioIsProcessing()) await turn();
        return opened;
      },
    ],
    [
      'closed',
      'EINVAL',
      async () => {
        const { connection } = await openRaw();
        connection.close();
        return { connection };
      },
    ],
    [
      'dead',
      'EINVAL',
      async () => {
        const { connection, peer } = await openRaw();
        const closed = new Promise((resolve) => connection.once('close', resolve));
        peer.write('not a reply at all');
        await closed;
        return { connection };
      },
    ],
  ];

  it.each(STATES)('%s: %s', async (name, code, reach) => {
    const { connection, peer } = await reach();
    expect(connection.connectionState()).toBe(name);
    if (code === null) {
      expect(connection.aioCache(512, 0)).toBeGreaterThanOrEqual(1n);
      expect((await peer?.request())?.type).toBe(g.CMD.CACHE);
      return;
    }
    const sent = connection.statsBytesSent();
    let called = 0;
    const errors = [
      await rejection(connection.cache(512, 0)),
      caught(() =>
        connection.aioCache(512, 0, () => {
          called++;
        }),
      ),
      // The state is looked at before the arguments.
      await rejection(connection.cache(-1, 'x' as never, 0x80)),
    ];
    for (const error of errors) {
      expect(error).toBeInstanceOf(NbdStateError);
      expect(error).toMatchObject({ code, syscall: 'cache' });
      expect((error as Error).message).toMatch(
        new RegExp(`^cache: invalid state: ${name}: the connection must be connected`),
      );
    }
    await turn();
    expect(called).toBe(0);
    expect(connection.statsBytesSent()).toBe(sent);
  });

  it('dead: the refusal contains the reason of the death', async () => {
    const { connection, peer } = await openRaw();
    const closed = new Promise<unknown>((resolve) => connection.once('close', resolve));
    peer.write('what is this?');
    const cause = await closed;
    const error = await rejection(connection.cache(512, 0));
    expect((error as Error).cause).toBe(cause);
    expect((error as Error).message).toContain('(it ended: reply: magic 0x77686174');
  });
});

describe('aioCache', () => {
  it('returns cookies from 1n upward, shared by all commands, new ones per connection', async () => {
    const { connection, peer } = await openRaw();
    expect(connection.aioCache(512, 0)).toBe(1n);
    void connection.flush();
    const read = connection.pread(512, 0);
    expect(connection.aioCache(512, 512, null, 0)).toBe(4n);
    const requests = await peer.requests(4);
    expect(requests.map(({ type, cookie }) => [type, cookie])).toEqual([
      [g.CMD.CACHE, 1n],
      [g.CMD.FLUSH, 2n],
      [g.CMD.READ, 3n],
      [g.CMD.CACHE, 4n],
    ]);
    peer.answer(...requests);
    await read;
    expect((await openRaw()).connection.aioCache(512, 0)).toBe(1n);
  });

  it('never uses a cookie twice, however many finish', async () => {
    const { connection, peer } = await openRaw();
    const seen = new Set<bigint>();
    void peer.serve();
    for (let i = 0; i < 300; i++) {
      await new Promise<void>((resolve) => {
        seen.add(
          connection.aioCache(512, 0, () => {
            resolve();
            return true;
          }),
        );
      });
    }
    expect([...seen]).toEqual(Array.from({ length: 300 }, (_, i) => BigInt(i + 1)));
  });

  it('calls completion once, with the cookie, never before it has returned', async () => {
    const { connection, peer } = await openRaw();
    const calls: unknown[][] = [];
    const cookie = connection.aioCache(512, 0, (...args) => void calls.push(args));
    const request = await peer.request();
    await turn();
    expect(calls).toEqual([]);
    peer.answer(request);
    void peer.serve();
    await connection.flush();
    expect(calls).toEqual([[null, cookie]]);
  });

  it('refuses a completion that is not a function, with nothing queued', async () => {
    const { connection, peer } = await openRaw();
    expect(caught(() => connection.aioCache(512, 0, 'done' as never))).toMatchObject({
      code: 'EINVAL',
      message: 'cache: completion must be a function, not string',
    });
    expect(connection.aioFlush()).toBe(1n);
    expect((await peer.request()).type).toBe(g.CMD.FLUSH);
  });

  it.each(['NbdCommandError ENOSPC', 'EIO'])('hands the error of the server to completion: %s', async (kind) => {
    const wire = kind.includes('ENOSPC') ? 28 : 5;
    const { connection, peer } = await openRaw();
    const told = new Promise<unknown>((resolve) => connection.aioCache(512, 4096, resolve));
    peer.write(g.simple((await peer.request()).cookie, wire));
    const error = await told;
    expect(error).toBeInstanceOf(NbdCommandError);
    expect(error).toMatchObject({ code: wire === 28 ? 'ENOSPC' : 'EIO', cookie: 1n, offset: 4096n, count: 512n });
  });

  it('completes with ENOTCONN when the connection dies or is closed', async () => {
    for (const end of ['close', 'eof'] as const) {
      const { connection, peer } = await openRaw();
      const calls: unknown[] = [];
      const cookie = connection.aioCache(512, 0, (error) => void calls.push(error));
      await peer.request();
      const closed = new Promise((resolve) => connection.once('close', resolve));
      if (end === 'close') connection.close();
      else peer.stream.end();
      await closed;
      expect(calls).toHaveLength(1);
      expect(calls[0]).toBeInstanceOf(NbdConnectionError);
      expect(calls[0]).toMatchObject({ code: 'ENOTCONN', syscall: 'cache', cookie });
      // It stays retrievable afterwards, once.
      expect(connection.aioPeekCommandCompleted()).toBe(cookie);
      expect(caught(() => connection.aioCommandCompleted(cookie))).toBe(calls[0]);
      expect(connection.aioCommandCompleted(cookie)).toBe(false);
      connection.close();
      await turn();
      expect(calls).toHaveLength(1);
    }
  });
});
