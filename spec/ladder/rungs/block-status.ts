// Extents: what is data and what is a hole, in 32 and in 64 bits.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import { DATA, FAR, SIZE } from '../image.js';
import { completed, failure, type Group, no, OK, type Rung, type Stage, type Verdict } from '../rung.js';

const BASE = nbd.CONTEXT_BASE_ALLOCATION;
const WIDE = 5 * 2 ** 30;

/** A rung for servers with `base:allocation`; without it, block status is refused unsent. */
const status =
  (run: (c: nbd.NbdConnection, stage: Stage) => Promise<Verdict>): Rung =>
  async (stage) => {
    const c = await stage.connect({ metaContexts: [BASE] });
    if (!c.getStructuredRepliesNegotiated()) {
      expect(await failure(c.blockStatus(512, 0))).toMatchObject({ code: 'ENOTSUP', name: 'NbdStrictError' });
      return no('structured replies: refused');
    }
    expect(c.canMetaContext(BASE)).toBe(true);
    return run(c, stage);
  };

/** Extents have no gaps and cover some of the range from its beginning. */
function checkExtents(extents: Iterable<nbd.Extent<number | bigint>> | undefined, offset: number): void {
  let at = BigInt(offset);
  for (const extent of extents ?? []) {
    expect(extent.offset).toBe(at);
    expect(extent.length).toBeGreaterThan(0);
    at += BigInt(extent.length);
  }
  expect(at).toBeGreaterThan(BigInt(offset));
  expect(at).toBeLessThanOrEqual(BigInt(SIZE));
}

/** A connection with every context that the server has, and their names. */
type Filtering = readonly [c: nbd.NbdConnection, names: readonly string[]];

const isFiltering = (got: Verdict | Filtering): got is Filtering => Array.isArray(got);

/** The server's own filter, or its answer. */
async function filtering({ negotiate }: Stage): Promise<Verdict | Filtering> {
  const c = await negotiate();
  if (!c.getExtendedHeadersNegotiated()) {
    await c.optGo();
    expect(await failure(c.blockStatusFilter(512, 0, [BASE]))).toMatchObject({ code: 'ENOTSUP' });
    return no('extended headers: refused');
  }
  const names = await c.optListMetaContext();
  for (const name of names) c.addMetaContext(name);
  await c.optGo();
  return c.canBlockStatusPayload() ? [c, names] : no('flags: no BLOCK_STATUS_PAYLOAD');
}

