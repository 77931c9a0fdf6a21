// INFO, GO and EXPORT_NAME.

import {
  BSIZE,
  close,
  D,
  D_ABORT,
  E,
  EXT,
  FLAGS,
  join,
  L,
  NO_SR,
  OK,
  on,
  OPT,
  R,
  REP,
  repeat,
  SIZE,
  u16,
  u64,
  type WireCase,
  XINFO,
} from '../notation.js';
import { same } from './steps.js';

const { GO, EXPORT_NAME, INFO } = OPT;
const go = (...replies: Uint8Array[]): WireCase['script'] => ({ on: [on(GO, replies)] });
const ACK = REP(GO, R.ACK);
const info = (payload: Uint8Array): Buffer => REP(GO, R.INFO, payload);
const unknownInfo = (payload: Uint8Array | string): Buffer => info(join(u16(0x1234), payload));
const zeroes124 = Buffer.alloc(124);

const badBlockSizes = (
  [
    ['E13.0', 0, 4096, 1 << 20],
    ['E13.1', 3, 4096, 1 << 20],
    ['E13.2', 131072, 131072, 1 << 20],
    ['E13.3', 512, 0, 1 << 20],
    ['E13.4', 512, 5000, 1 << 20],
    ['E13.5', 512, 4096, 0],
    ['E13.6', 4096, 512, 1 << 20],
    ['E13.7', 0xffffffff, 0xffffffff, 0xffffffff],
    ['E13.8', 512, 4096, 2048],
    ['E13.9', 512, 4096, 4097],
  ] as const
).map(([id, ...sizes]): WireCase => ({
  id,
  what: `block sizes ${sizes.join(' ')}`,
  script: { blockSize: sizes },
  user: 'bsize, R',
  expected: [OK, D],
}));

const refusals = (
  [
    ['BSREQD', 'EINVAL'],
    ['INVALID', 'EINVAL'],
    ['POLICY', 'EACCES'],
    ['PLATFORM', 'ENOTSUP'],
    ['TLS_REQD', undefined],
    ['SHUTDOWN', 'ESHUTDOWN'],
    ['UNKNOWN', 'ENOENT'],
    ['TOO_BIG', undefined],
    ['EXTREQD', undefined],
  ] as const
).map(([name, code]): WireCase => ({
  id: `E18.${name}`,
  what: `GO answered ERR_${name}`,
  script: go(REP(GO, R[name], 'because')),
  expected: [D_ABORT],
  check: ([connect]) => {
    const error = connect?.error as { code?: string; serverMessage?: string };
    if (code !== undefined && code !== 'EACCES' && error.code !== code) throw new Error(`code ${error.code}`);
    if (code === 'EACCES' && error.code !== 'EACCES' && error.code !== 'EPERM') throw new Error(`code ${error.code}`);
    if (error.serverMessage !== 'because') throw new Error(`serverMessage ${error.serverMessage}`);
  },
}));

