import { getEventListeners } from 'node:events';

import { describe, expect, it, jest } from '@jest/globals';

import { type NbdConnection, NbdError } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw } from '../../support/raw-server.js';
import { EACH_CALL } from '../calls.js';

const CONTEXTS = { 1: 'base:allocation' };
const KIB = 1024;

const listeners = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

describe.each(EACH_CALL)('abort of %s', (_name, call) => {
  it('before the call: the reason, nothing queued, no cookie used', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const sent = connection.statsBytesSent();
    const reason = { why: 'just so' };
    const signal = AbortSignal.abort(reason);
    expect(await rejection(call.promise(connection, { signal }))).toBe(reason);
    expect(connection.aioInFlight()).toBe(0);
    expect(connection.statsBytesSent()).toBe(sent);
    expect(connection.aioFlush()).toBe(1n);
    expect((await peer.request()).type).toBe(g.CMD.FLUSH);
  });

  it('in the same tick as the call: nothing is sent', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const controller = new AbortController();
    const promise = rejection(call.promise(connection, { signal: controller.signal }));
    controller.abort('changed my mind');
    expect(await promise).toBe('changed my mind');
    expect(connection.aioInFlight()).toBe(0);
    void connection.flush().catch(() => undefined);
    expect((await peer.request()).type).toBe(g.CMD.FLUSH);
    expect(listeners(controller.signal)).toBe(0);
  });

  it('in the same tick as the call: its credit is free again', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS, client: { maxInFlight: 1, maxQueued: 0 } });
    const controller = new AbortController();
    const aborted = rejection(call.promise(connection, { signal: controller.signal }));
    controller.abort('changed my mind');
    const next = connection.flush();
    expect(await aborted).toBe('changed my mind');
    peer.answer(await peer.request());
    await next;
  });

  it('while it waits: nothing is sent, and the next in line takes its place', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS, client: { maxInFlight: 1 } });
    const controller = new AbortController();
    const first = connection.flush();
    const aborted = rejection(call.promise(connection, { signal: controller.signal }));
    const last = connection.cache(512, 4096);
    const request = await peer.request();
    controller.abort();
    expect(await aborted).toBe(controller.signal.reason);
    expect(connection.aioInFlight()).toBe(2);
    peer.answer(request);
    await first;
    const next = await peer.request();
    expect(next).toMatchObject({ type: g.CMD.CACHE, offset: 4096n });
    peer.answer(next);
    await last;
    expect(connection.aioInFlight()).toBe(0);
  });

  it('on the wire: rejects at once; the credit and the cookie stay until the reply, which is dropped', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS, client: { maxInFlight: 1 } });
    const controller = new AbortController();
    const aborted = rejection(call.promise(connection, { signal: controller.signal }));
    const request = await peer.request();
    controller.abort('enough');
    expect(await aborted).toBe('enough');
    expect(listeners(controller.signal)).toBe(0);
    expect(connection.aioInFlight()).toBe(1);
    const read = connection.pread(512, 8192);
    expect(await peer.quiet(5)).toBe(0);
    peer.answer(request);
    const next = await peer.request();
    expect(next.cookie).not.toBe(request.cookie);
    peer.answer(next);
    expect((await read).equals(g.content(8192, 512))).toBe(true);
    expect(connection.aioIsReady()).toBe(true);
  });

  it('on the wire: a late error is dropped as well', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const controller = new AbortController();
    const aborted = rejection(call.promise(connection, { signal: controller.signal }));
    const request = await peer.request();
    controller.abort('enough');
    await aborted;
    peer.write(g.errorChunk(request.cookie, 5, 'too late'));
    void peer.serve();
    await connection.flush();
    expect(connection.aioInFlight()).toBe(0);
  });

  it('on the wire: a late reply that breaks the protocol still ends the connection', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const controller = new AbortController();
    const aborted = rejection(call.promise(connection, { signal: controller.signal }));
    const request = await peer.request();
    controller.abort('enough');
    await aborted;
    const closed = new Promise<NbdError | undefined>((resolve) => connection.once('close', resolve));
    peer.write(g.chunk(g.DONE, g.NONE, request.cookie, 'data'));
    expect(await closed).toMatchObject({ code: 'EPROTO', cookie: request.cookie });
  });

  it('after it has settled: nothing happens', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const controller = new AbortController();
    const promise = call.promise(connection, { signal: controller.signal });
    peer.answer(await peer.request());
    await promise;
    expect(listeners(controller.signal)).toBe(0);
    controller.abort();
    void peer.serve();
    await connection.flush();
  });

  it('while the connection ends: settles once, with the one that came first', async () => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS });
    const controller = new AbortController();
    const aborted = rejection(call.promise(connection, { signal: controller.signal }));
    const ended = rejection(call.promise(connection, { signal: new AbortController().signal }));
    await peer.request();
    controller.abort('first');
    connection.close();
    expect(await aborted).toBe('first');
    expect(await ended).toMatchObject({ code: 'ENOTCONN' });
    const late = new AbortController();
    expect(await rejection(call.promise(connection, { signal: late.signal }))).toMatchObject({ code: 'EINVAL' });
    expect(listeners(late.signal)).toBe(0);
  });
});

