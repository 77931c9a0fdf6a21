// The greeting, and option replies in general.

import {
  D,
  D_ABORT,
  E,
  E_ABORT,
  H,
  NO_SR,
  OK,
  OK_CLOSE,
  OLD,
  OPT,
  quiet,
  R,
  recv,
  REP,
  rst,
  on,
  close,
  stall,
  TIMEOUT,
  trickle,
  u32,
  type WireCase,
  XINFO,
} from '../notation.js';

export const GREETING: readonly WireCase[] = [
  { id: 'A01', what: 'first magic wrong', script: { greet: [H(3, 'NBDMAGIK'), stall()] }, expected: [D] },
  {
    id: 'A02',
    what: 'second magic neither IHAVEOPT nor cliserv',
    script: { greet: [H(3, 'NBDMAGIC', 'IHAVEOPS'), stall()] },
    expected: [D],
  },
  {
    id: 'A02b',
    what: 'an HTTP server',
    script: { greet: [Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), close()] },
    expected: [D],
  },
  {
    id: 'A02c',
    what: 'first magic wrong, and only its 8 bytes',
    script: { greet: [Buffer.from('SSH-2.0-'), stall()] },
    expected: [D],
  },
  { id: 'A03', what: 'FIN before any byte', script: { greet: close() }, expected: [D] },
  { id: 'A03b', what: 'RST before any byte', script: { greet: rst() }, expected: [D], transport: 'tcp' },
  { id: 'A04', what: 'FIN after 9 bytes of greeting', script: { greet: [H().subarray(0, 9), close()] }, expected: [D] },
  {
    id: 'A05',
    what: 'stall after 17 of 18 greeting bytes',
    script: { greet: [H().subarray(0, 17), stall()] },
    expected: [TIMEOUT],
    timeout: 400,
  },
  { id: 'A07', what: 'greeting trickled byte by byte', script: { greet: trickle(H()) }, expected: [OK] },
  { id: 'A09', what: 'server sends nothing', script: { greet: stall() }, expected: [TIMEOUT], timeout: 400 },
  {
    id: 'A10',
    what: 'plain newstyle: only EXPORT_NAME, client flags 0',
    script: { ...NO_SR, handshakeFlags: 0 },
    expected: [OK],
    check: (_, seen) => {
      if (seen.clientFlags !== 0) throw new Error(`client flags ${seen.clientFlags}`);
      const options = seen.options.map((option) => option.option);
      if (options.length !== 1 || options[0] !== OPT.EXPORT_NAME) throw new Error(`options ${options.join()}`);
    },
  },
  { id: 'A11', what: 'newstyle with NO_ZEROES only', script: { ...NO_SR, handshakeFlags: 2 }, expected: [OK] },
  {
    id: 'A12',
    what: 'all 16 handshake flags set',
    script: { handshakeFlags: 0xffff },
    expected: [OK],
    check: (_, seen) => {
      if (seen.clientFlags !== 3) throw new Error(`client flags ${seen.clientFlags}`);
    },
  },
  { id: 'A13', what: 'FIXED_NEWSTYLE without NO_ZEROES', script: { handshakeFlags: 1 }, expected: [OK] },
  { id: 'A14', what: 'good oldstyle', script: { ...NO_SR, greet: OLD() }, expected: [OK] },
  { id: 'A14b', what: 'good oldstyle, byte by byte', script: { ...NO_SR, greet: trickle(OLD(), 1) }, expected: [OK] },
  { id: 'A15', what: 'oldstyle with global flags', script: { greet: [OLD(2 ** 20, 3), stall()] }, expected: [D] },
  {
    id: 'A16',
    ends: true,
    what: 'oldstyle, but the user wants an export by name',
    script: { ...NO_SR, greet: OLD() },
    client: { exportName: 'other' },
    expected: [D],
    check: ([connect], seen) => {
      if ((connect?.error as { code?: string }).code !== 'ENOTSUP') throw new Error('not ENOTSUP');
      if (seen.bytesReceived !== 0) throw new Error(`${seen.bytesReceived} bytes were sent`);
    },
  },
  { id: 'A19', what: 'oldstyle cut at 100 bytes', script: { greet: [OLD().subarray(0, 100), close()] }, expected: [D] },
  {
    id: 'A22',
    what: 'an ACK to structured replies glued to the greeting',
    script: { ...NO_SR, greet: [H(), REP(OPT.SR, R.ACK)], on: [on(OPT.SR, [])] },
    expected: [D, OK],
  },
  {
    id: 'A24',
    what: 'greeting twice',
    script: { greet: [H(), H(), recv(4), stall()] },
    expected: [D, TIMEOUT],
    timeout: 400,
  },
  { id: 'A25', what: 'FIN after the client flags', script: { greet: [H(), recv(4), close()] }, expected: [D] },
  {
    id: 'A26',
    ends: true,
    what: 'half-close after the greeting',
    script: { greet: [H(), { do: 'fin' }, stall()] },
    expected: [D],
  },
];

