import { setImmediate } from 'node:timers/promises';

import { describe, expect, it } from '@jest/globals';

import { type NbdConnection, SHUTDOWN_ABANDON_PENDING } from '../../lib/index.js';
import { caught, rejection } from '../support/caught.js';
import * as g from '../support/golden.js';
import { listenRaw, memoryPeer, newConnection, openRaw } from '../support/raw-server.js';

const closedOf = (connection: NbdConnection): Promise<unknown> =>
  new Promise((resolve) => connection.once('close', resolve));

describe('close()', () => {
  it('rejects pending commands with ENOTCONN, at once, and sends nothing to the server', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1 } });
    const pending = [rejection(connection.pread(512, 0)), rejection(connection.flush())];
    await peer.request();
    connection.close();
    expect(connection.aioIsClosed()).toBe(true);
    expect(connection.aioInFlight()).toBe(0);
    for (const error of await Promise.all(pending)) {
      expect(error).toMatchObject({ code: 'ENOTCONN', name: 'NbdConnectionError' });
      expect((error as Error).message).toMatch(/the connection was closed/);
    }
    await peer.ended;
    expect(peer.buffered).toBe(0);
  });

  it('emits stateChange and close once, without an error, however often it is called', async () => {
    const { connection } = await openRaw();
    const seen: unknown[] = [];
    connection.on('stateChange', (state, previous) => seen.push([previous, state]));
    connection.on('close', (error) => seen.push(error));
    connection.close();
    connection.close();
    await connection.shutdown();
    connection.close();
    expect(seen).toEqual([['ready', 'closed'], undefined]);
  });

  it('before connecting ends the connection for good', async () => {
    const connection = newConnection();
    connection.close();
    expect(connection.aioIsClosed()).toBe(true);
    expect(await rejection(connection.connectTcp('localhost', 1))).toMatchObject({ code: 'EINVAL' });
    expect(caught(() => connection.aioCache(512, 0))).toMatchObject({ code: 'EINVAL' });
  });

  it('facts stay readable', async () => {
    const { connection } = await openRaw();
    connection.close();
    expect(connection.getSize()).toBe(1048576n);
    expect(connection.canCache()).toBe(true);
  });
});

