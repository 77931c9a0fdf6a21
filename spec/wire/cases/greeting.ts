// The greeting, newstyle and oldstyle.

import {
  D,
  H,
  NO_SR,
  OK,
  OLD,
  OPT,
  R,
  recv,
  REP,
  rst,
  on,
  close,
  stall,
  TIMEOUT,
  trickle,
  type WireCase,
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
