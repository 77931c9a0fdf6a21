// Entries of lists, information and contexts: one byte shorter and longer than they may be, at each option that has
// them.

import {
  BSIZE,
  D,
  type Outcome,
  join,
  OK,
  on,
  OPT,
  R,
  REP,
  stall,
  u16,
  u32,
  type WireCase,
  XINFO,
} from '../../notation.js';

const { GO, INFO, LIST, LISTMETA, SETMETA } = OPT;
const OPT_MODE = { client: { optMode: true } } as const;

interface Length {
  readonly id: string;
  readonly what: string;
  readonly payload: Uint8Array;
  readonly expected: readonly Outcome[];
}

const length = (id: string, what: string, payload: Uint8Array, ...expected: Outcome[]): Length => ({
  id,
  what,
  payload,
  expected,
});

const entry = (nameLength: number, bytes: string): Buffer => join(u32(nameLength), bytes);
const n = (count: number): string => 'n'.repeat(count);

const LISTED: readonly Length[] = [
  ...[0, 1, 2].map((count) => length(`D02.${count}`, `entry of ${count} bytes`, Buffer.alloc(count), D)),
  length('D02.4', 'entry of 4 bytes: no name', u32(0), OK),
  length('D03.1', 'name one byte longer than the reply', entry(4, 'abc'), D),
  length('D03.0', 'name as long as the reply', entry(3, 'abc'), OK),
  ...[0x7fffffff, 0x80000000, 0xfffffffc, 0xfffffffe].map((count) =>
    length(`D04.${count.toString(16)}`, `name of ${count} bytes`, entry(count, 'abc'), D),
  ),
  length('D05.4095', 'name of 4095 bytes', entry(4095, n(4095)), OK),
  length('D05.4096', 'name of 4096 bytes', entry(4096, n(4096)), OK),
  length('D06.4098', 'name of 4098 bytes', entry(4098, n(4098)), D),
  length('D06.65536', 'name of 64 KiB', entry(65536, n(65536)), D),
  length('D07.4095', 'description of 4095 bytes', entry(1, n(4096)), OK),
  length('D07.4096', 'description of 4096 bytes', entry(1, n(4097)), OK),
  length('D07.both', 'name and description of 4096 bytes', entry(4096, n(8192)), OK),
  length('D07.both+1', 'name of 4096 bytes, description of 4097', entry(4096, n(8193)), D),
  length('D16.desc', 'description that is not valid UTF-8', join(u32(1), 'n', Buffer.from([0xff, 0xfe])), OK, D),
  length('D16.NUL', 'name with a NUL', join(u32(3), 'a\0b'), OK, D),
];

const BLOCKS = BSIZE(512, 4096, 1 << 25);
const TOLD: readonly Length[] = [
  ...[2, 3, 10, 11].map((count) => length(`E02.${count}`, `INFO_EXPORT of ${count}`, XINFO().subarray(0, count), D)),
  ...[1, 2, 4, 65535].map((extra) =>
    length(`E03.${12 + extra}`, `INFO_EXPORT of ${12 + extra}`, join(XINFO(), Buffer.alloc(extra)), D),
  ),
  length('E04', 'REP_INFO of length 0', Buffer.alloc(0), D),
  length('E05', 'REP_INFO of length 1', Buffer.alloc(1), D),
  ...[2, 6, 13].map((count) => length(`E14.${count}`, `INFO_BLOCK_SIZE of ${count}`, BLOCKS.subarray(0, count), D)),
  length('E14.14', 'INFO_BLOCK_SIZE of 14', BLOCKS, OK),
  length('E14.15', 'INFO_BLOCK_SIZE of 15', join(BLOCKS, 'x'), D),
  ...[0, 1, 4095, 4096].flatMap((count) => [
    length(`E15.name.${count}`, `INFO_NAME of ${count} bytes`, join(u16(1), n(count)), OK),
    length(`E15.text.${count}`, `INFO_DESCRIPTION of ${count} bytes`, join(u16(2), n(count)), OK),
  ]),
  length('E15.name.4097', 'INFO_NAME of 4097 bytes', join(u16(1), n(4097)), D),
  length('E15.text.4097', 'INFO_DESCRIPTION of 4097 bytes', join(u16(2), n(4097)), D),
  ...[0, 1, 4097, 65536].map((count) =>
    length(`E09.${count}`, `unknown information of ${count} bytes`, join(u16(4), n(count)), OK),
  ),
  length('E09.max', 'information of type 65535', join(u16(65535), 'hello'), OK),
];

const SELECTED: readonly Length[] = [
  ...[0, 1, 2, 3].map((count) => length(`M06.${count}`, `context of ${count} bytes`, Buffer.alloc(count), D)),
  length('M06.4', 'context without a name', u32(1), D, OK),
  length('M06.5', 'context with a name of 1 byte', join(u32(1), 'x'), OK, D),
  length('M07.4095', 'context name of 4095 bytes', join(u32(1), n(4095)), OK, D),
  length('M07.4096', 'context name of 4096 bytes', join(u32(1), n(4096)), OK, D),
  length('M07.4097', 'context name of 4097 bytes', join(u32(1), n(4097)), D),
  length('M07.65536', 'context name of 64 KiB', join(u32(1), n(65536)), D),
  length('M16.0', 'context ID 0', join(u32(0), 'base:allocation'), OK),
  length('M16.max', 'context ID 2^32 - 1', join(u32(0xffffffff), 'base:allocation'), OK),
];

/** The payload at one option, before what is needed besides. */
function at(
  name: string,
  option: number,
  type: number,
  lengths: readonly Length[],
  more: Partial<WireCase>,
  ...rest: Uint8Array[]
): WireCase[] {
  return lengths.map(({ id, what, payload, expected }) => ({
    id: `${id}+${name}`,
    what: `${name}: ${what}`,
    script: {
      on: [
        on(option, [REP(option, type, payload), ...rest, REP(option, R.ACK), ...(expected[0] === D ? [stall()] : [])]),
      ],
    },
    expected,
    ...more,
  }));
}

export const LENGTH_NEIGHBOURS: readonly WireCase[] = [
  ...at('LIST', LIST, R.SERVER, LISTED, { ...OPT_MODE, user: 'list, go, R' }),
  ...at('GO', GO, R.INFO, TOLD, {}, REP(GO, R.INFO, XINFO())),
  ...at('INFO', INFO, R.INFO, TOLD, { ...OPT_MODE, user: 'info, go, R' }, REP(INFO, R.INFO, XINFO())),
  ...at('SETMETA', SETMETA, R.META, SELECTED, { client: { metaContexts: ['base:allocation'] } }),
  ...at('LISTMETA', LISTMETA, R.META, SELECTED, { ...OPT_MODE, user: 'lmeta, go, R' }),
];
