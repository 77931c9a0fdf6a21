import { describe, expect, it } from '@jest/globals';

import { type NbdConnection, NbdConnectionError } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw, type RawPeer } from '../../support/raw-server.js';

const CONTEXTS = { 1: 'base:allocation', 2: 'x:y' };

/** What is thrown, by kind: a program may throw anything. */
const THROWN: readonly (readonly [string, unknown])[] = [
  ['an error', new Error('mine')],
  ['a string', 'mine'],
  ['null', null],
  ['undefined', undefined],
];

interface Kind {
  readonly title: string;
  /** Issues the command; `callback` is called for every chunk or context. */
  readonly promise: (connection: NbdConnection, callback: () => void) => Promise<unknown>;
  readonly aio: (connection: NbdConnection, callback: () => void, completion: (error: unknown) => void) => bigint;
  /** A reply that makes two calls. */
  readonly reply: (cookie: bigint) => Buffer[];
}

const KINDS: readonly Kind[] = [
  {
    title: 'the chunk callback of preadStructured',
    promise: (c, callback) => c.preadStructured(200, 0, callback),
    aio: (c, callback, completion) => c.aioPreadStructured(Buffer.alloc(200), 0, callback, completion),
    reply: (cookie) => [g.dataChunk(cookie, 0, g.content(0, 100), 0), g.dataChunk(cookie, 100, g.content(100, 100))],
  },
  {
    title: 'the extent callback of blockStatus',
    promise: (c, callback) => c.blockStatus(512, 0, callback),
    aio: (c, callback, completion) => c.aioBlockStatus(512, 0, callback, completion),
    reply: (cookie) => [g.statusChunk(cookie, 1, [[512, 0]], 0), g.statusChunk(cookie, 2, [[512, 0]])],
  },
  {
    title: 'the extent callback of blockStatus64',
    promise: (c, callback) => c.blockStatus64(512, 0, callback),
    aio: (c, callback, completion) => c.aioBlockStatus64(512, 0, callback, completion),
    reply: (cookie) => [g.statusChunk(cookie, 1, [[512, 0]], 0), g.statusChunk(cookie, 2, [[512, 0]])],
  },
];

const open = (): Promise<{ connection: NbdConnection; peer: RawPeer }> => openRaw({ contexts: CONTEXTS });

describe.each(KINDS.map((kind) => [kind.title, kind] as const))('%s', (_title, kind) => {
  it.each(THROWN)('throws %s: the command rejects with it, the connection lives', async (_what, value) => {
    const { connection, peer } = await open();
    let calls = 0;
    const thrower = (): void => {
      calls++;
      throw value;
    };
    const failed = rejection(kind.promise(connection, thrower));
    peer.write(...kind.reply((await peer.request()).cookie));
    expect(await failed).toBe(value);
    // Later chunks still call.
    expect(calls).toBe(2);
    void peer.serve();
    await connection.flush();
  });

  it('throws: the completion gets an NbdError, and the command rejects with what was thrown', async () => {
    const { connection, peer } = await open();
    const mine = new Error('mine');
    const told: unknown[] = [];
    const cookie = kind.aio(
      connection,
      () => {
        throw mine;
      },
      (error) => void told.push(error),
    );
    peer.write(...kind.reply((await peer.request()).cookie));
    void peer.serve();
    await connection.flush();
    expect(told).toEqual([expect.objectContaining({ code: 'EPROTO', cookie, cause: mine })]);
    expect(caught(() => connection.aioCommandCompleted(cookie))).toBe(mine);
  });

  it('throws twice: the first is what the command rejects with', async () => {
    const { connection, peer } = await open();
    let calls = 0;
    const failed = rejection(
      kind.promise(connection, () => {
        throw new Error(`call ${++calls}`);
      }),
    );
    peer.write(...kind.reply((await peer.request()).cookie));
    expect(await failed).toMatchObject({ message: 'call 1' });
  });

  it.each([1, 2])('closes the connection at call %d: all end once, no callback comes afterwards', async (at) => {
    const { connection, peer } = await open();
    let calls = 0;
    const closes: unknown[] = [];
    connection.on('close', (error) => closes.push(error));
    const own = rejection(
      kind.promise(connection, () => {
        if (++calls === at) connection.close();
      }),
    );
    const other = rejection(connection.flush());
    const [request] = await peer.requests(2);
    peer.write(...kind.reply(request!.cookie), g.simple(2));
    for (const error of [await own, await other]) {
      expect(error).toBeInstanceOf(NbdConnectionError);
      expect(error).toMatchObject({ code: 'ENOTCONN' });
    }
    expect(calls).toBe(at);
    expect(closes).toEqual([undefined]);
    expect(connection.aioInFlight()).toBe(0);
  });

  it('issues new commands, which go out', async () => {
    const { connection, peer } = await open();
    const inner: Promise<unknown>[] = [];
    const outer = kind.promise(connection, () => void inner.push(connection.pread(16, 0)));
    const request = await peer.request();
    peer.write(...kind.reply(request.cookie));
    void peer.serve();
    await outer;
    expect(await Promise.all(inner)).toEqual([g.content(0, 16), g.content(0, 16)]);
  });

  it('that is not a function is refused, with nothing queued', async () => {
    const { connection, peer } = await open();
    expect(caught(() => kind.aio(connection, 'x' as never, () => undefined))).toMatchObject({ code: 'EINVAL' });
    expect(connection.aioInFlight()).toBe(0);
    expect(connection.aioFlush()).toBe(1n);
    expect((await peer.request()).type).toBe(g.CMD.FLUSH);
  });
});

describe('a completion callback', () => {
  it.each(THROWN)('throws %s: that is how the command went', async (_what, value) => {
    const { connection, peer } = await open();
    const cookie = connection.aioFlush(() => {
      throw value;
    });
    peer.answer(await peer.request());
    void peer.serve();
    await connection.flush();
    let thrown: unknown = 'nothing was thrown';
    try {
      connection.aioCommandCompleted(cookie);
    } catch (error) {
      thrown = error;
    }
    // A thrown null or undefined would look like success, so it becomes an error of its own.
    if (value === null || value === undefined) expect(thrown).toMatchObject({ code: 'EPROTO', cookie });
    else expect(thrown).toBe(value);
  });
});

describe('listeners of events', () => {
  it('close the connection in stateChange, close and drain without harm', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1 } });
    const seen: string[] = [];
    connection.on('drain', () => {
      seen.push('drain');
      connection.close();
    });
    connection.on('stateChange', (state) => {
      seen.push(state);
      connection.close();
    });
    connection.on('close', (error) => {
      seen.push(`close ${error === undefined ? 'well' : error.code}`);
      connection.close();
      void connection.shutdown();
    });
    const settled = Promise.allSettled([connection.flush(), connection.flush()]);
    peer.answer(await peer.request());
    // The first was answered; the second had its credit when the connection was closed.
    expect(await settled).toMatchObject([{ status: 'fulfilled' }, { reason: { code: 'ENOTCONN' } }]);
    expect(seen).toEqual(['drain', 'closed', 'close well']);
  });
});
