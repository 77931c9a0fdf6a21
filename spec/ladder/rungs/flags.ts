// What the server reports about the export.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { SIZE } from '../image.js';
import { type Group, no, OK, type Rung } from '../rung.js';

/** A flag that the server has or has not: its own word is the cell. */
const flag =
  (ask: (c: nbd.NbdConnection) => boolean, name: string): Rung =>
  async ({ connect }) =>
    ask(await connect({ metaContexts: [nbd.CONTEXT_BASE_ALLOCATION] })) ? OK : no(`flags: no ${name}`);

export const FLAGS: Group = {
  name: 'flags',
  rungs: {
    'the writable export is writable': async ({ connect }) => {
      expect((await connect()).isReadOnly()).toBe(false);
      return OK;
    },
    'the read-only export is read-only': async ({ connectReadOnly }) => {
      const c = await connectReadOnly();
      expect([c.isReadOnly(), c.getSize()]).toEqual([true, BigInt(SIZE)]);
      return OK;
    },
    canFlush: flag((c) => c.canFlush(), 'SEND_FLUSH'),
    canFua: flag((c) => c.canFua(), 'SEND_FUA'),
    canTrim: flag((c) => c.canTrim(), 'SEND_TRIM'),
    canZero: flag((c) => c.canZero(), 'SEND_WRITE_ZEROES'),
    canFastZero: flag((c) => c.canFastZero(), 'SEND_FAST_ZERO'),
    canDf: flag((c) => c.canDf(), 'SEND_DF'),
    canMultiConn: flag((c) => c.canMultiConn(), 'CAN_MULTI_CONN'),
    canCache: flag((c) => c.canCache(), 'SEND_CACHE'),
    canBlockStatusPayload: flag((c) => c.canBlockStatusPayload(), 'BLOCK_STATUS_PAYLOAD'),
    isRotational: flag((c) => c.isRotational(), 'ROTATIONAL'),
    'block sizes': async ({ connect }) => {
      const c = await connect();
      const [minimum = 0, preferred = 0, maximum = 0, payload = 0] = [
        ...[nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM, nbd.SIZE_PAYLOAD],
      ].map((which) => c.getBlockSize(which));
      if (maximum === 0) {
        expect([minimum, preferred, payload]).toEqual([0, 0, 32 << 20]);
        return no('information: no block sizes');
      }
      expect(minimum).toBeGreaterThan(0);
      expect(preferred).toBeGreaterThanOrEqual(Math.max(512, minimum));
      expect(maximum).toBeGreaterThanOrEqual(preferred);
      expect(payload).toBe(Math.min(Math.max(maximum, 1 << 20), 64 << 20));
      return OK;
    },
    'no DF without structured replies': async ({ connect }) => {
      expect((await connect({ requestStructuredReplies: false })).canDf()).toBe(false);
      return OK;
    },
    'no filter without extended headers': async ({ connect }) => {
      expect((await connect({ requestExtendedHeaders: false })).canBlockStatusPayload()).toBe(false);
      return OK;
    },
    'fast zero only with zero': async ({ connect }) => {
      const c = await connect();
      if (!c.canZero()) expect(c.canFastZero()).toBe(false);
      return OK;
    },
  },
};
