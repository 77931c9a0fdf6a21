import { describe, expect, it, jest } from '@jest/globals';

import {
  type NbdConnection,
  NbdCommandError,
  type NbdError,
  NbdStateError,
  NbdStrictError,
} from '../../../lib/index.js';
import { caught } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { newConnection, openRaw, type RawPeer } from '../../support/raw-server.js';
import { EACH_CALL } from '../calls.js';

const CONTEXTS = { 1: 'base:allocation' };

/** Waits until no command is unfinished. */
async function idle(connection: NbdConnection): Promise<void> {
  while (connection.aioInFlight() > 0) await new Promise((resolve) => setImmediate(resolve));
}

async function complete(connection: NbdConnection, peer: RawPeer, error = 0): Promise<void> {
  const request = await peer.request();
  if (error === 0) peer.answer(request);
  else peer.write(g.simple(request.cookie, error));
  await idle(connection);
}

describe.each(EACH_CALL)('raw %s', (_name, call) => {
  it('is pending, then succeeded once, then unknown', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const cookie = call.aio(connection);
    expect(connection.aioCommandCompleted(cookie)).toBe(false);
    expect(connection.aioPeekCommandCompleted()).toBe(0n);
    await complete(connection, peer);
    expect(connection.aioPeekCommandCompleted()).toBe(cookie);
    expect(connection.aioCommandCompleted(cookie)).toBe(true);
    expect(connection.aioCommandCompleted(cookie)).toBe(false);
  });

  it('throws its error once, then is unknown', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const told: unknown[] = [];
    const cookie = call.aio(connection, {}, (error) => void told.push(error));
    await complete(connection, peer, 28);
    const error = caught(() => connection.aioCommandCompleted(cookie));
    expect(error).toBeInstanceOf(NbdCommandError);
    expect(error).toMatchObject({ code: 'ENOSPC', cookie });
    expect(told).toEqual([error]);
    expect(connection.aioCommandCompleted(cookie)).toBe(false);
  });

  it('is retired by a completion that returns true, whether it succeeded or not', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    for (const wire of [0, 5]) {
      const codes: (string | undefined)[] = [];
      const cookie = call.aio(connection, {}, (error) => codes.push(error?.code) > 0);
      await complete(connection, peer, wire);
      expect(codes).toEqual([wire === 0 ? undefined : 'EIO']);
      expect(connection.aioCommandCompleted(cookie)).toBe(false);
      expect(caught(() => connection.aioPeekCommandCompleted())).toMatchObject({ code: 'EINVAL' });
    }
  });

  it('is not retired by a completion that returns anything else', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    for (const value of [undefined, false, 1, 'true', {}]) {
      const cookie = call.aio(connection, {}, () => value as boolean);
      await complete(connection, peer);
      expect(connection.aioCommandCompleted(cookie)).toBe(true);
    }
  });

  it('goes as its completion throws', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    for (const wire of [0, 5]) {
      const mine = new Error('mine');
      const cookie = call.aio(connection, {}, () => {
        throw mine;
      });
      await complete(connection, peer, wire);
      expect(caught(() => connection.aioCommandCompleted(cookie))).toBe(mine);
    }
    expect(connection.aioIsReady()).toBe(true);
  });
});

describe('aioCommandCompleted', () => {
  it('refuses cookie 0, whatever the state', async () => {
    for (const connection of [newConnection(), (await openRaw()).connection]) {
      for (const zero of [0, 0n]) {
        const error = caught(() => connection.aioCommandCompleted(zero));
        expect(error).toBeInstanceOf(NbdStrictError);
        expect(error).toMatchObject({ code: 'EINVAL', message: expect.stringMatching(/invalid cookie 0/) });
      }
    }
  });

  it.each([1n, 7, 2n ** 53n, 2n ** 64n - 1n])('is false for a cookie that was never issued: %s', async (cookie) => {
    expect(newConnection().aioCommandCompleted(cookie)).toBe(false);
    expect((await openRaw()).connection.aioCommandCompleted(cookie)).toBe(false);
  });

  it.each([-1, -1n, 1.5, NaN, 2n ** 64n, '1', null, undefined])('refuses %p', (cookie) => {
    expect(caught(() => newConnection().aioCommandCompleted(cookie as number))).toMatchObject({
      code: 'EINVAL',
      syscall: 'aioCommandCompleted',
    });
  });

  it('does not contain commands that were called by promise', async () => {
    const { connection, peer } = await openRaw();
    const promise = connection.flush();
    await complete(connection, peer);
    await promise;
    expect(connection.aioCommandCompleted(1n)).toBe(false);
    expect(caught(() => connection.aioPeekCommandCompleted())).toBeInstanceOf(NbdStateError);
  });

  it('takes the number of a cookie as well', async () => {
    const { connection, peer } = await openRaw();
    expect(connection.aioFlush()).toBe(1n);
    await complete(connection, peer);
    expect(connection.aioCommandCompleted(1)).toBe(true);
  });
});

