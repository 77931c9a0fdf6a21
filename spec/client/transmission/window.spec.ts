import { describe, expect, it } from '@jest/globals';

import { type NbdConnection, NbdQueueFullError } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw, type RawPeer } from '../../support/raw-server.js';
import { EACH_CALL } from '../calls.js';

const KIB = 1024;
const CONTEXTS = { 1: 'base:allocation' };

/** Takes `count` requests and makes sure that no more come for now. */
async function exactly(peer: RawPeer, count: number): Promise<bigint[]> {
  const requests = await peer.requests(count);
  expect(await peer.quiet(10)).toBe(0);
  expect(peer.buffered).toBe(0);
  return requests.map(({ offset }) => offset);
}

describe('the number of commands on the wire', () => {
  it('is limited; the rest wait, first come first served', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 2 } });
    const settled: number[] = [];
    const promises = Array.from({ length: 6 }, (_, i) => connection.cache(512, i * 512).then(() => settled.push(i)));
    expect(await exactly(peer, 2)).toEqual([0n, 512n]);
    expect(connection.aioInFlight()).toBe(6);
    // The second is answered first: one credit, one more command.
    peer.write(g.simple(2));
    expect(await exactly(peer, 1)).toEqual([1024n]);
    peer.write(g.simple(1), g.simple(3));
    expect(await exactly(peer, 2)).toEqual([1536n, 2048n]);
    peer.write(g.simple(4), g.simple(5));
    expect(await exactly(peer, 1)).toEqual([2560n]);
    peer.write(g.simple(6));
    await Promise.all(promises);
    expect(settled).toEqual([1, 0, 2, 3, 4, 5]);
  });

  it('is 64 by default', async () => {
    const { connection, peer } = await openRaw();
    for (let i = 0; i < 100; i++) void connection.cache(512, 0).catch(() => undefined);
    await exactly(peer, 64);
  });

  it('stays within the limit for 10,000 reads at once, in order, each cookie once', async () => {
    const LIMIT = 16;
    const { connection, peer } = await openRaw({ size: 512 * 10_000, client: { maxInFlight: LIMIT } });
    let unanswered = 0;
    let most = 0;
    const offsets: number[] = [];
    const cookies = new Set<bigint>();
    const server = (async () => {
      const held = [];
      for (let taken = 0; taken < 10_000; taken++) {
        const request = await peer.request();
        most = Math.max(most, ++unanswered);
        offsets.push(Number(request.offset));
        cookies.add(request.cookie);
        held.push(request);
        // Answers come in bunches and in reverse, once nothing more is to be expected.
        if (held.length === LIMIT || taken === 9_999) {
          expect(peer.buffered).toBe(0);
          unanswered -= held.length;
          peer.answer(...held.splice(0).reverse());
        }
      }
    })();
    const reads = Array.from({ length: 10_000 }, (_, i) => connection.pread(512, i * 512));
    expect(connection.aioInFlight()).toBe(10_000);
    const wrong = (await Promise.all(reads)).filter((data, i) => !data.equals(g.content(i * 512, 512)));
    await server;
    expect(wrong).toHaveLength(0);
    expect(most).toBe(LIMIT);
    expect(offsets).toEqual(Array.from({ length: 10_000 }, (_, i) => i * 512));
    expect(cookies.size).toBe(10_000);
    expect(connection.aioInFlight()).toBe(0);
  });

  it.each(EACH_CALL)('counts every command: %s', async (_name, call) => {
    const { connection, peer } = await openRaw({ contexts: CONTEXTS, client: { maxInFlight: 1 } });
    const [first, second] = [call.promise(connection), call.promise(connection)];
    const request = await peer.request();
    expect(await peer.quiet(5)).toBe(0);
    peer.answer(request);
    await first;
    peer.answer(await peer.request());
    await second;
  });

  it('gives the credit back for an error as for a success', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1 } });
    const [first, second] = [rejection(connection.cache(512, 0)), connection.cache(512, 512)];
    peer.write(g.simple((await peer.request()).cookie, 28));
    expect(await first).toMatchObject({ code: 'ENOSPC' });
    peer.answer(await peer.request());
    await second;
  });

  it('lets the answers of one batch bring as many commands in one write', async () => {
    const { connection, peer } = await openRaw({ over: 'memory', client: { maxInFlight: 8 } });
    const loop = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) await connection.pread(512, 0);
    };
    const loops = Promise.all(Array.from({ length: 8 }, loop));
    let writes = 0;
    peer.stream.on('data', () => writes++);
    for (let round = 0; round < 5; round++) peer.answer(...(await peer.requests(8)));
    await loops;
    expect(writes).toBe(5);
  });
});