describe('shutdown()', () => {
  it('lets what was accepted settle, sends NBD_CMD_DISC last, and resolves when the server has closed', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1 } });
    const order: string[] = [];
    const note = (name: string) => (): void => void order.push(name);
    const reads = [connection.pread(512, 0).then(note('first')), connection.pread(512, 512).then(note('second'))];
    const first = await peer.request();
    const ended = connection.shutdown().then(note('shutdown'));
    connection.on('close', note('close'));

    // New commands are refused from now on.
    const late = await rejection(connection.flush());
    expect(late).toMatchObject({
      code: 'EINVAL',
      name: 'NbdStateError',
      message: expect.stringMatching(/disconnect was requested/),
    });
    expect(caught(() => connection.aioCache(512, 0))).toMatchObject({ code: 'EINVAL' });

    peer.answer(first);
    peer.answer(await peer.request());
    await Promise.all(reads);
    const disc = await peer.request();
    expect(disc).toMatchObject({ type: g.CMD.DISC, offset: 0n, length: 0, flags: 0, cookie: 3n });
    await peer.ended;
    expect(peer.buffered).toBe(0);
    expect(order).toEqual(['first', 'second']);
    peer.stream.end();
    await ended;
    expect(order).toEqual(['first', 'second', 'close', 'shutdown']);
    expect(connection.aioIsClosed()).toBe(true);
  });

  it('waits for commands that were aborted on the wire', async () => {
    const { connection, peer } = await openRaw();
    const controller = new AbortController();
    const aborted = rejection(connection.cache(512, 0, 0, controller.signal));
    const request = await peer.request();
    controller.abort('x');
    await aborted;
    const ended = connection.shutdown();
    expect(await peer.quiet(10)).toBe(0);
    peer.answer(request);
    expect((await peer.request()).type).toBe(g.CMD.DISC);
    peer.stream.end();
    await ended;
  });

  it('is what asyncDispose does', async () => {
    const { connection, peer } = await openRaw();
    const served = peer.serve();
    {
      await using disposed = connection;
      await disposed.cache(512, 0);
    }
    await served;
    expect(connection.aioIsClosed()).toBe(true);
  });

  it('ends by itself within closeTimeout when the server does not answer', async () => {
    for (const stall of ['a command', 'the disconnect'] as const) {
      const { connection, peer } = await openRaw({ client: { closeTimeout: 60 } });
      const pending = stall === 'a command' ? rejection(connection.pread(512, 0)) : null;
      const begun = performance.now();
      await connection.shutdown();
      const took = performance.now() - begun;
      expect(took).toBeGreaterThan(50);
      expect(took).toBeLessThan(200_000);
      if (pending !== null) expect(await pending).toMatchObject({ code: 'ENOTCONN' });
      expect(connection.aioIsClosed()).toBe(true);
      await peer.ended;
    }
  });

  it('treats unexpected bytes or an error after the disconnect as the end of the server', async () => {
    for (const farewell of [g.simple(99), Buffer.from('x'), null]) {
      const { connection, peer } = await openRaw({ over: 'memory' });
      const ended = connection.shutdown();
      expect((await peer.request()).type).toBe(g.CMD.DISC);
      if (farewell === null) peer.stream.destroy(new Error('broken'));
      else peer.stream.end(farewell);
      await ended;
      expect(connection.aioIsClosed()).toBe(true);
    }
  });

  it('resolves in every state, also when it is called many times', async () => {
    const created = newConnection();
    await created.shutdown();
    expect(created.aioIsClosed()).toBe(true);
    await created.shutdown();

    const server = await listenRaw();
    const connecting = newConnection();
    const connected = rejection(connecting.connectUnix((server.target as { path: string }).path));
    await connecting.shutdown();
    expect(await connected).toMatchObject({ code: 'ENOTCONN' });

    const { connection, peer } = await openRaw();
    const all = Promise.all([connection.shutdown(), connection.shutdown(), connection[Symbol.asyncDispose]()]);
    await peer.serve();
    await all;

    const { connection: dead, peer: bad } = await openRaw();
    const closed = closedOf(dead);
    bad.write('what is this?');
    await closed;
    await dead.shutdown();
    expect(dead.aioIsDead()).toBe(true);
  });

  it('may be cut short by close()', async () => {
    const { connection, peer } = await openRaw();
    const pending = rejection(connection.flush());
    await peer.request();
    const ended = connection.shutdown();
    connection.close();
    await ended;
    expect(await pending).toMatchObject({ code: 'ENOTCONN' });
  });

  it('rejects unknown flags and does nothing then', async () => {
    const { connection, peer } = await openRaw();
    for (const flags of [1, -1, 0x20000, NaN, 'x']) {
      expect(await rejection(connection.shutdown(flags as number))).toMatchObject({ code: 'EINVAL' });
    }
    void peer.serve();
    await connection.flush();
  });

  it('with SHUTDOWN_ABANDON_PENDING leaves what was not sent', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1 } });
    const sent = connection.pread(512, 0);
    const waiting = rejection(connection.pread(512, 512));
    const request = await peer.request();
    const ended = connection.shutdown(SHUTDOWN_ABANDON_PENDING);
    expect(await waiting).toMatchObject({ code: 'ENOTCONN', offset: 512n });
    peer.answer(request);
    expect((await sent).length).toBe(512);
    expect((await peer.request()).type).toBe(g.CMD.DISC);
    peer.stream.end();
    await ended;
  });
});

describe('shutdown(SHUTDOWN_ABANDON_PENDING)', () => {
  it('also leaves what has its credit and has not been sent', async () => {
    const { connection, peer } = await openRaw();
    const codes: (string | undefined)[] = [];
    const read = rejection(connection.pread(512, 0));
    connection.aioCache(512, 0, (error) => void codes.push(error?.code));
    const ended = connection.shutdown(SHUTDOWN_ABANDON_PENDING);
    expect(await read).toMatchObject({ code: 'ENOTCONN' });
    expect(codes).toEqual(['ENOTCONN']);
    expect((await peer.request()).type).toBe(g.CMD.DISC);
    peer.stream.end();
    await ended;
  });
});

describe('ref() and unref()', () => {
  it('an unreferenced connection keeps the process alive while commands are in flight', async () => {
    const calls: string[] = [];
    const { stream, peer } = memoryPeer();
    Object.assign(stream, { ref: () => calls.push('ref'), unref: () => calls.push('unref') });
    const connection = newConnection();
    connection.unref();
    await Promise.all([connection.connectSocket(stream), peer.handshake()]);
    expect(calls.at(-1)).toBe('unref');
    const flushed = [connection.flush(), connection.flush()];
    expect(calls.at(-1)).toBe('ref');
    peer.answer(await peer.request());
    await flushed[0];
    expect(calls.at(-1)).toBe('ref');
    peer.answer(await peer.request());
    await flushed[1];
    expect(calls.at(-1)).toBe('unref');
    expect(connection.ref()).toBe(connection);
    expect(calls.at(-1)).toBe('ref');
    const before = calls.length;
    void peer.serve();
    await connection.flush();
    expect(calls).toHaveLength(before);
    const pending = rejection(connection.flush());
    connection.unref();
    expect(calls).toHaveLength(before);
    connection.close();
    await pending;
  });
});

