// Option replies in general.

import {
  D,
  D_ABORT,
  NO_SR,
  OK,
  OK_CLOSE,
  OPT,
  quiet,
  R,
  REP,
  rst,
  on,
  close,
  stall,
  TIMEOUT,
  trickle,
  type WireCase,
  XINFO,
} from '../notation.js';

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
    what: 'an unknown reply type without the error bit',
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