describe('the bytes on the wire', () => {
  const open = (maxInFlightBytes: number): Promise<{ connection: NbdConnection; peer: RawPeer }> =>
    openRaw({ client: { maxInFlightBytes } });

  it('are limited: what would exceed them waits', async () => {
    const { connection, peer } = await open(64 * KIB);
    const reads = [32, 32, 1].map((kib, i) => connection.pread(kib * KIB, i * 64 * KIB));
    const requests = await peer.requests(2);
    expect(await peer.quiet(10)).toBe(0);
    peer.answer(requests[0]!);
    await reads[0];
    peer.answer(requests[1]!, await peer.request());
    await Promise.all(reads);
  });

  it('count for reads into the buffer of the caller as well', async () => {
    const { connection, peer } = await open(8 * KIB);
    const reads = [
      connection.preadInto(Buffer.alloc(8 * KIB), 0),
      connection.preadInto(Buffer.alloc(8 * KIB), 0),
      new Promise((resolve) => connection.aioPread(Buffer.alloc(8 * KIB), 0, resolve)),
      new Promise((resolve) => connection.aioPreadStructured(Buffer.alloc(8 * KIB), 0, () => undefined, resolve)),
      connection.preadStructured(8 * KIB, 0, () => undefined),
    ];
    let answered = 0;
    while (answered < reads.length) {
      answered++;
      const request = await peer.request();
      expect(await peer.quiet(5)).toBe(0);
      peer.answer(request);
    }
    await Promise.all(reads);
  });

  it('count for writes as well', async () => {
    const { connection, peer } = await open(8 * KIB);
    const writes = [0, 1].map((i) => connection.pwrite(Buffer.alloc(8 * KIB, i), 0));
    const first = await peer.request();
    expect(await peer.quiet(10)).toBe(0);
    peer.answer(first);
    peer.answer(await peer.request());
    await Promise.all(writes);
  });

  it('let one larger command go alone', async () => {
    const { connection, peer } = await open(4 * KIB);
    const small = connection.pread(512, 0);
    const large = connection.pread(64 * KIB, 0);
    const after = connection.pread(512, 512);
    peer.answer((await peer.requests(1))[0]!);
    const second = await peer.request();
    expect(second.length).toBe(64 * KIB);
    expect(await peer.quiet(10)).toBe(0);
    peer.answer(second);
    peer.answer(await peer.request());
    await Promise.all([small, large, after]);
  });

  it('no command overtakes one that waits for bytes, however small it is', async () => {
    const { connection, peer } = await open(8 * KIB);
    const pending = [
      connection.pread(8 * KIB, 0),
      connection.pread(8 * KIB, 8 * KIB),
      connection.cache(512, 0),
      connection.pread(1, 0),
    ];
    const first = await peer.request();
    expect(await peer.quiet(10)).toBe(0);
    peer.answer(first);
    // Without payload it weighs nothing: it follows at once, and the byte waits.
    const next = await peer.requests(2);
    expect(next.map(({ type }) => type)).toEqual([g.CMD.READ, g.CMD.CACHE]);
    expect(await peer.quiet(10)).toBe(0);
    peer.answer(...next);
    peer.answer(await peer.request());
    await Promise.all(pending);
  });

  it('do not count for commands without payload', async () => {
    const { connection, peer } = await openRaw({ size: 2 ** 40, client: { maxInFlightBytes: 1 } });
    for (let i = 0; i < 10; i++) void connection.cache(2 ** 30, 0).catch(() => undefined);
    await exactly(peer, 10);
  });
});

