// STARTTLS, and what must not happen where TLS was wanted. The peer's certificate is for localhost.

import { TLS_ALLOW, TLS_DISABLE, TLS_REQUIRE } from '../../../lib/index.js';
import { type PeerRecording } from '../../../lib/testing/index.js';
import {
  close,
  D,
  D_ABORT,
  D_IN_CLEAR,
  H,
  join,
  LOCAL,
  NO_SR,
  OK,
  OLD,
  on,
  OPT,
  R,
  rawplain,
  recv,
  REP,
  rst,
  SIMPLE,
  SR,
  stall,
  T,
  TIMEOUT,
  tls,
  trickle,
  DONE,
  u64,
  type WireCase,
  XINFO,
} from '../notation.js';

type Results = Parameters<Exclude<WireCase['check'], undefined>>[0];

const { STARTTLS, GO, LIST } = OPT;
const ACK = REP(STARTTLS, R.ACK);
const required = { client: { tls: TLS_REQUIRE } } as const;
const allowed = { client: { tls: TLS_ALLOW } } as const;
const answer = (...steps: (Uint8Array | ReturnType<typeof close>)[]): WireCase['script'] => ({
  on: [on(STARTTLS, steps)],
});
const good = on(STARTTLS, [ACK, tls()]);

/** Nothing was sent at all. */
function silent(_: Results, seen: PeerRecording): void {
  if (seen.bytesReceived > 0) throw new Error(`${seen.bytesReceived} bytes were sent in clear`);
}

/** In clear: the client flags, STARTTLS, and at most a goodbye. */
function onlyGoodbye(_: Results, seen: PeerRecording): void {
  const inClear = seen.options.filter((option) => !option.tls).map(({ option }) => option);
  if (inClear.some((option) => option !== STARTTLS && option !== OPT.ABORT))
    throw new Error(`options ${inClear.join()} in clear`);
  const frames = seen.raw.toString('latin1').split('IHAVEOPT').length - 1;
  if (frames > inClear.length) throw new Error('options in clear after the refusal');
  if (seen.commands.some((command) => !command.tls)) throw new Error('commands in clear');
}

/** As below, and the client reports it. */
function inTls(results: Results, seen: PeerRecording): void {
  is(results, true);
  onlyInTls(results, seen);
}

/** Every option but STARTTLS, and every command, went through TLS. */
function onlyInTls(_: Results, seen: PeerRecording): void {
  onlyGoodbye(_, seen);
  if (!seen.tls) throw new Error('there was no TLS');
  if (seen.options[0]?.option !== STARTTLS) throw new Error('STARTTLS was not the first option');
}

