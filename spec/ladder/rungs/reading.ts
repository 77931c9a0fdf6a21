// Reads: simple, structured and extended replies, whatever was negotiated.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import { DATA, FAR, HOLE, pattern, SIZE } from '../image.js';
import { completed, expectBytes, type Group, lacking, no, OK } from '../rung.js';

const MiB = 1 << 20;

export const READING: Group = {
  name: 'read',
  rungs: {
    'the first bytes': async ({ connect }) => {
      expectBytes(await (await connect()).pread(512, 0), pattern(0, 512));
      return OK;
    },
    'one byte, and an odd range': async ({ connect }) => {
      const c = await connect();
      expectBytes(await c.pread(1, 77_777), pattern(77_777, 1));
      expectBytes(await c.pread(70_001, 12_345), pattern(12_345, 70_001));
      return OK;
    },
    'a MiB': async ({ connect }) => {
      expectBytes(await (await connect()).pread(DATA, 0), pattern(0, DATA));
      return OK;
    },
    'the hole, and across its edge': async ({ connect }) => {
      const c = await connect();
      expectBytes(await c.pread(4096, HOLE + 4096), Buffer.alloc(4096));
      expectBytes(await c.pread(8192, HOLE - 4096), pattern(HOLE - 4096, 8192));
      return OK;
    },
    'the last byte': async ({ connect }) => {
      expectBytes(await (await connect()).pread(1, SIZE - 1), Buffer.alloc(1));
      return OK;
    },
    'beyond 4 GiB, as bigint and as number': async ({ connect }) => {
      const c = await connect();
      expectBytes(await c.pread(512, BigInt(FAR)), Buffer.alloc(512));
      expectBytes(await c.pread(512, FAR + 1), Buffer.alloc(512));
      return OK;
    },
    '16 MiB in one command': async ({ connect }) => {
      const bytes = await (await connect()).pread(16 * MiB, DATA / 2);
      expectBytes(bytes.subarray(0, DATA / 2), pattern(DATA / 2, DATA / 2));
      expect(bytes.length).toBe(16 * MiB);
      return OK;
    },
    'preadInto a part of a buffer': async ({ connect }) => {
      const bytes = Buffer.alloc(3000, 0xee);
      await (await connect()).preadInto(bytes.subarray(1000, 2000), 5);
      expectBytes(bytes.subarray(1000, 2000), pattern(5, 1000));
      expect([bytes[999], bytes[2000]]).toEqual([0xee, 0xee]);
      return OK;
    },
    aioPread: async ({ connect }) => {
      const c = await connect();
      const bytes = Buffer.alloc(300_000);
      expect(await completed((done) => c.aioPread(bytes, 1234, done))).toBeNull();
      expectBytes(bytes, pattern(1234, 300_000));
      return OK;
    },
    '200 reads at once': async ({ connect }) => {
      const c = await connect();
      const offsets = Array.from({ length: 200 }, (_, i) => i * 5003);
      const all = await Promise.all(offsets.map((offset) => c.pread(600, offset)));
      all.forEach((bytes, i) => expectBytes(bytes, pattern(offsets[i]!, 600)));
      return OK;
    },
    'over TCP': async ({ connectReadOnly }) => {
      const bytes = await (await connectReadOnly()).pread(DATA, 0);
      expectBytes(bytes, pattern(0, DATA));
      return OK;
    },
    'an abort on the way': async ({ connect }) => {
      const c = await connect();
      const controller = new AbortController();
      const read = rejection(c.pread(MiB, 0, 0, controller.signal));
      controller.abort(new Error('enough'));
      expect(await read).toMatchObject({ message: 'enough' });
      expectBytes(await c.pread(512, 512), pattern(512, 512));
      return OK;
    },
    'without clearing the buffer first': async ({ connect }) => {
      const bytes = Buffer.alloc(4096, 1);
      await (await connect({ preadInitialize: false })).preadInto(bytes, HOLE);
      expectBytes(bytes, Buffer.alloc(4096));
      return OK;
    },
    'the stream helpers': async ({ connect }) => {
      const c = await connect();
      const pieces: Buffer[] = [];
      for await (const piece of nbd.createReadStream(c, { offset: 100, length: 299_900 })) pieces.push(piece as Buffer);
      expectBytes(Buffer.concat(pieces), pattern(100, 299_900));
      return OK;
    },
  },
};

