// Extended headers: replies to reads, writes and block status.

import {
  D,
  DONE,
  EXT,
  F,
  join,
  OK,
  on,
  OPT,
  R,
  REP,
  SIMPLE,
  SR,
  stall,
  T,
  u16,
  u32,
  u64,
  type WireCase,
  XR,
} from '../notation.js';
import { BS, extents, gives, type Steps, status } from './steps.js';

const extended = (context: number, ...pairs: [number | bigint, number][]): Buffer =>
  join(u32(context), u32(pairs.length), ...pairs.map(([length, flags]) => join(u64(length), u64(flags))));
const extStatus = (steps: Steps, more: WireCase['script'] = {}): WireCase['script'] =>
  status(steps, { ...EXT, ...more });

export const EXTENDED: readonly WireCase[] = [
  {
    id: 'X01',
    what: 'good read',
    script: { ...EXT, reply: (r) => XR(DONE, T.DATA, r.cookie, r.offset, join(u64(r.offset), r.data)) },
    expected: [OK],
  },
  {
    id: 'X02',
    what: "the reply's offset differs from the request's",
    script: { ...EXT, reply: (r) => XR(DONE, T.DATA, r.cookie, r.offset + 512n, join(u64(r.offset), r.data)) },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'X03',
    what: 'simple success',
    script: { ...EXT, reply: (r) => [SIMPLE(0, r.cookie, r.data), stall()] },
    expected: [D],
  },
  {
    id: 'X03b',
    what: 'simple success to a write',
    script: { ...EXT, reply: (r) => [SIMPLE(0, r.cookie), stall()] },
    user: 'pwrite 512 0, R',
    expected: [D],
  },
  {
    id: 'X04',
    what: 'length 2^32 + 520',
    script: {
      ...EXT,
      reply: (r) => [
        XR(DONE, T.DATA, r.cookie, r.offset, join(u64(r.offset), r.data), { length: 2 ** 32 + 520 }),
        stall(),
      ],
    },
    expected: [D],
  },
  {
    id: 'X05',
    what: 'length 2^64 - 1',
    script: {
      ...EXT,
      reply: (r) => [XR(DONE, T.DATA, r.cookie, r.offset, u64(r.offset), { length: 2n ** 64n - 1n }), stall()],
    },
    expected: [D],
  },
  {
    id: 'X05b',
    what: 'NONE of length 2^32',
    script: { ...EXT, reply: (r) => [XR(DONE, T.NONE, r.cookie, r.offset, '', { length: 2 ** 32 }), stall()] },
    user: 'pwrite 512 0, R',
    expected: [D],
  },
  {
    id: 'X06',
    what: 'structured reply, then silence',
    script: { ...EXT, reply: (r) => [SR(DONE, T.NONE, r.cookie), stall()] },
    expected: [D],
  },
  {
    id: 'X07',
    what: 'BLOCK_STATUS with 32 bits',
    script: extStatus((r) => XR(DONE, T.BS, r.cookie, r.offset, extents(r.contextId, [65536, 0]))),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'X08',
    what: 'good block status',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId, [4096, 3], [61440, 0]))),
    ...BS,
    expected: [OK],
    check: gives([
      [4096, 3],
      [61440, 0],
    ]),
  },
  {
    id: 'X09',
    what: 'extent of length 2^64 - 1',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId, [2n ** 64n - 1n, 0]))),
    ...BS,
    expected: [F('EPROTO'), OK, D],
  },
  {
    id: 'X10',
    what: 'count larger than the payload',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(2), u64(65536), u64(0)))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X10b',
    what: 'count 0xffffffff',
    script: extStatus((r) =>
      XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(0xffffffff), u64(65536), u64(0))),
    ),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X11',
    what: 'count 0',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X12',
    what: 'payload of 8 + 15 bytes',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(1), 'x'.repeat(15)))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X13',
    what: 'flags of 64 bits',
    script: extStatus((r) =>
      XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(1), u64(65536), u64(2n ** 63n))),
    ),
    ...BS,
    expected: [OK, F('EPROTO'), F('EOVERFLOW')],
  },
  {
    id: 'X14',
    what: 'unknown cookie',
    script: { ...EXT, reply: (r) => [XR(DONE, T.NONE, r.cookie + 1000n, r.offset), stall()] },
    expected: [D],
  },
  {
    id: 'X15',
    what: 'ERROR',
    script: { ...EXT, reply: (r) => XR(DONE, T.ERR, r.cookie, r.offset, join(u32(5), u16(0))) },
    expected: [F('EIO')],
  },
  {
    id: 'X16',
    what: 'write answered NONE|DONE',
    script: { ...EXT, reply: (r) => XR(DONE, T.NONE, r.cookie, r.offset) },
    user: 'pwrite 512 0, R',
    expected: [OK],
  },
  {
    id: 'X17',
    what: 'block status of 2^40 bytes, one extent',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId, [2 ** 40, 3])), {
      size: 2 ** 40,
    }),
    ...BS,
    user: 'bs64 1099511627776 0, pread 512 4096',
    expected: [OK],
    check: gives([[2 ** 40, 3]]),
  },
  {
    id: 'X18',
    what: 'trim of 2^40 bytes',
    script: { ...EXT, size: 2 ** 40 },
    user: 'trim 1099511627776 0, R',
    expected: [OK],
  },
  {
    id: 'X19',
    what: 'an extended chunk, then a structured one',
    script: {
      ...EXT,
      reply: (r) => [
        XR(0, T.DATA, r.cookie, r.offset, join(u64(r.offset), r.data.subarray(0, 256))),
        SR(DONE, T.DATA, r.cookie, join(u64(r.offset + 256n), r.data.subarray(256))),
        stall(),
      ],
    },
    expected: [D],
  },
  {
    id: 'X20',
    what: 'extended headers acknowledged with data',
    script: { on: [on(OPT.EXT, [REP(OPT.EXT, R.ACK, 'abcd'), stall()])] },
    expected: [D],
  },
];