export const STARTTLS_CASES: readonly WireCase[] = [
  {
    id: 'A17',
    what: 'oldstyle, but TLS is required',
    script: { ...NO_SR, greet: OLD() },
    ...required,
    expected: [D_IN_CLEAR],
    check: silent,
  },
  { id: 'A18', what: 'oldstyle, TLS optional', script: { ...NO_SR, greet: OLD() }, ...allowed, expected: [OK] },
  {
    id: 'A20',
    what: 'newstyle without FIXED, but TLS is required',
    script: { ...NO_SR, handshakeFlags: 0 },
    ...required,
    expected: [D_IN_CLEAR],
    check: silent,
  },
  {
    id: 'A21',
    what: 'newstyle without FIXED, TLS optional',
    script: { ...NO_SR, handshakeFlags: 0 },
    ...allowed,
    expected: [OK],
  },
  {
    id: 'C01',
    what: 'good TLS, TLS required',
    script: { on: [good] },
    ...required,
    user: 'tls, R',
    expected: [OK],
    check: inTls,
  },
  {
    id: 'C02',
    what: 'good TLS, optional',
    script: { on: [good] },
    ...allowed,
    user: 'tls, R',
    expected: [OK],
    check: inTls,
  },
  {
    id: 'C03',
    what: 'ACK of length 4',
    script: answer(REP(STARTTLS, R.ACK, 'abcd'), stall()),
    ...required,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C04',
    what: 'ERR_UNSUP, TLS required',
    script: answer(REP(STARTTLS, R.UNSUP)),
    ...required,
    expected: [D_ABORT],
    check: onlyGoodbye,
  },
  {
    id: 'C05',
    what: 'ERR_POLICY, TLS required',
    script: answer(REP(STARTTLS, R.POLICY)),
    ...required,
    expected: [D_ABORT],
    check: onlyGoodbye,
  },
  {
    id: 'C06',
    what: 'ERR_UNSUP, TLS optional',
    script: answer(REP(STARTTLS, R.UNSUP)),
    ...allowed,
    user: 'tls, R',
    expected: [OK],
    check: (ops) => is(ops, false),
  },
  {
    id: 'C06b',
    what: 'ERR_POLICY, TLS optional',
    script: answer(REP(STARTTLS, R.POLICY, 'no')),
    ...allowed,
    user: 'tls, R',
    expected: [OK],
    check: (ops) => is(ops, false),
  },
  {
    id: 'C07',
    what: 'an unknown reply type',
    script: answer(REP(STARTTLS, 77), stall()),
    ...allowed,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C08',
    what: 'garbage instead of ServerHello',
    script: answer(ACK, recv(5), Buffer.from('\x16\x03\x01\xff\xffgarbage'.repeat(50), 'latin1'), stall()),
    ...allowed,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C08b',
    what: 'an alert instead of ServerHello',
    script: answer(ACK, recv(5), Buffer.from('15030300020228', 'hex'), stall()),
    ...allowed,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C09',
    what: 'FIN after the ACK',
    script: answer(ACK, recv(5), close()),
    ...allowed,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C09b',
    what: 'RST after the ACK',
    script: answer(ACK, recv(5), rst()),
    ...allowed,
    transport: 'tcp',
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C10',
    what: 'stall after the ACK',
    script: answer(ACK, stall()),
    client: { ...allowed.client },
    timeout: 400,
    expected: [TIMEOUT],
    check: onlyGoodbye,
  },
  {
    id: 'C11',
    what: 'goes on in plaintext after the ACK',
    script: answer(ACK, recv(16), REP(OPT.SR, R.ACK), REP(GO, R.INFO, XINFO()), REP(GO, R.ACK), stall()),
    ...allowed,
    expected: [D_IN_CLEAR],
    check: onlyGoodbye,
  },
  {
    id: 'C12',
    what: 'plaintext replies glued to the ACK, then good TLS',
    script: { on: [on(STARTTLS, [join(ACK, REP(OPT.EXT, R.ACK), REP(OPT.SR, R.ACK)), tls()])] },
    ...required,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C12b',
    what: 'one plaintext byte glued to the ACK, then good TLS',
    script: { on: [on(STARTTLS, [join(ACK, 'x'), tls()])] },
    ...required,
    expected: [D],
    check: onlyGoodbye,
  },
  ...(
    [
      ['C12d', 'a reply to another option before the one to STARTTLS', join(REP(OPT.SR, R.ACK), ACK)],
      ['C12e', 'a refusal, then the ACK', join(REP(STARTTLS, R.UNSUP), ACK)],
      ['C12f', 'the ACK twice', join(ACK, ACK)],
    ] as const
  ).map(([id, what, bytes]): WireCase => ({
    id,
    what,
    script: { on: [on(STARTTLS, [bytes, stall()])] },
    ...allowed,
    expected: [D],
    check: onlyGoodbye,
  })),
  {
    id: 'C12g',
    what: 'the ACK to STARTTLS behind the greeting, before the option was sent',
    script: { greet: join(H(), ACK), on: [on(STARTTLS, tls())] },
    ...required,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C12h',
    what: 'plaintext replies a moment after the ACK',
    script: answer(ACK, { do: 'sleep', milliseconds: 50 }, join(REP(OPT.SR, R.ACK), REP(GO, R.ACK)), stall()),
    ...required,
    expected: [D],
    check: onlyGoodbye,
  },
  {
    id: 'C12c',
    what: 'ACK byte by byte, then good TLS',
    script: { on: [on(STARTTLS, [trickle(ACK, 1), tls()])] },
    ...required,
    expected: [OK],
    check: onlyInTls,
  },
  {
    id: 'C13',
    what: 'ERR_TLS_REQD to everything, client without TLS',
    script: { ...NO_SR, on: [OPT.SR, OPT.EXT, OPT.SETMETA, GO].map((option) => on(option, REP(option, R.TLS_REQD))) },
    client: { tls: TLS_DISABLE },
    expected: [D_ABORT],
    check: ([connect]) => {
      if (!(connect?.error as Error).message.includes('TLS')) throw new Error('the error does not name TLS');
    },
  },
  {
    id: 'C14',
    what: 'ACK trickled, ServerHello late',
    script: { on: [on(STARTTLS, [ACK, { do: 'sleep', milliseconds: 200 }, tls()])] },
    ...required,
    expected: [OK],
    check: onlyInTls,
  },
  {
    id: 'C15',
    what: 'a second STARTTLS',
    script: { on: [on(STARTTLS, [ACK, tls()], 1), on(STARTTLS, [ACK, stall()], 2)] },
    client: { tls: TLS_REQUIRE, optMode: true },
    user: 'starttls, go',
    expected: [LOCAL, D],
    check: onlyInTls,
  },
  {
    id: 'C16',
    what: 'ERR_TLS_REQD to GO inside TLS',
    script: { on: [good, on(GO, REP(GO, R.TLS_REQD))] },
    ...required,
    expected: [D_ABORT],
    check: onlyInTls,
  },
  {
    id: 'C17',
    what: 'FIN inside TLS, in the middle of an option',
    script: { on: [good, on(GO, [REP(GO, R.INFO, XINFO()), close()])] },
    ...required,
    expected: [D],
    check: onlyInTls,
  },
  {
    id: 'C18',
    what: 'plaintext reply below TLS',
    script: { on: [good], reply: (r) => rawplain(SR(DONE, T.DATA, r.cookie, join(u64(r.offset), r.data))) },
    ...required,
    expected: [D],
    check: onlyInTls,
  },
  {
    id: 'C19',
    what: 'FIN without close_notify in the middle of a reply',
    script: { ...NO_SR, on: [good], reply: (r) => [SIMPLE(0, r.cookie, r.data).subarray(0, 100), close()] },
    ...required,
    expected: [D],
    check: onlyInTls,
  },
  {
    id: 'C19b',
    what: 'RST inside TLS in the middle of a reply',
    script: { ...NO_SR, on: [good], reply: (r) => [SIMPLE(0, r.cookie, r.data).subarray(0, 100), rst()] },
    ...required,
    transport: 'tcp',
    expected: [D],
    check: onlyInTls,
  },
  {
    id: 'C20',
    what: 'ERR_PLATFORM, TLS required',
    script: answer(REP(STARTTLS, R.PLATFORM)),
    ...required,
    expected: [D_IN_CLEAR],
    check: onlyGoodbye,
  },
  {
    id: 'C21',
    what: 'opt mode: STARTTLS by hand, what was negotiated is forgotten',
    script: { on: [good] },
    client: { tls: TLS_DISABLE, optMode: true },
    user: 'starttls, list, go, R',
    expected: [OK],
    mayViolate: /./,
  },
  {
    id: 'C22',
    what: 'replies inside TLS in small pieces',
    script: { on: [good], reply: (r) => trickle(SR(DONE, T.DATA, r.cookie, join(u64(r.offset), r.data)), 0) },
    ...required,
    expected: [OK],
    check: onlyInTls,
  },
  {
    id: 'C23',
    what: '16 MiB read through TLS',
    script: { on: [good], size: 2 ** 27 },
    ...required,
    user: 'pread 16777216 0, pread 512 4096',
    expected: [OK],
    check: onlyInTls,
  },
  {
    id: 'C24',
    what: 'write of 1 MiB through TLS, answered after the header',
    script: {
      ...NO_SR,
      on: [good],
      afterWriteHeader: (r) => [SIMPLE(0, r.cookie), { do: 'sleep', milliseconds: 200 }],
    },
    ...required,
    user: 'pwrite 1048576 0, R',
    expected: [OK],
    check: onlyInTls,
  },
  {
    id: 'C25',
    what: 'greeting and first option trickled, then TLS',
    script: { greet: trickle(H(), 1), on: [good, on(LIST, REP(LIST, R.ACK))] },
    ...required,
    expected: [OK],
    check: onlyInTls,
  },
];

function is(results: Results, expected: boolean): void {
  if (results[1]?.value !== expected) throw new Error(`getTlsNegotiated() is ${String(results[1]?.value)}`);
}
