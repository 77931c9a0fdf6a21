// The lies of table S in structured and in extended replies, one byte shorter and longer, and at other commands.

import {
  close,
  D,
  DONE,
  F,
  F_DISC,
  F_THEN_D,
  join,
  OK,
  OK_THEN_D,
  type Outcome,
  stall,
  T,
  trickle,
  u16,
  u32,
  u64,
  type WireCase,
} from '../../notation.js';
import { type Answer, CHUNK_STYLES, type ChunkStyle, COMMANDS, type Request, WITHOUT_PAYLOAD } from './styles.js';

/** The lies about a read, in one format. */
function ofReads({ name, script, chunk }: ChunkStyle): WireCase[] {
  const row = (
    id: string,
    what: string,
    answer: (r: Request) => Answer,
    expected: readonly Outcome[],
    more: Partial<WireCase> = {},
  ): WireCase => ({
    id: `${id}+${name}`,
    what: `${what}, ${name} replies`,
    script: { ...script, reply: answer },
    expected,
    ...more,
  });
  const data = (r: Request, flags: number, from: number, to: number): Buffer =>
    chunk(r, flags, T.DATA, join(u64(r.offset + BigInt(from)), r.data.subarray(from, to)));
  const hole = (r: Request, flags: number, from: bigint, length: number): Buffer =>
    chunk(r, flags, T.HOLE, join(u64(r.offset + from), u32(length)));
  const error = (r: Request, flags: number, wire: number, text = '', declared = text.length): Buffer =>
    chunk(r, flags, T.ERR, join(u32(wire), u16(declared), text));
  const declares = (type: number, length: number | bigint): WireCase =>
    row(
      `S42.${type.toString(16)}.${length.toString(16)}`,
      `type ${type} that declares ${length} bytes`,
      (r) => [chunk(r, DONE, type, u64(r.offset), { length }), stall()],
      [D],
    );
  const wide = name === 'extended' ? [2n ** 32n, 2n ** 32n + 520n, 2n ** 63n, 2n ** 64n - 1n] : [];
  return [
    row('S01', 'one chunk', (r) => data(r, DONE, 0, 512), [OK]),
    row(
      'S01b',
      'one byte at either end apart',
      (r) => [data(r, 0, 0, 1), data(r, 0, 511, 512), data(r, DONE, 1, 511)],
      [OK],
    ),
    ...[1, 4, 8, 65536].map((length) =>
      row(`S02.${length}`, `NONE of ${length} bytes`, (r) => [chunk(r, DONE, T.NONE, '', { length }), stall()], [D]),
    ),
    row('S02.open', 'NONE without DONE', (r) => [chunk(r, 0, T.NONE), stall()], [D]),
    row('S02.end', 'all data, then NONE without DONE', (r) => [data(r, 0, 0, 512), chunk(r, 0, T.NONE), stall()], [D]),
    ...[0, 1, 7, 8].map((length) =>
      row(
        `S04.${length}`,
        `OFFSET_DATA of ${length} bytes`,
        (r) => [chunk(r, DONE, T.DATA, u64(r.offset).subarray(0, length)), stall()],
        [D],
      ),
    ),
    ...[-512n, -1n, 1n, 511n, 512n, 2n ** 32n, 2n ** 53n, 2n ** 63n, -4096n - 512n].map((more) =>
      row(
        `S05.${more}`,
        `data ${more} from where it belongs`,
        (r) => [chunk(r, DONE, T.DATA, join(u64(r.offset + more), r.data)), stall()],
        [D],
        { user: 'pread 512 4096, pread 512 8192' },
      ),
    ),
    ...[1, 511].map((more) =>
      row(
        `S07.${more}`,
        `${more} bytes too many`,
        (r) => [chunk(r, DONE, T.DATA, join(u64(r.offset), r.data, Buffer.alloc(more, '!'))), stall()],
        [D],
      ),
    ),
    ...[1, 256, 511].map((length) =>
      row(`S10.${length}`, `only the first ${length} bytes`, (r) => data(r, DONE, 0, length), [F('EPROTO')]),
    ),
    row('S10.end', 'only the last 511 bytes', (r) => data(r, DONE, 1, 512), [F('EPROTO')]),
    row('S10.middle', 'one byte in the middle missing', (r) => [data(r, 0, 0, 255), data(r, DONE, 256, 512)], [
      F('EPROTO'),
    ]),
    row('S09', 'the first half twice', (r) => [data(r, 0, 0, 256), data(r, DONE, 0, 256)], [F('EPROTO'), D]),
    row('S09b', 'all of it twice in one reply', (r) => [data(r, 0, 0, 512), data(r, DONE, 0, 512)], [F('EPROTO'), D]),
    row('S11', 'NONE and no data', (r) => chunk(r, DONE, T.NONE), [F('EPROTO')]),
    row('S12', 'hole of no bytes, then all data', (r) => [hole(r, 0, 0n, 0), data(r, DONE, 0, 512)], [D]),
    row('S12.end', 'hole of no bytes at the end', (r) => [data(r, 0, 0, 512), hole(r, DONE, 512n, 0)], [D], {
      late: true,
    }),
    row('S13.511', 'hole one byte short', (r) => hole(r, DONE, 0n, 511), [F('EPROTO')]),
    ...[513, 1024, 0x7fffffff, 0x80000000, 0xffffffff].map((length) =>
      row(`S13.${length}`, `hole of ${length} bytes`, (r) => hole(r, DONE, 0n, length), [D]),
    ),
    ...[-1n, 1n, 2n ** 32n, 2n ** 63n].map((more) =>
      row(`S13.at${more}`, `hole ${more} from where it belongs`, (r) => hole(r, DONE, more, 512), [D]),
    ),
    row('S13.both', 'half data, half hole, overlapping', (r) => [data(r, 0, 0, 257), hole(r, DONE, 256n, 256)], [
      F('EPROTO'),
      D,
    ]),
    row('S55', 'a hole', (r) => hole(r, DONE, 0n, 512), [OK], { user: 'pread 512 0', zeroes: true }),
    ...[0, 8, 11, 13, 16].map((length) =>
      row(
        `S15.${length}`,
        `hole payload of ${length} bytes`,
        (r) => [chunk(r, DONE, T.HOLE, join(u64(r.offset), u32(512), 'xxxx').subarray(0, length)), stall()],
        [D],
      ),
    ),
    row('S17', 'in reverse order', (r) => [data(r, 0, 256, 512), data(r, 0, 0, 256), chunk(r, DONE, T.NONE)], [OK]),
    ...[3, 4, 5, 6, 7, 8, 0x7fff].flatMap((type) =>
      [0, DONE].map((flags) =>
        row(
          `S18.${type}.${flags}`,
          `chunk type ${type}, flags ${flags}`,
          (r) => [chunk(r, flags, type, join(u64(0), u64(0), u64(0))), stall()],
          [D],
        ),
      ),
    ),
    ...[0x8000, 0x8003, 0x80ff, 0xffff].map((type) =>
      row(
        `S20.${type.toString(16)}`,
        `error type 0x${type.toString(16)}`,
        (r) => chunk(r, DONE, type, join(u32(5), u16(2), 'hitail')),
        [F('EIO')],
      ),
    ),
    ...[0, 1, 4, 5].map((length) =>
      row(
        `S22.${length}`,
        `ERROR of ${length} bytes`,
        (r) => chunk(r, DONE, T.ERR, join(u32(5), u16(0)).subarray(0, length)),
        [D],
      ),
    ),
    row('S22.6', 'ERROR of 6 bytes', (r) => error(r, DONE, 5), [F('EIO')]),
    row('S22.tail', 'ERROR with a byte behind its message', (r) => error(r, DONE, 5, 'hix', 2), [F('EIO'), D]),
    ...[1, 100, 65535].map((more) =>
      row(
        `S23.${more}`,
        `ERROR that declares a message of ${more} bytes and has none`,
        (r) => error(r, DONE, 5, '', more),
        [D],
      ),
    ),
    row('S24', 'ERROR with number 0', (r) => error(r, DONE, 0), [F('EPROTO'), D]),
    row('S24b', 'all data, then ERROR with number 0', (r) => [data(r, 0, 0, 512), error(r, DONE, 0)], [F('EPROTO'), D]),
    row('S24c', 'ERROR_OFFSET with number 0', (r) => chunk(r, DONE, T.ERROFF, join(u32(0), u16(0), u64(r.offset))), [
      F('EPROTO'),
      D,
    ]),
    row('S25', 'ERROR, then NONE', (r) => [error(r, 0, 5, 'bad'), chunk(r, DONE, T.NONE)], [F('EIO')]),
    row('S25b', 'ERROR, then all data', (r) => [error(r, 0, 5), data(r, DONE, 0, 512)], [F('EIO')]),
    row('S26', 'two errors', (r) => [error(r, 0, 28), error(r, DONE, 5)], [F('ENOSPC')]),
    ...[255, 4095, 4096].map((length) =>
      row(`S27.${length}`, `error text of ${length} bytes`, (r) => error(r, DONE, 5, 'm'.repeat(length)), [F('EIO')]),
    ),
    ...[4097, 65535].map((length) =>
      row(`S27.${length}`, `error text of ${length} bytes`, (r) => error(r, DONE, 5, 'm'.repeat(length)), [
        F('EIO'),
        D,
      ]),
    ),
    ...(
      [
        [1, 'EPERM'],
        [12, 'ENOMEM'],
        [22, 'EINVAL'],
        [28, 'ENOSPC'],
        [75, 'EOVERFLOW'],
        [95, 'ENOTSUP'],
        [2, 'EINVAL'],
        [0xffffffff, 'EINVAL'],
      ] as const
    ).map(([wire, code]) => row(`S28.${wire}`, `error ${wire}`, (r) => error(r, DONE, wire), [F(code)])),
    row('S28.108', 'ESHUTDOWN', (r) => error(r, DONE, 108), [F_DISC('ESHUTDOWN')]),
    row('S29', 'all data, then ERROR', (r) => [data(r, 0, 0, 512), error(r, DONE, 5)], [F('EIO')]),
    ...[0n, 511n].map((at) =>
      row(
        `S30.${at}`,
        `ERROR_OFFSET at byte ${at}`,
        (r) => chunk(r, DONE, T.ERROFF, join(u32(5), u16(2), 'hi', u64(r.offset + at))),
        [F('EIO')],
      ),
    ),
    ...[-1n, 512n, 2n ** 32n, 2n ** 63n].map((at) =>
      row(
        `S31.${at}`,
        `ERROR_OFFSET at byte ${at}`,
        (r) => chunk(r, DONE, T.ERROFF, join(u32(5), u16(0), u64(r.offset + at))),
        [D, F('EIO')],
      ),
    ),
    ...[0, 6, 10, 13].map((length) =>
      row(
        `S32.${length}`,
        `ERROR_OFFSET of ${length} bytes`,
        (r) => chunk(r, DONE, T.ERROFF, join(u32(5), u16(0), u64(r.offset)).subarray(0, length)),
        [D, F('EIO')],
      ),
    ),
    row('S34.fffe', 'unknown flags without DONE', (r) => [data(r, 0xfffe, 0, 512), chunk(r, DONE, T.NONE)], [OK]),
    row('S34.ffff', 'unknown flags with DONE', (r) => data(r, 0xffff, 0, 512), [OK]),
    ...[0x668e33ee, 0x6e8a278d, 0x67446698, 0x25609513, name === 'extended' ? 0x668e33ef : 0x6e8a278c].flatMap(
      (magic) =>
        [0, 256].map((first) =>
          row(
            `S41.${magic.toString(16)}.${first}`,
            `magic 0x${magic.toString(16)} after ${first} bytes`,
            (r) => [
              ...(first === 0 ? [] : [data(r, 0, 0, first)]),
              chunk(r, DONE, T.NONE, '', { magic, cookie: 1000n }),
              stall(),
            ],
            [D],
          ),
        ),
    ),
    ...[T.DATA, T.HOLE, T.NONE, T.ERR, T.ERROFF, T.BS, T.BSEXT, 7].flatMap((type) =>
      [0x7fffffff, 0x80000000, 0xffffffff, ...wide].map((length) => declares(type, length)),
    ),
    ...[-1n, 1n, 1000n, 2n ** 32n, 2n ** 53n, 2n ** 63n].flatMap((cookie) =>
      (
        [
          [T.NONE, ''],
          [T.DATA, 'data'],
          [T.ERR, 'error'],
          [7, ''],
        ] as const
      ).map(([type, payload]) =>
        row(
          `S50.${cookie}.${type}`,
          `type ${type}, cookie + ${cookie}`,
          (r) => [
            chunk(
              r,
              DONE,
              type,
              payload === 'data' ? join(u64(r.offset), r.data) : payload === 'error' ? join(u32(5), u16(0)) : '',
              { cookie },
            ),
            stall(),
          ],
          [D],
        ),
      ),
    ),
    row('S52', 'FIN between chunks', (r) => [data(r, 0, 0, 256), close()], [D]),
    row('S52b', 'FIN in a payload', (r) => [data(r, DONE, 0, 512).subarray(0, -1), close()], [D]),
    row('S54', 'byte by byte', (r) => trickle(join(data(r, 0, 0, 5), data(r, 0, 5, 512), chunk(r, DONE, T.NONE)), 0), [
      OK,
    ]),
    row('S62', 'the reply twice', (r) => join(data(r, DONE, 0, 512), data(r, DONE, 0, 512)), [D], { late: true }),
    row('S63', 'NONE after DONE', (r) => join(data(r, DONE, 0, 512), chunk(r, DONE, T.NONE)), [D], { late: true }),
    row('S63b', 'an error after DONE', (r) => join(data(r, DONE, 0, 512), error(r, DONE, 5)), [D], { late: true }),
    row('S63c', 'a byte after DONE', (r) => join(data(r, DONE, 0, 512), 'x'), [OK_THEN_D, D], { late: true }),
    ...[1, 255].map((overlap) =>
      row(`S64.${overlap}`, `${overlap} bytes twice`, (r) => [data(r, 0, 0, 256 + overlap), data(r, DONE, 256, 512)], [
        F('EPROTO'),
        D,
      ]),
    ),
    row('S65', 'a byte twice, another never', (r) => [data(r, 0, 0, 257), data(r, DONE, 256, 511)], [F('EPROTO'), D]),
    row(
      'S67',
      'half the data, ERROR_OFFSET, NONE',
      (r) => [
        data(r, 0, 0, 256),
        chunk(r, 0, T.ERROFF, join(u32(5), u16(0), u64(r.offset + 256n))),
        chunk(r, DONE, T.NONE),
      ],
      [F('EIO')],
    ),
    ...(name === 'extended'
      ? [-512n, -1n, 1n, 512n, 2n ** 32n, 2n ** 63n].map((offset) =>
          row(
            `X02.${offset}`,
            `header with the offset + ${offset}`,
            (r) => chunk(r, DONE, T.DATA, join(u64(r.offset), r.data), { offset }),
            [F('EPROTO'), D],
          ),
        )
      : []),
  ];
}