export const EXPORTS: readonly WireCase[] = [
  { id: 'E01', what: 'GO without INFO_EXPORT', script: go(ACK), expected: [D] },
  { id: 'E02', what: 'INFO_EXPORT of length 11', script: go(info(XINFO().subarray(0, 11)), ACK), expected: [D] },
  { id: 'E03', what: 'INFO_EXPORT of length 13', script: go(info(join(XINFO(), 'x')), ACK), expected: [D] },
  { id: 'E04', what: 'REP_INFO of length 0', script: go(info(Buffer.alloc(0)), ACK), expected: [D] },
  { id: 'E05', what: 'REP_INFO of length 1', script: go(info(Buffer.alloc(1)), ACK), expected: [D] },
  {
    id: 'E06',
    what: 'INFO_EXPORT twice, with different sizes',
    script: go(info(XINFO()), info(XINFO(SIZE / 2)), ACK),
    expected: [D, OK],
  },
  { id: 'E07', what: 'flags without HAS_FLAGS', script: { flags: 4 }, expected: [D, OK] },
  { id: 'E08', what: 'flags 0', script: { flags: 0 }, expected: [D, OK] },
  { id: 'E09', what: 'unknown information', script: go(unknownInfo('hello'), info(XINFO()), ACK), expected: [OK] },
  {
    id: 'E10',
    what: 'unknown information of 1 MiB',
    script: go(unknownInfo(Buffer.alloc(1 << 20)), info(XINFO()), ACK),
    expected: [OK, D],
    memory: 48,
  },
  {
    id: 'E11',
    what: 'information that declares 64 MiB + 1',
    script: { on: [on(GO, [REP(GO, R.INFO, u16(0x1234), { length: (64 << 20) + 1 }), { do: 'stall' }])] },
    expected: [D],
  },
  {
    id: 'E12',
    what: 'endless unknown information',
    script: { on: [on(GO, repeat(1e7, unknownInfo('hello')))] },
    expected: [E],
    timeout: 3000,
    memory: 64,
  },
  ...badBlockSizes,
  {
    id: 'E14',
    what: 'INFO_BLOCK_SIZE of length 13',
    script: go(info(XINFO()), info(BSIZE(512, 4096, 1 << 25).subarray(0, 13)), ACK),
    expected: [D],
  },
  {
    id: 'E15',
    what: 'INFO_NAME of 4097 bytes',
    script: go(info(join(u16(1), 'n'.repeat(4097))), info(XINFO()), ACK),
    expected: [D],
  },
  {
    id: 'E15b',
    what: 'INFO_DESCRIPTION of 4097 bytes',
    script: go(info(join(u16(2), 'n'.repeat(4097))), info(XINFO()), ACK),
    expected: [D],
  },
  {
    id: 'E16',
    what: 'name and description that were not requested',
    script: go(info(join(u16(1), 'n')), info(join(u16(2), 'd')), info(XINFO()), ACK),
    expected: [OK],
  },
  {
    id: 'E17',
    what: 'GO refused as unsupported: EXPORT_NAME',
    script: { ...NO_SR, ...go(REP(GO, R.UNSUP)) },
    expected: [OK],
  },
  ...refusals,
  {
    id: 'E19',
    what: 'an error after INFO',
    script: go(info(XINFO()), REP(GO, R.UNKNOWN)),
    expected: [D_ABORT],
  },
  {
    id: 'E20',
    what: 'export size 2^64 - 1',
    script: { size: 2n ** 64n - 1n },
    user: 'size, R',
    expected: [OK],
    check: ([, size]) => same(size?.value, 2n ** 64n - 1n),
  },
  {
    id: 'E21',
    what: 'export size 2^63',
    script: { size: 2n ** 63n },
    user: 'size, R',
    expected: [OK],
    check: ([, size]) => same(size?.value, 2n ** 63n),
  },
  {
    id: 'E22',
    what: 'export size 0',
    script: { size: 0 },
    user: 'size',
    expected: [OK],
    check: ([, size]) => same(size?.value, 0n),
  },
  {
    id: 'E23',
    what: 'size that is not a multiple of the minimum block',
    script: { size: 1048577, blockSize: [512, 4096, 1 << 25] },
    user: 'size, R',
    expected: [OK],
  },
  {
    id: 'E25',
    what: 'DF without structured replies, FAST_ZERO without WRITE_ZEROES',
    script: { ...NO_SR, flags: 0x881 },
    user: 'eflags, R',
    expected: [OK],
    check: ([, flags]) => same(flags?.value, { df: false, fastZero: false }),
  },
  { id: 'E26', what: 'unknown transmission flags', script: { flags: 0xe001 }, expected: [OK] },
  {
    id: 'E28',
    what: 'EXPORT_NAME: 10 bytes where 134 are due',
    script: {
      ...NO_SR,
      handshakeFlags: 1,
      on: [on(GO, REP(GO, R.UNSUP)), on(EXPORT_NAME, [u64(SIZE), u16(FLAGS), close()])],
    },
    expected: [D],
  },
  {
    id: 'E29',
    what: 'EXPORT_NAME: closes, the export is not there',
    script: { ...NO_SR, on: [on(GO, REP(GO, R.UNSUP)), on(EXPORT_NAME, close())] },
    expected: [D],
  },
  {
    id: 'E30',
    what: 'EXPORT_NAME: reserved bytes not zero',
    script: {
      ...NO_SR,
      handshakeFlags: 1,
      on: [on(GO, REP(GO, R.UNSUP)), on(EXPORT_NAME, [u64(SIZE), u16(FLAGS & ~0x80), Buffer.alloc(124, 0xaa)])],
    },
    expected: [OK],
  },
  {
    id: 'E30b',
    what: 'EXPORT_NAME without NO_ZEROES',
    script: { ...NO_SR, handshakeFlags: 1, on: [on(GO, REP(GO, R.UNSUP))] },
    expected: [OK],
  },
  {
    id: 'E31',
    what: 'READ_ONLY export, user writes',
    script: { flags: 3 },
    user: 'pwrite 512 0, R',
    expected: [L('EPERM')],
  },
  {
    id: 'E33',
    what: 'INFO fails, GO works',
    script: { on: [on(INFO, REP(INFO, R.UNKNOWN))] },
    client: { optMode: true },
    user: 'info, go, R',
    expected: [E],
  },
  {
    id: 'E33b',
    what: 'INFO unsupported, GO works',
    script: { on: [on(INFO, REP(INFO, R.UNSUP))] },
    client: { optMode: true },
    user: 'info, go, R',
    expected: [E],
  },
  {
    id: 'E34',
    what: 'INFO, then GO with another size',
    script: { on: [on(INFO, [REP(INFO, R.INFO, XINFO(1)), REP(INFO, R.ACK)])] },
    client: { optMode: true },
    user: 'info, go, size, R',
    expected: [OK],
    check: (ops) => same(ops[3]?.value, 1048576n),
  },
  {
    id: 'E35',
    ends: true,
    what: 'extended headers granted, then GO unsupported',
    script: { ...EXT, ...go(REP(GO, R.UNSUP)) },
    expected: [D, D_ABORT],
  },
  {
    id: 'E36',
    what: 'context selected, then GO unsupported',
    script: go(REP(GO, R.UNSUP)),
    client: { metaContexts: ['base:allocation'] },
    expected: [OK],
  },
  {
    id: 'E38',
    what: 'ERR_BLOCK_SIZE_REQD although block sizes were requested',
    script: go(info(BSIZE(512, 4096, 1 << 25)), REP(GO, R.BSREQD)),
    expected: [D_ABORT],
  },
  {
    id: 'E39',
    what: 'zeroes before EXPORT_NAME is sent',
    script: { ...NO_SR, handshakeFlags: 0, greet: [Buffer.from('NBDMAGICIHAVEOPT\0\0'), zeroes124] },
    expected: [D, OK],
    mayViolate: /./,
  },
];
