// What is refused, by the client or the server, and that the connection lives on.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { pattern, SIZE } from '../image.js';
import { expectBytes, failure, type Group, no, OK, type Rung } from '../rung.js';

const RELAXED = { strictMode: 0 };

/** A call that is refused before anything is sent. */
const strict =
  (code: string, call: (c: nbd.NbdConnection) => Promise<unknown>): Rung =>
  async ({ connect }) => {
    const c = await connect();
    const sent = c.statsBytesSent();
    expect(await failure(call(c))).toMatchObject({ code, name: 'NbdStrictError' });
    expect(c.statsBytesSent()).toBe(sent);
    return OK;
  };

/** A call that no check of ours stops, and that the server must refuse. */
const byServer =
  (call: (c: nbd.NbdConnection) => Promise<unknown>): Rung =>
  async ({ connect }) => {
    const c = await connect(RELAXED);
    const error = await call(c).then(
      () => null,
      (reason: unknown) => reason,
    );
    if (error === null) return no('it does not mind');
    expect(error).toMatchObject({ name: 'NbdCommandError', code: expect.stringMatching(/^E(INVAL|IO|NOSPC|NOTSUP)$/) });
    expectBytes(await c.pread(512, 512), pattern(512, 512));
    return OK;
  };

export const ERRORS: Group = {
  name: 'errors',
  rungs: {
    'a read beyond the end': strict('EINVAL', (c) => c.pread(512, SIZE)),
    'a read across the end': strict('EINVAL', (c) => c.pread(513, SIZE - 512)),
    'a write beyond the end': strict('ENOSPC', (c) => c.pwrite(Buffer.alloc(512), SIZE)),
    'no bytes at all': strict('EINVAL', (c) => c.pread(0, 0)),
    'a flag that the command does not have': strict('EINVAL', (c) => c.pread(512, 0, nbd.CMD_FLAG_FUA)),
    'a flag that no command has': strict('EINVAL', (c) => c.pwrite(Buffer.alloc(512), 0, 0x1_0000)),
    'more than 64 MiB': strict('ERANGE', (c) => c.pread((64 << 20) + 1, 0)),
    'a write of more than SIZE_PAYLOAD': strict('ERANGE', (c) => {
      const limit = c.getBlockSize(nbd.SIZE_PAYLOAD);
      return c.pwrite(Buffer.alloc(limit + 1), 0);
    }),
    'a negative offset': strict('EINVAL', (c) => c.pread(512, -1)),
    'a fraction': strict('EINVAL', (c) => c.pread(512, 0.5)),
    'an unsafe number': strict('EINVAL', (c) => c.pread(512, 2 ** 53)),
    'text in place of a number': strict('EINVAL', (c) => c.pread(512, '0' as unknown as number)),
    'no buffer': strict('EINVAL', (c) => c.pwrite('text' as unknown as Buffer, 0)),
    'checks off: the server refuses a read beyond the end': byServer((c) => c.pread(512, SIZE)),
    'checks off: the server refuses a write beyond the end': byServer((c) => c.pwrite(Buffer.alloc(512), SIZE)),
    'checks off: the server refuses an unknown flag': byServer((c) => c.pread(512, 0, 0x8000)),
    'the error names the call and the range': async ({ connect }) => {
      const c = await connect(RELAXED);
      const error = await failure(c.pread(512, SIZE));
      expect(error).toMatchObject({ syscall: 'pread', offset: BigInt(SIZE), count: 512n });
      expect(error.message).toContain('pread');
      expect(error.errno).toBeGreaterThan(0);
      return OK;
    },
    'an error among many: the others succeed': async ({ connect }) => {
      const c = await connect(RELAXED);
      const calls = [0, 512, SIZE, 1024].map((offset) => c.pread(512, offset));
      const settled = await Promise.allSettled(calls);
      expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
      return OK;
    },
    'a failed raw command: completed throws, and retires': async ({ connect }) => {
      const c = await connect(RELAXED);
      const cookie = c.aioPread(Buffer.alloc(512), SIZE);
      while (c.aioInFlight() > 0) await c.pread(1, 0);
      expect(() => c.aioCommandCompleted(cookie)).toThrow(nbd.NbdCommandError);
      expect(c.aioCommandCompleted(cookie)).toBe(false);
      return OK;
    },
  },
};
