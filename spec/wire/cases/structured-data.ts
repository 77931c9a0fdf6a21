// The transmission phase: structured replies, their chunks of data and holes.

import { D, DONE, E, F, join, OK, SR, stall, T, TIMEOUT, trickle, u32, u64, type WireCase } from '../notation.js';
import { after2, constant, PART, PREAD2, type Reply } from './steps.js';

const data =
  (payloadOf: (o: bigint, d: Buffer) => Uint8Array): Reply =>
  (r) =>
    SR(DONE, T.DATA, r.cookie, payloadOf(r.offset, r.data));

export const STRUCTURED_DATA: readonly WireCase[] = [
  { id: 'S01', what: 'good reply in one chunk', script: { reply: data((o, d) => join(u64(o), d)) }, expected: [OK] },
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
    id: 'S34',
    what: 'unknown reply flags',
    script: { reply: ({ cookie, offset, data: d }) => SR(0xffff, T.DATA, cookie, join(u64(offset), d)) },
    expected: [OK],
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
];
