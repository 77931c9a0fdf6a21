// How a connection ends, and what is left of it.

import { expect } from '@jest/globals';
import { setImmediate } from 'node:timers/promises';

import { NbdConnection, NbdConnectionError, SHUTDOWN_ABANDON_PENDING } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import { EXPORT, pattern, SIZE } from '../image.js';
import { closed, expectBytes, failure, type Group, no, OK, refused } from '../rung.js';

export const ENDING: Group = {
  name: 'ending',
  rungs: {
    shutdown: async ({ connect }) => {
      const c = await connect();
      const end = closed(c);
      await c.shutdown();
      expect([await end, c.connectionState()]).toEqual([undefined, 'closed']);
      return OK;
    },
    'shutdown waits for what is in flight': async ({ connect }) => {
      const c = await connect({ maxInFlight: 2 });
      const reads = Array.from({ length: 10 }, (_, i) => c.pread(512, i));
      const end = c.shutdown();
      expect(await failure(c.pread(512, 0))).toMatchObject({ code: 'EINVAL' });
      (await Promise.all(reads)).forEach((bytes, i) => expectBytes(bytes, pattern(i, 512)));
      await end;
      return OK;
    },
    'shutdown that abandons what was not sent': async ({ connect }) => {
      const c = await connect({ maxInFlight: 1 });
      const first = c.pread(512, 0);
      await setImmediate();
      const waiting = rejection(c.pread(512, 0));
      await Promise.all([first, c.shutdown(SHUTDOWN_ABANDON_PENDING)]);
      expect(await waiting).toMatchObject({ code: 'ENOTCONN', sent: false });
      return OK;
    },
    'shutdown twice, and after close': async ({ connect }) => {
      const c = await connect();
      await Promise.all([c.shutdown(), c.shutdown()]);
      c.close();
      await c.shutdown();
      expect(c.aioIsClosed()).toBe(true);
      return OK;
    },
    'shutdown with an unknown flag': async ({ connect }) => {
      const c = await connect();
      expect(await failure(c.shutdown(1))).toMatchObject({ code: 'EINVAL' });
      expect(c.aioIsReady()).toBe(true);
      return OK;
    },
    'close rejects what is pending, at once': async ({ connect }) => {
      const c = await connect();
      const pending = rejection(c.pread(512, 0));
      c.close();
      c.close();
      expect([c.connectionState(), c.aioInFlight()]).toEqual(['closed', 0]);
      expect(await pending).toMatchObject({ code: 'ENOTCONN', name: 'NbdConnectionError' });
      return OK;
    },
    'close: raw commands complete once': async ({ connect }) => {
      const c = await connect();
      const told: unknown[] = [];
      const cookie = c.aioPread(Buffer.alloc(512), 0, (error) => void told.push(error?.code));
      const end = closed(c);
      c.close();
      await end;
      expect(told).toEqual(['ENOTCONN']);
      expect(caught(() => c.aioCommandCompleted(cookie))).toMatchObject({ code: 'ENOTCONN' });
      return OK;
    },
    'facts stay, commands do not': async ({ connect }) => {
      const c = await connect();
      await c.shutdown();
      expect([c.getSize(), c.getProtocol(), c.isReadOnly()]).toEqual([BigInt(SIZE), 'newstyle-fixed', false]);
      expect(await failure(c.pread(512, 0))).toMatchObject({ code: 'EINVAL' });
      expect(caught(() => c.aioCache(512, 0))).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    aioDisconnect: async ({ connect }) => {
      const c = await connect();
      const end = closed(c);
      c.aioDisconnect();
      expect(caught(() => c.aioPread(Buffer.alloc(512), 0))).toMatchObject({ code: 'EINVAL' });
      expect([await end, c.aioIsClosed()]).toEqual([undefined, true]);
      return OK;
    },
    'aioDisconnect behind a command in flight': async ({ connect }) => {
      const c = await connect();
      const end = closed(c);
      const read = c.pread(512, 0).catch((error: unknown) => error);
      c.aioDisconnect();
      const got = await read;
      await end;
      if (Buffer.isBuffer(got)) {
        expectBytes(got, pattern(0, 512));
        return OK;
      }
      // The protocol has the server carry it out first. qemu-nbd may close without a reply, nbdkit may send ESHUTDOWN:
      // the reason for shutdown() to wait by itself.
      if (!(got instanceof NbdConnectionError)) return refused(got);
      expect(got).toMatchObject({ code: 'ENOTCONN', sent: true });
      return no('disconnect: what is in flight may go unanswered');
    },
    'await using': async ({ server }) => {
      let c: NbdConnection;
      {
        await using inner = await NbdConnection.connect(server.uri);
        c = inner;
        expectBytes(await inner.pread(512, 0), pattern(0, 512));
      }
      expect(c.connectionState()).toBe('closed');
      return OK;
    },
    'close before connecting is for good': async ({ create, server }) => {
      const c = create();
      c.close();
      expect(await failure(c.connectUnix(server.path))).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    'the server takes the next client': async ({ connect }) => {
      for (let i = 0; i < 5; i++) {
        const c = await connect();
        expectBytes(await c.pread(512, 0), pattern(0, 512));
        await c.shutdown();
      }
      return OK;
    },
    'after a client that just left': async ({ connect }) => {
      const rude = await connect();
      const pending = rejection(rude.pwrite(Buffer.alloc(1 << 20), SIZE - (1 << 20)));
      rude.close();
      await pending;
      const c = await connect();
      expect([c.getExportName(), c.getSize()]).toEqual([EXPORT, BigInt(SIZE)]);
      return OK;
    },
  },
};