describe('maxQueued', () => {
  it('limits what waits: EAGAIN, with nothing queued and no cookie used', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1, maxQueued: 1 } });
    const accepted = [connection.cache(512, 0), connection.cache(512, 512)];
    const sent = connection.statsBytesSent();
    let called = 0;
    const errors = [
      await rejection(connection.cache(512, 1024)),
      caught(() =>
        connection.aioCache(512, 1024, () => {
          called++;
        }),
      ),
    ];
    for (const error of errors) {
      expect(error).toBeInstanceOf(NbdQueueFullError);
      expect(error).toMatchObject({ code: 'EAGAIN', syscall: 'cache', count: 512n, offset: 1024n });
      expect((error as Error).message).toMatch(
        /^cache of 512 bytes at offset 1024: 1 commands? .*waiting.*maxQueued.*drain/,
      );
    }
    expect(connection.aioInFlight()).toBe(2);
    expect(connection.statsBytesSent() - sent).toBeLessThanOrEqual(28n);
    peer.answer(await peer.request());
    peer.answer(await peer.request());
    await Promise.all(accepted);
    expect(connection.aioCache(512, 1024)).toBe(3n);
    expect(await exactly(peer, 1)).toEqual([1024n]);
    expect(called).toBe(0);
  });

  it('of 0: what finds no credit fails at once', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 2, maxQueued: 0 } });
    const accepted = [connection.cache(512, 0), connection.flush()];
    expect(await rejection(connection.pread(512, 0))).toMatchObject({ code: 'EAGAIN' });
    peer.answer(...(await peer.requests(2)));
    await Promise.all(accepted);
    const next = connection.cache(512, 0);
    peer.answer(await peer.request());
    await next;
  });

  it('is checked after everything else that can be wrong with a call', async () => {
    const { connection } = await openRaw({ client: { maxInFlight: 1, maxQueued: 0 } });
    connection.aioFlush();
    expect(await rejection(connection.cache(0, 0))).toMatchObject({ code: 'EINVAL' });
    expect(await rejection(connection.cache(512, 0))).toMatchObject({ code: 'EAGAIN' });
  });
});

describe('drain', () => {
  it('is emitted when no command waits any more, once each time', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1, maxQueued: 2 } });
    let drains = 0;
    connection.on('drain', () => drains++);
    for (let round = 1; round <= 2; round++) {
      const accepted = [connection.flush(), connection.flush(), connection.flush()];
      expect(await rejection(connection.flush())).toMatchObject({ code: 'EAGAIN' });
      peer.answer(await peer.request());
      await accepted[0];
      peer.answer(await peer.request());
      await accepted[1];
      // The last has its credit: there is room for as many as the line takes.
      expect(drains).toBe(round);
      peer.answer(await peer.request());
      await accepted[2];
      expect(drains).toBe(round);
    }
  });

  it('is not emitted when no command had to wait', async () => {
    const { connection, peer } = await openRaw();
    let drains = 0;
    connection.on('drain', () => drains++);
    void peer.serve();
    for (let i = 0; i < 10; i++) await connection.flush();
    expect(drains).toBe(0);
  });

  it('comes after EAGAIN also where no command may wait at all', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 1, maxQueued: 0 } });
    const first = connection.flush();
    expect(await rejection(connection.flush())).toMatchObject({ code: 'EAGAIN' });
    const drained = new Promise((resolve) => connection.once('drain', () => resolve(undefined)));
    peer.answer(await peer.request());
    await Promise.all([first, drained]);
    void peer.serve();
    await connection.flush();
  });

  it('comes also when a credit is free again before the line has begun to move', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 2, maxQueued: 1 } });
    const refused: unknown[] = [];
    // Both replies come at once; between them one command goes out, one waits, and one is refused.
    connection.aioFlush(() => {
      connection.aioFlush();
      connection.aioFlush();
      refused.push(caught(() => connection.aioFlush()));
      return true;
    });
    connection.aioFlush();
    const drained = new Promise((resolve) => connection.once('drain', () => resolve(undefined)));
    peer.answer(...(await peer.requests(2)));
    // Nothing else is answered.
    await drained;
    expect(refused).toMatchObject([{ code: 'EAGAIN' }]);
  });

  it('is the moment to go on after EAGAIN', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 4, maxQueued: 4 } });
    void peer.serve();
    let accepted = 0;
    let full = 0;
    while (accepted < 100) {
      try {
        connection.aioCache(512, 0, () => true);
        accepted++;
      } catch (error) {
        expect(error).toMatchObject({ code: 'EAGAIN' });
        full++;
        await new Promise((resolve) => connection.once('drain', () => resolve(undefined)));
      }
    }
    expect(full).toBeGreaterThan(5);
    while (connection.aioInFlight() > 0) await new Promise((resolve) => setImmediate(resolve));
  });
});