/** Content that the command cannot have. */
const CONTENTS = [
  ['DATA', T.DATA, (r: Request) => join(u64(r.offset), Buffer.alloc(512))],
  ['HOLE', T.HOLE, (r: Request) => join(u64(r.offset), u32(512))],
  ['BLOCK_STATUS', T.BS, () => join(u32(1), u32(512), u32(0))],
  ['BLOCK_STATUS_EXT', T.BSEXT, () => join(u32(1), u32(1), u64(512), u64(0))],
] as const;

function ofOthers({ name, script, chunk }: ChunkStyle): WireCase[] {
  return WITHOUT_PAYLOAD.flatMap((verb) => {
    const row = (id: string, what: string, answer: (r: Request) => Answer, ...expected: Outcome[]): WireCase => ({
      id: `${id}+${verb}+${name}`,
      what: `${what}, to ${verb}, ${name} replies`,
      script: { ...script, reply: answer },
      user: COMMANDS[verb],
      expected,
    });
    return [
      row('X16', 'NONE', (r) => chunk(r, DONE, T.NONE), OK),
      ...CONTENTS.map(([title, type, payload]) =>
        row(`S36.${title}`, title, (r) => [chunk(r, DONE, type, payload(r)), stall()], D),
      ),
      row('S02', 'NONE of 4 bytes', (r) => [chunk(r, DONE, T.NONE, 'abcd'), stall()], D),
      row('S18', 'chunk type 7', (r) => [chunk(r, DONE, 7, 'abcd'), stall()], D),
      row('S21', 'ERROR', (r) => chunk(r, DONE, T.ERR, join(u32(28), u16(4), 'full')), F('ENOSPC')),
      row(
        'S25',
        'ERROR, then NONE',
        (r) => [chunk(r, 0, T.ERR, join(u32(28), u16(0))), chunk(r, DONE, T.NONE)],
        F('ENOSPC'),
      ),
      row('S28.108', 'ESHUTDOWN', (r) => chunk(r, DONE, T.ERR, join(u32(108), u16(0))), F_DISC('ESHUTDOWN')),
      row('S24', 'ERROR with number 0', (r) => chunk(r, DONE, T.ERR, join(u32(0), u16(0))), F('EPROTO'), D),
      row('S50', 'cookie + 1000', (r) => [chunk(r, DONE, T.NONE, '', { cookie: 1000n }), stall()], D),
      row('S52', 'FIN in the header', (r) => [chunk(r, DONE, T.NONE).subarray(0, 19), close()], D),
      ...(name === 'extended'
        ? [
            row(
              'X02',
              'header with another offset',
              (r) => chunk(r, DONE, T.NONE, '', { offset: 512n }),
              F('EPROTO'),
              D,
            ),
          ]
        : []),
    ];
  });
}

/** What never ends. */
const endless = ({ name, script, chunk }: ChunkStyle): WireCase[] =>
  (
    [
      ['S49', 'errors', T.ERR, () => join(u32(5), u16(5), 'again')],
      ['S49b', 'holes at one place', T.HOLE, (r: Request) => join(u64(r.offset), u32(1))],
      ['S49c', 'data at one place', T.DATA, (r: Request) => join(u64(r.offset), 'x')],
    ] as const
  ).map(([id, what, type, payload]) => ({
    id: `${id}+${name}`,
    what: `endless ${what}, ${name} replies`,
    script: {
      ...script,
      reply: (r: Request): Answer => {
        const bytes = chunk(r, 0, type, payload(r));
        return { do: 'repeat', count: 1e7, make: () => bytes };
      },
    },
    expected: [type === T.ERR ? F_THEN_D('EIO') : D],
  }));

export const CHUNK_NEIGHBOURS: readonly WireCase[] = CHUNK_STYLES.flatMap((style) => [
  ...ofReads(style),
  ...ofOthers(style),
  ...endless(style),
]);
