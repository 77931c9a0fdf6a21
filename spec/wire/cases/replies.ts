// The transmission phase: simple and structured replies to reads and writes.

import { WIRE_ERRORS } from '../../support/golden.js';
import {
  close,
  D,
  DONE,
  E,
  F,
  F_AND_D,
  F_DISC,
  F_THEN_D,
  fin,
  join,
  NO_SR,
  OK,
  OK_THEN_D,
  rst,
  SIMPLE,
  sleep,
  SR,
  stall,
  T,
  TIMEOUT,
  trickle,
  u16,
  u32,
  u64,
  type WireCase,
  XR,
} from '../notation.js';

type Reply = Exclude<WireCase['script']['reply'], undefined>;
const simple = (reply: Reply): WireCase['script'] => ({ ...NO_SR, reply });
const after2 = (steps: (...requests: Requests) => ReturnType<Steps>): Reply => ({ collect: 2, steps: steps });
type Steps = Extract<Extract<Reply, { steps: unknown }>['steps'], (...args: never[]) => unknown>;
type Requests = [Parameters<Steps>[0], Parameters<Steps>[0]];
const PREAD2 = { user: 'pread2, pread 512 4096' } as const;
const WRITE_R = { user: 'pwrite 512 0, R' } as const;

const errors = WIRE_ERRORS.map(([number, code]): WireCase => ({
  id: `T07.${number}`,
  what: `error ${number} (${code}) to a read`,
  script: simple(({ cookie }) => SIMPLE(number, cookie)),
  expected: [F(code)],
}));