describe('aioDisconnect()', () => {
  it('sends NBD_CMD_DISC behind what is in flight; replies that come before the end still count', async () => {
    const { connection, peer } = await openRaw();
    const read = connection.pread(512, 0);
    const told: unknown[] = [];
    const cookie = connection.aioCache(512, 0, (error) => void told.push(error));
    connection.aioDisconnect();
    const [first, second, third] = await peer.requests(3);
    expect([first!.type, second!.type, third!.type]).toEqual([g.CMD.READ, g.CMD.CACHE, g.CMD.DISC]);
    await peer.ended;
    expect(peer.buffered).toBe(0);
    const closed = closedOf(connection);
    peer.answer(first!, second!);
    expect((await read).equals(g.content(0, 512))).toBe(true);
    peer.stream.end();
    expect(await closed).toBeUndefined();
    expect(told).toEqual([null]);
    expect(connection.aioCommandCompleted(cookie)).toBe(true);
    expect(connection.aioIsClosed()).toBe(true);
  });

  it('what is unanswered when the server closes ends with ENOTCONN', async () => {
    const { connection, peer } = await openRaw();
    const lost = rejection(connection.pread(512, 0));
    connection.aioDisconnect();
    await peer.requests(2);
    peer.stream.end();
    expect(await lost).toMatchObject({ code: 'ENOTCONN' });
  });

  it('uses a cookie up, of which nothing can be asked', async () => {
    const { connection, peer } = await openRaw();
    connection.aioFlush();
    connection.aioDisconnect();
    const [flush, disc] = await peer.requests(2);
    expect([flush!.cookie, disc!.cookie]).toEqual([1n, 2n]);
    const closed = closedOf(connection);
    peer.answer(flush!);
    peer.stream.end();
    await closed;
    expect(connection.aioCommandCompleted(2n)).toBe(false);
    expect(connection.aioPeekCommandCompleted()).toBe(1n);
  });

  it('can be called once; every later command is EINVAL', async () => {
    const { connection } = await openRaw();
    connection.aioDisconnect();
    expect(caught(() => connection.aioDisconnect())).toMatchObject({ code: 'EINVAL', syscall: 'aioDisconnect' });
    expect(caught(() => connection.aioFlush())).toMatchObject({ code: 'EINVAL' });
    expect(await rejection(connection.cache(512, 0))).toMatchObject({
      ...{
        code: 'EINVAL',
        message: expect.stringMatching(/^cache of 512 bytes at offset 0: no command can be issued after/),
      },
    });
  });

  it('refuses flags, and a wrong state', async () => {
    const { connection, peer } = await openRaw();
    expect(caught(() => connection.aioDisconnect(1))).toMatchObject({ code: 'EINVAL' });
    expect(connection.aioFlush()).toBe(1n);
    expect((await peer.request()).type).toBe(g.CMD.FLUSH);
    expect(caught(() => newConnection().aioDisconnect())).toMatchObject({ code: 'ENOTCONN' });
    connection.close();
    expect(caught(() => connection.aioDisconnect())).toMatchObject({ code: 'EINVAL' });
  });

  it('followed by shutdown() ends once', async () => {
    const { connection, peer } = await openRaw();
    connection.aioDisconnect();
    const ended = connection.shutdown();
    expect((await peer.request()).type).toBe(g.CMD.DISC);
    await peer.ended;
    expect(peer.buffered).toBe(0);
    peer.stream.end();
    await ended;
  });
});

describe('states and events', () => {
  it('are reported in order, each once', async () => {
    const server = await listenRaw();
    const connection = newConnection();
    const seen: string[] = [];
    const is = (): string =>
      [
        ['created', connection.aioIsCreated()],
        ['connecting', connection.aioIsConnecting()],
        ['negotiating', connection.aioIsNegotiating()],
        ['ready', connection.aioIsReady()],
        ['processing', connection.aioIsProcessing()],
        ['closed', connection.aioIsClosed()],
        ['dead', connection.aioIsDead()],
      ]
        .filter(([, yes]) => yes)
        .map(([name]) => name)
        .join();
    const check = (state: string): void => {
      expect(is()).toBe(state);
      expect(connection.connectionState()).toBe(state);
    };
    connection.on('stateChange', (state, previous) => {
      seen.push(`${previous} ${state}`);
      check(state);
    });
    connection.on('close', () => seen.push('close'));
    check('created');
    const connecting = connection.connectUnix((server.target as { path: string }).path);
    check('connecting');
    const peer = await server.accept();
    await Promise.all([connecting, peer.handshake()]);
    check('ready');
    const flushed = connection.flush();
    check('ready');
    const { cookie } = await peer.request();
    check('ready');
    const [head, tail] = [g.simple(cookie).subarray(0, 6), g.simple(cookie).subarray(6)];
    peer.write(head);
    while (connection.aioIsReady()) await setImmediate();
    check('processing');
    peer.write(tail);
    await flushed;
    check('ready');
    const ended = connection.shutdown();
    await peer.serve();
    await ended;
    check('closed');
    expect(seen).toEqual(['created connecting', 'connecting ready', 'ready closed', 'close']);
  });
});
