// The handshake, option by option.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { caught } from '../../support/caught.js';
import { EXPORT, pattern, SIZE } from '../image.js';
import { closed, completed, expectBytes, failure, type Group, no, OK, refused, type Verdict } from '../rung.js';

/** Whether the server names the export: some name it, some list another name for the only one that they have. */
const named = (names: readonly string[]): Verdict =>
  names.includes(EXPORT) ? OK : no(`it lists ${JSON.stringify(names)}`);

const facts = (c: nbd.NbdConnection): (bigint | boolean | number)[] => [
  ...[c.getSize(), c.isReadOnly(), c.canFlush(), c.canFua(), c.canTrim(), c.canZero(), c.canCache(), c.canMultiConn()],
  ...[nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM].map((which) => c.getBlockSize(which)),
];

export const OPTION_MODE: Group = {
  name: 'option mode',
  rungs: {
    'it waits, negotiating': async ({ negotiate }) => {
      const c = await negotiate();
      expect([c.connectionState(), c.aioIsNegotiating()]).toEqual(['negotiating', true]);
      expect(caught(() => c.getSize())).toMatchObject({ code: 'EINVAL' });
      expect(await failure(c.pread(512, 0))).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    optGo: async ({ negotiate }) => {
      const c = await negotiate();
      await c.optGo();
      expect(c.aioIsReady()).toBe(true);
      expectBytes(await c.pread(512, 0), pattern(0, 512));
      return OK;
    },
    aioOptGo: async ({ negotiate }) => {
      const c = await negotiate();
      expect(await completed((done) => c.aioOptGo(done))).toBeNull();
      expectBytes(await c.pread(512, 0), pattern(0, 512));
      return OK;
    },
    optInfo: async ({ negotiate }) => {
      const c = await negotiate();
      try {
        await c.optInfo();
      } catch (error) {
        return refused(error);
      }
      expect(c.aioIsNegotiating()).toBe(true);
      const size = c.getSize();
      await c.optGo();
      expect(c.getSize()).toBe(BigInt(SIZE));
      return size === BigInt(SIZE) ? OK : no(`NBD_OPT_INFO: a size of ${size}, where NBD_OPT_GO has the real one`);
    },
    aioOptInfo: async ({ negotiate }) => {
      const c = await negotiate();
      const error = await completed((done) => c.aioOptInfo(done));
      if (error !== null) return refused(error);
      expect(typeof c.isReadOnly()).toBe('boolean');
      return OK;
    },
    'optInfo and optGo report the same': async ({ negotiate }) => {
      const c = await negotiate();
      await c.optInfo();
      const before = facts(c);
      await c.optGo();
      const after = facts(c);
      if (before[0] !== after[0]) return no(`NBD_OPT_INFO: a size of ${before[0]}`);
      expect(before).toEqual(after);
      return OK;
    },
    optList: async ({ negotiate }) => {
      const c = await negotiate();
      const called: string[] = [];
      try {
        const list = await c.optList((name) => called.push(name));
        expect(list.map(({ name }) => name)).toEqual(called);
      } catch (error) {
        return refused(error);
      }
      return named(called);
    },
    aioOptList: async ({ negotiate }) => {
      const c = await negotiate();
      const names: string[] = [];
      const error = await completed((done) => c.aioOptList((name) => names.push(name), done));
      return error === null ? named(names) : refused(error);
    },
    'optList, then optGo': async ({ negotiate }) => {
      const c = await negotiate();
      await c.optList().catch(refused);
      await c.optGo();
      expect(c.getSize()).toBe(BigInt(SIZE));
      return OK;
    },
    'an unknown export is refused, and the next is taken': async ({ negotiate }) => {
      const c = await negotiate({ exportName: 'nothing of that name' });
      const error = await c.optGo().catch((reason: unknown) => reason);
      if (error === undefined) return no('it takes any name');
      expect(error).toMatchObject({ code: 'ENOENT', name: 'NbdOptionError' });
      expect(c.aioIsNegotiating()).toBe(true);
      c.setExportName(EXPORT);
      await c.optGo();
      expect(c.getSize()).toBe(BigInt(SIZE));
      return OK;
    },
    'an unknown export ends a connection without option mode': async ({ create, server }) => {
      const c = create({ exportName: 'nothing of that name' });
      const error = await c.connectUnix(server.path).catch((reason: unknown) => reason);
      if (error === undefined) return no('it takes any name');
      expect(error).toMatchObject({ code: 'ENOENT', name: 'NbdOptionError' });
      expect(c.aioIsDead()).toBe(true);
      return OK;
    },
    'another name wipes the facts, the same does not': async ({ negotiate }) => {
      const c = await negotiate();
      await c.optInfo();
      c.setExportName(EXPORT);
      expect(typeof c.isReadOnly()).toBe('boolean');
      c.setExportName('another');
      expect(caught(() => c.isReadOnly())).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    'a failed optInfo wipes the facts': async ({ negotiate }) => {
      const c = await negotiate();
      await c.optInfo();
      c.setExportName('nothing of that name');
      const error = await c.optInfo().catch((reason: unknown) => reason);
      if (error === undefined) return no('it takes any name');
      expect(caught(() => c.getSize())).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    'full info, requested late': async ({ negotiate }) => {
      const c = await negotiate();
      await c.optInfo();
      c.setFullInfo(true);
      await c.optGo();
      try {
        expect(c.getCanonicalExportName()).toBe(EXPORT);
        return OK;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOTSUP' });
        return no('full info: no canonical name');
      }
    },
    aioOptStructuredReply: async ({ negotiate }) => {
      const c = await negotiate({ requestStructuredReplies: false });
      expect(c.getStructuredRepliesNegotiated()).toBe(false);
      const error = await completed((done) => c.aioOptStructuredReply(done));
      expect(c.getStructuredRepliesNegotiated()).toBe(error === null);
      await c.optGo();
      expectBytes(await c.pread(4096, 1), pattern(1, 4096));
      return error === null ? OK : refused(error);
    },
    optExtendedHeaders: async ({ negotiate }) => {
      const c = await negotiate({ requestExtendedHeaders: false, requestStructuredReplies: false });
      const agreed = await c.optExtendedHeaders();
      expect([c.getExtendedHeadersNegotiated(), c.getStructuredRepliesNegotiated()]).toEqual([agreed, agreed]);
      await c.optGo();
      expectBytes(await c.pread(4096, 1), pattern(1, 4096));
      return agreed ? OK : no('extended headers: refused');
    },
    aioOptExtendedHeaders: async ({ negotiate }) => {
      const c = await negotiate({ requestExtendedHeaders: false });
      const error = await completed((done) => c.aioOptExtendedHeaders(done));
      expect(c.getExtendedHeadersNegotiated()).toBe(error === null);
      return error === null ? OK : refused(error);
    },
    'optStarttls without TLS is refused, and all goes on': async ({ negotiate }) => {
      const c = await negotiate();
      expect(await c.optStarttls()).toBe(false);
      expect(c.getTlsNegotiated()).toBe(false);
      expect(await completed((done) => c.aioOptStarttls(done))).toMatchObject({ name: 'NbdOptionError' });
      await c.optGo();
      return OK;
    },
    'one option at a time': async ({ negotiate }) => {
      const c = await negotiate();
      const first = c.optInfo();
      expect(await failure(c.optGo())).toMatchObject({ code: 'EINVAL' });
      await first;
      await c.optGo();
      return OK;
    },
    optAbort: async ({ negotiate }) => {
      const c = await negotiate();
      await c.optAbort();
      expect(c.connectionState()).toBe('closed');
      expect(await failure(c.optGo())).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    aioOptAbort: async ({ negotiate }) => {
      const c = await negotiate();
      const end = closed(c);
      c.aioOptAbort();
      expect(await end).toBeUndefined();
      expect(c.aioIsClosed()).toBe(true);
      return OK;
    },
    'shutdown while negotiating': async ({ negotiate }) => {
      const c = await negotiate();
      await c.shutdown();
      expect(c.aioIsClosed()).toBe(true);
      return OK;
    },
    'no option once connected': async ({ connect }) => {
      const c = await connect();
      expect(await failure(c.optGo())).toMatchObject({ code: 'EINVAL' });
      expect(caught(() => c.aioOptInfo())).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
  },
};