export const SIMPLE_REPLIES: readonly WireCase[] = [
  {
    id: 'T01',
    what: 'reply magic 0xdeadbeef',
    script: simple(({ cookie, data }) => [SIMPLE(0, cookie, data, 0xdeadbeef), stall()]),
    expected: [D],
  },
  {
    id: 'T02',
    what: 'structured reply that was not negotiated',
    script: simple(({ cookie }) => [SR(DONE, T.NONE, cookie), stall()]),
    expected: [D],
  },
  {
    id: 'T03',
    what: 'unknown cookie, success',
    script: simple(({ cookie }) => [SIMPLE(0, cookie + 1000n), stall()]),
    expected: [D],
  },
  {
    id: 'T04',
    what: 'unknown cookie, EIO',
    script: simple(({ cookie }) => [SIMPLE(5, cookie + 1000n), stall()]),
    expected: [D],
  },
  { id: 'T05', what: 'cookie 0', script: simple(() => [SIMPLE(0, 0), stall()]), expected: [D] },
  {
    id: 'T06',
    what: 'two replies to one write',
    script: simple(({ cookie }) => [SIMPLE(0, cookie), SIMPLE(0, cookie)]),
    ...WRITE_R,
    late: true,
    expected: [D],
  },
  ...errors,
  { id: 'T08', what: 'error 9999', script: simple(({ cookie }) => SIMPLE(9999, cookie)), expected: [F('EINVAL')] },
  {
    id: 'T09',
    what: 'error 0xffffffff',
    script: simple(({ cookie }) => SIMPLE(0xffffffff, cookie)),
    expected: [F('EINVAL')],
  },
  {
    id: 'T10',
    what: 'error 108 (ESHUTDOWN)',
    script: simple(({ cookie }) => SIMPLE(108, cookie)),
    expected: [F_DISC('ESHUTDOWN')],
  },
  {
    id: 'T11',
    what: 'an error followed by the payload all the same',
    script: simple(({ cookie, data }) => SIMPLE(5, cookie, data)),
    late: true,
    expected: [F_THEN_D('EIO')],
  },
  {
    id: 'T12',
    what: 'payload short by one byte, then FIN',
    script: simple(({ cookie, data }) => [SIMPLE(0, cookie, data).subarray(0, -1), close()]),
    expected: [D],
  },
  {
    id: 'T13',
    what: 'FIN after 8 bytes of the header',
    script: simple(({ cookie, data }) => [SIMPLE(0, cookie, data).subarray(0, 8), close()]),
    expected: [D],
  },
  {
    id: 'T14',
    what: 'RST in the payload',
    script: simple(({ cookie, data }) => [SIMPLE(0, cookie, data).subarray(0, 100), rst()]),
    transport: 'tcp',
    expected: [D],
  },
  {
    id: 'T15',
    what: 'one byte more than the payload',
    script: simple(({ cookie, data }) => SIMPLE(0, cookie, join(data, 'x'))),
    expected: [OK_THEN_D, D],
  },
  { id: 'T16', what: 'no reply', script: simple(stall()), timeout: 400, expected: [TIMEOUT] },
  {
    id: 'T17',
    what: 'both replies in one segment',
    script: simple(after2((a, b) => join(SIMPLE(0, a.cookie, a.data), SIMPLE(0, b.cookie, b.data)))),
    ...PREAD2,
    expected: [OK],
  },
  {
    id: 'T17b',
    what: 'both replies, the second first',
    script: simple(after2((a, b) => join(SIMPLE(0, b.cookie, b.data), SIMPLE(0, a.cookie, a.data)))),
    ...PREAD2,
    expected: [OK],
  },
  {
    id: 'T18',
    what: 'reply byte by byte',
    script: simple(({ cookie, data }) => trickle(SIMPLE(0, cookie, data), 1)),
    expected: [OK],
  },
  {
    id: 'T20',
    what: 'a reply before any request',
    script: { ...NO_SR, onTransmission: SIMPLE(0, 1) },
    late: true,
    expected: [D],
  },
  {
    id: 'T21',
    what: 'an error reply before any request',
    script: { ...NO_SR, onTransmission: SIMPLE(5, 1) },
    late: true,
    expected: [D],
  },
  { id: 'T22', ends: true, what: 'FIN with a read in flight', script: simple([fin(), stall()]), expected: [D] },
  {
    id: 'T23',
    what: 'cookie byte-swapped',
    script: simple(({ cookie, data }) => [SIMPLE(0, u64(cookie).readBigUInt64LE(0), data), stall()]),
    expected: [D],
  },
  {
    id: 'T24',
    what: "a reply with the request's magic",
    script: simple(({ cookie, data }) => [SIMPLE(0, cookie, data, 0x25609513), stall()]),
    expected: [D],
  },
  {
    id: 'T25',
    what: 'extended reply that was not negotiated',
    script: simple(({ cookie, offset, data }) => [XR(DONE, T.DATA, cookie, offset, join(u64(offset), data)), stall()]),
    expected: [D],
  },
  {
    id: 'T26',
    what: 'a write answered with a payload',
    script: simple(({ cookie }) => SIMPLE(0, cookie, Buffer.alloc(512))),
    ...WRITE_R,
    late: true,
    expected: [D],
  },
  {
    id: 'T27',
    what: 'FIN with the second of two reads in flight',
    script: simple(after2((a) => [SIMPLE(0, a.cookie, a.data), close()])),
    user: 'pread2',
    late: true,
    expected: [D],
  },
  {
    id: 'T28',
    what: 'error to the second, the first never answered',
    script: simple(after2((_, b) => [SIMPLE(5, b.cookie), sleep(300), close()])),
    user: 'pread2',
    expected: [F_AND_D],
  },
  {
    id: 'T29',
    what: 'RST while idle',
    script: { ...NO_SR, reply: ({ cookie, data }) => [SIMPLE(0, cookie, data), sleep(20), rst()] },
    user: 'pread 512 0, wait 200, pread 512 0',
    transport: 'tcp',
    late: true,
    expected: [D],
  },
  {
    id: 'T30',
    what: 'FIN while idle',
    script: { ...NO_SR, reply: ({ cookie, data }) => [SIMPLE(0, cookie, data), sleep(20), close()] },
    user: 'pread 512 0, wait 200, pread 512 0',
    late: true,
    expected: [D],
  },
];

const data =
  (payloadOf: (o: bigint, d: Buffer) => Uint8Array): Reply =>
  (r) =>
    SR(DONE, T.DATA, r.cookie, payloadOf(r.offset, r.data));
const PART = 256;

