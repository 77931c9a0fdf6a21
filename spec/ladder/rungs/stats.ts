// Counters, exact to the byte and the chunk.

import { expect } from '@jest/globals';

import { type NbdConnection } from '../../../lib/index.js';
import { EXPORT } from '../image.js';
import { type Group, lacking, OK } from '../rung.js';

const stats = (c: NbdConnection): number[] =>
  [c.statsBytesSent(), c.statsBytesReceived(), c.statsChunksSent(), c.statsChunksReceived()].map(Number);

/** What a call added to the four counters. */
async function added(c: NbdConnection, call: () => Promise<unknown>): Promise<number[]> {
  const before = stats(c);
  await call();
  return stats(c).map((value, i) => value - before[i]!);
}

const header = (c: NbdConnection): number => (c.getExtendedHeadersNegotiated() ? 32 : 28);

export const STATS: Group = {
  name: 'stats',
  rungs: {
    'all 0 before connecting': async ({ create }) => {
      expect(stats(create())).toEqual([0, 0, 0, 0]);
      return OK;
    },
    'the handshake with NBD_OPT_GO alone': async ({ connect }) => {
      const c = await connect({ requestStructuredReplies: false, requestBlockSize: false });
      const [sent, , chunksSent, chunksReceived] = stats(c);
      expect([sent, chunksSent, chunksReceived]).toEqual([4 + 16 + 4 + EXPORT.length + 2, 1, 1]);
      return OK;
    },
    'the handshake with NBD_OPT_EXPORT_NAME': async ({ connect }) => {
      const c = await connect({ handshakeFlags: 0 });
      expect(stats(c)).toEqual([4 + 16 + EXPORT.length, 18 + 8 + 2 + 124, 1, 1]);
      return OK;
    },
    'the options that were asked by default': async ({ connect }) => {
      const c = await connect();
      // Extended headers; structured replies where those were refused; go.
      expect(stats(c)[2]).toBe(c.getExtendedHeadersNegotiated() ? 2 : 3);
      return OK;
    },
    'a simple read': async ({ connect }) => {
      const c = await connect({ requestStructuredReplies: false });
      expect(await added(c, () => c.pread(5000, 0))).toEqual([28, 5016, 1, 1]);
      return OK;
    },
    'a read of data as negotiated': async ({ connect }) => {
      const c = await connect();
      const [sent, received, chunksSent, chunks] = await added(c, () => c.pread(4096, 0));
      const reply = c.getExtendedHeadersNegotiated() ? 40 : c.getStructuredRepliesNegotiated() ? 28 : 16;
      expect([sent, chunksSent]).toEqual([header(c), 1]);
      // A server may end a reply with an empty chunk of its own.
      const rest = c.getExtendedHeadersNegotiated() ? 32 : 20;
      expect(received).toBe(4096 + reply + (chunks! - 1) * rest);
      return OK;
    },
    'a flush': async ({ connect }) => {
      const c = await connect();
      if (!c.canFlush()) return lacking(c, 'SEND_FLUSH', () => c.flush());
      const [sent, received, ...chunks] = await added(c, () => c.flush());
      expect([sent, ...chunks]).toEqual([header(c), 1, 1]);
      const replies = c.getExtendedHeadersNegotiated() ? [32] : c.getStructuredRepliesNegotiated() ? [16, 20] : [16];
      expect(replies).toContain(received);
      return OK;
    },
    'a write': async ({ connect, scratch }) => {
      const c = await connect({ requestStructuredReplies: false });
      expect(await added(c, () => c.pwrite(Buffer.alloc(3000), scratch))).toEqual([3028, 16, 1, 1]);
      return OK;
    },
    'ten commands in one write': async ({ connect }) => {
      const c = await connect({ requestStructuredReplies: false });
      const ten = (): Promise<unknown> => Promise.all(Array.from({ length: 10 }, () => c.pread(512, 0)));
      expect(await added(c, ten)).toEqual([280, 5280, 10, 10]);
      return OK;
    },
    'the goodbye': async ({ connect }) => {
      const c = await connect();
      expect(await added(c, () => c.shutdown())).toEqual([header(c), 0, 1, 0]);
      return OK;
    },
  },
};
