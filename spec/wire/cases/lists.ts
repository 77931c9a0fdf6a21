// The list of exports.

import { D, E, E_ABORT, OK, OPT, R, REP, on, close, stall, u32, type WireCase } from '../notation.js';

const LIST = OPT.LIST;
const listing = (entry: Uint8Array): WireCase['script'] => ({
  on: [on(LIST, [REP(LIST, R.SERVER, entry), REP(LIST, R.ACK)])],
});
const OPT_MODE = { client: { optMode: true } } as const;
const LIST_GO_R = { ...OPT_MODE, user: 'list, go, R' } as const;
const name = (length: number, bytes: string): Buffer => Buffer.concat([u32(length), Buffer.from(bytes)]);

export const LISTS: readonly WireCase[] = [
  { id: 'D00', what: 'two exports', script: {}, ...LIST_GO_R, expected: [OK] },
  { id: 'D01', what: 'empty list', script: { on: [on(LIST, REP(LIST, R.ACK))] }, ...LIST_GO_R, expected: [OK] },
  { id: 'D02', what: 'entry of length 3', script: listing(Buffer.from('abc')), ...LIST_GO_R, expected: [D] },
  {
    id: 'D03',
    what: 'name length runs past the reply',
    script: listing(name(100, 'abc')),
    ...LIST_GO_R,
    expected: [D],
  },
  { id: 'D04', what: 'name length 0xffffffff', script: listing(name(0xffffffff, 'abc')), ...LIST_GO_R, expected: [D] },
  {
    id: 'D05',
    what: 'name of 4096 bytes with a description',
    script: listing(name(4096, `${'n'.repeat(4096)}described`)),
    ...LIST_GO_R,
    expected: [OK],
  },
  { id: 'D06', what: 'name of 4097 bytes', script: listing(name(4097, 'n'.repeat(4097))), ...LIST_GO_R, expected: [D] },
  {
    id: 'D07',
    what: 'description of 4097 bytes',
    script: listing(name(1, `n${'d'.repeat(4097)}`)),
    ...LIST_GO_R,
    expected: [D],
  },
  {
    id: 'D08',
    what: '100,000 exports',
    script: {
      on: [
        on(LIST, [
          {
            do: 'repeat',
            count: 100_000,
            make: (i) => REP(LIST, R.SERVER, name(9, `exp${String(i).padStart(6, '0')}`)),
          },
          REP(LIST, R.ACK),
        ]),
      ],
    },
    client: { optMode: true, connectTimeout: 120_000 },
    user: 'list, go, R',
    expected: [OK, E],
    memory: 96,
  },
  {
    id: 'D09',
    what: 'endless exports',
    script: { on: [on(LIST, { do: 'repeat', count: 1e7, make: () => REP(LIST, R.SERVER, name(4, 'evil')) })] },
    ...OPT_MODE,
    user: 'list',
    expected: [E],
    timeout: 3000,
    memory: 64,
  },
  {
    id: 'D10',
    what: 'entry that declares 64 MiB + 1',
    script: { on: [on(LIST, [REP(LIST, R.SERVER, name(1, 'a'), { length: (64 << 20) + 1 }), stall()])] },
    ...OPT_MODE,
    user: 'list',
    expected: [D],
  },
  {
    id: 'D11',
    what: 'entry of 16 MiB',
    script: {
      on: [
        on(LIST, () => [REP(LIST, R.SERVER, Buffer.concat([u32(1), Buffer.alloc((16 << 20) - 4)])), REP(LIST, R.ACK)]),
      ],
    },
    ...LIST_GO_R,
    expected: [D, OK],
    memory: 96,
  },
  {
    id: 'D12',
    what: 'entries, then an error',
    script: { on: [on(LIST, [REP(LIST, R.SERVER, name(1, 'a')), REP(LIST, R.POLICY)])] },
    ...LIST_GO_R,
    expected: [E],
  },
  {
    id: 'D13',
    what: 'ERR_SHUTDOWN to LIST',
    script: { on: [on(LIST, REP(LIST, R.SHUTDOWN))] },
    ...OPT_MODE,
    user: 'list',
    expected: [E_ABORT],
  },
  {
    id: 'D14',
    what: 'ERR_POLICY to LIST, then GO works',
    script: { on: [on(LIST, REP(LIST, R.POLICY))] },
    ...LIST_GO_R,
    expected: [E],
  },
  {
    id: 'D14b',
    what: 'ERR_UNSUP to LIST, then GO works',
    script: { on: [on(LIST, REP(LIST, R.UNSUP))] },
    ...LIST_GO_R,
    expected: [E],
  },
  {
    id: 'D15',
    what: 'ACK to LIST with data',
    script: { on: [on(LIST, [REP(LIST, R.ACK, 'abcd'), stall()])] },
    ...OPT_MODE,
    user: 'list',
    expected: [D],
  },
  {
    id: 'D16',
    what: 'name that is not valid UTF-8',
    script: listing(Buffer.from('\0\0\0\x02\xff\xfe', 'latin1')),
    ...LIST_GO_R,
    expected: [OK, D],
  },
  {
    id: 'D17',
    what: 'FIN in the middle of the list',
    script: { on: [on(LIST, [REP(LIST, R.SERVER, name(1, 'a')), close()])] },
    ...OPT_MODE,
    user: 'list',
    expected: [D],
  },
];
