// Coming back: to the same export only, in time, and with what is reported about it.

import { channel } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';

import { describe, expect, it } from '@jest/globals';

import { NbdConnection, NbdPool, type NbdPoolOptions } from '../../lib/index.js';
import { MemoryBackend, NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import { rejection } from '../support/caught.js';
import { Place, SIZE } from './place.js';

const RECONNECT = { minDelay: 1, maxDelay: 20 };

const once = (pool: NbdPool, name: 'away' | 'back' | 'close' | 'lost' | 'reconnected'): Promise<unknown> =>
  new Promise((resolve) => pool.once(name, (detail?: unknown) => resolve(detail)));

describe('what comes back', () => {
  const block = { minimum: 512, preferred: 4096, maximum: 65536 };
  const fixed = (over: object = {}): MemoryBackend => new MemoryBackend(SIZE, { blockSize: { ...block, ...over } });
  it.each<[string, () => NbdServerOptions, RegExp]>([
    [
      'size',
      () => ({ exports: { '': new MemoryBackend(SIZE / 2, { blockSize: block }) } }),
      /size is 524288n and was 1048576n/,
    ],
    [
      'read-only flag',
      () => ({ exports: { '': new MemoryBackend(SIZE, { blockSize: block, readOnly: true }) } }),
      /read-only flag is true and was false/,
    ],
    ['minimum', () => ({ exports: { '': fixed({ minimum: 1024 }) } }), /minimum block size is 1024 and was 512/],
    ['preferred', () => ({ exports: { '': fixed({ preferred: 8192 }) } }), /preferred block size is 8192 and was 4096/],
    ['maximum', () => ({ exports: { '': fixed({ maximum: 131072 }) } }), /maximum block size is 131072 and was 65536/],
    ['no limits', () => ({ exports: { '': new MemoryBackend(SIZE) } }), /block size is \d+ and was \d+/],
    [
      'contexts',
      () => ({ exports: { '': fixed() }, features: { setMetaContext: false } }),
      /metadata context "base:allocation" is false and was true/,
    ],
  ])('another %s ends the pool with ESTALE', async (_title, options, message) => {
    await using place = await Place.open({ exports: { '': fixed() } });
    const pool = await NbdPool.connect(place.target, { reconnect: RECONNECT, metaContexts: ['base:allocation'] });
    const closed = once(pool, 'close');
    await pool.pwrite(Buffer.alloc(512), 0);
    await place.stop();
    const reading = pool.pread(512, 0);
    await place.start(options());
    const error = await rejection(reading);
    expect(error).toMatchObject({ code: 'ESTALE', name: 'NbdConnectionError', syscall: 'pread', offset: 0n });
    expect((error as Error).message).toMatch(message);
    expect(await closed).toMatchObject({ code: 'ESTALE' });
    expect(await rejection(pool.pread(512, 0))).toMatchObject({ code: 'EINVAL', name: 'NbdStateError' });
    expect(await rejection(pool.shutdown())).toMatchObject({ ranges: [{ offset: 0n, length: 512n }] });
    await pool.shutdown();
    expect(pool.getSize()).toBe(BigInt(SIZE));
  });

  // A connection settles its commands in parts, and reports its end when all have been: meanwhile it is dead, and still
  // one of the pool's. Commands that were put on it again and again held the event loop for the whole of `within`.
  it('finds many commands waiting, none of which was put on the dead connection again', async () => {
    await using place = await Place.open();
    await using pool = await NbdPool.connect(place.target, {
      ...{ reconnect: RECONNECT, connections: 1, maxInFlight: 10_000, requestTimeout: 0 },
    });
    place.server.faults.push({ command: 'read', times: 6000, stall: true });
    const reading = Array.from({ length: 5000 }, () => pool.pread(512, 0));
    while (place.server.statistics.requests.pread === 0) await sleep(1);
    await place.stop();
    await place.start();
    await Promise.all(reading);
    expect(pool.statistics.replayed).toBe(5000);
  });

  it('the same export with more abilities is the same', async () => {
    await using place = await Place.open({ exports: { '': Object.assign(fixed(), { multiConn: false }) } });
    await using pool = await NbdPool.connect(place.target, { reconnect: RECONNECT });
    expect(pool.canMultiConn()).toBe(false);
    await place.stop();
    await place.start({ exports: { '': fixed() } });
    await pool.pread(512, 0);
    expect(pool.canMultiConn()).toBe(true);
  });
});

describe('an outage', () => {
  it('holds commands back, in order, and is reported', async () => {
    await using place = await Place.open();
    await using pool = await NbdPool.connect(place.target, { reconnect: RECONNECT, connections: 1 });
    const seen: unknown[] = [];
    const traced: object[] = [];
    const listener = (message: unknown): void => void traced.push(message as object);
    const channels = ['lost', 'reconnected'].map((name) => channel(`nbd:pool:${name}`));
    for (const each of channels) each.subscribe(listener);
    for (const name of ['lost', 'away', 'reconnected', 'back'] as const) pool.on(name, () => void seen.push(name));
    const away = once(pool, 'away');
    await place.stop();
    await away;
    expect(inspect(pool)).toMatch(/^NbdPool \{\s+state: 'away'/);
    const order: number[] = [];
    const waiting = Array.from({ length: 10 }, async (_, i) => {
      await pool.pwrite(Buffer.alloc(512, i), 512 * i);
      order.push(i);
    });
    expect(await rejection(pool.pread(512, SIZE))).toMatchObject({ code: 'EINVAL', name: 'NbdStrictError' });
    expect(await rejection(pool.pread(-1, 0))).toMatchObject({ name: 'NbdStrictError' });
    expect(await rejection(pool.trim(512, 0, 0, AbortSignal.abort('no')))).toBe('no');
    await sleep(20);
    await place.start();
    await Promise.all(waiting);
    for (const each of channels) each.unsubscribe(listener);
    expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(seen).toEqual(['lost', 'away', 'reconnected', 'back']);
    expect(traced).toEqual([
      expect.objectContaining({ pool, connections: 0, inFlight: 0 }),
      expect.objectContaining({ pool, connections: 1 }),
    ]);
  });

  it('that lasts too long rejects what waits; the next command looks once more', async () => {
    await using place = await Place.open();
    await using pool = await NbdPool.connect(place.target, { reconnect: { ...RECONNECT, within: 80 } });
    await place.stop();
    const error = await rejection(pool.pread(512, 0));
    expect(error).toMatchObject({ code: 'ENOTCONN', syscall: 'pread', cause: expect.anything() });
    expect((error as Error).message).toMatch(/\d+ attempts.*after \d+ tr(y|ies): (connect to|the server closed)/);
    expect(await rejection(pool.pread(512, 0))).toMatchObject({
      ...{ code: 'ENOTCONN', message: expect.stringContaining('no connection came back (1 attempts') as unknown },
    });
    await place.start();
    expect((await pool.pread(512, 0)).length).toBe(512);
    expect(pool.statistics.reconnects).toBe(1);
  });

  it('cannot be prolonged by a command that ends every connection', async () => {
    await using place = await Place.open();
    place.server.faults.push({ command: 'cache', cut: 'close' });
    await using pool = await NbdPool.connect(place.target, { reconnect: { ...RECONNECT, within: 150 } });
    const error = await rejection(pool.cache(512, 0));
    expect(error).toMatchObject({ code: 'ENOTCONN', syscall: 'cache' });
    expect((error as Error).message).toMatch(/more than 150 ms .*after \d+ tries/);
    expect(pool.statistics.replayed).toBeLessThan(40);
    await pool.pread(512, 0);
  });

  it('ends the pool with reconnect: false, once no connection is left', async () => {
    await using place = await Place.open();
    const pool = await NbdPool.connect(place.target, { reconnect: false });
    const closed = once(pool, 'close');
    await pool.pwrite(Buffer.alloc(512), 0);
    place.cut();
    expect(await closed).toMatchObject({ code: 'ENOTCONN' });
    expect(await rejection(pool.flush())).toMatchObject({ name: 'NbdStateError' });
    expect(await rejection(pool.shutdown())).toMatchObject({ name: 'NbdUnflushedError' });
  });

  it('a listener that ends the pool finds everything settled', async () => {
    await using place = await Place.open();
    const pool = await NbdPool.connect(place.target, { reconnect: RECONNECT });
    const events: string[] = [];
    pool.on('lost', () => pool.close());
    for (const name of ['away', 'back', 'close'] as const) pool.on(name, () => void events.push(name));
    place.server.faults.push({ command: 'read', stall: true });
    const reading = pool.pread(512, 0);
    reading.catch(() => undefined);
    await sleep(20);
    place.cut();
    await expect(reading).rejects.toMatchObject({ code: 'ENOTCONN' });
    expect(events).toEqual(['close']);
  });
});

describe('retries', () => {
  it('are reported, and end', async () => {
    await using place = await Place.open();
    await using pool = await NbdPool.connect(place.target, { retry: { attempts: 2, delay: 1 } });
    const seen: object[] = [];
    pool.on('retry', (detail) => void seen.push(detail));
    place.server.faults.push({ command: 'read', times: 5, error: 'EIO' });
    expect(await rejection(pool.pread(512, 1024))).toMatchObject({ code: 'EIO', name: 'NbdCommandError' });
    expect(seen).toEqual([
      expect.objectContaining({ method: 'pread', offset: 1024n, count: 512n, attempt: 1 }),
      expect.objectContaining({ method: 'pread', attempt: 2 }),
    ]);
    const controller = new AbortController();
    pool.once('retry', () => controller.abort('enough'));
    expect(await rejection(pool.pread(512, 0, 0, controller.signal))).toBe('enough');
  });
});

describe('waitFor', () => {
  const connects: readonly [string, (place: Place, options: NbdPoolOptions) => Promise<{ close(): void }>][] = [
    ['NbdConnection.connect', (place, options) => NbdConnection.connect(place.target, options)],
    ['NbdPool.connect', (place, options) => NbdPool.connect(place.target, options)],
  ];

  it.each(connects)('%s waits until the server is there', async (_title, connect) => {
    await using place = await Place.open(null);
    const connecting = connect(place, { waitFor: 20_000 });
    await sleep(100);
    await place.start();
    (await connecting).close();
    expect(place.connections).toBeGreaterThan(1);
  });

  it.each(connects)('%s gives up in time, at an abort, and where a server refuses', async (_title, connect) => {
    await using place = await Place.open(null);
    expect(await rejection(connect(place, { waitFor: 50 }))).toMatchObject({ code: 'ENOTCONN' });
    expect(place.connections).toBeGreaterThan(1);
    const signal = AbortSignal.timeout(50);
    expect(await rejection(connect(place, { waitFor: Infinity, signal }))).toBe(signal.reason);
    await place.start();
    const refusal = connect(place, { waitFor: Infinity, exportName: 'unknown' });
    expect(await rejection(refusal)).toMatchObject({ code: 'ENOENT', name: 'NbdOptionError' });
    expect(await rejection(connect(place, { waitFor: NaN }))).toMatchObject({ name: 'NbdStrictError' });
  });

  it('tries a stream and a program once', async () => {
    await using server = new NbdServer({ exports: {} });
    const stream = server.connectMemory();
    stream.destroy();
    expect(await rejection(NbdConnection.connect(stream, { waitFor: Infinity }))).toBeInstanceOf(Error);
    const program = { command: ['/nowhere/at/all'] };
    expect(await rejection(NbdConnection.connect(program, { waitFor: Infinity }))).toMatchObject({ code: 'ENOENT' });
    expect(await rejection(NbdPool.connect(program, { waitFor: Infinity }))).toMatchObject({ code: 'ENOENT' });
  });
});