export const STRUCTURED: Group = {
  name: 'structured read',
  rungs: {
    'chunks cover the range once': async ({ connect }) => {
      const c = await connect();
      const seen = Buffer.alloc(200_000);
      const bytes = await c.preadStructured(200_000, 50, (piece, offset, status) => {
        expect([nbd.READ_DATA, nbd.READ_HOLE]).toContain(status);
        for (let i = 0; i < piece.length; i++) seen[Number(offset) - 50 + i]! += 1;
      });
      expectBytes(seen, Buffer.alloc(200_000, 1));
      expectBytes(bytes, pattern(50, 200_000));
      return OK;
    },
    'across the edge of the hole': async ({ connect }) => {
      const c = await connect();
      const statuses = new Set<number>();
      const bytes = await c.preadStructured(2 * 65536, HOLE - 65536, (_piece, _offset, status) => {
        statuses.add(status);
      });
      expectBytes(bytes, pattern(HOLE - 65536, 2 * 65536));
      if (statuses.has(nbd.READ_HOLE)) return OK;
      return no(c.getStructuredRepliesNegotiated() ? 'reads: a hole is sent as data' : 'structured replies: refused');
    },
    'a hole alone': async ({ connect }) => {
      const c = await connect();
      let status = 0;
      const bytes = await c.preadStructured(65536, HOLE + 65536, (_piece, _offset, which) => {
        status = which;
      });
      expectBytes(bytes, Buffer.alloc(65536));
      if (status === nbd.READ_HOLE) return OK;
      return no(c.getStructuredRepliesNegotiated() ? 'reads: a hole is sent as data' : 'structured replies: refused');
    },
    'CMD_FLAG_DF: one chunk': async ({ connect }) => {
      const c = await connect();
      let chunks = 0;
      const read = (): Promise<Buffer> =>
        c.preadStructured(65536, HOLE - 32768, () => void (chunks += 1), nbd.CMD_FLAG_DF);
      if (!c.canDf()) return lacking(c, 'SEND_DF', read);
      expectBytes(await read(), pattern(HOLE - 32768, 65536));
      expect(chunks).toBe(1);
      return OK;
    },
    aioPreadStructured: async ({ connect }) => {
      const c = await connect();
      const bytes = Buffer.alloc(100_000);
      let length = 0;
      const chunk = (piece: Buffer): void => void (length += piece.length);
      expect(await completed((done) => c.aioPreadStructured(bytes, 3, chunk, done))).toBeNull();
      expect(length).toBe(100_000);
      expectBytes(bytes, pattern(3, 100_000));
      return OK;
    },
    'with simple replies, as one chunk': async ({ connect }) => {
      const c = await connect({ requestStructuredReplies: false });
      const chunks: unknown[] = [];
      await c.preadStructured(5000, 7, (piece, offset, status) => chunks.push([piece.length, offset, status]));
      expect(chunks).toEqual([[5000, 7n, nbd.READ_DATA]]);
      return OK;
    },
    'with structured replies in place of extended ones': async ({ connect }) => {
      const c = await connect({ requestExtendedHeaders: false });
      expectBytes(await c.preadStructured(DATA, 0, () => {}), pattern(0, DATA));
      return OK;
    },
    'what the callback throws is the rejection, and the connection lives': async ({ connect }) => {
      const c = await connect();
      const mine = new Error('mine');
      const read = c.preadStructured(512, 0, () => {
        throw mine;
      });
      expect(await rejection(read)).toBe(mine);
      expectBytes(await c.pread(512, 0), pattern(0, 512));
      return OK;
    },
  },
};