export const BLOCK_STATUS: Group = {
  name: 'block status',
  rungs: {
    'data at the beginning': status(async (c) => {
      const extents = (await c.blockStatus(DATA, 0)).get(BASE);
      checkExtents(extents, 0);
      expect([...(extents ?? [])][0]).toMatchObject({ offset: 0n, flags: 0 });
      return OK;
    }),
    'a hole behind it': status(async (c) => {
      const map = await c.blockStatus(2 * DATA, 0);
      const extents = [...(map.get(BASE) ?? [])];
      checkExtents(extents, 0);
      const second = extents[1];
      if (second === undefined) return no('block status: all is one extent');
      expect(second).toMatchObject({ offset: BigInt(DATA), flags: nbd.STATE_HOLE | nbd.STATE_ZERO });
      return OK;
    }),
    'a callback': status(async (c) => {
      const calls: unknown[] = [];
      await c.blockStatus(65536, 4096, (context, offset, entries) => calls.push([context, offset, entries.length > 1]));
      expect(calls).toEqual([[BASE, 4096n, true]]);
      return OK;
    }),
    'a callback that throws': status(async (c) => {
      const mine = new Error('mine');
      const call = c.blockStatus(65536, 0, () => {
        throw mine;
      });
      expect(await rejection(call)).toBe(mine);
      expect(c.aioIsReady()).toBe(true);
      return OK;
    }),
    'CMD_FLAG_REQ_ONE: one extent, within the range': status(async (c) => {
      const extents = [...((await c.blockStatus(2 * 65536, DATA - 65536, nbd.CMD_FLAG_REQ_ONE)).get(BASE) ?? [])];
      expect(extents).toHaveLength(1);
      expect(extents[0]!.length).toBeLessThanOrEqual(2 * 65536);
      return OK;
    }),
    aioBlockStatus: status(async (c) => {
      let entries: Uint32Array = new Uint32Array();
      const extent = (_context: string, _offset: bigint, got: Uint32Array): void => void (entries = got);
      expect(await completed((done) => c.aioBlockStatus(65536, 0, extent, done))).toBeNull();
      expect([entries.length % 2, entries.length > 0, entries[1]]).toEqual([0, true, 0]);
      return OK;
    }),
    blockStatus64: status(async (c) => {
      const extents = (await c.blockStatus64(DATA, 0)).get(BASE);
      checkExtents(extents, 0);
      expect([...(extents ?? [])][0]).toMatchObject({ offset: 0n, flags: 0n });
      return OK;
    }),
    aioBlockStatus64: status(async (c) => {
      let entries: BigUint64Array = new BigUint64Array();
      const extent = (_context: string, _offset: bigint, got: BigUint64Array): void => void (entries = got);
      expect(await completed((done) => c.aioBlockStatus64(65536, 0, extent, done))).toBeNull();
      expect([entries.length > 0, entries[1]]).toEqual([true, 0n]);
      return OK;
    }),
    'both widths report the same': status(async (c) => {
      const narrow = [...((await c.blockStatus(65536, DATA - 4096)).get(BASE) ?? [])];
      const wide = [...((await c.blockStatus64(65536, DATA - 4096)).get(BASE) ?? [])];
      expect(wide.map((e) => [e.offset, Number(e.flags)])).toEqual(narrow.map((e) => [e.offset, e.flags]));
      return OK;
    }),
    'without extended headers': async ({ connect }) => {
      const c = await connect({ metaContexts: [BASE], requestExtendedHeaders: false });
      if (!c.getStructuredRepliesNegotiated()) return no('structured replies: refused');
      checkExtents((await c.blockStatus(DATA, 512)).get(BASE), 512);
      return OK;
    },
    'beyond 4 GiB': status(async (c) => {
      checkExtents((await c.blockStatus(65536, FAR + WIDE - 65536)).get(BASE), FAR + WIDE - 65536);
      return OK;
    }),
    '5 GiB in one command': status(async (c) => {
      if (!c.getExtendedHeadersNegotiated()) {
        expect(await failure(c.blockStatus64(WIDE, FAR))).toMatchObject({ code: 'ERANGE' });
        return no('extended headers: refused');
      }
      const extents = (await c.blockStatus64(WIDE, FAR)).get(BASE);
      checkExtents(extents, FAR);
      const total = [...(extents ?? [])].reduce((sum, { length }) => sum + length, 0n);
      return total === BigInt(WIDE) ? OK : no(`block status: it reports on ${total} bytes at once`);
    }),
    'the whole export, step by step': status(async (c) => {
      let end = 0n;
      for await (const { offset, length } of nbd.extents(c, { context: BASE })) {
        expect(offset).toBe(end);
        end += length;
      }
      expect(end).toBe(BigInt(SIZE));
      return OK;
    }),
    'simple replies: ENOTSUP': async ({ connect }) => {
      const c = await connect({ metaContexts: [BASE], requestStructuredReplies: false });
      expect(await failure(c.blockStatus(512, 0))).toMatchObject({ code: 'ENOTSUP', name: 'NbdStrictError' });
      return OK;
    },
    'blockStatusFilter: one context of several': async (stage) => {
      const got = await filtering(stage);
      if (!isFiltering(got)) return got;
      const [c, names] = got;
      expect(names.length).toBeGreaterThan(1);
      for (const name of names) {
        const map = await c.blockStatusFilter(65536, 0, [name]);
        expect([...map.keys()]).toEqual([name]);
      }
      return OK;
    },
    'blockStatusFilter: all of them, 5 GiB': async (stage) => {
      const got = await filtering(stage);
      if (!isFiltering(got)) return got;
      const [c, names] = got;
      const map = await c.blockStatusFilter(WIDE, FAR, names);
      expect([...map.keys()].sort()).toEqual([...names].sort());
      for (const extents of map.values()) checkExtents(extents, FAR);
      return OK;
    },
    aioBlockStatusFilter: async (stage) => {
      const got = await filtering(stage);
      if (!isFiltering(got)) return got;
      const contexts: string[] = [];
      const extent = (context: string): void => void contexts.push(context);
      expect(await completed((done) => got[0].aioBlockStatusFilter(65536, 0, [BASE], extent, done))).toBeNull();
      expect(contexts).toEqual([BASE]);
      return OK;
    },
    'blockStatusFilter: a context that was not negotiated': async (stage) => {
      const got = await filtering(stage);
      if (!isFiltering(got)) return got;
      expect(await failure(got[0].blockStatusFilter(512, 0, ['x-ladder:unknown']))).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
  },
};
