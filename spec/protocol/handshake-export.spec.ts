import { describe, expect, it } from '@jest/globals';

import { infoOrGo } from '../../lib/protocol/handshake/opt-info.js';
import { type HandshakeRequest } from '../../lib/protocol/handshake/session.js';
import * as g from '../support/golden.js';
import { type HandshakeCase, negotiateEveryWay } from './handshaking.js';

const { cat, greeting, OPT, option, reply, u16, u32, u64 } = g;
const MIB = 1 << 20;

const run = (title: string, each: HandshakeCase): void => {
  it(title, () => {
    negotiateEveryWay(each);
  });
};
const HELLO = greeting(3);
const ASK_SR = option(OPT.STRUCTURED_REPLY);
const SR = reply(OPT.STRUCTURED_REPLY, g.ACK);
const NO_SR = reply(OPT.STRUCTURED_REPLY, g.ERR_UNSUP);
const ACK = reply(OPT.GO, g.ACK);
const info = (payload: Uint8Array): Buffer => reply(OPT.GO, g.INFO, payload);
const EXPORT = info(g.infoExport(MIB, g.ALL_FLAGS));

describe('GO', () => {
  it.each<[string, Partial<HandshakeRequest>, Buffer]>([
    ['for the default export', {}, cat(u32(0), u16(1), u16(3))],
    ['for a name in UTF-8', { exportName: 'dïsk' }, cat(u32(5), 'dïsk', u16(1), u16(3))],
    ['without block sizes', { blockSize: false }, cat(u32(0), u16(0))],
    ['with everything', { fullInfo: true }, cat(u32(0), u16(3), u16(3), u16(1), u16(2))],
    ['with names but no block sizes', { fullInfo: true, blockSize: false }, cat(u32(0), u16(2), u16(1), u16(2))],
  ])('asks %s', (_title, request, data) => {
    negotiateEveryWay({
      ...{ request, turns: [HELLO, SR, cat(EXPORT, ACK)] },
      sends: cat(u32(3), ASK_SR, option(OPT.GO, data)),
    });
  });

  run('tells all there is, in any order', {
    request: { fullInfo: true },
    turns: [
      ...[HELLO, SR],
      cat(
        info(g.infoBlockSize(512, 4096, 1 << 25)),
        info(g.infoDescription('my disk')),
        EXPORT,
        info(g.infoName('sda')),
        ACK,
      ),
    ],
    session: {
      info: {
        ...{ size: MIB, flags: g.ALL_FLAGS, canonicalName: 'sda', description: 'my disk' },
        blockSizes: { minimum: 512, preferred: 4096, maximum: 1 << 25 },
      },
    },
  });
  run('with names of no length', {
    turns: [HELLO, SR, cat(EXPORT, info(g.infoName('')), info(g.infoDescription('')), ACK)],
    session: { info: { canonicalName: '', description: '' } },
  });

  it.each<[string, number | bigint, number | bigint]>([
    ['0', 0, 0],
    ['2^32', 2 ** 32, 2 ** 32],
    ['2^53 + 1', 2n ** 53n + 1n, 2n ** 53n + 1n],
    ['2^63', 2n ** 63n, 2n ** 63n],
    ['2^64 - 1', 2n ** 64n - 1n, 2n ** 64n - 1n],
  ])('an export of %s bytes', (_title, size, found) => {
    negotiateEveryWay({
      turns: [HELLO, SR, cat(info(g.infoExport(size, 1)), ACK)],
      session: { info: { size: found } },
    });
  });

  it.each<[string, number, Buffer, number]>([
    ['DF is masked without structured replies', 0x81, NO_SR, 0x01],
    ['DF stays with them', 0x81, SR, 0x81],
    ['FAST_ZERO is masked without WRITE_ZEROES', 0x801, SR, 0x01],
    ['the status filter is masked without extended headers', 0x1001, SR, 0x01],
    ['unknown flags stay', 0xe001, SR, 0xe001],
    ['flags without HAS_FLAGS are taken', 0x4, SR, 0x4],
  ])('%s', (_title, flags, structured, found) => {
    negotiateEveryWay({
      ...{ turns: [HELLO, structured, cat(info(g.infoExport(MIB, flags)), ACK)], session: { info: { flags: found } } },
    });
  });

  it.each([
    [3, 4096, MIB],
    [131072, 131072, MIB],
    [512, 5000, MIB],
    [4096, 512, MIB],
    [0xffffffff, 0xffffffff, 0xffffffff],
    [0, 0, 0],
  ])('block sizes %d, %d, %d are ignored', (minimum, preferred, maximum) => {
    negotiateEveryWay({
      turns: [HELLO, SR, cat(info(g.infoBlockSize(minimum, preferred, maximum)), EXPORT, ACK)],
      session: { info: { blockSizes: null } },
    });
  });

  run('information that nobody knows is passed over', {
    turns: [HELLO, SR, cat(info(cat(u16(0x1234), 'hello')), info(u16(99)), EXPORT, ACK)],
  });

  it('a megabyte of such information is passed over as well, without being held', () => {
    negotiateEveryWay({
      turns: [HELLO, SR, cat(info(cat(u16(0x1234), Buffer.alloc(40_000))), EXPORT, ACK)],
    });
  });

  it.each<[string, Buffer, RegExp]>([
    ['information of 0 bytes', info(Buffer.alloc(0)), /information of 0 bytes/],
    ['information of 1 byte', info(Buffer.alloc(1)), /information of 1 bytes/],
    ['an export of 11 bytes', info(g.infoExport(MIB, 1).subarray(0, 11)), /NBD_INFO_EXPORT of 11 bytes/],
    ['an export of 13 bytes', info(cat(g.infoExport(MIB, 1), 'x')), /NBD_INFO_EXPORT of 13 bytes/],
    ['an export without flags', info(g.infoExport(MIB, 0)), /no transmission flags/],
    ['block sizes of 13 bytes', info(g.infoBlockSize(1, 512, 512).subarray(0, 13)), /NBD_INFO_BLOCK_SIZE of 13 bytes/],
    ['a name of 4097 bytes', info(g.infoName('n'.repeat(4097))), /NBD_INFO_NAME of 4097 bytes/],
    ['a description of 4097 bytes', info(g.infoDescription('n'.repeat(4097))), /NBD_INFO_DESCRIPTION of 4097 bytes/],
    ['an ACK without an export', cat(info(g.infoName('x')), ACK), /an ACK without NBD_INFO_EXPORT/],
    [
      '65 pieces of information',
      cat(...Array.from({ length: 65 }, () => info(cat(u16(9), 'x')))),
      /more than 64 information/,
    ],
  ])('%s: the connection ends', (_title, bytes, says) => {
    negotiateEveryWay({
      ...{ turns: [HELLO, SR, bytes], session: { info: null } },
      fails: { name: 'NbdProtocolError', code: 'EPROTO', says },
    });
  });

  run('64 pieces of information are taken', {
    turns: [HELLO, SR, cat(...Array.from({ length: 63 }, () => info(cat(u16(9), 'x'))), EXPORT, ACK)],
  });
  run('a refusal after the export was described forgets it', {
    turns: [HELLO, SR, cat(EXPORT, info(g.infoBlockSize(512, 4096, 1 << 25)), reply(OPT.GO, g.ERR_BLOCK_SIZE_REQD))],
    fails: { name: 'NbdOptionError', code: 'EINVAL' },
    session: { info: null },
  });
});

