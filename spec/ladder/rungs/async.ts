// Cookies, completions and the window. Reads are used: every server has them.

import { expect } from '@jest/globals';

import { type NbdConnection } from '../../../lib/index.js';
import { caught } from '../../support/caught.js';
import { pattern } from '../image.js';
import { expectBytes, failure, type Group, OK } from '../rung.js';

const bytes = (): Buffer => Buffer.alloc(512);

/** Resolves when the server has answered everything before. */
const answered = (c: NbdConnection): Promise<unknown> => c.pread(1, 0);

export const ASYNC: Group = {
  name: 'async',
  rungs: {
    'cookies count from 1, promises included': async ({ connect }) => {
      const c = await connect();
      expect(c.aioPread(bytes(), 0)).toBe(1n);
      await c.pread(512, 0);
      expect(c.aioPread(bytes(), 0)).toBe(3n);
      return OK;
    },
    'a refused call takes no cookie': async ({ connect }) => {
      const c = await connect();
      expect(caught(() => c.aioPread(bytes(), c.getSize()))).toMatchObject({ code: 'EINVAL' });
      expect(c.aioPread(bytes(), 0)).toBe(1n);
      return OK;
    },
    'completed is reported once': async ({ connect }) => {
      const c = await connect();
      const buffer = bytes();
      const cookie = c.aioPread(buffer, 512);
      expect(c.aioCommandCompleted(cookie)).toBe(false);
      while (c.aioInFlight() > 0) await answered(c);
      expect(c.aioCommandCompleted(cookie)).toBe(true);
      expect(c.aioCommandCompleted(cookie)).toBe(false);
      expectBytes(buffer, pattern(512, 512));
      return OK;
    },
    'unknown cookies are false, 0 is EINVAL': async ({ connect }) => {
      const c = await connect();
      expect([c.aioCommandCompleted(99), c.aioCommandCompleted(2n ** 64n - 1n)]).toEqual([false, false]);
      expect(caught(() => c.aioCommandCompleted(0))).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    'a callback that returns true retires': async ({ connect }) => {
      const c = await connect();
      const told: unknown[] = [];
      const cookie = c.aioPread(bytes(), 0, (...args) => told.push(args) > 0);
      while (c.aioInFlight() > 0) await answered(c);
      expect(told).toEqual([[null, cookie]]);
      expect(c.aioCommandCompleted(cookie)).toBe(false);
      return OK;
    },
    'any other callback does not': async ({ connect }) => {
      const c = await connect();
      let calls = 0;
      const cookie = c.aioPread(bytes(), 0, () => {
        calls += 1;
      });
      while (c.aioInFlight() > 0) await answered(c);
      expect([calls, c.aioCommandCompleted(cookie)]).toEqual([1, true]);
      return OK;
    },
    'peek: the oldest that is not retired': async ({ connect }) => {
      const c = await connect();
      expect(caught(() => c.aioPeekCommandCompleted())).toMatchObject({ code: 'EINVAL' });
      const cookies = new Set([c.aioPread(bytes(), 0), c.aioPread(bytes(), 512)]);
      expect(c.aioPeekCommandCompleted()).toBe(0n);
      while (c.aioInFlight() > 0) await answered(c);
      while (cookies.size > 0) {
        const cookie = c.aioPeekCommandCompleted();
        expect([cookies.delete(cookie), c.aioCommandCompleted(cookie)]).toEqual([true, true]);
      }
      expect(caught(() => c.aioPeekCommandCompleted())).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    'in flight: waiting and sent': async ({ connect }) => {
      const c = await connect({ maxInFlight: 2 });
      const reads = Array.from({ length: 5 }, () => c.pread(512, 0));
      expect([c.aioInFlight(), c.aioIsReady()]).toEqual([5, true]);
      await Promise.all(reads);
      expect([c.aioInFlight(), c.aioIsReady()]).toEqual([0, true]);
      return OK;
    },
    'a window of one keeps the order': async ({ connect }) => {
      const c = await connect({ maxInFlight: 1 });
      const order: number[] = [];
      await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map((i) => c.pread(512, 512 * i).then(() => order.push(i))));
      expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      return OK;
    },
    'a full line: EAGAIN, and drain': async ({ connect }) => {
      const c = await connect({ maxInFlight: 1, maxQueued: 1 });
      const reads = [c.pread(512, 0), c.pread(512, 0)];
      expect(await failure(c.pread(512, 0))).toMatchObject({ code: 'EAGAIN', name: 'NbdQueueFullError' });
      await new Promise<void>((resolve) => c.once('drain', resolve));
      await Promise.all([...reads, c.pread(512, 0)]);
      return OK;
    },
    'a waiting command that is aborted is never sent': async ({ connect }) => {
      const c = await connect({ maxInFlight: 1 });
      const controller = new AbortController();
      const first = c.pread(512, 0);
      const waiting = c.pread(512, 0, 0, controller.signal).catch((reason: unknown) => reason);
      const chunks = c.statsChunksSent();
      controller.abort('no');
      expect(await waiting).toBe('no');
      await first;
      await answered(c);
      expect(c.statsChunksSent() - chunks).toBeLessThanOrEqual(2n);
      return OK;
    },
  },
};