export const STRUCTURED_REPLIES: readonly WireCase[] = [
  { id: 'S01', what: 'good reply in one chunk', script: { reply: data((o, d) => join(u64(o), d)) }, expected: [OK] },
  {
    id: 'S02',
    what: 'NONE with 4 bytes',
    script: { reply: ({ cookie }) => SR(DONE, T.NONE, cookie, 'abcd') },
    expected: [D],
  },
  { id: 'S03', what: 'OFFSET_DATA of length 8: no data', script: { reply: data((o) => u64(o)) }, expected: [D] },
  {
    id: 'S04',
    what: 'OFFSET_DATA of length 7',
    script: { reply: ({ cookie }) => SR(DONE, T.DATA, cookie, '1234567') },
    expected: [D],
  },
  {
    id: 'S05',
    what: 'data before the request',
    script: { reply: data((o, d) => join(u64(o - 1n), d)) },
    user: 'pread 512 4096, pread 512 8192',
    expected: [D],
  },
  {
    id: 'S06',
    what: 'data after the request',
    script: { reply: data((o, d) => join(u64(o + 512n), d)) },
    expected: [D],
  },
  { id: 'S06b', what: 'data at 2^64 - 512', script: { reply: data((_, d) => join(u64(-512), d)) }, expected: [D] },
  { id: 'S07', what: 'one byte too many', script: { reply: data((o, d) => join(u64(o), d, '!')) }, expected: [D] },
  {
    id: 'S08',
    what: 'one byte beyond the end, the first missing',
    script: { reply: data((o, d) => join(u64(o + 1n), d)) },
    expected: [D],
  },
  {
    id: 'S09',
    what: 'first half twice, second half never',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))),
        SR(DONE, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))),
      ],
    },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S10',
    what: 'only the first half',
    script: { reply: data((o, d) => join(u64(o), d.subarray(0, PART))) },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S11',
    what: 'NONE|DONE and no data',
    script: { reply: ({ cookie }) => SR(DONE, T.NONE, cookie) },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S12',
    what: 'hole of size 0, then good data',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.HOLE, cookie, join(u64(offset), u32(0))),
        SR(DONE, T.DATA, cookie, join(u64(offset), d)),
      ],
    },
    expected: [D],
  },
  {
    id: 'S13',
    what: 'hole beyond the request',
    script: { reply: ({ cookie, offset }) => SR(DONE, T.HOLE, cookie, join(u64(offset), u32(513))) },
    expected: [D],
  },
  {
    id: 'S14',
    what: 'hole of 4 GiB',
    script: { reply: ({ cookie, offset }) => SR(DONE, T.HOLE, cookie, join(u64(offset), u32(0xffffffff))) },
    expected: [D],
  },
  {
    id: 'S15',
    what: 'hole payload of 11 bytes',
    script: { reply: ({ cookie }) => SR(DONE, T.HOLE, cookie, 'x'.repeat(11)) },
    expected: [D],
  },
  {
    id: 'S16',
    what: 'hole payload of 13 bytes',
    script: { reply: ({ cookie, offset }) => SR(DONE, T.HOLE, cookie, join(u64(offset), u32(512), 'x')) },
    expected: [D],
  },
  {
    id: 'S17',
    what: 'four chunks in reverse order',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        ...[384, 256, 128, 0].map((i) => SR(0, T.DATA, cookie, join(u64(offset + BigInt(i)), d.subarray(i, i + 128)))),
        SR(DONE, T.NONE, cookie),
      ],
    },
    expected: [OK],
  },
  {
    id: 'S18',
    what: 'unknown chunk type 7 without DONE',
    script: { reply: ({ cookie }) => [SR(0, 7, cookie, 'abcdefgh'), stall()] },
    expected: [D],
  },
  {
    id: 'S19',
    what: 'unknown chunk type 7 with DONE',
    script: { reply: ({ cookie }) => SR(DONE, 7, cookie, 'abcdefgh') },
    expected: [D],
  },
  {
    id: 'S20',
    what: 'unknown error type, well formed',
    script: { reply: ({ cookie }) => SR(DONE, 0x80ff, cookie, join(u32(5), u16(2), 'hitail')) },
    expected: [F('EIO')],
  },
  {
    id: 'S21',
    what: 'ERROR with a message',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(28), u16(4), 'full')) },
    expected: [F('ENOSPC')],
    check: (ops) => says(ops, 'full'),
  },
  {
    id: 'S22',
    what: 'ERROR of length 4',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, u32(5)) },
    expected: [D, F('EIO')],
  },
  {
    id: 'S23',
    what: 'ERROR whose message runs past the chunk',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(5), u16(100), 'short')) },
    expected: [D, F('EIO')],
  },
  {
    id: 'S24',
    what: 'ERROR with errno 0',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(0), u16(0))) },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S25',
    what: 'ERROR, then NONE|DONE',
    script: { reply: ({ cookie }) => [SR(0, T.ERR, cookie, join(u32(5), u16(3), 'bad')), SR(DONE, T.NONE, cookie)] },
    expected: [F('EIO')],
    check: (ops) => says(ops, 'bad'),
  },
  {
    id: 'S26',
    what: 'two errors: the first counts',
    script: {
      reply: ({ cookie }) => [
        SR(0, T.ERR, cookie, join(u32(28), u16(0))),
        SR(DONE, T.ERR, cookie, join(u32(5), u16(0))),
      ],
    },
    expected: [F('ENOSPC')],
  },
  {
    id: 'S27',
    what: 'ERROR with a message of 65,535 bytes',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(5), u16(65535), 'm'.repeat(65535))) },
    expected: [F('EIO'), D],
  },
  {
    id: 'S28',
    what: 'unknown errno',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(9999), u16(0))) },
    expected: [F('EINVAL')],
  },
  {
    id: 'S28b',
    what: 'ESHUTDOWN',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(108), u16(0))) },
    expected: [F_DISC('ESHUTDOWN')],
  },
  {
    id: 'S29',
    what: 'all data, then ERROR|DONE',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d)),
        SR(DONE, T.ERR, cookie, join(u32(5), u16(0))),
      ],
    },
    expected: [F('EIO')],
  },
  {
    id: 'S30',
    what: 'ERROR_OFFSET inside',
    script: {
      reply: ({ cookie, offset }) => SR(DONE, T.ERROFF, cookie, join(u32(5), u16(2), 'hi', u64(offset + 100n))),
    },
    expected: [F('EIO')],
  },
  {
    id: 'S31',
    what: 'ERROR_OFFSET outside the request',
    script: { reply: ({ cookie, offset }) => SR(DONE, T.ERROFF, cookie, join(u32(5), u16(0), u64(offset + 512n))) },
    expected: [D, F('EIO')],
  },
  {
    id: 'S32',
    what: 'ERROR_OFFSET of length 10',
    script: { reply: ({ cookie }) => SR(DONE, T.ERROFF, cookie, join(u32(5), u16(0), '1234')) },
    expected: [F('EIO'), D],
  },
  {
    id: 'S34',
    what: 'unknown reply flags',
    script: { reply: ({ cookie, offset, data: d }) => SR(0xffff, T.DATA, cookie, join(u64(offset), d)) },
    expected: [OK],
  },
  {
    id: 'S35',
    what: 'BLOCK_STATUS answers a read',
    script: { reply: ({ cookie, contextId }) => SR(DONE, T.BS, cookie, join(u32(contextId), u32(512), u32(0))) },
    expected: [D],
  },
  {
    id: 'S36',
    what: 'OFFSET_DATA answers a write',
    script: { reply: ({ cookie, offset, data: d }) => SR(DONE, T.DATA, cookie, join(u64(offset), d)) },
    ...WRITE_R,
    expected: [D],
  },
  {
    id: 'S36b',
    what: 'OFFSET_HOLE answers a write',
    script: { reply: ({ cookie, offset }) => SR(DONE, T.HOLE, cookie, join(u64(offset), u32(512))) },
    ...WRITE_R,
    expected: [D],
  },
  {
    id: 'S37',
    what: 'simple success answers a write',
    script: { reply: ({ cookie }) => SIMPLE(0, cookie) },
    ...WRITE_R,
    expected: [OK],
  },
  {
    id: 'S38',
    what: 'simple error answers a read',
    script: { reply: ({ cookie }) => SIMPLE(5, cookie) },
    expected: [F('EIO')],
  },
  {
    id: 'S39',
    what: 'simple success answers a read, with the payload',
    script: { reply: ({ cookie, data: d }) => SIMPLE(0, cookie, d) },
    expected: [D, F('EPROTO')],
  },
  {
    id: 'S40',
    what: 'simple success answers a read, without payload',
    script: { reply: ({ cookie }) => [SIMPLE(0, cookie), stall()] },
    timeout: 400,
    expected: [D, TIMEOUT],
  },
  {
    id: 'S41',
    what: 'chunk magic wrong in the second chunk',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))),
        SR(DONE, T.NONE, cookie, '', { magic: 0x668e33ee }),
        stall(),
      ],
    },
    expected: [D],
  },
  {
    id: 'S42',
    what: 'chunk of 4 GiB',
    script: { reply: ({ cookie, offset }) => [SR(DONE, T.DATA, cookie, u64(offset), { length: 0xffffffff }), stall()] },
    expected: [D],
  },
  {
    id: 'S43',
    what: 'hole chunk of 4 GiB',
    script: { reply: ({ cookie, offset }) => [SR(DONE, T.HOLE, cookie, u64(offset), { length: 0xffffffff }), stall()] },
    expected: [D],
  },
  {
    id: 'S44',
    what: 'ERROR that declares 32 MiB',
    script: { reply: ({ cookie }) => [SR(DONE, T.ERR, cookie, join(u32(5), u16(0)), { length: 32 << 20 }), stall()] },
    expected: [D],
  },
  {
    id: 'S44b',
    what: 'NONE that declares 1 GiB',
    script: { reply: ({ cookie }) => [SR(DONE, T.NONE, cookie, '', { length: 1 << 30 }), stall()] },
    expected: [D],
  },
  {
    id: 'S44c',
    what: 'unknown chunk type that declares 1 GiB',
    script: { reply: ({ cookie }) => [SR(DONE, 7, cookie, '', { length: 1 << 30 }), stall()] },
    expected: [D],
  },
  {
    id: 'S45',
    what: 'chunks of two reads interleaved',
    script: {
      reply: after2((a, b) => [
        SR(0, T.DATA, a.cookie, join(u64(a.offset), a.data.subarray(0, 256))),
        SR(0, T.DATA, b.cookie, join(u64(b.offset), b.data.subarray(0, 100))),
        SR(DONE, T.DATA, a.cookie, join(u64(a.offset + 256n), a.data.subarray(256))),
        SR(DONE, T.DATA, b.cookie, join(u64(b.offset + 100n), b.data.subarray(100))),
      ]),
    },
    ...PREAD2,
    expected: [OK],
  },
  {
    id: 'S47',
    what: '64 KiB in chunks of one byte, in reverse order',
    script: {
      reply: ({ cookie, offset, data: d }) => {
        const chunks: Uint8Array[] = [];
        for (let i = d.length - 1; i >= 0; i--)
          chunks.push(SR(0, T.DATA, cookie, join(u64(offset + BigInt(i)), d.subarray(i, i + 1))));
        return [join(...chunks), SR(DONE, T.NONE, cookie)];
      },
    },
    user: 'pread 65536 0, pread 512 4096',
    expected: [OK],
  },
  {
    id: 'S49',
    what: 'endless ERROR chunks',
    script: {
      reply: ({ cookie }) => ({
        do: 'repeat',
        count: 1e7,
        make: constant(SR(0, T.ERR, cookie, join(u32(5), u16(5), 'again'))),
      }),
    },
    timeout: 1500,
    memory: 64,
    expected: [E, TIMEOUT, D],
  },
  {
    id: 'S49b',
    what: 'endless holes of one byte at one place',
    script: {
      reply: ({ cookie, offset }) => ({
        do: 'repeat',
        count: 1e7,
        make: constant(SR(0, T.HOLE, cookie, join(u64(offset), u32(1)))),
      }),
    },
    timeout: 1500,
    memory: 64,
    expected: [E, TIMEOUT, D],
  },
  {
    id: 'S50',
    what: 'structured error with an unknown cookie, then a good reply',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(DONE, T.ERR, cookie + 1000n, join(u32(5), u16(2), 'xx')),
        SR(DONE, T.DATA, cookie, join(u64(offset), d)),
      ],
    },
    expected: [D],
  },
  {
    id: 'S51',
    what: 'NONE|DONE with an unknown cookie',
    script: { reply: ({ cookie }) => [SR(DONE, T.NONE, cookie + 1000n), stall()] },
    expected: [D],
  },
  {
    id: 'S52',
    what: 'FIN between two chunks',
    script: {
      reply: ({ cookie, offset, data: d }) => [SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))), close()],
    },
    expected: [D],
  },
  {
    id: 'S54',
    what: 'every byte trickled',
    script: {
      reply: ({ cookie, offset, data: d }) =>
        trickle(
          join(
            SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, 50))),
            SR(0, T.DATA, cookie, join(u64(offset + 50n), d.subarray(50))),
            SR(DONE, T.NONE, cookie),
          ),
          1,
        ),
    },
    expected: [OK],
  },
  {
    id: 'S55',
    what: 'hole for the whole read',
    script: { reply: ({ cookie, offset, length }) => SR(DONE, T.HOLE, cookie, join(u64(offset), u32(Number(length)))) },
    zeroes: true,
    user: 'pread 512 0',
    expected: [OK],
  },
  {
    id: 'S57',
    what: 'error message with ESC and invalid UTF-8',
    script: {
      reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(5), u16(6), Buffer.from('\x1b[2J\xff\0', 'latin1'))),
    },
    expected: [F('EIO')],
    check: isClean,
  },
  {
    id: 'S59',
    what: 'data whose declared length is more than the request',
    script: { reply: ({ cookie, offset }) => [SR(DONE, T.DATA, cookie, u64(offset), { length: 8 + 600 }), stall()] },
    expected: [D],
  },
  {
    id: 'S60',
    what: "data of one read under the other one's cookie",
    script: { reply: after2((a, b) => SR(DONE, T.DATA, b.cookie, join(u64(a.offset), a.data))) },
    ...PREAD2,
    expected: [D],
  },
  {
    id: 'S62',
    what: 'the whole reply twice',
    script: {
      reply: ({ cookie, offset, data: d }) =>
        join(SR(DONE, T.DATA, cookie, join(u64(offset), d)), SR(DONE, T.DATA, cookie, join(u64(offset), d))),
    },
    late: true,
    expected: [D],
  },
  {
    id: 'S63',
    what: 'a chunk after DONE',
    script: {
      reply: ({ cookie, offset, data: d }) =>
        join(SR(DONE, T.DATA, cookie, join(u64(offset), d)), SR(DONE, T.NONE, cookie)),
    },
    late: true,
    expected: [D],
  },
  {
    id: 'S64',
    what: 'one byte of overlap, nothing missing',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, 257))),
        SR(DONE, T.DATA, cookie, join(u64(offset + 256n), d.subarray(256))),
      ],
    },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S65',
    what: 'one byte of overlap hides one that is missing',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, 257))),
        SR(DONE, T.DATA, cookie, join(u64(offset + 256n), d.subarray(256, 511))),
      ],
    },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S66',
    what: '64 MiB in one chunk',
    script: { size: 2 ** 27 },
    user: 'pread 67108864 0, pread 512 4096',
    // The peer is in the same process and holds the chunk several times over; the client's own share is 56 MiB.
    memory: 1024,
    heavy: true,
    expected: [OK],
  },
  {
    id: 'S67',
    what: 'half the data, ERROR_OFFSET, NONE|DONE',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))),
        SR(0, T.ERROFF, cookie, join(u32(5), u16(0), u64(offset + 256n))),
        SR(DONE, T.NONE, cookie),
      ],
    },
    expected: [F('EIO')],
  },
];

function constant(bytes: Uint8Array): () => Uint8Array {
  return () => bytes;
}

type Results = Parameters<Exclude<WireCase['check'], undefined>>[0];

function says(results: Results, text: string): void {
  const { message, serverMessage } = results[1]?.error as { message: string; serverMessage?: string };
  if (serverMessage !== text) throw new Error(`serverMessage ${JSON.stringify(serverMessage)}`);
  if (!message.includes(text)) throw new Error(`message ${JSON.stringify(message)}`);
}

function isClean(results: Results): void {
  const { message, serverMessage = '' } = results[1]?.error as { message: string; serverMessage?: string };
  // eslint-disable-next-line no-control-regex -- control characters are what must not be there
  if (/[\0-\x1f\x7f]/.test(message + serverMessage)) throw new Error(JSON.stringify(message));
}