const GO = OPT.GO;

export const OPTION_REPLIES: readonly WireCase[] = [
  {
    id: 'B01',
    what: 'reply magic wrong',
    script: { on: [on(GO, [REP(GO, R.ACK, '', { magic: 0x3e889045565aa }), stall()])] },
    expected: [D],
  },
  {
    id: 'B02',
    what: 'reply names another option',
    script: { on: [on(GO, [REP(OPT.LIST, R.ACK), stall()])] },
    expected: [D],
  },
  {
    id: 'B03',
    what: 'an unknown reply type that is no error',
    script: { on: [on(GO, [REP(GO, 77), stall()])] },
    expected: [D],
  },
  {
    id: 'B04',
    what: 'unknown error to structured replies',
    script: { ...NO_SR, on: [on(OPT.SR, REP(OPT.SR, 0x800000ff))] },
    expected: [OK],
  },
  {
    id: 'B04b',
    what: 'unknown error to extended headers',
    script: { on: [on(OPT.EXT, REP(OPT.EXT, 0x800000ff, 'no'))] },
    expected: [OK],
  },
  {
    id: 'B05',
    what: 'unknown error to GO',
    script: { on: [on(GO, REP(GO, 0x800000ff, 'nope'))] },
    expected: [D_ABORT],
  },
  {
    id: 'B06',
    what: 'error text of 4096 bytes',
    script: { on: [on(GO, REP(GO, R.POLICY, 'x'.repeat(4096)))] },
    expected: [D_ABORT],
  },
  {
    id: 'B07',
    what: 'error reply that declares 4 GiB',
    script: { on: [on(GO, [REP(GO, R.POLICY, 'x'.repeat(10), { length: 0xffffffff }), stall()])] },
    expected: [D],
  },
  {
    id: 'B07b',
    what: 'ACK to GO that declares 4 GiB',
    script: { on: [on(GO, [REP(GO, R.ACK, '', { length: 0xffffffff }), stall()])] },
    expected: [D],
  },
  {
    id: 'B07c',
    what: 'INFO that declares 4 GiB',
    script: { on: [on(GO, [REP(GO, R.INFO, '', { length: 0xffffffff }), stall()])] },
    expected: [D],
  },
  {
    id: 'B07d',
    what: 'ACK to SR that declares 4 GiB',
    script: { on: [on(OPT.SR, [REP(OPT.SR, R.ACK, '', { length: 0xffffffff }), stall()])] },
    expected: [D],
  },
  {
    id: 'B08',
    what: 'ACK to structured replies with data',
    script: { on: [on(OPT.SR, [REP(OPT.SR, R.ACK, 'abcd'), stall()])] },
    expected: [D],
  },
  {
    id: 'B08b',
    what: 'ACK to GO with data',
    script: { on: [on(GO, [REP(GO, R.INFO, XINFO()), REP(GO, R.ACK, 'abcd'), stall()])] },
    expected: [D],
  },
  {
    id: 'B09',
    what: 'error text of 4097 bytes',
    script: { on: [on(GO, [REP(GO, R.POLICY, 'x'.repeat(4097)), stall()])] },
    expected: [D],
  },
  {
    id: 'B10',
    what: 'error text with ESC, BEL, NUL and invalid UTF-8',
    script: { on: [on(GO, REP(GO, R.POLICY, Buffer.from('\x1b[2J\x07\0\xff\xfe ok', 'latin1')))] },
    expected: [D_ABORT],
    check: ([connect]) => {
      const { message, serverMessage } = connect?.error as { message: string; serverMessage?: string };
      // eslint-disable-next-line no-control-regex -- control characters are what must not be there
      if (/[\0-\x08\x0b-\x1f\x7f]/.test(message + (serverMessage ?? ''))) throw new Error(JSON.stringify(message));
      if (!message.includes('ok')) throw new Error('the text is lost');
    },
  },
  {
    id: 'B12',
    what: 'stall inside an option reply',
    script: { on: [on(GO, [REP(GO, R.UNKNOWN, 'x'.repeat(50), { length: 100 }), stall()])] },
    expected: [TIMEOUT],
    timeout: 400,
  },
  {
    id: 'B12b',
    what: 'stall inside an option reply header',
    script: { on: [on(GO, [REP(GO, R.ACK).subarray(0, 19), stall()])] },
    expected: [TIMEOUT],
    timeout: 400,
  },
  {
    id: 'B14',
    what: 'two ACKs to structured replies',
    script: { on: [on(OPT.SR, [REP(OPT.SR, R.ACK), REP(OPT.SR, R.ACK)])] },
    expected: [D],
  },
  {
    id: 'B15',
    what: 'REP_SERVER in reply to GO',
    script: { on: [on(GO, [REP(GO, R.SERVER, Buffer.from('\0\0\0\x01a')), stall()])] },
    expected: [D],
  },
  {
    id: 'B16',
    what: 'REP_META_CONTEXT in reply to GO',
    script: { on: [on(GO, [REP(GO, R.META, Buffer.from('\0\0\0\x01a:b')), stall()])] },
    expected: [D],
  },
  {
    id: 'B16b',
    what: 'REP_INFO in reply to structured replies',
    script: { on: [on(OPT.SR, [REP(OPT.SR, R.INFO, XINFO()), stall()])] },
    expected: [D],
  },
  {
    id: 'B17',
    what: 'REP_INFO in reply to LIST',
    script: { on: [on(OPT.LIST, [REP(OPT.LIST, R.INFO, XINFO()), stall()])] },
    client: { optMode: true },
    user: 'list',
    expected: [D],
  },
  {
    id: 'B18',
    what: 'OPT_ABORT acknowledged',
    script: {},
    client: { optMode: true },
    user: 'abort',
    expected: [OK_CLOSE],
  },
  {
    id: 'B19',
    what: 'OPT_ABORT: closes without a reply',
    script: { on: [on(OPT.ABORT, close())] },
    client: { optMode: true },
    user: 'abort',
    expected: [OK_CLOSE],
  },
  {
    id: 'B20',
    what: 'OPT_ABORT: no reply and no close',
    script: { on: [on(OPT.ABORT, stall())] },
    client: { optMode: true },
    user: 'abort',
    expected: [OK_CLOSE],
  },
  {
    id: 'B21',
    what: 'OPT_ABORT answered with an error',
    script: { on: [on(OPT.ABORT, [REP(OPT.ABORT, R.POLICY), close()])] },
    client: { optMode: true },
    user: 'abort',
    expected: [OK_CLOSE],
  },
  {
    id: 'B22',
    what: 'RST in the middle of an option reply',
    script: { on: [on(GO, [REP(GO, R.INFO, XINFO()).subarray(0, 25), rst()])] },
    transport: 'tcp',
    expected: [D],
  },
  {
    id: 'B23',
    what: 'FIN between INFO and ACK',
    script: { on: [on(GO, [REP(GO, R.INFO, XINFO()), close()])] },
    expected: [D],
  },
  {
    id: 'B24',
    what: 'each option answered 150 ms late',
    script: {
      on: [
        on(OPT.SR, [quiet(150), REP(OPT.SR, R.ACK)]),
        on(GO, [quiet(150), REP(GO, R.INFO, XINFO()), quiet(150), REP(GO, R.ACK)]),
      ],
    },
    expected: [OK],
  },
  {
    id: 'B25',
    what: 'GO trickled byte by byte',
    script: { on: [on(GO, trickle(Buffer.concat([REP(GO, R.INFO, XINFO()), REP(GO, R.ACK)]), 1))] },
    expected: [OK],
  },
  {
    id: 'B26',
    what: 'GO acknowledged with a transmission byte glued to it',
    script: { ...NO_SR, onTransmission: Buffer.from('x') },
    late: true,
    expected: [D],
  },
];

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
    client: { optMode: true, connectTimeout: 10_000 },
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
    what: 'name that is no UTF-8',
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