describe('INFO', () => {
  const EXPORT_INFO = reply(OPT.INFO, g.INFO, g.infoExport(MIB, 1));
  run('tells the same', {
    request: { exportName: 'x' },
    run: (session) => infoOrGo(session, OPT.INFO),
    turns: [cat(EXPORT_INFO, reply(OPT.INFO, g.ACK))],
    sends: option(OPT.INFO, cat(u32(1), 'x', u16(1), u16(3))),
    returns: null,
    session: { info: { size: MIB, flags: 1 }, optionsSent: 1 },
  });

  it('that is refused forgets what an earlier one described', () => {
    negotiateEveryWay({
      before: (session) => {
        session.info = { size: 1, flags: 1, blockSizes: null, canonicalName: null, description: null };
        session.negotiated.contexts = new Map([[1, 'base:allocation']]);
      },
      run: (session) => infoOrGo(session, OPT.INFO),
      turns: [reply(OPT.INFO, g.ERR_UNKNOWN)],
      returns: expect.objectContaining({ code: 'ENOENT', exportName: '' }),
      session: { info: null, negotiated: { contexts: null } },
    });
  });
});

describe('EXPORT_NAME, where the server does not know GO', () => {
  const UNKNOWN = reply(OPT.GO, g.ERR_UNSUP);
  const told = cat(u64(MIB), u16(g.ALL_FLAGS));
  const asked = cat(u32(3), ASK_SR, option(OPT.GO, cat(u32(1), 'x', u16(1), u16(3))), option(OPT.EXPORT_NAME, 'x'));

  run('opens the export', {
    request: { exportName: 'x' },
    turns: [HELLO, SR, UNKNOWN, told],
    sends: asked,
    session: { info: { size: MIB, flags: g.ALL_FLAGS, blockSizes: null }, optionsSent: 3 },
  });
  run('with 124 bytes behind it, whatever they are', {
    request: { exportName: 'x' },
    turns: [greeting(1), SR, UNKNOWN, cat(told, Buffer.alloc(124, 0xaa))],
    rest: Buffer.alloc(0),
  });
  run('masks false claims', {
    turns: [HELLO, NO_SR, UNKNOWN, told],
    session: { info: { flags: g.ALL_FLAGS & ~0x80 } },
  });
  run('without flags', {
    turns: [HELLO, SR, UNKNOWN, cat(u64(MIB), u16(0))],
    fails: { name: 'NbdProtocolError', code: 'EPROTO' },
  });
  run('keeps contexts that were selected', {
    request: { metaContexts: ['base:allocation'] },
    turns: [
      ...[HELLO, SR],
      cat(reply(OPT.SET_META, g.META, g.metaContext(1, 'base:allocation')), reply(OPT.SET_META, g.ACK)),
      ...[UNKNOWN, told],
    ],
    session: { info: { size: MIB } },
  });
  run('is not used once headers are extended', {
    request: { extendedHeaders: true },
    turns: [HELLO, reply(OPT.EXTENDED, g.ACK), UNKNOWN],
    sends: cat(u32(3), option(OPT.EXTENDED), option(OPT.GO, cat(u32(0), u16(1), u16(3)))),
    fails: { name: 'NbdOptionError', code: 'ENOTSUP' },
  });
});
