// The lies of table K in structured replies and in extended ones, one field more and less.

import {
  CMD,
  D,
  DONE,
  F,
  F_DISC,
  join,
  OK,
  type Outcome,
  SIMPLE,
  stall,
  T,
  u16,
  u32,
  u64,
  type WireCase,
} from '../../notation.js';
import { type Answer, CHUNK_STYLES, type ChunkStyle, type Request } from './styles.js';

const FAILS = [F('EPROTO'), D] as const;
const MAX_EXTENTS = 2 ** 20;

function ofStatus({ name, script, chunk }: ChunkStyle): WireCase[] {
  const isExtended = name === 'extended';
  const type = isExtended ? T.BSEXT : T.BS;
  const other = isExtended ? T.BS : T.BSEXT;
  const word = isExtended ? u64 : u32;
  const size = isExtended ? 16 : 8;
  const extent = (length: number | bigint, flags: number | bigint): Buffer =>
    isExtended ? join(u64(length), u64(flags)) : join(u32(Number(length)), u32(Number(flags)));
  const extents = (
    id: number,
    list: readonly (readonly [number | bigint, number | bigint])[],
    count = list.length,
  ): Buffer => join(u32(id), isExtended ? u32(count) : '', ...list.map(([length, flags]) => extent(length, flags)));
  const row = (
    id: string,
    what: string,
    steps: (r: Request) => Answer,
    expected: readonly Outcome[],
    more: Partial<WireCase> = {},
  ): WireCase => ({
    id: `${id}+${name}`,
    what: `${what}, ${name} replies`,
    script: { ...script, reply: { command: CMD.STATUS, steps } },
    client: { metaContexts: ['base:allocation'] },
    user: 'bs 65536 0, pread 512 4096',
    expected,
    ...more,
  });
  const reports = (id: string, what: string, list: Parameters<typeof extents>[1], ...expected: Outcome[]): WireCase =>
    row(id, what, (r) => chunk(r, DONE, type, extents(r.contextId, list)), expected);
  const huge = isExtended ? [2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n] : [];
  return [
    reports('K01', 'one extent', [[65536, 3]], OK),
    reports('K01.1', 'one extent of one byte', [[1, 0]], OK),
    reports(
      'K01.2',
      'two extents',
      [
        [4096, 3],
        [61440, 0],
      ],
      OK,
    ),
    ...[-1, 1, 9, 0x7fffffff].map((more) =>
      row(
        `K02.${more}`,
        `context ID + ${more}`,
        (r) => chunk(r, DONE, type, extents(r.contextId + more, [[65536, 0]])),
        FAILS,
      ),
    ),
    reports('K03', 'first extent of no bytes', [[0, 0]], ...FAILS),
    reports(
      'K03b',
      'first extent of no bytes, then a good one',
      [
        [0, 0],
        [65536, 0],
      ],
      ...FAILS,
    ),
    reports(
      'K04',
      'second extent of no bytes',
      [
        [4096, 0],
        [0, 1],
      ],
      OK,
      ...FAILS,
    ),
    reports(
      'K04b',
      'an extent of no bytes between two',
      [
        [4096, 0],
        [0, 1],
        [4096, 0],
      ],
      OK,
      ...FAILS,
    ),
    ...[0, 3, 4, 5, 8, 11, 12, 13, 15, 16, 19, 20, 23, 24, 25, 32, 39, 40]
      .filter((length) => length < (isExtended ? 24 : 12) || length % size !== (isExtended ? 8 : 4))
      .map((length) =>
        row(
          `K05.${length}`,
          `payload of ${length} bytes`,
          (r) => [
            chunk(
              r,
              DONE,
              type,
              Buffer.concat([extents(r.contextId, [[65536, 0]]), Buffer.alloc(32)]).subarray(0, length),
            ),
            stall(),
          ],
          [D],
        ),
      ),
    row(
      'K07',
      'two chunks for one context',
      (r) => [
        chunk(r, 0, type, extents(r.contextId, [[4096, 0]])),
        chunk(r, DONE, type, extents(r.contextId, [[4096, 3]])),
      ],
      FAILS,
    ),
    row(
      'K07b',
      'the same chunk twice',
      (r) => [
        chunk(r, 0, type, extents(r.contextId, [[65536, 0]])),
        chunk(r, DONE, type, extents(r.contextId, [[65536, 0]])),
      ],
      FAILS,
    ),
    row('K08', 'NONE and no extents', (r) => chunk(r, DONE, T.NONE), FAILS),
    row(
      'K08b',
      'extents, then NONE',
      (r) => [chunk(r, 0, type, extents(r.contextId, [[65536, 0]])), chunk(r, DONE, T.NONE)],
      [OK],
    ),
    row('K09', 'simple success', (r) => [SIMPLE(0, r.cookie)], isExtended ? [D] : FAILS),
    row('K10', 'simple error', (r) => [SIMPLE(5, r.cookie)], isExtended ? [D] : [F('EIO')]),
    reports(
      'K11',
      'the first fills the request, another follows',
      [
        [65536, 0],
        [65536, 3],
      ],
      OK,
      ...FAILS,
    ),
    reports('K11b', 'the first is a byte longer than the request', [[65537, 0]], OK),
    reports(
      'K12',
      'the last leaves the request',
      [
        [4096, 3],
        [65536, 0],
      ],
      OK,
    ),
    reports('K13', 'up to the end of the export', [[2 ** 20, 0]], OK),
    reports('K13.1', 'a byte beyond the export', [[2 ** 20 + 1, 0]], OK, ...FAILS),
    ...[0xfffffffe, 0xffffffff, ...huge].map((length) =>
      reports(`K13.${length}`, `extent of ${length} bytes`, [[length, 0]], OK, ...FAILS),
    ),
    ...[0xfffffffc, 0x80000000].map((flags) => reports(`K14.${flags}`, `flags ${flags}`, [[65536, flags]], OK)),
    ...(isExtended
      ? [2n ** 32n, 2n ** 64n - 1n].map((flags) =>
          reports(`X13.${flags}`, `flags ${flags}`, [[65536, flags]], F('EOVERFLOW'), OK),
        )
      : []),
    ...(isExtended
      ? [0, 2, 3, 0x10000000, 0xffffffff].map((count) =>
          row(
            `X10.${count}`,
            `one extent, count ${count}`,
            (r) => chunk(r, DONE, type, extents(r.contextId, [[65536, 0]], count)),
            [D, F('EPROTO')],
          ),
        )
      : []),
    ...[(isExtended ? 8 : 4) + size * (MAX_EXTENTS + 1), 0x7ffffffc, 0xfffffffc, 0xffffffff].map((length) =>
      row(
        `K17.${length}`,
        `chunk of ${length} bytes`,
        (r) => [chunk(r, DONE, type, u32(r.contextId), { length }), stall()],
        [D],
      ),
    ),
    row('K18', 'data', (r) => [chunk(r, DONE, T.DATA, join(u64(r.offset), Buffer.alloc(512))), stall()], [D]),
    row('K18b', 'a hole', (r) => [chunk(r, DONE, T.HOLE, join(u64(r.offset), u32(512))), stall()], [D]),
    row('K19', 'ERROR EINVAL', (r) => chunk(r, DONE, T.ERR, join(u32(22), u16(0))), [F('EINVAL')]),
    row('K19.off', 'ERROR_OFFSET', (r) => chunk(r, DONE, T.ERROFF, join(u32(5), u16(0), u64(r.offset + 4096n))), [
      F('EIO'),
    ]),
    row('K19.108', 'ESHUTDOWN', (r) => chunk(r, DONE, T.ERR, join(u32(108), u16(0))), [F_DISC('ESHUTDOWN')]),
    row(
      'K20',
      'extents, then ERROR',
      (r) => [chunk(r, 0, type, extents(r.contextId, [[65536, 0]])), chunk(r, DONE, T.ERR, join(u32(5), u16(0)))],
      [F('EIO')],
    ),
    row(
      'K20b',
      'ERROR, then extents',
      (r) => [chunk(r, 0, T.ERR, join(u32(5), u16(0))), chunk(r, DONE, type, extents(r.contextId, [[65536, 0]]))],
      [F('EIO')],
    ),
    row(
      'K26',
      'extents of the other width',
      (r) =>
        chunk(
          r,
          DONE,
          other,
          isExtended ? join(u32(r.contextId), u32(65536), u32(0)) : join(u32(r.contextId), u32(1), u64(65536), u64(0)),
        ),
      FAILS,
    ),
    ...[1, 2, 3].map((count) =>
      row(
        `K24.${count}`,
        `REQ_ONE and ${count} extents`,
        (r) =>
          chunk(
            r,
            DONE,
            type,
            extents(
              r.contextId,
              Array.from({ length: count }, () => [4096, 0] as const),
            ),
          ),
        count === 1 ? [OK] : [OK, ...FAILS],
        { user: 'bs1 65536 0, pread 512 4096' },
      ),
    ),
    row(
      'K24.0',
      'REQ_ONE and an extent of no bytes',
      (r) => chunk(r, DONE, type, extents(r.contextId, [[0, 0]])),
      FAILS,
      {
        user: 'bs1 65536 0, pread 512 4096',
      },
    ),
    row(
      'K27',
      'bytes of the payload in pieces',
      (r) => {
        const bytes = chunk(
          r,
          DONE,
          type,
          extents(r.contextId, [
            [4096, 3],
            [61440, 0],
          ]),
        );
        return [...bytes].map((byte) => Buffer.from([byte]));
      },
      [OK],
    ),
    row(
      'K28',
      'the word after the last extent missing',
      (r) => [
        chunk(
          r,
          DONE,
          type,
          extents(r.contextId, [
            [4096, 3],
            [61440, 0],
          ]).subarray(0, -word(0).length),
        ),
        stall(),
      ],
      [D],
    ),
  ];
}

export const STATUS_NEIGHBOURS: readonly WireCase[] = CHUNK_STYLES.flatMap(ofStatus);
