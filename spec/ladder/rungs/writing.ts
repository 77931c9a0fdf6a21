// Whatever changes the export, each rung within its own block, and the big ranges where nothing is.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { FAR, pattern, SCRATCH } from '../image.js';
import { completed, expectBytes, failure, type Group, lacking, no, OK, refused, type Rung } from '../rung.js';

const WIDE = 5 * 2 ** 30;

/** One command of more than 4 GiB: refused unsent without extended headers, else the server's to do or refuse. */
const wide =
  (flag: string, can: (c: nbd.NbdConnection) => boolean, run: (c: nbd.NbdConnection) => Promise<void>): Rung =>
  async ({ connect }) => {
    const c = await connect();
    if (!can(c)) return lacking(c, flag, () => run(c));
    if (!c.getExtendedHeadersNegotiated()) {
      expect(await failure(run(c))).toMatchObject({ code: 'ERANGE', name: 'NbdStrictError' });
      return no('extended headers: refused');
    }
    try {
      await run(c);
    } catch (error) {
      return refused(error);
    }
    expectBytes(await c.pread(512, FAR + WIDE - 512), Buffer.alloc(512));
    return OK;
  };

export const WRITING: Group = {
  name: 'write',
  rungs: {
    'pwrite, and read it back': async ({ connect, scratch }) => {
      const c = await connect();
      await c.pwrite(pattern(3, 5000), scratch + 7);
      expectBytes(await c.pread(5000, scratch + 7), pattern(3, 5000));
      expectBytes(await c.pread(7, scratch), Buffer.alloc(7));
      return OK;
    },
    'another connection sees it after a flush': async ({ connect, scratch }) => {
      const [c, other] = [await connect(), await connect()];
      if (!c.canFlush() || !c.canMultiConn()) return no('flags: no CAN_MULTI_CONN or SEND_FLUSH');
      await c.pwrite(Buffer.alloc(4096, 0x55), scratch);
      await c.flush();
      expectBytes(await other.pread(4096, scratch), Buffer.alloc(4096, 0x55));
      return OK;
    },
    CMD_FLAG_FUA: async ({ connect, scratch }) => {
      const c = await connect();
      const write = (): Promise<void> => c.pwrite(Buffer.alloc(512, 1), scratch, nbd.CMD_FLAG_FUA);
      if (!c.canFua()) return lacking(c, 'SEND_FUA', write);
      await write();
      expectBytes(await c.pread(512, scratch), Buffer.alloc(512, 1));
      return OK;
    },
    aioPwrite: async ({ connect, scratch }) => {
      const c = await connect();
      expect(await completed((done) => c.aioPwrite(Buffer.alloc(SCRATCH, 2), scratch, done))).toBeNull();
      expectBytes(await c.pread(SCRATCH, scratch), Buffer.alloc(SCRATCH, 2));
      return OK;
    },
    'a Uint8Array that is not a Buffer': async ({ connect, scratch }) => {
      const c = await connect();
      await c.pwrite(new Uint8Array(1000).fill(3), scratch);
      expectBytes(await c.pread(1000, scratch), Buffer.alloc(1000, 3));
      return OK;
    },
    'with simple replies': async ({ connect, scratch }) => {
      const c = await connect({ requestStructuredReplies: false });
      await c.pwrite(Buffer.alloc(1000, 4), scratch);
      expectBytes(await c.pread(1000, scratch), Buffer.alloc(1000, 4));
      return OK;
    },
    'without extended headers': async ({ connect, scratch }) => {
      const c = await connect({ requestExtendedHeaders: false });
      await c.pwrite(Buffer.alloc(1000, 5), scratch);
      expectBytes(await c.pread(1000, scratch), Buffer.alloc(1000, 5));
      return OK;
    },
    '8 MiB in one command': async ({ connect }) => {
      const c = await connect();
      const bytes = Buffer.alloc(8 << 20, 6);
      await c.pwrite(bytes, FAR);
      expectBytes(await c.pread(8 << 20, FAR), bytes);
      return OK;
    },
    '64 writes and reads at once': async ({ connect, scratch }) => {
      const c = await connect();
      const parts = Array.from({ length: 64 }, (_, i) => Buffer.alloc(1024, i + 1));
      await Promise.all(parts.map((part, i) => c.pwrite(part, scratch + i * 1024)));
      expectBytes(await c.pread(SCRATCH, scratch), Buffer.concat(parts));
      return OK;
    },
    flush: async ({ connect }) => {
      const c = await connect();
      if (!c.canFlush()) return lacking(c, 'SEND_FLUSH', () => c.flush());
      await c.flush();
      return OK;
    },
    aioFlush: async ({ connect }) => {
      const c = await connect();
      if (!c.canFlush()) return lacking(c, 'SEND_FLUSH', async () => c.aioFlush());
      expect(await completed((done) => c.aioFlush(done))).toBeNull();
      return OK;
    },
    trim: async ({ connect, scratch }) => {
      const c = await connect();
      if (!c.canTrim()) return lacking(c, 'SEND_TRIM', () => c.trim(4096, scratch));
      await c.pwrite(Buffer.alloc(3 * 4096, 7), scratch);
      await c.trim(4096, scratch + 4096);
      expectBytes(await c.pread(4096, scratch), Buffer.alloc(4096, 7));
      expectBytes(await c.pread(4096, scratch + 8192), Buffer.alloc(4096, 7));
      return OK;
    },
    'aioTrim with CMD_FLAG_FUA': async ({ connect, scratch }) => {
      const c = await connect();
      const call = (done: (error: nbd.NbdError | null) => true): bigint =>
        c.aioTrim(4096, scratch, done, nbd.CMD_FLAG_FUA);
      if (!c.canTrim() || !c.canFua()) return lacking(c, 'SEND_TRIM or SEND_FUA', async () => call(() => true));
      expect(await completed(call)).toBeNull();
      return OK;
    },
    zero: async ({ connect, scratch }) => {
      const c = await connect();
      if (!c.canZero()) return lacking(c, 'SEND_WRITE_ZEROES', () => c.zero(4096, scratch));
      await c.pwrite(Buffer.alloc(3 * 4096, 8), scratch);
      await c.zero(5000, scratch + 4000);
      expectBytes(await c.pread(5000, scratch + 4000), Buffer.alloc(5000));
      expectBytes(await c.pread(4000, scratch), Buffer.alloc(4000, 8));
      return OK;
    },
    'zero with NO_HOLE and FUA': async ({ connect, scratch }) => {
      const c = await connect();
      const zero = (): Promise<void> => c.zero(4096, scratch, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA);
      if (!c.canZero() || !c.canFua()) return lacking(c, 'SEND_WRITE_ZEROES or SEND_FUA', zero);
      await c.pwrite(Buffer.alloc(4096, 9), scratch);
      await zero();
      expectBytes(await c.pread(4096, scratch), Buffer.alloc(4096));
      return OK;
    },
    'zero with FAST_ZERO: fast, or ENOTSUP and unchanged': async ({ connect, scratch }) => {
      const c = await connect();
      const zero = (): Promise<void> => c.zero(SCRATCH, scratch, nbd.CMD_FLAG_FAST_ZERO);
      if (!c.canFastZero()) return lacking(c, 'SEND_FAST_ZERO', zero);
      await c.pwrite(Buffer.alloc(SCRATCH, 10), scratch);
      try {
        await zero();
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOTSUP' });
        return refused(error);
      }
      expectBytes(await c.pread(SCRATCH, scratch), Buffer.alloc(SCRATCH));
      return OK;
    },
    aioZero: async ({ connect, scratch }) => {
      const c = await connect();
      if (!c.canZero()) return lacking(c, 'SEND_WRITE_ZEROES', async () => c.aioZero(4096, scratch));
      await c.pwrite(Buffer.alloc(4096, 11), scratch);
      expect(await completed((done) => c.aioZero(4096, scratch, done))).toBeNull();
      expectBytes(await c.pread(4096, scratch), Buffer.alloc(4096));
      return OK;
    },
    'zero: 5 GiB in one command': wide(
      'SEND_WRITE_ZEROES',
      (c) => c.canZero(),
      (c) => c.zero(WIDE, FAR),
    ),
    'trim: 5 GiB in one command': wide(
      'SEND_TRIM',
      (c) => c.canTrim(),
      (c) => c.trim(WIDE, FAR),
    ),
    'a read-only export is not written to': async ({ connectReadOnly, scratch }) => {
      const c = await connectReadOnly();
      expect(await failure(c.pwrite(Buffer.alloc(512), scratch))).toMatchObject({
        ...{ code: 'EPERM', name: 'NbdStrictError' },
      });
      return OK;
    },
    'a read-only server refuses by itself': async ({ connectReadOnly, scratch }) => {
      const c = await connectReadOnly({ strictMode: nbd.STRICT_MASK & ~nbd.STRICT_COMMANDS });
      const error = await failure(c.pwrite(Buffer.alloc(512, 12), scratch));
      expect(error).toMatchObject({ name: 'NbdCommandError', code: expect.stringMatching(/^E(PERM|INVAL|IO)$/) });
      expectBytes(await c.pread(512, scratch), Buffer.alloc(512));
      return OK;
    },
  },
};