describe('signal.reason is what the promise rejects with, untouched', () => {
  it.each([
    ['the default', undefined],
    ['an error', new TypeError('mine')],
    ['a string', 'stop'],
    ['null', null],
    ['0', 0],
    ['an object', Object.freeze({ a: 1 })],
  ])('%s', async (_title, reason) => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1 } });
    const controller = new AbortController();
    const [onWire, waiting] = [1, 2].map(() => rejection(connection.flush(0, controller.signal)));
    await peer.request();
    controller.abort(reason);
    const expected: unknown = controller.signal.reason;
    expect(await onWire).toBe(expected);
    expect(await waiting).toBe(expected);
    if (reason !== undefined) expect(expected).toBe(reason);
  });

  it('AbortSignal.timeout', async () => {
    const { connection } = await openRaw();
    const error = await rejection(connection.flush(0, AbortSignal.timeout(10)));
    expect(error).toMatchObject({ name: 'TimeoutError' });
    expect(error).not.toBeInstanceOf(NbdError);
  });

  it.each(['abort', {}, 7, null])('a value that is not a signal is refused: %p', async (signal) => {
    const { connection } = await openRaw();
    const error = await rejection(connection.flush(0, signal as never));
    expect(error).toMatchObject({ code: 'EINVAL', syscall: 'flush' });
    expect((error as Error).message).toMatch(/signal/);
  });
});

describe('one signal for many commands', () => {
  it('has one listener for 10,000 commands at once, no listener afterwards, and no warning', async () => {
    const warn = jest.spyOn(process, 'emitWarning');
    const { connection, peer } = await openRaw();
    void peer.serve();
    const { signal } = new AbortController();
    const all = Promise.all(Array.from({ length: 10_000 }, () => connection.cache(512, 0, 0, signal)));
    expect(listeners(signal)).toBe(1);
    await all;
    expect(listeners(signal)).toBe(0);
    expect(warn).not.toHaveBeenCalled();
    warn.mockRestore();
  });

  it('has no listener left after each of 1,000 commands in a row', async () => {
    const { connection, peer } = await openRaw();
    void peer.serve();
    const { signal } = new AbortController();
    for (let i = 0; i < 1000; i++) {
      await connection.flush(0, signal);
      if (listeners(signal) !== 0) throw new Error(`a listener is left after ${i}`);
    }
  });

  it('aborts them all, wherever they are', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 8 } });
    const controller = new AbortController();
    const all = Array.from({ length: 1000 }, () => rejection(connection.flush(0, controller.signal)));
    const requests = await peer.requests(8);
    controller.abort('all');
    expect(new Set(await Promise.all(all))).toEqual(new Set(['all']));
    expect(connection.aioInFlight()).toBe(8);
    expect(await peer.quiet(10)).toBe(0);
    peer.answer(...requests);
    void peer.serve();
    await connection.flush();
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('aborted reads that the server never answers', () => {
  it('keep their credits: no more than maxInFlight are ever on the wire', async () => {
    const { connection, peer } = await openRaw({
      size: 2 ** 30,
      client: { maxInFlight: 4, maxInFlightBytes: Infinity },
    });
    const controller = new AbortController();
    const read = (signal: AbortSignal): Promise<unknown> => rejection(connection.pread(1024 * KIB, 0, 0, signal));
    const aborted = Array.from({ length: 1000 }, () => read(controller.signal));
    await peer.requests(4);
    controller.abort();
    await Promise.all(aborted);
    const later = new AbortController();
    const waiting = Array.from({ length: 10 }, () => read(later.signal));
    expect(await peer.quiet(20)).toBe(0);
    expect(connection.aioInFlight()).toBe(14);
    later.abort();
    await Promise.all(waiting);
    expect(connection.aioInFlight()).toBe(4);
  });
});

describe('an abort by the completion of another command, while the connection ends', () => {
  it('rejects with the reason, once', async () => {
    const { connection, peer } = await openRaw();
    const controller = new AbortController();
    connection.aioFlush(() => {
      controller.abort('last words');
    });
    const aborted = rejection(connection.cache(512, 0, 0, controller.signal));
    await peer.requests(2);
    connection.close();
    expect(await aborted).toBe('last words');
    expect(listeners(controller.signal)).toBe(0);
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('what happens in a handler of the signal', () => {
  const open = async (): Promise<{ connection: NbdConnection; controller: AbortController }> => {
    const { connection, peer } = await openRaw();
    void peer.serve();
    return { connection, controller: new AbortController() };
  };

  it('a new command with the same signal rejects with its reason', async () => {
    const { connection, controller } = await open();
    const seen: unknown[] = [];
    const first = rejection(connection.flush(0, controller.signal));
    controller.signal.addEventListener('abort', () => {
      void rejection(connection.flush(0, controller.signal)).then((error) => seen.push(error));
    });
    controller.abort('stop');
    expect(await first).toBe('stop');
    await connection.flush();
    expect(seen).toEqual(['stop']);
  });

  it('close() ends the others once', async () => {
    const { connection, controller } = await open();
    controller.signal.addEventListener('abort', () => connection.close());
    const first = rejection(connection.flush(0, controller.signal));
    const second = rejection(connection.flush());
    controller.abort('stop');
    // Its own handler came first and closed the connection.
    expect([await first, await second]).toEqual([expect.objectContaining({ code: 'ENOTCONN' }), expect.anything()]);
  });
});
