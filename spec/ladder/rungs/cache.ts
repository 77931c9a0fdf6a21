// The prefetch command, which the package began with.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import { DATA, FAR } from '../image.js';
import {
  completed,
  failure,
  type Group,
  lacking,
  no,
  OK,
  refused,
  type Rung,
  type Stage,
  type Verdict,
} from '../rung.js';

const cached =
  (run: (c: nbd.NbdConnection, stage: Stage) => Promise<Verdict>): Rung =>
  async (stage) => {
    const c = await stage.connect();
    return c.canCache() ? run(c, stage) : lacking(c, 'SEND_CACHE', () => c.cache(4096, 0));
  };

export const CACHE: Group = {
  name: 'cache',
  rungs: {
    'cache resolves with nothing': cached(async (c) => {
      await expect(c.cache(DATA, 0)).resolves.toBeUndefined();
      return OK;
    }),
    'cache: an odd range, as bigint': cached(async (c) => {
      await c.cache(4097n, 511n);
      return OK;
    }),
    'cache: the last byte, and one too many': cached(async (c) => {
      await c.cache(1, c.getSize() - 1n);
      expect(await failure(c.cache(2, c.getSize() - 1n))).toMatchObject({ code: 'EINVAL', syscall: 'cache' });
      return OK;
    }),
    'cache: no flag is allowed': cached(async (c) => {
      expect(await failure(c.cache(512, 0, nbd.CMD_FLAG_FUA))).toMatchObject({ code: 'EINVAL' });
      expect(await failure(c.cache(0, 0))).toMatchObject({ code: 'EINVAL' });
      return OK;
    }),
    'cache: aborted on the way': cached(async (c) => {
      const controller = new AbortController();
      const call = rejection(c.cache(4096, 0, 0, controller.signal));
      controller.abort('enough');
      expect(await call).toBe('enough');
      await c.cache(4096, 0);
      return OK;
    }),
    aioCache: cached(async (c) => {
      let told: unknown[] = [];
      const cookie = await new Promise<bigint>((resolve) => {
        const issued = c.aioCache(4096, 0, (...args) => {
          told = args;
          resolve(issued);
          return true;
        });
      });
      expect(told).toEqual([null, cookie]);
      return OK;
    }),
    'aioCache: fire and forget, then ask': cached(async (c) => {
      const cookie = c.aioCache(4096, 0);
      while (!c.aioCommandCompleted(cookie)) await c.pread(1, 0);
      expect(c.aioCommandCompleted(cookie)).toBe(false);
      return OK;
    }),
    '100 at once': cached(async (c) => {
      await Promise.all(Array.from({ length: 100 }, (_, i) => c.cache(4096, i * 4096)));
      expect(c.aioInFlight()).toBe(0);
      return OK;
    }),
    '64 MiB in one command': cached(async (c) => {
      try {
        await c.cache(64 << 20, 0);
        return OK;
      } catch (error) {
        expect(c.aioIsReady()).toBe(true);
        return refused(error);
      }
    }),
    '5 GiB in one command': cached(async (c) => {
      if (!c.getExtendedHeadersNegotiated()) {
        expect(await failure(c.cache(5 * 2 ** 30, FAR))).toMatchObject({ code: 'ERANGE' });
        return no('extended headers: refused');
      }
      try {
        await c.cache(5 * 2 ** 30, FAR);
        return OK;
      } catch (error) {
        expect(c.aioIsReady()).toBe(true);
        return refused(error);
      }
    }),
    'on a read-only export': async ({ connectReadOnly }) => {
      const c = await connectReadOnly();
      if (!c.canCache()) return lacking(c, 'SEND_CACHE', () => c.cache(4096, 0));
      await c.cache(DATA, 0);
      return OK;
    },
    'prefetch, split by itself': cached(async (c) => {
      const { cached: bytes, skipped } = await nbd.prefetch(c, { length: 3 * DATA });
      expect(bytes + skipped).toBe(BigInt(3 * DATA));
      return OK;
    }),
    'unadvertised, with the check off: the server answers': async ({ connect }) => {
      const c = await connect({ strictMode: nbd.STRICT_MASK & ~nbd.STRICT_COMMANDS });
      const error = await completed((done) => c.aioCache(4096, 0, done));
      if (error !== null) expect([c.canCache(), error.name]).toEqual([false, 'NbdCommandError']);
      expect(c.aioIsReady()).toBe(true);
      return error === null ? OK : refused(error);
    },
  },
};
