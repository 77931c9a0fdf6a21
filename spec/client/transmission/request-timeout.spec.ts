// requestTimeout: what counts as progress of a command, and what does not.

import { setTimeout as sleep } from 'node:timers/promises';

import { describe, expect, it } from '@jest/globals';

import { rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { atAnyPace, handled } from '../../support/pace.js';
import { openRaw, type RawPeer } from '../../support/raw-server.js';

/** Milliseconds, at the shortest pace. */
const TIMEOUT = 600;

/** Lets the peer's end of the stream take about this many bytes each millisecond. */
function throttle(peer: RawPeer, bytesPerMillisecond: number): void {
  const { stream } = peer;
  stream.on('data', (bytes: Buffer) => {
    stream.pause();
    setTimeout(() => stream.resume(), bytes.length / bytesPerMillisecond);
  });
}

/** Runs the test with a requestTimeout that is `TIMEOUT` at the pace of the test. */
const withTimeout =
  (test: (pace: number, client: { readonly requestTimeout: number }) => Promise<void>) => (): Promise<void> =>
    atAnyPace((pace) => test(pace, { requestTimeout: TIMEOUT * pace }));

describe('requestTimeout', () => {
  it(
    'does not end a connection that is idle, nor one whose replies keep coming',
    withTimeout(async (pace, client) => {
      const { connection, peer } = await openRaw({ client });
      await sleep(700 * pace);
      const reading = handled(connection.pread(400, 0));
      const { cookie } = await peer.request();
      for (let at = 0; at < 400; at += 50) {
        await sleep(100 * pace);
        peer.write(g.dataChunk(cookie, at, g.content(at, 50), at === 350 ? g.DONE : 0));
      }
      expect((await reading).equals(g.content(0, 400))).toBe(true);
      expect(connection.aioIsReady()).toBe(true);
    }),
  );

  it(
    'counts from when the command was sent, not from when it was requested',
    withTimeout(async (pace, client) => {
      const { connection, peer } = await openRaw({ client: { ...client, maxInFlight: 1 } });
      const pending = handled(Promise.all(Array.from({ length: 4 }, () => connection.flush())));
      for (let i = 0; i < 4; i++) {
        const request = await peer.request();
        await sleep(200 * pace);
        peer.answer(request);
      }
      await pending;
    }),
  );

  it(
    'of a waiting command counts from the last progress of those before it',
    withTimeout(async (pace, client) => {
      const { connection, peer } = await openRaw({ client });
      const reads = handled(
        Promise.all([connection.pread(400, 0), connection.pread(400, 400), connection.pread(512, 1024)]),
      );
      const [first, second, last] = await peer.requests(3);
      // Each takes less than the timeout, the first by its payload, the second by its end; both together take more.
      for (let at = 0; at < 400; at += 100) {
        await sleep(100 * pace);
        peer.write(g.dataChunk(first!.cookie, at, g.content(at, 100), at === 300 ? g.DONE : 0));
      }
      await sleep(400 * pace);
      peer.answer(second!);
      await sleep(400 * pace);
      peer.answer(last!);
      expect((await reads).map((data) => data.length)).toEqual([400, 400, 512]);
    }),
  );

  it(
    'is not extended by the progress of later commands',
    withTimeout(async (_pace, client) => {
      const { connection, peer } = await openRaw({ client });
      const forgotten = rejection(connection.pread(512, 0));
      await peer.request();
      void peer.serve();
      const ended = new Promise<void>((resolve) => connection.once('close', () => resolve()));
      let isOver = false;
      void ended.then(() => (isOver = true));
      let answered = 0;
      while (!isOver) {
        await connection.pread(512, 1024).then(
          () => answered++,
          () => undefined,
        );
        await sleep(5);
      }
      expect(await forgotten).toMatchObject({ code: 'ETIMEDOUT', cookie: 1n });
      expect(answered).toBeGreaterThan(10);
    }),
  );

  it.each([
    ['many payloads', 16, 1 << 20],
    ['a single payload', 1, 16 << 20],
  ])('does not end a connection whose %s leave slowly', async (_, count, length) => {
    await withTimeout(async (pace, client) => {
      const { connection, peer } = await openRaw({ size: 1 << 26, client });
      throttle(peer, (8 * 1024) / pace);
      void peer.serve();
      const begun = performance.now();
      const writes = Array.from({ length: count }, (_unused, i) => connection.pwrite(Buffer.alloc(length), i * length));
      await Promise.all(writes);
      expect(performance.now() - begun).toBeGreaterThan(2 * client.requestTimeout);
    })();
  });
});
