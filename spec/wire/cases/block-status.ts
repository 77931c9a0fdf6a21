// Block status in structured replies.

import {
  D,
  DONE,
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
} from '../notation.js';
import { BS, extents, gives, status } from './steps.js';

const BS1 = { ...BS, user: 'bs1 65536 0, pread 512 4096' } as const;

export const BLOCK_STATUS: readonly WireCase[] = [
  {
    id: 'K01',
    what: 'one extent',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 3]))),
    ...BS,
    expected: [OK],
    check: gives([[65536, 3]]),
  },
  {
    id: 'K01b',
    what: 'three extents that stop short',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [512, 3], [512, 0], [1024, 2]))),
    ...BS,
    expected: [OK],
    check: gives([
      [512, 3],
      [512, 0],
      [1024, 2],
    ]),
  },
  {
    id: 'K02',
    what: 'unknown context ID',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId + 9, [65536, 0]))),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K03',
    what: 'first extent of length 0',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [0, 0]))),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K04',
    what: 'later extent of length 0',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 0], [0, 1]))),
    ...BS,
    expected: [OK, F('EPROTO'), D],
  },
  {
    id: 'K05',
    what: 'payload of 11 bytes',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 0]).subarray(0, 11))),
    ...BS,
    expected: [D],
  },
  {
    id: 'K06',
    what: 'payload of 4 bytes: no extent',
    script: status((r) => SR(DONE, T.BS, r.cookie, u32(r.contextId))),
    ...BS,
    expected: [D],
  },
  { id: 'K06b', what: 'payload of 0 bytes', script: status((r) => SR(DONE, T.BS, r.cookie)), ...BS, expected: [D] },
  {
    id: 'K07',
    what: 'two chunks for one context',
    script: status((r) => [
      SR(0, T.BS, r.cookie, extents(r.contextId, [4096, 0])),
      SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 3])),
    ]),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K08',
    what: 'NONE|DONE and no extents',
    script: status((r) => SR(DONE, T.NONE, r.cookie)),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  { id: 'K09', what: 'simple success', script: status((r) => SIMPLE(0, r.cookie)), ...BS, expected: [F('EPROTO'), D] },
  { id: 'K10', what: 'simple error', script: status((r) => SIMPLE(5, r.cookie)), ...BS, expected: [F('EIO')] },
  {
    id: 'K11',
    what: 'the first extent fills the request, another follows',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 0], [65536, 3]))),
    ...BS,
    expected: [OK, D, F('EPROTO')],
    check: gives([[65536, 0]]),
  },
  {
    id: 'K12',
    what: 'last extent beyond the request, inside the export',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 3], [65536, 0]))),
    ...BS,
    expected: [OK],
  },
  {
    id: 'K13',
    what: 'last extent beyond the export',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [0xffffffff, 0]))),
    ...BS,
    expected: [OK, D, F('EPROTO')],
  },
  {
    id: 'K14',
    what: 'unknown status bits',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 0xfffffffc]))),
    ...BS,
    expected: [OK],
  },
  {
    id: 'K15',
    what: '2^20 extents',
    script: status((r) => SR(DONE, T.BS, r.cookie, join(u32(r.contextId), alternating(2 ** 20))), { size: 2 ** 31 }),
    ...BS,
    user: 'bs 2147483647 0, pread 512 4096',
    expected: [OK, F('EPROTO'), D],
    memory: 512,
    heavy: true,
  },
  {
    id: 'K16',
    what: '8,388,000 extents',
    script: status((r) => SR(DONE, T.BS, r.cookie, join(u32(r.contextId), Buffer.alloc(8 * 8_388_000, u64(2 ** 32))))),
    ...BS,
    expected: [D, OK],
    memory: 512,
    heavy: true,
  },
  {
    id: 'K17',
    what: 'chunk of 64 MiB + 12',
    script: status((r) => [SR(DONE, T.BS, r.cookie, u32(r.contextId), { length: (64 << 20) + 12 }), stall()]),
    ...BS,
    expected: [D],
  },
  {
    id: 'K18',
    what: 'data instead of status',
    script: status((r) => SR(DONE, T.DATA, r.cookie, join(u64(r.offset), Buffer.alloc(512)))),
    ...BS,
    expected: [D],
  },
  {
    id: 'K19',
    what: 'ERROR EINVAL',
    script: status((r) => SR(DONE, T.ERR, r.cookie, join(u32(22), u16(0)))),
    ...BS,
    expected: [F('EINVAL')],
  },
  {
    id: 'K20',
    what: 'status, then ERROR',
    script: status((r) => [
      SR(0, T.BS, r.cookie, extents(r.contextId, [65536, 0])),
      SR(DONE, T.ERR, r.cookie, join(u32(5), u16(0))),
    ]),
    ...BS,
    expected: [F('EIO')],
  },
  {
    id: 'K21',
    what: '32-bit lengths that sum past 2^32',
    script: status(
      (r) =>
        SR(
          DONE,
          T.BS,
          r.cookie,
          extents(r.contextId, ...Array.from({ length: 4 }, (): [number, number] => [0x80000000, 0])),
        ),
      { size: 2 ** 40 },
    ),
    ...BS,
    expected: [F('EPROTO'), OK, D],
  },
  {
    id: 'K22',
    what: 'two contexts, chunks in reverse order',
    script: status(
      (r) => [SR(0, T.BS, r.cookie, extents(2, [65536, 7])), SR(DONE, T.BS, r.cookie, extents(1, [65536, 0]))],
      {
        on: [
          on(OPT.SETMETA, [
            REP(OPT.SETMETA, R.META, join(u32(1), 'base:allocation')),
            REP(OPT.SETMETA, R.META, join(u32(2), 'x-two:b')),
            REP(OPT.SETMETA, R.ACK),
          ]),
        ],
      },
    ),
    ...BS,
    client: { metaContexts: ['base:allocation', 'x-two:b'] },
    expected: [OK],
    check: (results) => {
      gives([[65536, 0]])(results);
      gives([[65536, 7]], 'x-two:b')(results);
    },
  },
  {
    id: 'K23',
    what: 'two contexts, a chunk for one',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(1, [65536, 0])), {
      on: [
        on(OPT.SETMETA, [
          REP(OPT.SETMETA, R.META, join(u32(1), 'base:allocation')),
          REP(OPT.SETMETA, R.META, join(u32(2), 'x-two:b')),
          REP(OPT.SETMETA, R.ACK),
        ]),
      ],
    }),
    ...BS,
    client: { metaContexts: ['base:allocation', 'x-two:b'] },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K24',
    what: 'REQ_ONE: two extents',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 0], [4096, 3]))),
    ...BS1,
    expected: [OK, F('EPROTO'), D],
    check: gives([[4096, 0]]),
  },
  {
    id: 'K25',
    what: 'REQ_ONE: one extent',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 0]))),
    ...BS1,
    expected: [OK],
    check: gives([[4096, 0]]),
  },
  {
    id: 'K26',
    what: 'BLOCK_STATUS_EXT that was not negotiated',
    script: status((r) => SR(DONE, T.BSEXT, r.cookie, join(u32(r.contextId), u32(1), u64(65536), u64(0)))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
];

/** Extents of one byte whose flags alternate. */
function alternating(count: number): Buffer {
  const bytes = Buffer.alloc(count * 8);
  for (let i = 0; i < count; i++) {
    bytes.writeUInt32BE(1, i * 8);
    bytes.writeUInt32BE(i & 1, i * 8 + 4);
  }
  return bytes;
}