describe('aioPeekCommandCompleted', () => {
  it('throws EINVAL where nothing is in flight and nothing is left, in every state', async () => {
    const { connection } = await openRaw();
    const closed = (await openRaw()).connection;
    closed.close();
    for (const each of [newConnection(), connection, closed]) {
      const error = caught(() => each.aioPeekCommandCompleted());
      expect(error).toBeInstanceOf(NbdStateError);
      expect(error).toMatchObject({ code: 'EINVAL', message: expect.stringMatching(/no commands are in flight/) });
    }
  });

  it('is 0n while some are in flight, then the first that completed', async () => {
    const { connection, peer } = await openRaw();
    const cookies = [connection.aioCache(512, 0), connection.aioCache(512, 512), connection.aioCache(512, 1024)];
    const requests = await peer.requests(3);
    expect(connection.aioPeekCommandCompleted()).toBe(0n);
    peer.answer(requests[2]!, requests[0]!);
    while (connection.aioInFlight() > 1) await new Promise((resolve) => setImmediate(resolve));
    expect(connection.aioPeekCommandCompleted()).toBe(cookies[2]);
    // Looking does not retire.
    expect(connection.aioPeekCommandCompleted()).toBe(cookies[2]);
    expect(connection.aioCommandCompleted(cookies[2]!)).toBe(true);
    expect(connection.aioPeekCommandCompleted()).toBe(cookies[0]);
    expect(connection.aioCommandCompleted(cookies[0]!)).toBe(true);
    expect(connection.aioPeekCommandCompleted()).toBe(0n);
    peer.answer(requests[1]!);
    await idle(connection);
    expect(connection.aioPeekCommandCompleted()).toBe(cookies[1]);
  });
});

describe('aioInFlight', () => {
  it('throws before there is a connection', () => {
    expect(caught(() => newConnection().aioInFlight())).toMatchObject({ code: 'ENOTCONN', syscall: 'aioInFlight' });
  });

  it('counts what is on the wire and what waits, not what has completed', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 2 } });
    for (let i = 0; i < 5; i++) connection.aioCache(512, 0);
    expect(connection.aioInFlight()).toBe(5);
    peer.answer(...(await peer.requests(2)));
    peer.answer(...(await peer.requests(2)));
    const last = await peer.request();
    while (connection.aioInFlight() > 1) await new Promise((resolve) => setImmediate(resolve));
    expect(connection.aioPeekCommandCompleted()).toBe(1n);
    peer.answer(last);
    await idle(connection);
    expect(connection.aioInFlight()).toBe(0);
  });

  it('counts a pending disconnect', async () => {
    const { connection, peer } = await openRaw();
    connection.aioCache(512, 0);
    connection.aioDisconnect();
    expect(connection.aioInFlight()).toBe(2);
    const requests = await peer.requests(2);
    expect(requests.map(({ type }) => type)).toEqual([g.CMD.CACHE, g.CMD.DISC]);
  });

  it('is 0 when the connection is closed', async () => {
    const { connection } = await openRaw();
    connection.aioCache(512, 0);
    connection.close();
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('within a completion', () => {
  it('new commands can be issued, polled and retired', async () => {
    const { connection, peer } = await openRaw();
    void peer.serve();
    const order: bigint[] = [];
    await new Promise<void>((resolve) => {
      const next = (error: NbdError | null, cookie: bigint): boolean => {
        expect(error).toBeNull();
        // It is not listed yet: its completion is running.
        expect(connection.aioCommandCompleted(cookie)).toBe(false);
        order.push(cookie);
        if (order.length === 20) resolve();
        else connection.aioCache(512, 0, next);
        return true;
      };
      connection.aioCache(512, 0, next);
    });
    expect(order).toEqual(Array.from({ length: 20 }, (_, i) => BigInt(i + 1)));
  });

  it('close() can be called: the others complete with ENOTCONN, each once', async () => {
    const { connection, peer } = await openRaw();
    const calls: [bigint, string | undefined][] = [];
    const note = (error: NbdError | null, cookie: bigint): void => void calls.push([cookie, error?.code]);
    connection.aioCache(512, 0, (error, cookie) => {
      note(error, cookie);
      connection.close();
    });
    connection.aioCache(512, 512, note);
    connection.aioCache(512, 1024, note);
    const requests = await peer.requests(3);
    const closed = new Promise((resolve) => connection.once('close', resolve));
    // All replies in one segment: those behind the first find the connection closed.
    peer.answer(...requests);
    await closed;
    expect(calls).toEqual([
      [1n, undefined],
      [2n, 'ENOTCONN'],
      [3n, 'ENOTCONN'],
    ]);
    expect(connection.aioCommandCompleted(1n)).toBe(true);
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('completed commands that are never retired', () => {
  it('are warned about once, at 65,536', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const { connection, peer } = await openRaw({ over: 'memory', client: { maxInFlight: 4096 } });
    const many = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) connection.aioFlush();
      for (let rest = count; rest > 0; rest -= 4096) peer.answer(...(await peer.requests(Math.min(rest, 4096))));
      await idle(connection);
      await new Promise((resolve) => setImmediate(resolve));
    };
    await many(65_535);
    expect(warn).not.toHaveBeenCalled();
    await many(1);
    await many(10);
    expect(warn.mock.calls).toEqual([
      [expect.stringMatching(/aioCommandCompleted/), { type: 'NbdWarning', code: 'NBD_UNRETIRED_COMMANDS' }],
    ]);
    warn.mockRestore();
    expect(connection.aioPeekCommandCompleted()).toBe(1n);
  });
});
